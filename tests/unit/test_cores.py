"""How many cores a process may use: what its control groups say, in both versions, before what the machine has."""

import os
from pathlib import Path

import pytest

from charalora_trainer.cores import available_cores

MACHINE = len(os.sched_getaffinity(0))


def groups(tmp_path: Path, own: str, **files: str) -> tuple[Path, Path]:
    """A cgroup file system; `__` in a name is `/`."""
    for name, content in files.items():
        file = tmp_path / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    (tmp_path / "own").write_text(own + "\n")
    return tmp_path / "cgroup", tmp_path / "own"


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", {"cpu_dot_max": "100000 100000"}),
        ("0::/", {"cpu_dot_max": "50000 100000"}),
        ("0::/a/b", {"a__cpu_dot_max": "150000 100000", "a__b__cpu_dot_max": "max 100000"}),
        ("1:cpu,cpuacct:/\n0::/", {"cpu__cpu_dot_cfs_quota_us": "100000", "cpu__cpu_dot_cfs_period_us": "100000"}),
        ("1:cpu:/x", {"cpu__x__cpu_dot_cfs_quota_us": "20000", "cpu__x__cpu_dot_cfs_period_us": "100000"}),
    ],
)
def test_a_limit_of_one_core_or_less_is_one_core(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    """Of a container's own group, of a group above, in version 1 and in version 2."""
    assert 1 == available_cores(*groups(tmp_path, own, **files))


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", {"cpu_dot_max": "max 100000"}),
        ("0::/", {"cpu_dot_max": "99900000 100000"}),
        ("1:cpu:/", {"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}),
        ("1:memory:/x", {"memory__x__cpu_dot_cfs_quota_us": "20000"}),
    ],
)
def test_without_a_lower_limit_it_is_what_the_machine_gives(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    """No limit, a high one, or one that is not about processors."""
    assert MACHINE == available_cores(*groups(tmp_path, own, **files))


def test_where_there_are_no_control_groups_it_is_what_the_machine_gives(tmp_path: Path) -> None:
    """Not every machine is a Linux."""
    assert MACHINE == available_cores(tmp_path / "none", tmp_path / "nothing")
