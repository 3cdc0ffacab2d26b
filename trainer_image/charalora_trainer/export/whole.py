"""Files that are whole or absent: written beside under another name, then renamed."""

import errno
import os
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path`. A reader, and a crash at any moment, finds the old file or the new one, never a part.

    Raises:
        TrainingError: `DiskFull` when there is no room; nothing is left behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TrainingError(
                Outcome.DISK_FULL, f"There is no room for {path.name} ({len(data)} bytes) in {path.parent}; free some."
            ) from error
        raise
