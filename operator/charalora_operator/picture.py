"""What is made of an observation, before it is put into words."""

from dataclasses import dataclass

from charalora_operator.attempts import Attempt
from charalora_operator.endings import End
from charalora_operator.waiting import Waiting


@dataclass(frozen=True)
class Picture:
    """What was made of an observation.

    Attributes:
        attempts: The attempts that the cluster still knows of, oldest first.
        checked: How the check ended, where it was looked at.
        waiting: What keeps the training from running, if anything does.
        ended: How the training ended for good; None while it goes on.
    """

    attempts: tuple[Attempt, ...] = ()
    checked: End | None = None
    waiting: Waiting | None = None
    ended: End | None = None

    @property
    def current(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None
