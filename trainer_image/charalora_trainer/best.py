"""Which step of a training to use and why, and where it began to learn its pictures by heart: pure functions of its history."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from statistics import fmean, stdev

from charalora_spec.spec import Keep
from charalora_trainer.history import History

SAVES_IN_A_ROW = 2
STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Choice:
    """The step that is published.

    Attributes:
        step: Its number.
        held_out_loss: Its loss on the pictures that training never sees; None where that was not measured.
        reason: Why this one, as the end of a sentence that names the step.
    """

    step: int
    held_out_loss: float | None
    reason: str

    def sentence(self, steps: int) -> str:
        """`step 700 of 1000: it has the lowest held-out loss, 0.0510; the last step has 0.0580`."""
        return f"step {self.step} of {steps}: {self.reason}"


def choose(history: History, keep: Keep, steps: int) -> Choice:
    """The step that is published: the best by held-out loss; the last one where nothing was held out or `output.keep` is Last.

    Args:
        history: Of the whole training.
        keep: What the resource asks for.
        steps: Its last step, which is always saved.
    """
    held_out = dict(history.held_out)
    if history.best is None:
        return Choice(steps, None, "it is the last; no pictures were held out to compare steps by")
    step, loss = history.best
    last = held_out.get(steps)
    if step == steps:
        return Choice(steps, loss, f"it has the lowest held-out loss, {loss:.4f}, and is the last")
    if keep is Keep.LAST:
        return Choice(steps, last, f"it is the last, as output.keep asks; step {step} has the lowest held-out loss, {loss:.4f}")
    compared = "" if last is None else f"; the last step has {last:.4f}"
    return Choice(step, loss, f"it has the lowest held-out loss, {loss:.4f}{compared}")


def overfitting_since(history: History) -> int | None:
    """The step after which the pictures are learned by heart; None as long as nothing says so.

    It is the best one, once the last two saves are both worse by more than twice the standard error of the difference. All saves are
    measured at the same pictures, noises and timesteps, so losses are compared measurement by measurement, which leaves little of the
    noise. A later save that is better than all others takes it back.
    """
    if history.best is None:
        return None
    best, measurements = history.best[0], dict(history.measurements)
    later = [losses for step, losses in history.measurements if step > best]
    if len(later) < SAVES_IN_A_ROW or best not in measurements:
        return None
    return best if all(is_worse(losses, measurements[best]) for losses in later[-SAVES_IN_A_ROW:]) else None


def is_worse(losses: Sequence[float], than: Sequence[float]) -> bool:
    """Whether losses are higher than others of the same measurements by more than chance explains.

    Logarithms are compared, whose mean is that of the held-out loss, a geometric mean.
    """
    if len(losses) != len(than) or len(losses) < 2 or not all((*losses, *than)):
        return False
    differences = [log(one / other) for one, other in zip(losses, than, strict=True)]
    return fmean(differences) > STANDARD_ERRORS * stdev(differences) / sqrt(len(differences))
