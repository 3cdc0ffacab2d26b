"""What the development cluster is called and where everything lies: names, addresses, folders."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A second cluster on a machine needs another name and a network namespace of its own, as the tests of this folder give it.
NAME = os.environ.get("CHARALORA_DEVCLUSTER") or "charalora"
STATE = Path(f"/var/lib/{NAME}-devcluster")
CACHE = Path(os.environ.get("CHARALORA_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charalora")
KUBECONFIG = STATE / "kubeconfig"
AUDIT_LOG = STATE / "control-plane/audit.log"

LINK = "charalora"  # the interface that carries the addresses below, so that the cluster needs none of the machine's own
HOST_NETWORK = "10.250.0.0/24"
HOST_ADDRESS = "10.250.0.1"  # control plane
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
S3_ADDRESS = "10.96.0.33"
PROMETHEUS_ADDRESS = "10.96.0.90"
NAMESPACE = "devcluster"


@dataclass(frozen=True)
class Node:
    """One of the nodes.

    Attributes:
        index: Decides its addresses.
        gpus: How many it counts; no such device is there.
    """

    name: str
    index: int
    gpus: int

    @property
    def address(self) -> str:
        """Where its kubelet answers."""
        return f"10.250.0.{10 + self.index}"

    @property
    def pods(self) -> str:
        """The network of its pods."""
        return f"10.244.{self.index}.0/24"

    @property
    def folder(self) -> Path:
        """Everything that it writes."""
        return STATE / self.name

    @property
    def socket(self) -> Path:
        """Where its containerd answers."""
        return self.folder / "containerd.sock"


NODES = {node.name: node for node in (Node("node-a", 1, gpus=8), Node("node-b", 2, gpus=4))}


class ClusterError(Exception):
    """The development cluster cannot do what it was asked; the message says what to do."""
