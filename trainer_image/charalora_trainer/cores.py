"""How many CPU cores this process may use: in a container fewer than the machine has."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Whole cores that the process's affinity and the CPU limits of the control groups above it leave; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([affinity, *_limits(cgroups, own)])))


def _limits(cgroups: Path, own: Path) -> Iterator[float]:
    """Cores by each control group's limit, in both versions' files. A container sees its own group as the root, a service a path to it."""
    for root, path in _groups(cgroups, own):
        for group in (root / path, *(root / parent for parent in path.parents)):
            unified, quota = _read(group / "cpu.max").split(), _read(group / "cpu.cfs_quota_us")
            if len(unified) == 2 and unified[0] != "max":
                yield int(unified[0]) / int(unified[1])
            if quota and int(quota) > 0:
                yield int(quota) / int(_read(group / "cpu.cfs_period_us"))


def _groups(cgroups: Path, own: Path) -> Iterator[tuple[Path, Path]]:
    """The folders of the CPU controller, and where this process is in each: lines are `number:controllers:path`."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield cgroups, Path(path.lstrip("/"))
        elif "cpu" in controllers.split(","):
            yield cgroups / "cpu", Path(path.lstrip("/"))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:  # not this version of control groups, or no limit at the root
        return ""
