"""etcd, API server, controller manager and scheduler: how they are started, as the cluster's daemons or for one caller."""

import csv
import json
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import daemons
from binaries import binary
from layout import HOST_ADDRESS, NODES, SERVICE_NETWORK

_GROUPS = {"admin": "system:masters", **{f"system:node:{name}": "system:nodes" for name in NODES}}
_USERS = (
    "admin",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
    *(f"system:node:{name}" for name in NODES),
)
LOST_NODE_SECONDS = 20
"""After so long without a word a node counts as lost, and after as long again its pods are evicted; Kubernetes itself takes 40 and 300."""
_AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}


@dataclass(frozen=True)
class ControlPlane:
    """Where a control plane lies and answers."""

    folder: Path
    address: str = HOST_ADDRESS
    port: int = 6443
    etcd_port: int = 2379
    peer_port: int = 2380
    manager_port: int = 10257
    scheduler_port: int = 10259

    @property
    def url(self) -> str:
        """Of the API server."""
        return f"https://{self.address}:{self.port}"

    @property
    def certificate(self) -> Path:
        """Signs the API server's answers."""
        return self.folder / "certificates/apiserver.crt"

    @property
    def audit_log(self) -> Path:
        """One line of JSON for each request."""
        return self.folder / "audit.log"

    def kubeconfig(self, user: str) -> Path:
        """The file with which a user or a component reaches the API server."""
        return self.folder / f"{user.replace(':', '-')}.kubeconfig"

    def prepare(self) -> None:
        """Write what the programs read; what stands already stays."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        tokens = self.folder / "tokens.csv"
        if not tokens.exists():
            lines = [[secrets.token_hex(16), user, user, _GROUPS.get(user, "")] for user in _USERS]
            _write(tokens, "".join(f'{token},{user},{uid},"{groups}"\n' for token, user, uid, groups in lines))
        if not (self.folder / "accounts.key").exists():
            key = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True).stdout
            _write(self.folder / "accounts.key", key)
        _write(self.folder / "audit-policy.json", json.dumps(_AUDIT_POLICY))

    def write_kubeconfigs(self) -> None:
        """Write every user's file; the API server has made its certificate before."""
        for token, user, *_ in csv.reader((self.folder / "tokens.csv").read_text().splitlines()):
            cluster = {"server": self.url, "certificate-authority": str(self.certificate)}
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "devcluster",
                "clusters": [{"name": "devcluster", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": user}}],
            }
            _write(self.kubeconfig(user), json.dumps(content, indent=1))

    def etcd(self) -> list[str | Path]:
        """The command line of etcd. It does not wait for the disk: the cluster is worth nothing after a power cut."""
        client, peer = f"http://{self.address}:{self.etcd_port}", f"http://{self.address}:{self.peer_port}"
        urls = {"listen-client": client, "advertise-client": client, "listen-peer": peer, "initial-advertise-peer": peer}
        options = [f"--{name}-urls={url}" for name, url in urls.items()]
        return [binary("etcd"), f"--data-dir={self.folder / 'etcd'}", f"--initial-cluster=default={peer}", "--unsafe-no-fsync", *options]

    def api_server(self) -> list[str | Path]:
        """The command line of kube-apiserver."""
        key = self.folder / "accounts.key"
        options = {
            "etcd-servers": f"http://{self.address}:{self.etcd_port}",
            "bind-address": self.address,
            "advertise-address": self.address,
            "secure-port": self.port,
            "cert-dir": self.certificate.parent,
            "token-auth-file": self.folder / "tokens.csv",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-cluster-ip-range": SERVICE_NETWORK,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "allow-privileged": "true",
            "kubelet-preferred-address-types": "InternalIP",
            "default-not-ready-toleration-seconds": LOST_NODE_SECONDS,
            "default-unreachable-toleration-seconds": LOST_NODE_SECONDS,
            "audit-policy-file": self.folder / "audit-policy.json",
            "audit-log-path": self.audit_log,
            "audit-log-maxsize": 200,
            "audit-log-maxbackup": 2,
        }
        return [binary("kube-apiserver"), *_flags(options)]

    def controller_manager(self) -> list[str | Path]:
        """The command line of kube-controller-manager."""
        options = {
            "kubeconfig": self.kubeconfig("system:kube-controller-manager"),
            "bind-address": self.address,
            "secure-port": self.manager_port,
            "cert-dir": self.folder / "controller-manager",
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self.folder / "accounts.key",
            "root-ca-file": self.certificate,
            "node-monitor-period": "2s",
            "node-monitor-grace-period": f"{LOST_NODE_SECONDS}s",
        }
        return [binary("kube-controller-manager"), *_flags(options)]

    def scheduler(self) -> list[str | Path]:
        """The command line of kube-scheduler."""
        options = {
            "kubeconfig": self.kubeconfig("system:kube-scheduler"),
            "bind-address": self.address,
            "secure-port": self.scheduler_port,
            "cert-dir": self.folder / "scheduler",
            "leader-elect": "false",
        }
        return [binary("kube-scheduler"), *_flags(options)]

    def ready(self) -> bool:
        """Whether the API server says that it is."""
        if not self.certificate.exists():
            return False
        token = (self.folder / "tokens.csv").read_text().split(",", 1)[0]
        trusted = ssl.create_default_context(cafile=self.certificate)
        try:
            request = Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
            with urlopen(request, timeout=5, context=trusted) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def up(plane: ControlPlane) -> None:
    """Start the cluster's own control plane where it does not run."""
    plane.prepare()
    logs = plane.folder / "logs"
    daemons.start("control-plane/etcd", plane.etcd(), logs / "etcd.log")
    daemons.start("control-plane/kube-apiserver", plane.api_server(), logs / "kube-apiserver.log")
    daemons.wait_for("An API server that is ready", plane.ready, hint=f"See {logs / 'kube-apiserver.log'}.")
    plane.write_kubeconfigs()
    daemons.start("control-plane/kube-controller-manager", plane.controller_manager(), logs / "kube-controller-manager.log")
    daemons.start("control-plane/kube-scheduler", plane.scheduler(), logs / "kube-scheduler.log")


@contextmanager
def alone(folder: Path, *, controllers: bool) -> Iterator[ControlPlane]:
    """An API server with its etcd on free ports of the loopback address, for tests without nodes; it ends with the block."""
    ports = _free_ports(5)
    plane = ControlPlane(folder, "127.0.0.1", *ports)
    plane.prepare()
    with ExitStack() as ending:
        spawn(plane.etcd(), folder / "logs/etcd.log", ending)
        server = spawn(plane.api_server(), folder / "logs/kube-apiserver.log", ending)
        hint = f"See {folder / 'logs/kube-apiserver.log'}."
        daemons.wait_for("An API server that is ready", lambda: server.poll() is not None or plane.ready(), hint=hint)
        plane.write_kubeconfigs()
        if controllers:
            spawn(plane.controller_manager(), folder / "logs/kube-controller-manager.log", ending)
        yield plane


def spawn(command: list[str | Path], log: Path, ending: ExitStack) -> subprocess.Popen[bytes]:
    """Start a program that ends with the stack."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # Where setpriv is at hand (all of Debian), it ends with this process, however that ends.
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with log.open("ab") as output:
        process = subprocess.Popen([*guard, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    ending.callback(process.wait)
    ending.callback(process.kill)
    return process


def _flags(options: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as bound:
        sockets = [bound.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


def serve(folder: Path, *, controllers: bool) -> None:
    """Print one line of JSON when the API server is ready, and serve until interrupted, terminated, or the input is closed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with alone(folder, controllers=controllers) as plane:
        facts = {"kubeconfig": str(plane.kubeconfig("admin")), "url": plane.url, "auditLog": str(plane.audit_log)}
        print(json.dumps(facts), flush=True)
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            return
