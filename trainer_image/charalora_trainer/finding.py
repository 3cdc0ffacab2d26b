"""What a check found wrong, or worth knowing, before a GPU is claimed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from charalora_spec.outcome import Outcome

NAMED_FILES = 10
"""A finding names this many files; its count says how many there are."""


@dataclass(frozen=True)
class Finding:
    """One problem, with what to do about it.

    Attributes:
        outcome: The reason that users see when the run stops for it.
        message: One sentence: what is wrong and what to do.
        files: The first of the files concerned, at most ten.
        count: How many files are concerned; 0 where it is not about files.
        stops: Whether training must not start; otherwise it is a warning.
    """

    outcome: Outcome
    message: str
    files: tuple[str, ...] = ()
    count: int = 0
    stops: bool = True

    @property
    def text(self) -> str:
        """The message with the files it names: `Captions without a picture (2): add the pictures, … [a.txt, b.txt]`."""
        if not self.files:
            return self.message
        more = f", and {self.count - len(self.files)} more" if self.count > len(self.files) else ""
        return f"{self.message} [{', '.join(self.files)}{more}]"

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {
            "reason": self.outcome.reason,
            "message": self.message,
            "files": list(self.files),
            "count": self.count,
            "stops": self.stops,
        }


def about_files(files: Iterable[str], what: str, remedy: str, *, stops: bool = True) -> list[Finding]:
    """A finding about files of the data set, `what (count): remedy.`; none where there are none."""
    names = sorted(files)
    if not names:
        return []
    shown = tuple(printable(name) for name in names[:NAMED_FILES])
    return [Finding(Outcome.DATASET_INVALID, f"{what} ({len(names)}): {remedy}.", shown, len(names), stops)]


def printable(name: str) -> str:
    """A file name as it may stand in a message: control characters and lone surrogates escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)
