"""Whether other nodes' processes still live: heartbeats in a store, and the reason that one of them left."""

import threading
import time

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch exports it without saying so

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer import peers
from charalora_trainer.peers import PartnersLostError, Peers, is_broken_off, together
from charalora_trainer.processes import Processes

SECONDS_TO_LIVE = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(peers, "SECONDS_TO_LIVE", SECONDS_TO_LIVE)
    return now


def test_who_beats_lives_who_stands_still_is_missed_and_who_left_is_not(clock: list[float]) -> None:
    """Their own clocks do not matter: only whether a count moves between two looks."""
    store = HashStore()
    watcher, living, silent, leaving = (Peers(store, rank, 4) for rank in range(4))
    for peer in (living, silent, leaving):
        peer.beat()
    assert [] == watcher.silent()

    leaving.leave()
    for _ in range(3):
        clock[0] += SECONDS_TO_LIVE / 2
        living.beat()
        missed = watcher.silent()

    assert [2] == missed


def test_who_never_came_to_life_is_missed_too(clock: list[float]) -> None:
    """It may have died before its first heartbeat."""
    watcher = Peers(HashStore(), 0, 2)
    assert [] == watcher.silent()

    clock[0] += SECONDS_TO_LIVE + 1

    assert [1] == watcher.silent()


def test_the_first_reason_that_a_process_leaves_is_what_the_others_hear() -> None:
    """What follows from it is not the cause."""
    store = HashStore()
    first, second = Peers(store, 0, 2), Peers(store, 1, 2)
    assert first.told() is None

    second.tell(TrainingError(Outcome.CUDA_OUT_OF_MEMORY, "It does not fit."))
    first.tell(TrainingError(Outcome.STORAGE_UNREACHABLE, "No answer."))

    told = first.told()
    assert told is not None
    assert (Outcome.CUDA_OUT_OF_MEMORY, "It does not fit.") == (told.outcome, told.message)


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (True, RuntimeError("[../gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:3456")),
        (True, torch.distributed.DistBackendError("NCCL error: remote process exited")),
        (False, RuntimeError("shape mismatch")),
        (False, ValueError("Connection closed by peer")),
    ],
)
def test_a_message_to_a_process_that_is_gone_is_known(expected: bool, error: Exception) -> None:  # noqa: FBT001 - a table's column
    """Other errors are our own."""
    assert expected is is_broken_off(error)


def joined(monkeypatch: pytest.MonkeyPatch) -> tuple[Peers, Peers]:
    """What `together` meets, and another node's process."""
    store = HashStore()
    here, there = Peers(store, 0, 2), Peers(store, 1, 2)
    monkeypatch.setattr(peers, "meet", lambda _: here)
    return here, there


ON_TWO_NODES = Processes(0, 2, 0, torch.device("cpu"), nodes=2)


def test_a_connection_that_broke_is_told_by_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has left its reason before it ended."""
    _, there = joined(monkeypatch)
    there.tell(TrainingError(Outcome.HOST_OUT_OF_MEMORY, "Too big."))

    with pytest.raises(TrainingError, match="Too big") as caught, together(ON_TWO_NODES):
        raise RuntimeError("Connection reset by peer")

    assert Outcome.HOST_OUT_OF_MEMORY is caught.value.outcome


def test_a_connection_that_broke_without_a_reason_is_a_lost_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, or without power."""
    joined(monkeypatch)

    with pytest.raises(PartnersLostError), together(ON_TWO_NODES):
        raise RuntimeError("Connection reset by peer")


def test_an_error_of_this_process_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it leaves, so that nobody waits for its heartbeat."""
    here, there = joined(monkeypatch)

    with pytest.raises(MemoryError), together(ON_TWO_NODES):
        raise MemoryError

    told = there.told()
    assert told is not None
    assert Outcome.HOST_OUT_OF_MEMORY is told.outcome
    assert here._store.get("beat/0") == b"left"


def test_the_process_that_hosts_the_store_goes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slower one still has its own end before it, and would miss the store."""
    _, there = joined(monkeypatch)
    slower = threading.Timer(0.5, there.leave)

    with together(ON_TWO_NODES):
        slower.start()

    assert not slower.is_alive()


def test_who_never_leaves_is_not_waited_for_longer_than_it_would_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training is done; what became of that process is no longer asked."""
    joined(monkeypatch)
    monkeypatch.setattr(peers, "SECONDS_TO_LIVE", 0.2)
    began = time.monotonic()

    with together(ON_TWO_NODES):
        pass

    assert 0.2 <= time.monotonic() - began < 5


def test_no_heartbeat_follows_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting on from it is an error, and an error of the store is taken for a lost partner."""
    here, there = joined(monkeypatch)
    there.leave()
    monkeypatch.setattr(peers, "SECONDS_BETWEEN_BEATS", 0.001)
    beating, said = threading.Event(), list[str]()

    def slow_beat() -> None:
        beating.set()
        time.sleep(0.2)
        said.append("beat")

    monkeypatch.setattr(here, "beat", slow_beat)
    monkeypatch.setattr(here, "leave", lambda: said.append("left"))

    with together(ON_TWO_NODES):
        assert beating.wait(5)

    assert ["beat", "left"] == said[-2:]
    assert "peers" not in {thread.name for thread in threading.enumerate()}


def test_on_one_node_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher sees its own processes end."""
    monkeypatch.setattr(peers, "meet", None)

    with together(Processes(0, 2, 0, torch.device("cpu"))):
        pass
