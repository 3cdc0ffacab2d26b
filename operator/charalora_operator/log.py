"""The operator's log: one line a decision, a constant sentence and fields. Never a whole object, never a credential."""

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


class _TextFormatter(logging.Formatter):
    """For people: the sentence, then its fields, all in one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_shown(str(value))}" for name, value in record.__dict__.items() if name not in _OWN)
        return f"{super().format(record)}{'  ' + fields if fields else ''}"


def start_log(settings: LogSettings) -> None:
    """Write to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(message)s") if settings.format == "text" else _json())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.INFO if settings.level == "debug" else logging.WARNING)


def about(key: Key, **fields: object) -> Mapping[str, Any]:
    """The fields of a line about one resource."""
    return {"namespace": key.namespace, "resource": key.name, **fields}


def _shown(value: str) -> str:
    return value if value.isprintable() else json.dumps(value)


def _json() -> JsonFormatter:
    names = {"asctime": "time", "levelname": "level"}
    return JsonFormatter("%(asctime)s %(levelname)s %(message)s", rename_fields=names, datefmt="%Y-%m-%dT%H:%M:%S%z")
