"""How a command ended, for the program's edge to tell."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from charalora_spec.outcome import Outcome, TrainingError

MESSAGE_BYTES = 2800
"""Of the termination message, for the sentences; the rest is left for the figures beside them."""
WARNING_BYTES = 800


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
    def by(cls, error: TrainingError, details: Mapping[str, Any] | None = None) -> Self:
        """A failure; the lines below the first of its message are its problems."""
        summary, *problems = error.message.splitlines() or [error.outcome.meaning]
        return cls(error.outcome, summary.rstrip(": "), tuple((error.outcome, problem.strip()) for problem in problems), details or {})

    @property
    def lines(self) -> list[str]:
        """For people: a line for each problem, the summary last."""
        return [f"charalora: {reason.reason}: {text}" for reason, text in (*self.problems, (self.outcome, self.summary))]

    @property
    def message(self) -> str:
        """For a status: everything in one line, problems as far as there is room; the rest is counted."""
        texts = [text for _, text in self.problems]
        told = fitting(texts, MESSAGE_BYTES - size(self.summary))
        left = len(texts) - len(told)
        return " ".join([self.summary, *told, *([f"And {left} more; see the log."] if left else [])])


def fitting(sentences: Sequence[str], room: int) -> list[str]:
    """The first of the sentences that take at most `room` bytes of JSON together."""
    told: list[str] = []
    for sentence in sentences:
        room -= size(sentence)
        if room < 0:
            break
        told.append(sentence)
    return told


def size(text: str) -> int:
    """Bytes that a text takes in a JSON document, the comma behind it included."""
    return len(json.dumps(text, ensure_ascii=False).encode()) + 2
