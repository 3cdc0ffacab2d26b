"""Logs: a constant sentence and its fields, as one readable line or as one JSON object for machines.

Only the program's edges call `configure`: the command line and the workers of a training.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

OURS = ("charalora_trainer", "charalora_spec")
ENV_LEVEL = "CHARALORA_LOG_LEVEL"
ENV_JSON = "CHARALORA_LOG_JSON"
ENV_FIELDS = "CHARALORA_LOG_FIELDS"
"""Environment variable: fields of every line on stderr, such as `namespace=artists name=surtr attempt=1`; the operator sets it in pods."""

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_PLAIN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What the caller gave as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _PLAIN_ATTRIBUTES}


def safe(text: str) -> str:
    """The text without the secrets that this process was given, whoever put them there: a library's message may quote an address."""
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        text = text.replace(secret, "…")
    return _PASSWORD.sub("…", text)


class ReadableFormatter(logging.Formatter):
    """`2026-11-22 23:20:04 INFO Training blocked reason=DatasetInvalid`: one line, a traceback below it if there is one."""

    def __init__(self, everywhere: Mapping[str, object] | None = None) -> None:
        """With fields for every line."""
        super().__init__()
        self._everywhere = everywhere or {}

    def format(self, record: logging.LogRecord) -> str:
        """One record as text; line breaks inside a value are shown, not made."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        pairs = (f"{key}={_shown(value)}" for key, value in {**self._everywhere, **fields_of(record)}.items())
        line = " ".join((time, record.levelname, *_one_line(record.getMessage()), *pairs))
        return safe(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields beside `time`, `level`, `logger` and `message`."""

    def __init__(self, everywhere: Mapping[str, object] | None = None) -> None:
        """With fields for every line."""
        super().__init__()
        self._everywhere = everywhere or {}

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON; a field never replaces one of the four fixed keys."""
        fixed: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fixed["traceback"] = self.formatException(record.exc_info)
        return safe(json.dumps({**self._everywhere, **fields_of(record), **fixed}, ensure_ascii=False, default=str))


def spoken(sentence: str, level: str = "INFO", **fields: object) -> str:
    """What a command says to people, as the JSON line that it is where people do not read along."""
    record = {"name": "charalora_trainer", "levelname": level, "msg": sentence, **fields}
    return JsonFormatter(_everywhere(os.environ)).format(logging.makeLogRecord(record))


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at that moment, so that a line lands above a progress bar and not inside it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The present stderr."""
        return sys.stderr


def keep_in(path: Path) -> logging.Handler:
    """Append our lines from INFO on to a file, until `leave_off`; stderr shows what it did before."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setLevel(logging.INFO)
    handler.setFormatter(ReadableFormatter())
    for logger in map(logging.getLogger, OURS):
        logger.addHandler(handler)
        logger.setLevel(min(logging.INFO, logger.level or logging.INFO))
    return handler


def leave_off(handler: logging.Handler) -> None:
    """End what `keep_in` began."""
    for logger in map(logging.getLogger, OURS):
        logger.removeHandler(handler)
    handler.close()


def configure(level: str = "WARNING", *, as_json: bool = False) -> None:
    """Send our lines from `level` on and other libraries' warnings to stderr.

    Other libraries stay at WARNING whatever the level: their debug lines may hold request headers.
    """
    on_stderr = StderrHandler()
    on_stderr.setLevel(level)
    on_stderr.setFormatter((JsonFormatter if as_json else ReadableFormatter)(_everywhere(os.environ)))
    logging.basicConfig(level=logging.WARNING, handlers=[on_stderr], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(min(logging.INFO, logging.getLevelNamesMapping()[level]))
    logging.captureWarnings(capture=True)


def configure_from(environ: Mapping[str, str]) -> None:
    """As the command line that started this process was told to log."""
    configure(environ.get(ENV_LEVEL, "WARNING"), as_json=environ.get(ENV_JSON) == "1")


def _everywhere(environ: Mapping[str, str]) -> dict[str, object]:
    pairs = (pair.partition("=") for pair in environ.get(ENV_FIELDS, "").split())
    return {name: int(value) if value.isdigit() and name == "attempt" else value for name, _, value in pairs}


def _one_line(text: str) -> list[str]:
    """A message without line breaks; nothing of an empty one."""
    return [" ".join(text.splitlines())] if text else []


def _shown(value: object) -> str:
    """A value as typed, in quotes where it has spaces or control characters."""
    text = str(value)
    return json.dumps(text, ensure_ascii=not text.isprintable()) if not text or not text.isprintable() or " " in text else text
