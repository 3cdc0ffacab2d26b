"""The index: one page that shows every character of a prefix and links its report."""

from dataclasses import dataclass
from urllib.parse import quote

from charalora_trainer.stages.page import page

FILE = "index.html"


@dataclass(frozen=True)
class Character:
    """One training as its card shows it.

    Attributes:
        folder: Where it lies below the prefix; "" for the prefix itself.
        word: The trigger word.
        saved: Its last save step.
        steps: Those asked for.
        finished: Whether its manifest is there.
        best: (step, held-out loss) of the best step; None where nothing was held out, or nothing is known yet.
        started: When, in ISO form; "" where that is not known yet.
        picture: A data URI, of the step that the figures speak for; "" for none.
        picture_step: Of which step it is.
        report: Where its report is, as seen from the page; "" while there is none.
    """

    folder: str
    word: str
    saved: int
    steps: int
    finished: bool
    best: tuple[int, float] | None = None
    started: str = ""
    picture: str = ""
    picture_step: int = 0
    report: str = ""


@dataclass(frozen=True)
class Unreadable:
    """A folder with a training that cannot be shown, and why."""

    folder: str
    why: str


@dataclass(frozen=True)
class Index:
    """Everything that the page shows: what lies below `uri`, the newest training first."""

    uri: str
    characters: tuple[Character, ...]
    unreadable: tuple[Unreadable, ...]


def link_to(key: str) -> str:
    """A key as a relative link. The `./` keeps a browser from taking a name with a colon for another scheme."""
    return f"./{quote(key)}"


def render(index: Index) -> str:
    """The page, under the same policy as a report."""
    return page("index.html.j2", ("copy.js",), {"index": index})
