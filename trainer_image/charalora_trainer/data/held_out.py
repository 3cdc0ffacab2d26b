"""Which pictures training never sees: their loss tells learning from learning by heart."""

import random

from charalora_spec.spec import Training

SMALLEST_DATASET = 16
"""Pictures from which on some are held out unasked: fewer are all needed for training."""
ONE_OF, AT_MOST = 8, 16


def held_out_count(asked: int | None, pictures: int) -> int:
    """How many of so many pictures are held out; `asked` is `training.loss.heldOut`."""
    if asked is not None:
        return asked
    return min(pictures // ONE_OF, AT_MOST) if pictures >= SMALLEST_DATASET else 0


def held_out_pictures(training: Training, pictures: int) -> tuple[int, ...]:
    """Their numbers, chosen by the seed."""
    numbers = list(range(pictures))
    random.Random(seed_of("held-out pictures", training.seed)).shuffle(numbers)
    return tuple(sorted(numbers[: held_out_count(training.loss.held_out, pictures)]))


def seed_of(*parts: object) -> int:
    """A 63-bit seed from the parts; Python's own string hash differs between processes."""
    return random.Random(repr(parts)).getrandbits(63)
