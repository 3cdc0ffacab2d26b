"""What each process of a training does, from the base model's weights to the last file."""

from contextlib import ExitStack

from safetensors.torch import load_file

from charalora_trainer.checkpoint import Checkpoints, State
from charalora_trainer.console import Console, Stage
from charalora_trainer.feed import Feed
from charalora_trainer.job import Job, Workspace
from charalora_trainer.learner import Learner
from charalora_trainer.model.load import load_models
from charalora_trainer.processes import Processes
from charalora_trainer.stages.encode import encode
from charalora_trainer.stages.publish import STATE_FILE, Publisher
from charalora_trainer.stages.train import Hooks, Measured, StopAsked, held_out_loss, train


def learn(job: Job, workspace: Workspace, processes: Processes, console: Console) -> None:
    """Train from the newest state, or from the start, and leave every file in the output prefix.

    Raises:
        TrainingError: How the training ended, if not well.
    """
    processes.expect(job.processes)
    spec = job.run.spec
    with console.stage("load base model"):
        models = load_models(job.base_model, spec.base_model.prediction)
        models.vae.to(processes.device)
    with console.stage("encode", total=_share(len(job.plan.pairs), processes)) as progress:
        latents = encode(models.vae, job, workspace.latents, processes, progress.advance)
    learner = Learner.on(models, spec, processes.device, processes.count)
    feed = Feed(spec, job.plan, latents, learner.tokenizer, processes, timesteps=len(learner.schedule))
    state = Checkpoints(workspace.states, job.claim.identity).newest()
    done = _resume(learner, state)
    if done:
        console.say(f"Going on after step {done} of {spec.training.steps}, as an earlier attempt left it.")
    processes.barrier()  # everyone has read the state before the first process replaces it

    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher(job, workspace, learner, console, done)) if processes.is_first else None
        with console.stage("train", total=spec.training.steps, start=done) as progress:
            train(learner, feed, processes, _hooks(learner, feed, processes, publisher, progress), done)
        if publisher is not None:
            publisher.finish()
    processes.barrier()


def _hooks(learner: Learner, feed: Feed, processes: Processes, publisher: Publisher | None, progress: Stage) -> Hooks:
    """The first process writes files; the others only take part in what all measure together."""

    def measured(step: Measured) -> None:
        progress.advance(1, loss=step.loss, images_per_second=step.images_per_second)
        if publisher is not None:
            publisher.measured(step)

    def save(step: int, stop_asked: StopAsked) -> None:
        loss = held_out_loss(learner, feed, processes)
        if publisher is not None:
            publisher.save(step, loss, stop_asked)

    def stop(step: int) -> None:
        if publisher is not None:
            publisher.stop(step)

    return Hooks(measured, save, stop)


def _resume(learner: Learner, state: State | None) -> int:
    """Continue from a state; the last step that it holds, 0 without one."""
    if state is None:
        return 0
    learner.optimizer.load_state(load_file(state.folder / STATE_FILE))
    return state.step


def _share(count: int, processes: Processes) -> int:
    return len(range(processes.local_rank, count, processes.local_count))
