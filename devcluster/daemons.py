"""Long-lived processes, each in a control group of its own.

A daemon runs when its control group holds its process. That is so after a crash of whoever started it, and no process number is ever
mistaken for another one: what belongs to the cluster is what stands in its control groups, and nothing else is ended.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from layout import NAME, ClusterError

_MOUNT = Path("/sys/fs/cgroup")
_ENDING_SECONDS = 20.0
# The shell enters the group before it becomes the daemon, so that no child is ever outside.
_ENTER = 'echo $$ > "$0" && exec "$@"'


def roots() -> list[Path]:
    """The control group of the cluster in each hierarchy; one for the unified hierarchy."""
    if (_MOUNT / "cgroup.controllers").exists():
        return [_MOUNT / NAME]
    return [path / NAME for path in sorted(_MOUNT.iterdir()) if path.is_mount()]


def make_group(name: str) -> None:
    """Make a control group in every hierarchy, as a kubelet wants its root."""
    for root in roots():
        group = root
        for part in ("", *Path(name).parts):
            group /= part
            group.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):  # an empty one takes no process
                if root.parent != _MOUNT and (group / setting).exists() and not (group / setting).read_text().strip():
                    (group / setting).write_text((group.parent / setting).read_text())


def start(name: str, command: Sequence[str | Path], log: Path, program: str = "") -> None:
    """Start a daemon in the group `name` unless it runs; its output goes to `log`. `program` tells it from its children there."""
    if running(name, program or Path(command[0]).name):
        return
    group = _home() / name
    group.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        subprocess.Popen(
            ["sh", "-c", _ENTER, group / "cgroup.procs", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def running(name: str, program: str) -> int:
    """Process number of the daemon in the group `name`, 0 when it does not run."""
    for process in _processes(_home() / name):
        try:
            if Path(f"/proc/{process}/exe").readlink().name.removesuffix(" (deleted)") == program:
                return process
        except OSError:  # it has just ended
            continue
    return 0


def kill(name: str = "") -> None:
    """End every process in the group `name` and below, in all hierarchies, as a power cut does: none sees another one end.

    Raises:
        ClusterError: One did not end.
    """
    until = time.monotonic() + _ENDING_SECONDS
    while processes := {process for root in roots() for process in _processes(root / name)}:
        if time.monotonic() > until:
            raise ClusterError(f"These processes did not end: {sorted(processes)}.")
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, number)
        time.sleep(0.05)


def remove_groups(name: str = "") -> None:
    """Remove the control group `name` and all below, in every hierarchy; they hold no process any more."""
    for root in roots():
        for folder, _, _ in os.walk(root / name, topdown=False):
            Path(folder).rmdir()


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 120, hint: str = "") -> None:
    """Wait until something is so.

    Raises:
        ClusterError: It took too long.
    """
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise ClusterError(f"{what} did not come within {seconds:.0f} s. {hint}".strip())
        time.sleep(0.1)


def _home() -> Path:
    """The hierarchy in which daemons are looked for; `pids` where there are several, because it limits nothing."""
    return (_MOUNT if (_MOUNT / "cgroup.controllers").exists() else _MOUNT / "pids") / NAME


def _processes(group: Path) -> Iterator[int]:
    for file in group.glob("**/cgroup.procs"):
        try:
            yield from map(int, file.read_text().split())
        except OSError:  # the group has just gone
            continue
