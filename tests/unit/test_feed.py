"""What the held-out loss is measured at: the same for every save and any number of processes."""

from itertools import chain, zip_longest

import pytest
import torch

from builders import character_lora
from charalora_trainer.data.dataset import DatasetPlan, Pair
from charalora_trainer.data.sizing import Bucket
from charalora_trainer.feed import Feed, Latents
from charalora_trainer.processes import Processes
from charalora_trainer.words.prompt import PromptTokenizer
from charalora_trainer.words.tokenizer import load_tokenizer

PICTURES = 6
WORD = "surtr_arknights"


def feed(held_out: int, rank: int = 0, count: int = 1) -> Feed:
    """Of six pictures that are told apart by their latents."""
    spec = character_lora(training__loss__held_out=held_out).spec
    pairs = tuple(Pair(f"{number}", f"{number}.png", f"{number}.txt", "1girl, night", 64, 64, "ab") for number in range(PICTURES))
    plan = DatasetPlan(pairs, (Bucket(64, 64, tuple(range(PICTURES))),), "digest", 1, 10)
    latents = Latents(
        (torch.arange(PICTURES).float().view(-1, 1, 1, 1, 1).expand(-1, 1, 4, 8, 8),), tuple((0, row) for row in range(PICTURES))
    )
    tokenizer = PromptTokenizer(load_tokenizer(None), {WORD: 4})
    return Feed(spec, plan, latents, tokenizer, Processes(rank, count, rank, torch.device("cpu")), timesteps=1000)


@pytest.mark.parametrize("held_out", [1, 3, 5])
def test_each_held_out_picture_is_measured_over_the_whole_schedule(held_out: int) -> None:
    """As often as the others, 64 times in all or a few more, at evenly spread timesteps of its own."""
    measured: dict[int, list[int]] = {}
    for noisy, _ in feed(held_out).held_out_batches():
        for latents, timestep in zip(noisy.latents, noisy.timesteps.tolist(), strict=True):
            measured.setdefault(int(latents[0, 0, 0]), []).append(timestep)

    draws = -(-64 // held_out)
    assert [draws] * held_out == [len(timesteps) for timesteps in measured.values()]
    assert draws * held_out == len(set(chain.from_iterable(measured.values())))
    for timesteps in measured.values():
        assert list(range(draws)) == [timestep * draws // 1000 for timestep in timesteps]


def test_the_measurements_are_the_same_at_every_save() -> None:
    """Noise, timesteps and captions; so saves differ by what was learned."""
    one = feed(2)

    for (first, text), (second, again) in zip(one.held_out_batches(), one.held_out_batches(), strict=True):
        assert torch.equal(first.noise, second.noise)
        assert torch.equal(first.timesteps, second.timesteps)
        assert torch.equal(text.ids, again.ids)


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_measure_together_what_one_measures(count: int) -> None:
    """Batch by batch in turns, and every batch as large as with one, so that rounding is the same too."""
    shares = [feed(3, rank, count).held_out_batches() for rank in range(count)]
    together = [batch for turn in zip_longest(*shares) for batch in turn if batch]

    for (expected, _), (found, _) in zip(feed(3).held_out_batches(), together, strict=True):
        assert torch.equal(expected.noise, found.noise)
        assert torch.equal(expected.latents, found.latents)
        assert torch.equal(expected.timesteps, found.timesteps)


def test_pictures_that_are_held_out_are_in_no_batch() -> None:
    """Training sees all the others."""
    one = feed(2)

    seen = {int(latents[0, 0, 0]) for step in range(1, 20) for latents in one.batch(step, 0)[0].latents}

    assert set(range(PICTURES)) - set(one.held_out) == seen
