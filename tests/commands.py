"""A command of `charalora` to its end, without a bucket."""

import os
from itertools import count
from pathlib import Path

from trainings import Ended, Running


def charalora(folder: Path, *arguments: str, **environment: str) -> Ended:
    """A command in a process of its own; its cache and what it prints are in `folder`."""
    place = next(place for number in count() if not (place := folder / f"command-{number}").exists())
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CHARALORA_"))}
    return Running(arguments, variables | {"CHARALORA_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"} | environment, place).wait()
