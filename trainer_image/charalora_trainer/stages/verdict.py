"""Which step to take, and why, in a sentence that an artist can check against the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from charalora_spec.spec import Keep
from charalora_trainer.best import choose, overfitting_since
from charalora_trainer.history import History


@dataclass(frozen=True)
class Verdict:
    """The step that the figures speak for.

    Attributes:
        step: One of the saves.
        measured: Whether held-out pictures chose it; otherwise it is the last one.
        why: A sentence or two.
        published: The step whose files are in civitai/.
    """

    step: int
    measured: bool
    why: str
    published: int


def verdict(history: History, saves: Sequence[int], keep: Keep) -> Verdict | None:
    """What the held-out losses say; None before the first save."""
    if not saves:
        return None
    published = choose(history, keep, saves[-1]).step
    if history.best is None:
        why = "It is the last one. No picture was held out, so no figure tells which step is best: compare the pictures."
        return Verdict(saves[-1], measured=False, why=why, published=published)
    step, lowest = history.best
    lowest_of_all = f"Its loss on the held-out pictures, which training never saw, is the lowest of all saves ({lowest:.4f})."
    return Verdict(step, measured=True, why=f"{lowest_of_all} {_afterwards(history, step)}", published=published)


def _afterwards(history: History, best: int) -> str:
    """What became of the held-out loss after its lowest value."""
    last, at_end = history.held_out[-1]
    if best == last:
        return (
            "It was still falling at the end: more steps may do better." if len(history.held_out) > 1 else "There is no other to compare."
        )
    if overfitting_since(history) is not None:
        return f"Until step {last} it rose to {at_end:.4f}, by more than chance explains: the pictures were being learned by heart."
    return f"At step {last} it is {at_end:.4f}."
