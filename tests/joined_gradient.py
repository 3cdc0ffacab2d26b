"""The gradient of one step, computed by one process or by several together: what a test compares, in processes of its own."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from charalora_trainer.checkpoint import Checkpoints
from charalora_trainer.feed import Feed
from charalora_trainer.job import Job, Workspace
from charalora_trainer.learner import Learner
from charalora_trainer.model.load import load_models
from charalora_trainer.processes import Processes
from charalora_trainer.stages.encode import encode
from charalora_trainer.stages.publish import STATE_FILE


def write_gradient(root: Path, rank: int, count: int, file: Path) -> None:
    """With the weights of a finished training, write the reduced gradient of one step on 4 pictures, 4 / `count` of them here."""
    workspace = Workspace(root)
    job = Job.read(workspace.job)
    training = job.run.spec.training.model_copy(update={"batch_size": 4 // count})
    spec = job.run.spec.model_copy(update={"training": training})
    job = replace(job, run=job.run.model_copy(update={"spec": spec}), processes=count)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{root / 'rendezvous'}", rank=rank, world_size=count)
    processes = Processes(rank, count, rank, torch.device("cpu"))
    models = load_models(job.base_model, spec.base_model.prediction)
    latents = encode(models.vae, job, workspace.latents, processes, lambda: None)
    learner = Learner.on(models, spec, processes.device, count)
    state = Checkpoints(workspace.states, job.claim.identity).newest()
    assert state
    learner.optimizer.load_state(load_file(state.folder / STATE_FILE))
    feed = Feed(spec, job.plan, latents, learner.tokenizer, processes, timesteps=len(learner.schedule))

    noisy, text = feed.batch(step=3, micro=0)
    learner.training(active=True)
    learner.optimizer.backward(learner.loss(noisy, text.ids))
    learner.flat.reduce()
    groups = {name: learner.flat.gradient[span].clone() for name, span in learner.flat.spans.items()}
    save_file({**groups, "latents": noisy.latents, "noise": noisy.noise, "timesteps": noisy.timesteps, "ids": text.ids}, file)
    if count > 1:
        dist.destroy_process_group()
