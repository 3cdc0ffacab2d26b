"""The cluster that demo, tests and benchmarks use: the development cluster of this machine, or the one that CLUSTER names.

With CLUSTER=<kubeconfig> the images are OPERATOR_IMAGE, PREFLIGHT_IMAGE and TRAINER_IMAGE (what a registry has), and the object storage is
what AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say, here and in pods alike. KUBECONFIG alone never chooses a cluster.
"""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).resolve().parent.parent
DEVCLUSTER = ROOT / "devcluster"
CHART = ROOT / "charts" / "charalora"
OPERATOR_NAMESPACE = "charalora-system"
_LOCK = Path(tempfile.gettempdir()) / "charalora-helm.lock"
_IMAGES = ("operator", "preflight", "trainer")


class TargetError(Exception):
    """The cluster cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Target:
    """A cluster, its object storage and our images.

    Attributes:
        kubeconfig: The way in.
        kubectl: The program.
        helm: The program.
        endpoint: Object storage as this machine reaches it.
        endpoint_in_pods: Object storage as pods reach it.
        access_key: Of an identity that may do everything.
        secret_key: Its secret.
        images: Reference by name: operator, preflight, trainer.
        values: Values for the chart beyond the images.
        prometheus: Where it answers; empty where nobody knows.
        is_ours: Whether it is the development cluster, whose nodes may be killed.
    """

    kubeconfig: Path
    kubectl: str
    helm: str
    endpoint: str
    endpoint_in_pods: str
    access_key: str
    secret_key: str
    images: Mapping[str, str]
    values: tuple[Path, ...] = ()
    prometheus: str = ""
    is_ours: bool = False

    def run(self, *arguments: str, content: str | None = None) -> str:
        """What kubectl prints.

        Raises:
            TargetError: It failed, in its own words.
        """
        return self._program(self.kubectl, *arguments, content=content)

    def run_helm(self, *arguments: str) -> str:
        """What Helm prints.

        Raises:
            TargetError: It failed, in its own words.
        """
        return self._program(self.helm, *arguments)

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object or a list, as kubectl gets it."""
        found: dict[str, Any] = json.loads(self.run("get", *arguments, "-o", "json"))
        return found

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Make objects be so."""
        self.run(
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
            content=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def evict(self, namespace: str, pod: str) -> None:
        """Take a pod away as a drain does, or somebody of more importance."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        self.run("create", "--raw", path, "-f", "-", content=json.dumps(eviction))

    def install(self, *arguments: str, release: str = "charalora", namespace: str = OPERATOR_NAMESPACE, chart: Path = CHART) -> None:
        """Install the chart, or bring it up to date, and wait until the operator is ready."""
        command = ["upgrade", "--install", release, str(chart), "--namespace", namespace, "--create-namespace", "--wait", "--timeout", "5m"]
        for values in self.values:
            command += ["--values", str(values)]
        for name, reference in self.images.items():
            repository, _, tag = reference.rpartition(":")
            # A tag may consist of digits alone, which --set would take for a number; over --set-string no --set of a caller would prevail.
            command += ["--set-json", f"images.{name}.repository={json.dumps(repository)},images.{name}.tag={json.dumps(tag)}"]
        with _LOCK.open("w") as lock:  # Helm refuses a second installation while one is under way
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.is_ours:  # so nobody installs now: what says so was left by one that was killed
                unfinished = f"owner=helm,name={release},status in (pending-install,pending-upgrade,pending-rollback)"
                self.run("delete", "secrets", "--namespace", namespace, "--selector", unfinished)
            self.run_helm(*command, *arguments)

    def namespace(self, name: str) -> None:
        """A namespace under the restricted Pod Security standard, with the storage's credentials."""
        secret = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint_in_pods,
        }
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3-credentials", "namespace": name}, "stringData": secret},
        )

    def s3(self) -> "S3Client":
        """A client for the object storage, from this machine."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def _program(self, program: str, *arguments: str, content: str | None = None) -> str:
        command = [program, f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=content, check=False, capture_output=True, text=True)
        if done.returncode:
            raise TargetError(f"{Path(program).name} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def open_target() -> Target:
    """The cluster that CLUSTER names, else the development cluster, started if it does not run.

    Raises:
        TargetError: It cannot be had.
    """
    return _named() if os.environ.get("CLUSTER") else _development()


def _development() -> Target:
    _devcluster("up")
    images = json.loads(_devcluster("images"))
    status = json.loads(_devcluster("status", "--json"))
    programs = Path(status["programs"])
    return Target(
        kubeconfig=Path(status["kubeconfig"]),
        kubectl=str(programs / "kubectl"),
        helm=str(programs / "helm"),
        endpoint=status["s3"]["endpoint"],
        endpoint_in_pods=status["s3"]["endpointInCluster"],
        access_key=status["s3"]["accessKey"],
        secret_key=status["s3"]["secretKey"],
        images=images,
        values=(CHART / "ci" / "devcluster-values.yaml",),
        prometheus=status["prometheus"],
        is_ours=True,
    )


def _named() -> Target:
    needed = [f"{name.upper()}_IMAGE" for name in _IMAGES] + ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise TargetError(f"CLUSTER names a cluster of your own; set these as well: {', '.join(missing)}.")
    return Target(
        kubeconfig=Path(os.environ["CLUSTER"]),
        kubectl="kubectl",
        helm="helm",
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        endpoint_in_pods=os.environ["AWS_ENDPOINT_URL"],
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        images={name: os.environ[f"{name.upper()}_IMAGE"] for name in _IMAGES},
    )


def _devcluster(*arguments: str) -> str:
    """What the development cluster's program prints; what it says of its progress goes to the terminal."""
    done = subprocess.run([sys.executable, str(DEVCLUSTER / "cluster.py"), *arguments], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise TargetError(f"`devcluster/cluster.py {' '.join(arguments)}` failed, as said above; `charalora run` needs no cluster.")
    return done.stdout
