"""What measurements depend on beside the code: the machine and the commit; and where what was measured is kept."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WORKER = {
    # One thread each: two processes whose threads wait for each other on the same cores are ten times as slow.
    "OMP_NUM_THREADS": "1",
    # glibc gives large blocks back to the system and asks for them again at every step, which costs a fifth of the time.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "34359738368",
    "MALLOC_TOP_PAD_": "268435456",
}
"""What the environment of processes must say before they start, of which several measure at the same time."""


def described() -> str:
    """Processor, cores, system and Python."""
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def processor() -> str:
    """As the kernel names it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def commit() -> str:
    """Of this checkout, and whether it was changed since."""
    found = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no commit"


def today() -> str:
    """The date, the same everywhere on earth."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def cache_folder(name: str) -> Path:
    """Where a measurement that was interrupted finds what is done: $CHARALORA_CACHE/<name>."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("CHARALORA_CACHE") or cache / "charalora") / name
