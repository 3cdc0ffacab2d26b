"""What comes from Debian: installed where it is absent, and only as root on Debian."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from layout import ClusterError

_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "curl": "curl",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "prometheus": "prometheus",
    "chromium": "chromium",
    "promtool": "prometheus",
    "faketime": "faketime",
}
_LOCK = Path(tempfile.gettempdir()) / "charalora-packages.lock"


def need(*programs: str) -> None:
    """Make sure that these programs are there.

    Raises:
        ClusterError: One is missing and cannot be installed here.
    """
    if all(map(shutil.which, programs)):
        return
    with _LOCK.open("w") as lock:  # apt-get refuses to run twice at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(programs)


def _install(programs: Sequence[str]) -> None:
    missing = [_PACKAGES[program] for program in programs if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        raise ClusterError(f"The development cluster needs {', '.join(programs)}; on Debian: apt-get install {' '.join(missing)}.")
    print(f"Installing Debian's {', '.join(missing)}.", file=sys.stderr, flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *command], env=quiet, check=False, capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"apt-get {command[0]} failed: {(done.stderr or done.stdout).strip()[-1000:]}")


def need_root() -> None:
    """Make sure that nodes can be started here.

    Raises:
        ClusterError: They cannot.
    """
    if os.geteuid() != 0:
        raise ClusterError("The development cluster's nodes start containers: run this as root.")
