"""How a command ended, for the program's edge to tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from charalora_spec.outcome import Outcome, TrainingError


@dataclass(frozen=True)
class Ending:
    """What a command that a Job may run hands to `__main__`.

    Attributes:
        outcome: Decides the exit code.
        summary: One sentence; of a failure: what happened and what to do.
        problems: Several of them, each with its reason, where the summary only counts them.
        details: What the operator copies into the resource's status.
    """

    outcome: Outcome
    summary: str
    problems: tuple[tuple[Outcome, str], ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def by(cls, error: TrainingError) -> Self:
        """A failure; the lines below the first of its message are its problems."""
        summary, *problems = error.message.splitlines() or [error.outcome.meaning]
        return cls(error.outcome, summary.rstrip(": "), tuple((error.outcome, problem.strip()) for problem in problems))

    @property
    def lines(self) -> list[str]:
        """For people: a line for each problem, the summary last."""
        return [f"charalora: {reason.reason}: {text}" for reason, text in (*self.problems, (self.outcome, self.summary))]

    @property
    def message(self) -> str:
        """For a status: everything in one line."""
        return " ".join([self.summary, *(text for _, text in self.problems)])
