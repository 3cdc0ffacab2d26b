"""The development cluster's machine from below: processes of pods, kubelets and API server, and the nodes' power."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from target import DEVCLUSTER

_GROUPS = Path("/sys/fs/cgroup")
_PROCESSES = "cgroup.procs"


def power(what: str, node: str) -> None:
    """`kill` a node or `start` it."""
    _cluster("node", what, node)


def repair() -> None:
    """Start again what was killed of the control plane."""
    _cluster("repair")


def kubelet_of(facts: Mapping[str, Any], node: str) -> int:
    """The process of a node's kubelet; `facts` are what `cluster.py status --json` says."""
    return _only_one(f"--root-dir={Path(facts['logs']) / node / 'kubelet'} ")


def api_server_of(facts: Mapping[str, Any]) -> int:
    """The process of the API server."""
    return _only_one(f"kube-apiserver .*--token-auth-file={Path(facts['logs']) / 'control-plane/tokens.csv'}")


def processes_of(pod: Mapping[str, Any]) -> list[int]:
    """Every process of a pod, by its control groups."""
    return processes_by_pod().get(str(pod["metadata"]["uid"]), [])


def processes_by_pod() -> dict[str, list[int]]:
    """The processes of every pod of this machine, by the pod's uid."""
    found: dict[str, set[int]] = {}
    for folder, _, files in os.walk(_GROUPS):  # unlike a glob it passes over a group that goes meanwhile
        uid = next((part.removeprefix("pod") for part in Path(folder).parts if part.startswith("pod") and part.count("-") == 4), "")
        if not uid or _PROCESSES not in files:
            continue
        try:
            numbers = {int(number) for number in Path(folder, _PROCESSES).read_text().split()}
        except OSError:  # the pod has just gone
            continue
        if numbers:
            found.setdefault(uid, set()).update(numbers)
    return {uid: sorted(numbers) for uid, numbers in found.items()}


def send(number: signal.Signals, *processes: int) -> None:
    """A signal to processes that may have ended."""
    for process in processes:
        if alive(process):
            os.kill(process, number)


def alive(process: int) -> bool:
    """Whether a process has not ended."""
    return Path(f"/proc/{process}").exists()


def _cluster(*arguments: str) -> None:
    done = subprocess.run([sys.executable, DEVCLUSTER / "cluster.py", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"cluster.py {' '.join(arguments)}: {done.stderr}"


def _only_one(pattern: str) -> int:
    found = subprocess.run(["pgrep", "--full", "--", pattern], check=True, capture_output=True, text=True)
    return int(found.stdout.split()[0])
