"""The order of the pictures."""

from collections import Counter
from itertools import chain

import pytest

from charalora_trainer.data.batches import Batch, batches_per_epoch, order
from charalora_trainer.data.sizing import Bucket

SEED = 114514
ONE = (Bucket(512, 704, tuple(range(10))),)
THREE = (Bucket(512, 704, tuple(range(12))), Bucket(704, 512, tuple(range(12, 19))), Bucket(576, 576, (19,)))


def batches(count: int, buckets: tuple[Bucket, ...] = ONE, size: int = 4, *, seed: int = SEED) -> list[Batch]:
    return [order(seed, number, buckets, size) for number in range(count)]


def pictures(dealt: list[Batch]) -> list[int]:
    return [item.pair for batch in dealt for item in batch.items]


def test_a_pass_shows_every_picture_once() -> None:
    """Ten pictures in batches of five: two batches show all ten."""
    assert list(range(10)) == sorted(pictures(batches(2, size=5)))


def test_every_pass_has_another_order() -> None:
    """Passes are permutations of their own."""
    shown = pictures(batches(4, size=5))

    assert shown[:10] != shown[10:]


def test_what_does_not_fill_a_batch_begins_the_next() -> None:
    """Ten pictures in batches of four: five batches are two whole passes, nothing dropped, nothing padded."""
    shown = pictures(batches(5))

    assert (list(range(10)), list(range(10))) == (sorted(shown[:10]), sorted(shown[10:]))


def test_a_batch_larger_than_the_data_set_repeats_evenly() -> None:
    """Three pictures in batches of eight: three batches show each eight times."""
    few = (Bucket(64, 64, (0, 1, 2)),)

    assert {0: 8, 1: 8, 2: 8} == Counter(pictures(batches(3, few, 8)))


def test_a_batch_has_pictures_of_one_bucket() -> None:
    """All items of a batch have one shape."""
    dealt = batches(100, THREE)

    assert all({item.pair for item in batch.items} <= set(THREE[batch.bucket].members) for batch in dealt)


def test_over_time_every_picture_is_seen_equally_often() -> None:
    """Twenty pictures in three buckets, batches of four: 100 epochs of 5 batches show each exactly 100 times."""
    assert {100} == set(Counter(pictures(batches(500, THREE))).values())


@pytest.mark.parametrize("count", [1, 7, 50, 333])
def test_at_every_moment_pictures_of_a_bucket_differ_by_one_view(count: int) -> None:
    """Within a bucket nobody is ever two views ahead."""
    seen = Counter({picture: 0 for bucket in THREE for picture in bucket.members})
    seen.update(pictures(batches(count, THREE)))

    assert all(max(seen[member] for member in bucket.members) - min(seen[member] for member in bucket.members) <= 1 for bucket in THREE)


def test_buckets_take_turns_in_drawn_order() -> None:
    """The buckets of an epoch are mixed, not one after the other."""
    turns = [batch.bucket for batch in batches(500, THREE)]

    assert len({tuple(turns[start : start + 5]) for start in range(0, 500, 5)}) > 3


def test_epochs_are_counted() -> None:
    """Ten pictures in batches of five: two batches an epoch."""
    assert [0, 0, 1, 1, 2] == [batch.epoch for batch in batches(5, size=5)]


def test_batches_of_an_epoch_on_average() -> None:
    """Twenty pictures in batches of eight."""
    assert 2.5 == batches_per_epoch(THREE, 8)


def test_the_same_seed_and_number_give_the_same_batch() -> None:
    """Whatever was asked for before."""
    alone = order(SEED, 37, THREE, 4)

    assert alone == batches(38, THREE)[37]


def test_the_order_stays_the_same_from_version_to_version() -> None:
    """A training goes on after an update of the program: these numbers may not change."""
    assert [5, 4, 9, 2] == [item.pair for item in order(SEED, 0, ONE, 4).items]


def test_another_seed_gives_another_order() -> None:
    """The seed decides."""
    assert pictures(batches(5)) != pictures(batches(5, seed=SEED + 1))


def test_two_processes_see_together_what_one_sees() -> None:
    """Only the whole batch counts: two processes of two are one of four, in order."""
    whole = order(SEED, 9, ONE, 4).items

    assert whole == tuple(chain(whole[:2], whole[2:])) == order(SEED, 9, ONE, 2 * 2).items


def test_a_batch_far_in_the_future_costs_no_more() -> None:
    """No replay: the trillionth batch is there at once, and whole."""
    assert 4 == len(order(SEED, 10**12, THREE, 4).items)


def test_pictures_that_are_held_out_are_never_seen() -> None:
    """Members may be any numbers: whoever is not in a bucket does not come."""
    kept = (Bucket(512, 704, (1, 3, 4, 9)),)

    assert {1, 3, 4, 9} == set(pictures(batches(20, kept)))


def test_nothing_is_flipped_unless_asked() -> None:
    """Mirroring is a choice of the data set."""
    assert not any(item.flipped for batch in batches(50) for item in batch.items)


def test_about_half_is_flipped_when_asked() -> None:
    """200 of 400 within three standard deviations."""
    flipped = [item.flipped for number in range(100) for item in order(SEED, number, ONE, 4, flip=True).items]

    assert 170 <= sum(flipped) <= 230


def test_flipping_changes_neither_order_nor_draws() -> None:
    """With and without flip a run differs in nothing else."""
    plain, mirrored = order(SEED, 3, ONE, 4), order(SEED, 3, ONE, 4, flip=True)

    assert [(item.pair, item.rng_seed) for item in plain.items] == [(item.pair, item.rng_seed) for item in mirrored.items]


def test_every_item_draws_for_itself() -> None:
    """No two items of a training share their noise; seeds fit what torch takes."""
    seeds = [item.rng_seed for batch in batches(500) for item in batch.items]

    assert len(seeds) == len(set(seeds))
    assert all(0 <= seed < 2**63 for seed in seeds)
