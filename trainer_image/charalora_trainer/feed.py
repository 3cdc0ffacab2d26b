"""What one step is given: batch n of a training is a function of its seed and n, whatever the number of processes."""

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from charalora_spec.spec import CharacterLoraSpec
from charalora_trainer.data import captions
from charalora_trainer.data.batches import Batch, Item, order
from charalora_trainer.data.dataset import DatasetPlan
from charalora_trainer.data.held_out import held_out_pictures, seed_of
from charalora_trainer.data.sizing import Bucket
from charalora_trainer.loss import NoisyBatch
from charalora_trainer.processes import Processes
from charalora_trainer.words.prompt import PromptTokenizer

HELD_OUT_MEASUREMENTS = 64
"""Draws of noise and timestep for the held-out loss, at least; each held-out picture has an equal share of them."""
HELD_OUT_BATCH = 8  # the same for any number of processes, so that rounding is as well


@dataclass(frozen=True)
class Latents:
    """Scaled latents of every picture, by bucket.

    Attributes:
        buckets: One `[pictures, flips, C, H, W]` fp32 tensor a bucket of the plan; flips is 1, or 2 with the mirrored picture second.
        rows: Where each picture of the plan lies: its bucket and its row there.
    """

    buckets: tuple[Tensor, ...]
    rows: tuple[tuple[int, int], ...]

    def take(self, items: list[tuple[int, bool]]) -> Tensor:
        """Latents `[B, C, H, W]` of pictures of one bucket, mirrored where asked."""
        bucket = self.buckets[self.rows[items[0][0]][0]]
        index = torch.tensor([(self.rows[picture][1], int(flipped)) for picture, flipped in items]).to(bucket.device, non_blocking=True)
        return bucket[index[:, 0], index[:, 1]]


@dataclass(frozen=True)
class TextBatch:
    """Token ids `[B, N, 77]` of N chunks, on the device."""

    ids: Tensor


class Feed:
    """Makes the tensors of each step from the data set.

    Noise and timesteps are drawn on the CPU by a generator of each item, so they are the same on every device and for every way to
    share a batch between processes.
    """

    def __init__(
        self,
        spec: CharacterLoraSpec,
        plan: DatasetPlan,
        latents: Latents,
        tokenizer: PromptTokenizer,
        processes: Processes,
        *,
        timesteps: int,
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._latents = latents
        self._tokenizer = tokenizer
        self._processes = processes
        self._timesteps = timesteps
        self.held_out = held_out_pictures(spec.training, len(plan.pairs))
        kept = (
            Bucket(bucket.width, bucket.height, tuple(member for member in bucket.members if member not in self.held_out))
            for bucket in plan.buckets
        )
        self._buckets = tuple(bucket for bucket in kept if bucket.members)

    @property
    def global_batch(self) -> int:
        """Pictures in one micro batch over all processes."""
        return self._spec.training.batch_size * self._processes.count

    def batch(self, step: int, micro: int) -> tuple[NoisyBatch, TextBatch]:
        """This process's part of micro batch `micro` (from 0) of optimizer step `step` (from 1)."""
        number = (step - 1) * self._spec.training.gradient_accumulation + micro
        whole: Batch = order(self._spec.training.seed, number, self._buckets, self.global_batch, flip=self._spec.dataset.flip)
        size = self._spec.training.batch_size
        return self._tensors(whole.items[self._processes.rank * size : (self._processes.rank + 1) * size])

    def held_out_batches(self) -> list[tuple[NoisyBatch, TextBatch]]:
        """Held-out pictures with fixed noise and full captions, this process's share; the same at every call.

        Each picture's timesteps cover the schedule evenly, and those of all pictures together do so more finely: so few measurements say
        as much as many at random timesteps (Kingma et al. 2021, appendix I.1).
        """
        pictures, seed = len(self.held_out), self._spec.training.seed
        draws = -(-HELD_OUT_MEASUREMENTS // pictures)
        batches = []
        for place, picture in enumerate(self.held_out):
            items = [Item(picture, flipped=False, rng_seed=seed_of("held-out", seed, picture, draw)) for draw in range(draws)]
            levels = [(2 * (draw * pictures + place) + 1) * self._timesteps // (2 * draws * pictures) for draw in range(draws)]
            for first in range(0, draws, HELD_OUT_BATCH):
                part = slice(first, first + HELD_OUT_BATCH)
                batches.append((items[part], levels[part]))
        return [self._measured_at(levels, items) for items, levels in batches[self._processes.rank :: self._processes.count]]

    def _measured_at(self, levels: list[int], items: list[Item]) -> tuple[NoisyBatch, TextBatch]:
        noisy, text = self._tensors(tuple(items), plain=True)
        return replace(noisy, timesteps=torch.tensor(levels).to(noisy.timesteps)), text

    def _tensors(self, items: tuple[Item, ...], *, plain: bool = False) -> tuple[NoisyBatch, TextBatch]:
        latents = self._latents.take([(item.pair, item.flipped) for item in items])
        device = latents.device
        noise, timesteps = zip(*(self._draw(item, latents.shape[1:]) for item in items), strict=True)
        ids = torch.tensor([self._tokenizer.encode_caption(self._caption(item, plain=plain), self._plan.chunks).ids for item in items])
        noisy = NoisyBatch(latents, torch.stack(noise).to(device, non_blocking=True), torch.stack(timesteps).to(device, non_blocking=True))
        return noisy, TextBatch(ids.to(device, non_blocking=True))

    def _draw(self, item: Item, shape: torch.Size) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(item.rng_seed)
        noise = torch.randn(shape, generator=generator)
        offset = self._spec.training.loss.noise_offset
        if offset:
            noise = noise + offset * torch.randn(shape[0], 1, 1, generator=generator)
        return noise, torch.randint(0, self._timesteps, (), generator=generator)

    def _caption(self, item: Item, *, plain: bool) -> str:
        character, rules = self._spec.character, self._spec.dataset.captions
        if plain:
            rules = rules.model_copy(update={"shuffle_tags": False, "tag_dropout": 0.0, "caption_dropout": 0.0})
        tags = captions.parse(self._plan.pairs[item.pair].caption)
        return captions.compose(tags, character.name, character.class_, rules, random.Random(item.rng_seed))
