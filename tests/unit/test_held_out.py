"""Which pictures training never sees."""

import pytest

from builders import character_lora
from charalora_trainer.data.held_out import held_out_count, held_out_pictures


@pytest.mark.parametrize(
    ("asked", "pictures", "expected"),
    [(None, 6, 0), (None, 15, 0), (None, 16, 2), (None, 24, 3), (None, 1000, 16), (0, 1000, 0), (5, 6, 5)],
)
def test_one_picture_of_eight_is_held_out_unless_it_is_said_otherwise(asked: int | None, pictures: int, expected: int) -> None:
    """A small data set needs all that it has; a handful of pictures is enough to measure by."""
    assert expected == held_out_count(asked, pictures)


def test_the_seed_chooses_the_pictures() -> None:
    """The same at each start, others with another seed."""
    one, other = (character_lora(training__seed=seed).spec.training for seed in (1, 2))

    assert held_out_pictures(one, 40) == held_out_pictures(one, 40) != held_out_pictures(other, 40)
    assert 5 == len(set(held_out_pictures(one, 40)) & set(range(40)))
