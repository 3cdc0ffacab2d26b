"""What each process of a training does, from the base model's weights to the last file."""

from collections.abc import Sequence
from contextlib import ExitStack

from safetensors.torch import load_file

from charalora_trainer.checkpoint import Checkpoints
from charalora_trainer.console import Console, Stage
from charalora_trainer.feed import Feed
from charalora_trainer.job import Job, Workspace
from charalora_trainer.learner import Learner
from charalora_trainer.metrics import Metrics
from charalora_trainer.model.load import load_models
from charalora_trainer.ownership import refuse_change
from charalora_trainer.processes import Processes
from charalora_trainer.stages.encode import encode
from charalora_trainer.stages.figures import Figures, flops_per_image, peak_of, watch_gpu
from charalora_trainer.stages.publish import STATE_FILE, Publisher
from charalora_trainer.stages.train import Health, Hooks, Measured, StopAsked, held_out_losses, train


def learn(job: Job, workspace: Workspace, processes: Processes, console: Console, metrics: Metrics) -> None:
    """Train from the newest state, or from the start, and leave every file in the output prefix.

    Args:
        job: What is trained.
        workspace: This node's folders.
        processes: Who trains together.
        console: Where a person reads how far it is.
        metrics: Where Prometheus does.

    Raises:
        TrainingError: How the training ended, if not well.
    """
    processes.expect(job.processes)
    refuse_change(processes.share(job.plan.digest), job.plan.digest, "node 0 has another one")
    watch_gpu(metrics, processes)
    spec = job.run.spec
    with console.stage("load base model"):
        models = load_models(job.base_model, spec.base_model.prediction)
        models.vae.to(processes.device)
    with console.stage("encode", total=_share(len(job.plan.pairs), processes)) as progress:
        latents = encode(models.vae, job, workspace.latents, processes, progress.advance)
    learner = Learner.on(models, spec, processes.device, processes.count)
    feed = Feed(spec, job.plan, latents, learner.tokenizer, processes, timesteps=len(learner.schedule))
    done = _resume(learner, processes, Checkpoints(workspace.states, job.claim.identity))
    if done:
        console.say(f"Going on after step {done} of {spec.training.steps}, as an earlier attempt left it.")

    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher(job, workspace, learner, console, metrics, done)) if processes.is_first else None
        with console.stage("train", total=spec.training.steps, start=done) as progress:
            peak = peak_of(spec, processes)
            work = flops_per_image(learner, feed, done + 1) if peak and done < spec.training.steps else None
            figures = Figures(metrics, job, done, peak, work) if processes.is_first else None
            train(learner, feed, processes, _hooks(learner, feed, processes, publisher, figures, progress), done)
        if publisher is not None:
            publisher.finish()
    processes.barrier()


def _hooks(
    learner: Learner, feed: Feed, processes: Processes, publisher: Publisher | None, figures: Figures | None, progress: Stage
) -> Hooks:
    """The first process writes files and tells figures; the others only take part in what all measure together."""

    def measured(steps: Sequence[Measured], health: Health) -> None:
        for step in steps:
            progress.advance(1, loss=step.loss, images_per_second=step.images_per_second)
            if publisher is not None:
                publisher.measured(step)
        if figures is not None:
            figures.measured(steps, health, learner.optimizer.rates_at(steps[-1].step))

    def save(step: int, stop_asked: StopAsked) -> None:
        held_out = held_out_losses(learner, feed, processes)
        if publisher is not None:
            publisher.save(step, held_out, stop_asked)

    def stop(step: int) -> None:
        if publisher is not None:
            publisher.stop(step)

    return Hooks(measured, save, stop)


def _resume(learner: Learner, processes: Processes, states: Checkpoints) -> int:
    """Continue from the first process's newest state, which it gives to all others; the last step that it holds, 0 without one."""
    state = states.newest() if processes.is_first else None
    tensors = load_file(state.folder / STATE_FILE) if state else {}
    step, tensors = processes.share((state.step if state else 0, tensors))
    if step:
        learner.optimizer.load_state(tensors)
    return step


def _share(count: int, processes: Processes) -> int:
    return len(range(processes.rank, count, processes.count))
