"""The program's edge: runs a command, tells how it ended, and returns its exit code. The only place that catches everything."""

import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click

from charalora_spec.outcome import Outcome, TrainingError, termination_message
from charalora_spec.software import OPERATOR_VERSION, beside
from charalora_trainer import logs
from charalora_trainer.cli.ending import Ending
from charalora_trainer.cli.main import charalora
from charalora_trainer.failures import interrupted, known_failure

TERMINATION_LOG = "CHARALORA_TERMINATION_LOG"
"""Environment variable: the file in which a container leaves how it ended."""

logger = logging.getLogger("charalora_trainer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; without arguments, the process's own. The exit code is the outcome's."""
    asked = obey_stops()
    known_so_far: dict[str, Any] = {}  # how far a training got: click hands it to the command, which fills it, however it ends
    try:
        result = charalora.main(arguments, prog_name="charalora", standalone_mode=False, obj=known_so_far)
    except click.ClickException as error:
        if not _other_operator():
            error.show()
            return error.exit_code
        return told(Ending(Outcome.SPEC_INVALID, f"{error.format_message()} {_other_operator()}"))
    except (KeyboardInterrupt, click.Abort):
        return told(Ending.by(interrupted(), known_so_far))
    except Exception as error:  # noqa: BLE001 - the edge
        # Native code that a stop hits may swallow it and raise something of its own.
        known = known_failure(error) or (interrupted() if asked else None)
        if known is not None and known.outcome is Outcome.SPEC_INVALID:
            known = TrainingError(known.outcome, f"{known.message} {_other_operator()}".rstrip())
        return told(Ending.by(known, known_so_far) if known else replace(unforeseen(error), details=known_so_far))
    return told(result) if isinstance(result, Ending) else 0


def obey_stops() -> list[int]:
    """End by an exception at SIGTERM, like at Ctrl-C; the signals that came, as they come. The training loop takes over while it runs."""
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        sys.unraisablehook = _stop_again
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    return asked


def _stop_again(ignored: "sys.UnraisableHookArgs") -> None:
    """A stop that met a finalizer, which no exception leaves, comes once more when that is through."""
    if ignored.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    else:
        sys.__unraisablehook__(ignored)


def _other_operator() -> str:
    """What explains a command or a resource that cannot be read: another version's operator gave it."""
    return beside(os.environ.get(OPERATOR_VERSION, ""))


def told(ending: Ending) -> int:
    """Say how it ended, to people and to the container's owner; the exit code."""
    if ending.outcome is not Outcome.SUCCEEDED:
        as_json = os.environ.get(logs.ENV_JSON) == "1"
        for line in ending.lines:
            click.echo(logs.spoken(line, "ERROR", reason=ending.outcome.reason) if as_json else logs.safe(line), err=True)
    if path := os.environ.get(TERMINATION_LOG):
        Path(path).write_text(termination_message(ending.outcome, logs.safe(ending.message), ending.details), encoding="utf-8")
    return ending.outcome.exit_code if ending.outcome.exit_code is not None else 1


def unforeseen(error: Exception) -> Ending:
    """A line for an error that nobody foresaw; its traceback goes to the log in a container, else to a file that the line names."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    if os.environ.get(TERMINATION_LOG) or logger.isEnabledFor(logging.DEBUG):
        logger.error("Unforeseen error", exc_info=error)
        return Ending(Outcome.INTERNAL_ERROR, f"{line}; the traceback is in the log.")
    with tempfile.NamedTemporaryFile("w", prefix="charalora-error-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return Ending(Outcome.INTERNAL_ERROR, f"{line}; please report it with {file.name}.")


if __name__ == "__main__":
    sys.exit(main())
