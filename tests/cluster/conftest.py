"""The cluster of these tests: `cluster`, for the whole session.

It is the one that `CLUSTER=<kubeconfig>` names; else the development cluster of this machine, which is started when it does not run, and
then ended with the tests.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from cluster_runs import Place, own_place
from target import Target, open_target
from tiny_model import tiny_files

ROOT = Path(__file__).resolve().parent.parent.parent
DEVCLUSTER = ROOT / "devcluster/cluster.py"
_USERS = Path("/run/lock/charalora-devcluster-users")


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers.

    Attributes:
        facts: What `cluster.py status --json` says; empty for a cluster that CLUSTER names.
    """

    kubeconfig: Path
    facts: dict[str, Any] = field(repr=False)

    def kubectl(self, *arguments: str, content: object = None, check: bool = True) -> str:
        """What kubectl prints; `content` goes to its input as JSON."""
        done = subprocess.run(
            [program("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=None if content is None else json.dumps(content),
            check=False,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """An object, or a list of them."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))


def program(name: str) -> str:
    """Path of a program of the development cluster, built where it is missing."""
    return subprocess.run(
        [sys.executable, ROOT / "devcluster/binaries.py", name], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def devcluster(*arguments: str) -> str:
    """What a command of the development cluster prints; its error is the test's."""
    done = subprocess.run([sys.executable, DEVCLUSTER, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"cluster.py {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster; one that tests had to start is ended by the last test process that uses it."""
    if named := os.environ.get("CLUSTER"):
        yield Cluster(Path(named), {})
        return
    assert os.geteuid() == 0, (
        "The development cluster starts containers: run these tests as root, or name a cluster with CLUSTER=<kubeconfig>."
    )
    with _USERS.open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        ours = not json.loads(devcluster("status", "--json"))["running"]
        if ours:
            devcluster("up")
        facts = json.loads(devcluster("status", "--json"))
        made = Path(facts["logs"]) / "made-by-tests"  # goes with the cluster
        if ours:
            made.touch()
        try:
            yield Cluster(Path(facts["kubeconfig"]), facts)
        finally:
            _end(users, made)


def _end(users: IO[str], made: Path) -> None:
    """End the cluster, if tests have made it and nobody uses it any more."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # the others will see to it: whoever fails to get the lock has lost its own
    if made.exists():
        devcluster("down")


@pytest.fixture(scope="session")
def target(cluster: Cluster) -> Target:
    """The cluster with the operator of this checkout in it, installed by the chart."""
    assert cluster.kubeconfig.exists()
    opened = open_target()
    opened.install()
    return opened


@pytest.fixture(scope="session")
def _tiny_base() -> Mapping[str, bytes]:
    return tiny_files()


@pytest.fixture(scope="session")
def fresh_place(target: Target, _tiny_base: Mapping[str, bytes]) -> Callable[[], AbstractContextManager[Place]]:
    """Makes a namespace with credentials, and a bucket with a base model and a data set; both go at the end of the `with`."""

    def make() -> AbstractContextManager[Place]:
        return own_place(target, _tiny_base)

    return make


@pytest.fixture
def place(fresh_place: Callable[[], AbstractContextManager[Place]]) -> Iterator[Place]:
    """A place of the test's own."""
    with fresh_place() as here:
        yield here


@pytest.fixture(scope="module")
def shared_place(fresh_place: Callable[[], AbstractContextManager[Place]]) -> Iterator[Place]:
    """A place for all tests of a file."""
    with fresh_place() as here:
        yield here
