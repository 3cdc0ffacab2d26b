"""What browsers are told that an object is: a page is shown, pictures and texts as well, everything else is saved."""

from pathlib import PurePosixPath

_TEXT = "text/plain; charset=utf-8"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".jsonl": _TEXT,
    ".log": _TEXT,
    ".md": _TEXT,
    ".png": "image/png",
    ".txt": _TEXT,
    ".yaml": _TEXT,
}


def content_type(key: str) -> str:
    """The media type for a key, by its ending; not by the machine's own table, which differs between images."""
    return _TYPES.get(PurePosixPath(key).suffix.lower(), "application/octet-stream")
