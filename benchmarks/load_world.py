"""What the load is put on: a control plane of its own, nodes of kwok where pods shall run, and the operator with the chart's rights."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from record import ROOT

sys.path += [str(ROOT / "devcluster"), str(ROOT / "tests")]

from apiserver import ApiServer, Json
from binaries import binary
from charalora_operator.permissions import PERMISSIONS
from charalora_spec.crd import custom_resource_definition
from control_plane import ControlPlane, alone, spawn

HOME = "charalora-system"
STAGES = ROOT / "benchmarks" / "load_stages.yaml"
NODES = 10
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_TICKS = os.sysconf("SC_CLK_TCK")


class RefusedError(Exception):
    """The API server or the operator did not do what a measurement needs."""


@dataclass(frozen=True)
class World:
    """A cluster for one measurement.

    Attributes:
        server: Its API server, asked as the administrator.
        folder: Where logs and settings lie.
        operator_file: The kubeconfig of the operator's account.
        source: Where the operator's source lies; None: here.
    """

    server: ApiServer
    folder: Path
    operator_file: Path
    source: Path | None

    def processor_seconds(self) -> dict[str, float]:
        """What each of its programs has computed so far."""
        spent = {}
        for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            name, seconds = _spent(int(pid))
            spent[name] = round(seconds, 2)
        return spent

    @contextmanager
    def operator(self) -> Iterator["Operator"]:
        """The operator at work, stopped as Kubernetes stops it."""
        operator = Operator(self)
        try:
            yield operator
        finally:
            operator.stop()


@contextmanager
def world(folder: Path, *, nodes: bool, operator: Path | None) -> Iterator[World]:
    """An API server with our CRD and the operator's account; with `nodes`, controllers, a scheduler and simulated nodes as well."""
    folder.mkdir()
    with alone(folder / "plane", controllers=nodes) as plane, ExitStack() as ending:
        server = ApiServer(plane.kubeconfig("admin"), plane.audit_log)
        ending.callback(server.close)
        server.define(custom_resource_definition())
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
        if nodes:
            _start_nodes(server, plane, ending)
        yield World(server, folder, _account(server, folder), operator)


class Operator:
    """The operator as a process of its own."""

    def __init__(self, world: World) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {"trainerImage": "charalora/trainer:1", "preflightImage": "charalora/preflight:1", "http": {"port": port}}
        file = world.folder / "settings.json"
        file.write_text(json.dumps(settings))
        self.url = f"http://127.0.0.1:{port}"
        self.log = world.folder / "operator.log"
        command: list[str | Path] = [sys.executable, "-m", "charalora_operator", "--settings", file, "--kubeconfig", world.operator_file]
        environment = os.environ | ({"PYTHONPATH": str(world.source.absolute())} if world.source else {})
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    @property
    def processor_seconds(self) -> float:
        """What it has computed so far."""
        return _spent(self._process.pid)[1]

    def memory(self, what: str = "VmRSS") -> float:
        """Resident memory in MiB, or its peak (`VmHWM`).

        Raises:
            RefusedError: It ended by itself.
        """
        if self._process.poll() is not None:
            last = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
            raise RefusedError(f"The operator ended with {self._process.returncode}; the last that it said:\n{last}")
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        finally:
            self._process.kill()


def _start_nodes(server: ApiServer, plane: ControlPlane, ending: ExitStack) -> None:
    """A scheduler, and nodes on which pods only seem to run; their addresses are of this machine, so metrics can be served there."""
    spawn(plane.scheduler(), plane.folder / "logs/kube-scheduler.log", ending)
    options = {"kubeconfig": plane.kubeconfig("admin"), "config": STAGES, "cidr": "127.94.0.1/16", "node-ip": "127.0.0.1"}
    command: list[str | Path] = [binary("kwok"), "--manage-all-nodes", *(f"--{name}={value}" for name, value in options.items())]
    spawn(command, plane.folder / "logs/kwok.log", ending)
    for number in range(NODES):
        server.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"simulated-{number}"}})


def _account(server: ApiServer, folder: Path) -> Path:
    """A service account with the rights of the chart: unlike the administrator, it is subject to the API server's fairness."""
    rules = [{"apiGroups": [one.group], "resources": [one.resource], "verbs": list(one.verbs)} for one in PERMISSIONS]
    name = {"name": "charalora"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", **name}
    subject = {"kind": "ServiceAccount", "namespace": HOME, **name}
    accounts = f"/api/v1/namespaces/{HOME}/serviceaccounts"
    _ask(server, accounts, {"metadata": name})
    _ask(server, f"{_RBAC}/clusterroles", {"metadata": name, "rules": rules})
    _ask(server, f"{_RBAC}/clusterrolebindings", {"metadata": name, "roleRef": role, "subjects": [subject]})
    asked = _ask(server, f"{accounts}/charalora/token", {"spec": {"expirationSeconds": 86400}})
    content = json.loads(server.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": asked["status"]["token"]}
    content["contexts"][0]["context"]["namespace"] = HOME
    file = folder / "operator.kubeconfig"
    file.write_text(json.dumps(content))
    return file


def _ask(server: ApiServer, path: str, body: Json) -> Json:
    answer = server.ask("POST", path, body)
    if not answer.accepted:
        raise RefusedError(f"POST {path}: {answer.message}")
    return answer.body


def _spent(pid: int) -> tuple[str, float]:
    """A process's name and what it has computed, in seconds."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return text[text.index("(") + 1 : text.rindex(")")], (int(fields[11]) + int(fields[12])) / _TICKS
