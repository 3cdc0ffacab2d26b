"""The order in which training sees the pictures: batch n is a function of the seed and n, whatever the number of processes.

A bucket's pictures are dealt in passes: each pass is a new permutation of all its pictures, and one pass follows the other without a gap,
so a batch may end one pass and begin the next. In epoch e (from 0) a bucket of m pictures gives as many batches of size B as make
floor((e + 1) · m / B) since the start; what does not fill a batch is carried over, never dropped and never padded. So at every moment two
pictures of one bucket have been seen equally often, or one of them once more; and over the epochs so have pictures of different buckets.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol


class Members(Protocol):
    """Whatever has pictures: a bucket."""

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of its pictures."""


@dataclass(frozen=True)
class Item:
    """One picture of a batch.

    Attributes:
        pair: Number of the picture.
        flipped: Whether it is mirrored this time.
        rng_seed: 63 bits for whatever is drawn for this item: noise, timestep, tags.
    """

    pair: int
    flipped: bool
    rng_seed: int


@dataclass(frozen=True)
class Batch:
    """Pictures of one size, to be shared by all processes in order: process r of p takes the r-th of p equal parts.

    Attributes:
        epoch: How many times the data set was gone through before, from 0.
        bucket: Number of the bucket that all items are of.
        items: The pictures.
    """

    epoch: int
    bucket: int
    items: tuple[Item, ...]


def order(seed: int, number: int, buckets: Sequence[Members], size: int, *, flip: bool = False) -> Batch:
    """Batch `number` (from 0) of the whole training.

    With gradient accumulation over A micro batches, optimizer step s (from 0) uses the numbers s · A … s · A + A - 1.

    Args:
        seed: The training's seed.
        number: Which batch; one far in the future costs no more than the first.
        buckets: Each with at least one picture.
        size: Pictures in one batch over all processes.
        flip: Whether half of the items are mirrored.
    """
    pictures = tuple(len(bucket.members) for bucket in buckets)
    epoch = _epoch_of(number, pictures, size)
    bucket, batch = _epoch(seed, epoch, pictures, size)[number - _batches_before(epoch, pictures, size)]
    pairs = _dealt(seed, bucket, buckets[bucket].members, range(batch * size, (batch + 1) * size))
    return Batch(epoch, bucket, tuple(_item(seed, number, slot, pair, flip=flip) for slot, pair in enumerate(pairs)))


def batches_per_epoch(buckets: Sequence[Members], size: int) -> float:
    """How many batches show every picture once, on average over the epochs."""
    return sum(len(bucket.members) for bucket in buckets) / size


def _epoch_of(number: int, pictures: tuple[int, ...], size: int) -> int:
    """The epoch that batch `number` is in: the last one that begins at or before it."""
    beyond = (number + 1 + len(pictures)) * size // sum(pictures) + 2
    return bisect_right(range(beyond), number, key=lambda epoch: _batches_before(epoch, pictures, size)) - 1


def _batches_before(epoch: int, pictures: tuple[int, ...], size: int) -> int:
    return sum(epoch * count // size for count in pictures)


@lru_cache(maxsize=4)  # an epoch serves many batches
def _epoch(seed: int, epoch: int, pictures: tuple[int, ...], size: int) -> tuple[tuple[int, int], ...]:
    """The batches of an epoch as (bucket, number of the batch in its bucket), in drawn order."""
    given = [range(epoch * count // size, (epoch + 1) * count // size) for count in pictures]
    turns = sorted(
        ((bucket, batch) for bucket, batches in enumerate(given) for batch in batches), key=lambda turn: _draw(seed, "turn", *turn)
    )
    batches_of = [iter(batches) for batches in given]  # only whose turn it is, is drawn: a bucket's own batches come in order
    return tuple((bucket, next(batches_of[bucket])) for bucket, _ in turns)


def _dealt(seed: int, bucket: int, members: tuple[int, ...], places: range) -> list[int]:
    """What lies at these places of a bucket's endless sequence of passes."""
    return [_pass(seed, bucket, members, place // len(members))[place % len(members)] for place in places]


@lru_cache(maxsize=64)  # a pass serves many batches
def _pass(seed: int, bucket: int, members: tuple[int, ...], number: int) -> tuple[int, ...]:
    """A permutation of the bucket's pictures."""
    return tuple(sorted(members, key=lambda member: _draw(seed, "pass", bucket, number, member)))


def _item(seed: int, number: int, slot: int, pair: int, *, flip: bool) -> Item:
    rng_seed = _draw(seed, "item", number, slot)
    return Item(pair, flip and _draw(seed, "flip", number, slot) % 2 == 1, rng_seed)


def _draw(*parts: int | str) -> int:
    """63 random bits that depend on the parts alone: not on the machine, the Python version or what was drawn before."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
