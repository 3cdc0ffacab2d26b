"""What a running training tells about its best step."""

import logging

import pytest

from charalora_trainer.console import SilentConsole
from charalora_trainer.history import History
from charalora_trainer.metrics import Metrics
from charalora_trainer.stages.best_so_far import BestSoFar


class Listening(SilentConsole):
    """A console that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        """Remember it."""
        self.said.append(sentence)


def history(*losses: float) -> History:
    """Saves every hundred steps, measured twice each."""
    saves = tuple((100 * (number + 1), loss) for number, loss in enumerate(losses))
    return History(held_out=saves, measurements=tuple((step, (loss - 0.001, loss + 0.001)) for step, loss in saves))


def test_learning_by_heart_is_told_once_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    """At the second save above the best one; in the log, on the console and as a figure."""
    console, metrics, losses = Listening(), Metrics(), (0.3, 0.1, 0.15, 0.16, 0.17)
    best = BestSoFar(metrics, console)

    with caplog.at_level(logging.WARNING):
        flags = []
        for saves in range(1, len(losses) + 1):
            best.tell(history(*losses[:saves]))
            flags.append(metrics.value("overfitting"))

    assert [0, 0, 0, 1, 1] == flags
    assert (200, 0.1, 0.17) == tuple(metrics.value(name) for name in ("best_step", "best_held_out_loss", "held_out_loss"))
    assert ["Since step 200 the pictures are being learned by heart: the held-out loss rises. Training goes on."] == console.said
    assert ["Overfitting began, the held-out loss rises"] == [record.message for record in caplog.records]


def test_a_new_lowest_loss_takes_it_back_and_it_may_begin_again() -> None:
    """Every beginning is told."""
    console, metrics = Listening(), Metrics()
    best = BestSoFar(metrics, console)
    for losses in ((0.1, 0.2, 0.2), (0.1, 0.2, 0.2, 0.05), (0.1, 0.2, 0.2, 0.05, 0.2, 0.2)):
        best.tell(history(*losses))

    assert ["Since step 100", "Since step 400"] == [said.partition(" the")[0] for said in console.said]
    assert 400 == metrics.value("best_step")


def test_nothing_is_told_where_nothing_was_held_out() -> None:
    """No figure is better than a wrong one."""
    metrics = Metrics()

    BestSoFar(metrics, Listening()).tell(History(losses=((1, 0.5),)))

    assert metrics.value("best_step") is None
    assert metrics.value("overfitting") is None
