"""A real Kubernetes with two nodes on this machine, without Docker.

    python devcluster/cluster.py up | down | status | kubeconfig | images
    python devcluster/cluster.py node kill NAME | node start NAME
    python devcluster/cluster.py control-plane FOLDER [--controllers]

README.md beside this file says what is real in it and what is not.
"""

import argparse
import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import addons
import control_plane
import daemons
import images
import network
import node as nodes
import oci
import packages
from binaries import binary
from layout import AUDIT_LOG, CACHE, KUBECONFIG, NAME, NAMESPACE, NODES, PROMETHEUS_ADDRESS, ROOT, S3_ADDRESS, STATE, ClusterError, Node

PLANE = control_plane.ControlPlane(STATE / "control-plane")
_OWNER = STATE / "owner"
_PROGRAMS = (
    "helm",
    "kubectl",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "pause",
    "coredns",
    "discovery",
)
_LOCK = Path(f"/run/lock/{NAME}-devcluster")


def up() -> None:
    """Start what does not run; return when both nodes, S3, Prometheus and DNS are ready."""
    packages.need_root()
    packages.need("containerd", "runc", "/usr/lib/cni/ptp", "nft", "ip", "curl", "openssl", "prometheus")
    for name in _PROGRAMS:
        binary(name)
    with _only_one():
        _take()
        network.up()
        control_plane.up(PLANE)
        KUBECONFIG.unlink(missing_ok=True)
        shutil.copy(PLANE.kubeconfig("admin"), KUBECONFIG)
        with ThreadPoolExecutor() as pool:
            made = pool.submit(addons.images)
            since = list(pool.map(_start_node, NODES.values()))
            list(pool.map(lambda node: _bring(node, made.result()), NODES.values()))
        nodes.start_proxy(PLANE, next(iter(NODES)))
        _apply(addons.manifests({name: reference for name, (reference, _) in made.result().items()}))
        for node, began in zip(NODES.values(), since, strict=True):
            _wait_ready(node, began)
        _wait_addons()


def repair() -> None:
    """Start again what was killed of the control plane, and wait for nothing else: nodes and storage may be away on purpose."""
    _need_running()
    with _only_one():
        control_plane.up(PLANE)


def down() -> None:
    """End everything and remove every trace, whatever state it is in."""
    packages.need_root()
    with _only_one():
        if not STATE.exists() and not any(root.exists() for root in daemons.roots()):
            return
        daemons.kill()
        daemons.remove_groups()
        if STATE.exists():
            packages.need("nft", "ip")
            network.down()
            shutil.rmtree(STATE)
        nodes.remove_private_folders()


def status() -> dict[str, Any]:
    """What runs, where it answers and with which keys."""
    if not KUBECONFIG.exists():
        return {"running": False}
    packages.need_root()
    listed = {}
    if PLANE.ready():
        found = json.loads(_kubectl("get", "nodes", "-o", "json"))["items"]
        listed = {item["metadata"]["name"]: item["status"] for item in found}
    described = [_describe(node, listed.get(node.name, {})) for node in NODES.values()]
    return {
        "running": bool(listed) and all(one["ready"] for one in described),
        "checkout": _OWNER.read_text(),
        "kubeconfig": str(KUBECONFIG),
        "url": PLANE.url,
        "nodes": described,
        "s3": {
            "endpoint": f"http://{S3_ADDRESS}:{addons.S3_PORT}",
            "endpointInCluster": f"http://s3.{NAMESPACE}.svc:{addons.S3_PORT}",
            "region": "us-east-1",
            **addons.s3_keys(),
        },
        "prometheus": f"http://{PROMETHEUS_ADDRESS}:{addons.PROMETHEUS_PORT}",
        "auditLog": str(AUDIT_LOG),
        "logs": str(STATE),
        "programs": str(binary("kubectl").parent),
    }


def bring_images(names: Sequence[str]) -> dict[str, str]:
    """Build the project's images that are not built yet and bring them to the nodes that lack them; their references."""
    packages.need_root()
    packages.need("buildah", "debootstrap")
    CACHE.mkdir(parents=True, exist_ok=True)
    made = images.build(names)
    if KUBECONFIG.exists():
        with _only_one(), ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: _bring(node, made) if nodes.running(node) else None, NODES.values()))
    return {name: reference for name, (reference, _) in made.items()}


def kill_node(node: Node) -> None:
    """End everything on a node at once, as a power cut does."""
    _need_running()
    with _only_one():
        nodes.stop(node)


def start_node(node: Node) -> None:
    """Bring a node back, with its images and its GPUs; return when it is ready."""
    _need_running()
    with _only_one():
        _wait_ready(node, _start_node(node))


def _start_node(node: Node) -> datetime:
    """Start a node that does not run; since when it may say that it is ready."""
    began = datetime.fromtimestamp(0, UTC) if nodes.running(node) else datetime.now(UTC)
    nodes.start(node, PLANE)
    return began


def _bring(node: Node, made: dict[str, tuple[str, str]]) -> None:
    present = oci.images_of(node)
    for name, (reference, digest) in made.items():
        if reference not in present:
            began = time.monotonic()
            brought = oci.bring(node, reference, digest)
            _say(f"{node.name} got {name}: {brought / 1e6:.0f} MB in {time.monotonic() - began:.1f} s.")


def _wait_ready(node: Node, since: datetime) -> None:
    ready = partial(nodes.count_gpus, node, _kubectl_command(), since)
    daemons.wait_for(f"A ready {node.name} with {node.gpus} GPUs", ready, hint=f"See {node.folder / 'logs/kubelet.log'}.")


def _wait_addons() -> None:
    for workload in ("daemonset/coredns", "deployment/s3", "deployment/prometheus"):
        _kubectl("-n", NAMESPACE, "rollout", "status", workload, "--timeout=180s")


def _describe(node: Node, status: dict[str, Any]) -> dict[str, Any]:
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    gpus = int(status.get("allocatable", {}).get(nodes.GPU, 0))
    ready = conditions.get("Ready") == "True" and gpus == node.gpus
    return {"name": node.name, "address": node.address, "ready": ready, "gpus": gpus, "started": nodes.running(node)}


def _take() -> None:
    """Make the cluster ours.

    Raises:
        ClusterError: Another checkout's runs here.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    owner = _OWNER.read_text() if _OWNER.exists() else str(ROOT)
    if owner != str(ROOT) and Path(owner).exists():
        raise ClusterError(
            f"The development cluster of {owner} runs on this machine, and there can be one; `make cluster-down` ends it from any checkout."
        )
    _OWNER.write_text(str(ROOT))


def _need_running() -> None:
    packages.need_root()
    if not KUBECONFIG.exists():
        raise ClusterError("There is no development cluster here; `make cluster-up` starts one.")


@contextmanager
def _only_one() -> Iterator[None]:
    """Let commands that change the cluster follow each other."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _kubectl_command() -> list[str | Path]:
    return [binary("kubectl"), f"--kubeconfig={KUBECONFIG}", f"--cache-dir={STATE / 'kubectl'}"]


def _kubectl(*arguments: str, content: str | None = None) -> str:
    done = subprocess.run([*_kubectl_command(), *arguments], input=content, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _apply(manifests: dict[str, Any]) -> None:
    _kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", content=json.dumps(manifests))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_status(facts: dict[str, Any]) -> None:
    if not facts["running"]:
        print(
            "No development cluster runs here."
            if "nodes" not in facts
            else "The development cluster is not whole; `make cluster-up` repairs it."
        )
    if "nodes" not in facts:
        return
    for one in facts["nodes"]:
        print(f"{one['name']}  {'ready' if one['ready'] else 'not ready'}  {one['gpus']} GPUs counted  {one['address']}")
    print(f"S3          {facts['s3']['endpoint']} (in pods {facts['s3']['endpointInCluster']})")
    print(f"Prometheus  {facts['prometheus']}")
    print(f"audit log   {facts['auditLog']}")
    print(f"export KUBECONFIG={facts['kubeconfig']} PATH={facts['programs']}:$PATH")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real Kubernetes with two nodes on this machine, without Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it; what runs already stays as it is")
    commands.add_parser("repair", help="start again what was killed of the control plane, and leave nodes and pods as they are")
    commands.add_parser("down", help="end it and remove every trace")
    commands.add_parser("status", help="what runs, and where").add_argument("--json", action="store_true", help="as JSON, with the S3 keys")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    made = commands.add_parser("images", help="build the project's images, bring them to the nodes, print their references as JSON")
    made.add_argument(
        "names", nargs="*", choices=(*images.SOURCES, []), metavar="NAME", help=f"{', '.join(images.SOURCES)}; all when none is named"
    )
    node = commands.add_parser("node", help="take a node's power away, or give it back")
    node.add_argument("what", choices=("kill", "start"))
    node.add_argument("name", choices=tuple(NODES))
    alone = commands.add_parser("control-plane", help="serve an API server without nodes until the input is closed; needs no root")
    alone.add_argument("folder", type=Path, help="where its files lie")
    alone.add_argument("--controllers", action="store_true", help="with the controller manager")
    return parser.parse_args()


def _obey(wanted: argparse.Namespace) -> None:
    began = time.monotonic()
    match wanted.command:
        case "up":
            up()
            _say(f"The development cluster is up ({time.monotonic() - began:.0f} s).")
            _print_status(status())
        case "repair":
            repair()
        case "down":
            down()
            _say(f"No development cluster is left ({time.monotonic() - began:.0f} s).")
        case "status":
            print(json.dumps(status(), indent=1)) if wanted.json else _print_status(status())
        case "kubeconfig":
            _need_running()
            print(KUBECONFIG)
        case "images":
            print(json.dumps(bring_images(wanted.names or tuple(images.SOURCES)), indent=1))
        case "node":
            (kill_node if wanted.what == "kill" else start_node)(NODES[wanted.name])
        case "control-plane":
            control_plane.serve(wanted.folder.absolute(), controllers=wanted.controllers)


def main() -> None:
    """Obey the command line; an error is one line."""
    try:
        _obey(_arguments())
    except ClusterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
