"""One side of the trainer's benchmark in a process of its own, so that its peak memory is its own: `trainer_side.py NAME SETTING FOLDER`.

It prints a line of JSON after each round of steps and waits for a line before the next.
"""

import gc
import json
import os
import resource as system
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from plain_loop import CachedLatents, CaptionedPictures, Pipeline, PlainTraining
from torch import Tensor
from trainer_inputs import VECTORS, WORD, Setting, base_model, plain_tokenizer, resource, write_dataset
from transformers import CLIPTokenizer

from charalora_trainer.data.dataset import read_dataset
from charalora_trainer.feed import Feed
from charalora_trainer.job import Job
from charalora_trainer.learner import Learner
from charalora_trainer.loss import NoisyBatch
from charalora_trainer.model.lora import lora_parameters
from charalora_trainer.ownership import Claim
from charalora_trainer.processes import Processes
from charalora_trainer.stages.encode import encode
from charalora_trainer.stages.train import Hooks, train

PLAIN_WORD = [WORD, *(f"{WORD}_{number}" for number in range(1, VECTORS))]
MIB = 2**20


def main(name: str, setting: Setting, folder: Path) -> None:
    """Train one side round by round, or compare both."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print is no part of the conversation
    if name == "agreement":
        say(channel, agreement(setting, folder))
    elif name == "ours":
        ours(setting, folder, Rounds(channel, setting.device), compiled=False)
    elif name == "compiled":
        ours(setting, folder, Rounds(channel, setting.device), compiled=True)
    else:
        plain(setting, folder, Rounds(channel, setting.device), cached=name == "cached")


class Rounds:
    """Says after each round what it took, and waits until the next may begin."""

    def __init__(self, channel: TextIO, device: str) -> None:
        self._channel = channel
        self._device = device
        self._start()

    def __call__(self) -> None:
        """End a round and wait for the next one; end with the process that asked for them."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        say(self._channel, {"wall": wall, "processor": processor, "peak_mib": peak(self._device)})
        if not sys.stdin.readline():
            sys.exit()
        self._start()

    def _start(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()


def ours(setting: Setting, folder: Path, rounds: Callable[[], None], *, compiled: bool) -> None:
    """Charalora's own encoding, feed and training loop; with the UNet's transformer blocks compiled, to see whether that pays."""
    models, run = base_model(setting, folder), resource(setting)
    processes = Processes(0, 1, 0, torch.device(setting.device))
    models.vae.to(processes.device)
    dataset = write_dataset(setting, folder)
    plan, findings = read_dataset(dataset, run.spec.dataset, run.spec.character, models.tokenizer)
    if plan is None:
        raise ValueError(findings[0].text)
    claim = Claim("benchmark", "", 1, "", "", "", plan.digest)
    job = Job(run, plan, dataset, folder, None, (), claim, processes.count)
    latents = encode(models.vae, job, folder / "latents", processes, lambda: None)
    learner = Learner.on(models, run.spec, processes.device, processes.count)
    if compiled:
        models.unet.compile_repeated_blocks()
    feed = Feed(run.spec, plan, latents, learner.tokenizer, processes, timesteps=len(learner.schedule))
    train(learner, feed, processes, Hooks(measured=lambda *_: None, save=lambda *_: rounds(), stop=lambda _: None), done=0)


def plain(setting: Setting, folder: Path, rounds: Callable[[], None], *, cached: bool) -> None:
    """The documented way, with or without latents that were encoded beforehand."""
    training, tokenizer = plain_training(setting, folder)
    pictures = CaptionedPictures(write_dataset(setting, folder), tokenizer, PLAIN_WORD)
    examples = CachedLatents(pictures, training) if cached else pictures
    training.train(training.loader(examples, setting.batch), setting.all_steps, setting.steps, rounds)


def plain_training(setting: Setting, folder: Path) -> tuple[PlainTraining, CLIPTokenizer]:
    """The plain side's models and optimizer, and its tokenizer, which knows the word."""
    models = base_model(setting, folder)
    pipeline = Pipeline(models.unet, models.text_encoder, models.vae, models.scheduler, plain_tokenizer(models))
    rows = 0.017 * torch.randn(VECTORS, models.text_encoder.config.hidden_size)
    training = PlainTraining(pipeline, resource(setting).spec.training, PLAIN_WORD, rows, cpu=setting.device == "cpu")
    return training, pipeline.tokenizer


def agreement(setting: Setting, folder: Path) -> dict[str, Any]:
    """How far loss and gradients of both sides are apart for one batch and the same weights."""
    batch, text = recorded_batch(setting), "1girl, solo, night"
    models = base_model(setting, folder)
    learner = Learner.on(models, resource(setting).spec, torch.device(setting.device), processes=1)
    parameters = [*lora_parameters(models.unet), *lora_parameters(models.text_encoder), learner.rows]
    draw(parameters, learner.flat.working.dtype)
    learner.training(active=True)
    ids = torch.tensor([learner.tokenizer.encode(f"{WORD}, {text}").ids] * setting.batch, device=setting.device)
    loss = learner.loss(batch, ids)
    torch.autograd.backward(loss)
    our_ids, our_loss, our_gradients = ids[:, 0], loss.item(), [gradient_of(parameter) for parameter in parameters]
    del models, learner, parameters, loss
    gc.collect()

    training, tokenizer = plain_training(setting, folder)
    rows = training.table.detach()[-VECTORS:]
    draw([*training.parameters[:-1], rows], training.weight_dtype)
    encoded = tokenizer(f"{' '.join(PLAIN_WORD)}, {text}", max_length=77, padding="max_length", return_tensors="pt")
    ids = encoded.input_ids.repeat(setting.batch, 1).to(setting.device)
    loss = training.loss(batch.latents, batch.noise, batch.timesteps, ids)
    training.accelerator.backward(loss)
    gradients = [*map(gradient_of, training.parameters[:-1]), gradient_of(training.table)[-VECTORS:]]
    apart = [relative(our, their) for our, their in zip(our_gradients, gradients, strict=True)]
    return {
        "same_tokens": torch.equal(our_ids, ids),
        "loss": [our_loss, loss.item()],
        "loss_apart": abs(our_loss / loss.item() - 1),
        "matrices": len(gradients),
        "gradients_apart": relative(torch.cat([*map(torch.flatten, our_gradients)]), torch.cat([*map(torch.flatten, gradients)])),
        "worst_matrix_apart": max(apart),
    }


def recorded_batch(setting: Setting) -> NoisyBatch:
    """Latents, noise and timesteps that both sides are given."""
    generator = torch.Generator().manual_seed(0)
    shape = (setting.batch, 4, setting.height // 8, setting.width // 8)
    latents, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    timesteps = torch.randint(0, 1000, (setting.batch,), generator=generator)
    return NoisyBatch(*(tensor.to(setting.device) for tensor in (latents, noise, timesteps)))


@torch.no_grad()
def draw(parameters: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Give every matrix small random values that `dtype` can hold; an untrained LoRA has no gradient below."""
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.copy_((0.02 * torch.randn(parameter.shape, generator=generator)).to(dtype))


def gradient_of(parameter: Tensor) -> Tensor:
    """A copy in fp32 on the CPU."""
    if parameter.grad is None:
        raise ValueError("a trained matrix has no gradient")
    return parameter.grad.detach().float().cpu()


def relative(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|."""
    return float((ours - theirs).norm() / theirs.norm())


def peak(device: str) -> float:
    """Most memory that this process ever held, in MiB: of the GPU where it has one, else resident."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved() / MIB
    return system.getrusage(system.RUSAGE_SELF).ru_maxrss / 1024


def say(channel: TextIO, content: Mapping[str, Any]) -> None:
    """One line of JSON for the process that started this one."""
    print(json.dumps(content), file=channel, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Setting.from_json(sys.argv[2]), Path(sys.argv[3]))
