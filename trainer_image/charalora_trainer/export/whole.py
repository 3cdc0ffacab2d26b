"""Writing a file so that a reader, and a crash at any moment, finds the old one or the new one, never a part."""

from pathlib import Path

from charalora_trainer.storage.faults import naming_disk_faults
from charalora_trainer.storage.wholefile import to_disk, whole_file


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path`, and on the disk before this returns.

    Raises:
        TrainingError: `DiskFull` when there is no room; nothing is left behind then.
    """
    with naming_disk_faults(f"Writing {path}"), whole_file(path) as draft:
        draft.write_bytes(data)
        to_disk(draft)
