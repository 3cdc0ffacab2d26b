"""A process of a training among several: what it leaves for the one that started it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer import logs, worker
from charalora_trainer.failures import known_failure
from charalora_trainer.job import Job, Workspace
from charalora_trainer.peers import PartnersLostError
from charalora_trainer.processes import Processes


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A worker that has nothing to read and nobody to meet."""
    monkeypatch.setattr(Job, "read", lambda _: None)
    monkeypatch.setattr(Processes, "join", lambda: Processes(0, 2, 0, torch.device("cpu")))
    monkeypatch.setattr(logs, "configure_from", lambda _: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Workspace(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def ending(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, error: BaseException) -> int:
    def learn(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "learn", learn)
    return worker.main(workspace)


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (Outcome.CUDA_OUT_OF_MEMORY, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        (Outcome.HOST_OUT_OF_MEMORY, MemoryError()),
        (Outcome.STORAGE_UNREACHABLE, TrainingError(Outcome.STORAGE_UNREACHABLE, "No answer.")),
        (Outcome.INTERRUPTED, KeyboardInterrupt()),
    ],
)
def test_a_reason_is_left_behind(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, expected: Outcome, error: BaseException) -> None:
    """The launcher returns 1 for every failure, so the reason takes this way, and the exit code agrees with it."""
    assert expected.exit_code == ending(monkeypatch, workspace, error)
    assert expected.reason == json.loads(workspace.outcome.read_text())["reason"]


def test_the_first_reason_counts(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    """What follows from a partner's end is not the cause, known or not, and makes no traceback."""
    ending(monkeypatch, workspace, MemoryError())

    assert Outcome.INTERRUPTED.exit_code == ending(monkeypatch, workspace, KeyboardInterrupt())
    assert 1 == ending(monkeypatch, workspace, RuntimeError("Connection closed by peer"))
    assert Outcome.HOST_OUT_OF_MEMORY.reason == json.loads(workspace.outcome.read_text())["reason"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_comes_on_the_way_out_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, stop: signal.Signals
) -> None:
    """The launcher stops the others when one has failed, and they may be through by then: a stop in a finalizer leaves a traceback."""
    ending(monkeypatch, workspace, PartnersLostError())

    signal.raise_signal(stop)


def test_what_nobody_foresaw_is_shown(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    """With its traceback, and no reason is made up for it."""
    with pytest.raises(RuntimeError, match="shape mismatch"):
        ending(monkeypatch, workspace, RuntimeError("shape mismatch"))

    assert not workspace.outcome.exists()


def stopped_while_tidying() -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise ValueError("I/O operation on closed file")


def test_an_error_in_tidying_after_a_stop_is_the_stop() -> None:
    """SIGTERM may hit any line, and what was half done there fails next."""
    with pytest.raises(ValueError, match="closed") as caught:
        stopped_while_tidying()

    known = known_failure(caught.value)

    assert known is not None
    assert Outcome.INTERRUPTED is known.outcome
