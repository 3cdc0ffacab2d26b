"""Which keys may become file names. A bucket's keys are input from outside, and a file name must never lead out of its folder."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator

from charalora_spec.outcome import Outcome, TrainingError

NAMED_KEYS = 10
_KEY_BYTES = 1024  # S3's own limit
_PART_BYTES = 255  # what file systems take

_PROBLEMS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("is empty", lambda key: not key),
    ("has a control character", lambda key: any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in key)),
    (f"is longer than {_KEY_BYTES} bytes", lambda key: len(key.encode()) > _KEY_BYTES),
    ("has a backslash", lambda key: "\\" in key),
    ("is an absolute path", lambda key: key.startswith("/")),
    ("has a part '.' or '..'", lambda key: bool({".", ".."} & set(key.split("/")))),
    ("has an empty part", lambda key: "" in key.split("/")),
    (f"has a part of more than {_PART_BYTES} bytes", lambda key: any(len(part.encode()) > _PART_BYTES for part in key.split("/"))),
)


def refuse_hostile(key: str) -> None:
    """Make sure that `key`, joined to a folder, names a file below that folder.

    Raises:
        TrainingError: `DatasetInvalid`, saying what is wrong with the key.
    """
    if problem := problem_of(key):
        raise TrainingError(Outcome.DATASET_INVALID, f"The key {shown(key)} {problem}; rename the object.")


def refuse_hostile_keys(keys: Iterable[str]) -> None:
    """Make sure that all `keys` can stand side by side in one folder on any machine.

    Raises:
        TrainingError: `DatasetInvalid`, naming up to ten keys and the count.
    """
    everything = list(keys)
    problems = [f"{shown(key)} {problem}" for key in everything if (problem := problem_of(key))]
    problems += collisions(key for key in everything if not problem_of(key))
    if problems:
        more = f"; and {len(problems) - NAMED_KEYS} more" if len(problems) > NAMED_KEYS else ""
        raise TrainingError(
            Outcome.DATASET_INVALID,
            f"Keys that cannot become files ({len(problems)}): {'; '.join(problems[:NAMED_KEYS])}{more}. Rename these objects.",
        )


def problem_of(key: str) -> str | None:
    """What makes `key` unfit for a file name, or None."""
    return next((problem for problem, found_in in _PROBLEMS if found_in(key)), None)


def collisions(keys: Iterable[str]) -> Iterator[str]:
    """Pairs that would be one file, or a file and a folder of one name, where names ignore case or are normalised."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for key in sorted(keys):
        name = _alike(key)
        if name in files:
            yield f"{shown(key)} and {shown(files[name])} differ only in case or in how letters are encoded"
        files.setdefault(name, key)
        while "/" in name:
            name = name.rpartition("/")[0]
            folders.setdefault(name, key)
    for name in files.keys() & folders.keys():
        yield f"{shown(files[name])} is a file, and {shown(folders[name])} needs a folder of that name"


def shown(key: str) -> str:
    """The key as it may stand in a message: quoted, shortened, control characters escaped."""
    return repr(key if len(key) <= 100 else key[:99] + "…")


def _alike(key: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())
