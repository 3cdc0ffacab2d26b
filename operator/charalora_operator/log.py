"""The operator's log: one line a decision, a constant sentence and fields. Never a whole object, never a credential.

The fields are those of the trainer's lines: time, level, logger, message, and namespace, name, attempt and reason where they matter.
"""

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from charalora_operator.model import Key
from charalora_operator.settings import LogSettings

_QUIET = ("kopf", "httpx2", "httpcore2", "aiohttp.access", "asyncio")
_OWN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_RESOURCE = "resource"  # `name` in a record is the logger's; in a line it is the resource's


class _TextFormatter(logging.Formatter):
    """For people: the sentence, then its fields, all in one line, a traceback below it if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        given = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        fields = (f"{'name' if name == _RESOURCE else name}={_shown(value)}" for name, value in given.items())
        line = " ".join([self.formatTime(record), record.levelname, record.getMessage(), *fields])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(JsonFormatter):
    """For machines: one object a line."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", _RESOURCE: "name", "exc_info": "traceback"},
            timestamp="time",
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Levels in small letters, as the trainer writes them."""
        return super().process_log_record(log_data | {"level": log_data["level"].lower()})


def start_log(settings: LogSettings) -> None:
    """Write to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter() if settings.format == "text" else _JsonFormatter())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.INFO if settings.level == "debug" else logging.WARNING)


def about(key: Key, **fields: object) -> Mapping[str, Any]:
    """The fields of a line about one resource."""
    return {"namespace": key.namespace, _RESOURCE: key.name, **fields}


def _shown(value: object) -> str:
    """A value as typed, in quotes where it has spaces or line breaks."""
    text = str(value)
    return json.dumps(text, ensure_ascii=not text.isprintable()) if not text or not text.isprintable() or " " in text else text
