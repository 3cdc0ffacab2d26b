"""Which resources are due."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from charalora_operator.model import Key
from charalora_operator.queue import KeyQueue
from faults import Fault

Taken = Callable[[], Key | None]

SURTR, EXUSIAI = Key("artists", "surtr"), Key("artists", "exusiai")


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> KeyQueue:
    return KeyQueue(clock)


@pytest.fixture
def taken(queue: KeyQueue) -> Iterator[Taken]:
    """What a worker gets now; None when it would have to wait."""

    async def get() -> Key | None:
        try:
            return await asyncio.wait_for(queue.get(), 0.02)
        except TimeoutError:
            return None

    with asyncio.Runner() as runner:
        yield lambda: runner.run(get())


def test_a_key_that_is_added_twice_is_due_once(queue: KeyQueue, taken: Taken) -> None:
    queue.add(SURTR)
    queue.add(SURTR)
    assert (taken(), taken()) == (SURTR, None)


def test_keys_come_in_the_order_in_which_they_became_due(queue: KeyQueue, taken: Taken) -> None:
    queue.add(SURTR)
    queue.add(EXUSIAI)
    queue.add(SURTR)
    assert (taken(), taken()) == (SURTR, EXUSIAI)


def test_thousands_of_one_namespace_do_not_make_the_only_one_of_another_wait(queue: KeyQueue, taken: Taken) -> None:
    """Namespaces take turns; within one, the order counts."""
    for number in range(5000):
        queue.add(Key("crowd", f"character-{number}"))
    queue.add(SURTR)
    queue.add(EXUSIAI)

    assert [Key("crowd", "character-0"), SURTR, Key("crowd", "character-1"), EXUSIAI] == [taken() for _ in range(4)]
    assert (queue.depth, taken()) == (4998, Key("crowd", "character-2"))


def test_a_thousand_visits_that_wait_for_nothing_let_everything_else_have_its_turn(queue: KeyQueue) -> None:
    """The Lease is renewed and probes are answered by the same process."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def visits() -> None:
        for number in range(1000):
            queue.add(Key("crowd", f"character-{number}"))
        beside = asyncio.create_task(others())
        for _ in range(1000):
            key = await queue.get()
            assert key is not None
            queue.done(key)
        beside.cancel()

    asyncio.run(visits())
    assert turns >= 1000


def test_nobody_gets_a_key_that_is_being_worked_on(queue: KeyQueue, taken: Taken) -> None:
    """What happens to it meanwhile makes it due again afterwards, once."""
    queue.add(SURTR)
    taken()
    queue.add(SURTR)
    queue.add(SURTR)
    assert taken() is None
    queue.done(SURTR)
    assert taken() == SURTR
    queue.done(SURTR)
    assert taken() is None


def test_a_later_key_is_not_due_before_its_time(queue: KeyQueue, taken: Taken, clock: Clock) -> None:
    queue.add_after(SURTR, 30)
    assert taken() is None
    clock.now += 30
    assert taken() == SURTR


def test_of_two_times_the_earlier_counts(queue: KeyQueue, taken: Taken, clock: Clock) -> None:
    queue.add_after(SURTR, 30)
    queue.add_after(SURTR, 10)
    queue.add_after(SURTR, 20)
    clock.now += 10
    assert taken() == SURTR
    queue.done(SURTR)
    clock.now += 30
    assert taken() is None


def test_a_visit_takes_the_place_of_the_one_that_was_planned(queue: KeyQueue, taken: Taken, clock: Clock) -> None:
    """Each visit says anew when the next one is due."""
    queue.add_after(SURTR, 30)
    queue.add(SURTR)
    taken()
    queue.done(SURTR)
    clock.now += 60
    assert taken() is None


def test_a_time_that_comes_while_a_key_is_worked_on_makes_it_due_again(queue: KeyQueue, taken: Taken, clock: Clock) -> None:
    queue.add(SURTR)
    taken()
    queue.add_after(SURTR, 5)
    clock.now += 5
    assert taken() is None
    queue.done(SURTR)
    assert taken() == SURTR


def test_failures_wait_longer_each_time_up_to_five_minutes(queue: KeyQueue, taken: Taken, clock: Clock) -> None:
    queue.add(SURTR)
    delays = []
    for _ in range(12):
        assert taken() == SURTR
        delays.append(queue.failed(SURTR))
        assert taken() is None
        clock.now += delays[-1]
    assert 0.5 <= delays[0] <= 1
    assert all(later > earlier * 0.99 for earlier, later in pairwise(delays[:8]))
    assert 150 <= delays[-1] <= 300


def test_a_success_forgets_the_failures(queue: KeyQueue, taken: Taken, clock: Clock) -> None:
    queue.add(SURTR)
    for _ in range(5):
        taken()
        clock.now += queue.failed(SURTR)
    taken()
    queue.done(SURTR)
    queue.add(SURTR)
    taken()
    assert queue.failed(SURTR) <= 1


def test_the_oldest_is_what_waits_or_is_worked_on_longest(queue: KeyQueue, taken: Taken, clock: Clock) -> None:
    assert queue.oldest == 0
    queue.add(SURTR)
    clock.now += 7
    queue.add(EXUSIAI)
    assert (queue.depth, queue.oldest) == (2, 7)
    taken()
    clock.now += 1
    assert (queue.depth, queue.oldest) == (1, 8)
    queue.done(SURTR)
    assert queue.oldest == 1


def test_a_closed_queue_lets_its_workers_go() -> None:
    """Those that wait, and those that come."""

    async def close() -> list[Key | None]:
        queue = KeyQueue()
        waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.close()
        return [*await asyncio.wait_for(asyncio.gather(*waiting), 1), await queue.get()]

    assert asyncio.run(close()) == [None] * 4


def test_many_workers_share_many_keys_and_none_is_lost_or_doubled() -> None:
    """Keys are added while others are worked on; no key is in two hands."""
    keys = [Key("artists", f"character-{number}") for number in range(50)]

    async def work() -> tuple[set[Key], int]:
        queue, hands, seen, most = KeyQueue(), set[Key](), set[Key](), 0

        async def worker() -> None:
            nonlocal most
            while (key := await queue.get()) is not None:
                assert key not in hands
                hands.add(key)
                most = max(most, len(hands))
                queue.add(key) if key not in seen else None
                seen.add(key)
                await asyncio.sleep(0.001)
                hands.remove(key)
                queue.done(key)

        workers = [asyncio.create_task(worker()) for _ in range(8)]
        for key in keys * 3:
            queue.add(key)
        while queue.depth or hands:  # noqa: ASYNC110 - the queue tells nobody that it is empty
            await asyncio.sleep(0.005)
        queue.close()
        await asyncio.gather(*workers)
        return seen, most

    seen, most = asyncio.run(work())
    assert seen == set(keys)
    assert most == 8


@pytest.mark.fault(Fault.FLOOD)
def test_a_resource_that_is_changed_all_the_time_lets_the_others_have_their_turn(queue: KeyQueue) -> None:
    """Whatever is added meanwhile, it is due again behind all who waited."""
    loud, others = Key("artists", "loud"), [Key("artists", f"quiet-{number}") for number in range(3)]

    async def visits() -> list[Key]:
        seen: list[Key] = []
        for key in (loud, *others):
            queue.add(key)
        for _ in range(5):
            due = await queue.get()
            assert due is not None
            for _ in range(1000):
                queue.add(loud)
            queue.done(due)
            seen.append(due)
        return seen

    assert [loud, *others, loud] == asyncio.run(visits())
