"""A node: a containerd and a kubelet of its own, in a mount namespace of its own, so that nothing stays mounted when they end."""

import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import daemons
from binaries import binary
from control_plane import ControlPlane
from layout import DNS_ADDRESS, NAME, POD_NETWORK, Node

PAUSE_IMAGE = "charalora.dev/pause:1"
GPU = "nvidia.com/gpu"
# Folders that containerd and kubelet use wherever they are told to write: each node has its own, mounted over the machine's.
_PRIVATE = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
_OWN_MOUNTS = 'mount --make-rshared / && while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done && shift && exec "$@"'
_NO_ARGUMENTS = bytes(5)  # a message of gRPC: not compressed, of no length
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")  # where /etc/resolv.conf names a loopback address, which a pod cannot reach


def start(node: Node, plane: ControlPlane) -> None:
    """Start the node's containerd and kubelet where they do not run."""
    if not running(node):
        stop(node)  # what a half-dead node left
    daemons.make_group(f"{node.name}/pods")
    _write_settings(node)
    private = [str(path) for folder in _PRIVATE for path in (node.folder / "private" / Path(folder).name, folder)]
    for folder in private:
        Path(folder).mkdir(parents=True, exist_ok=True)
    apart: list[str | Path] = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_MOUNTS, "sh", *private, "--"]
    containerd = [*apart, "containerd", "--config", node.folder / "containerd.toml"]
    daemons.start(f"{node.name}/containerd", containerd, node.folder / "logs/containerd.log", "containerd")
    daemons.wait_for(f"A containerd for {node.name}", lambda: _answers(node), hint=f"See {node.folder / 'logs/containerd.log'}.")
    inside: list[str | Path] = [
        "nsenter",
        "--mount",
        "--target",
        str(daemons.running(f"{node.name}/containerd", "containerd")),
        binary("kubelet"),
    ]
    options = [
        f"--config={node.folder / 'kubelet.json'}",
        f"--kubeconfig={plane.kubeconfig(f'system:node:{node.name}')}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.folder / 'kubelet'}",
        f"--cert-dir={node.folder / 'kubelet/pki'}",
        f"--node-labels=charalora.dev/devcluster-gpus={node.gpus}",
    ]
    daemons.start(f"{node.name}/kubelet", [*inside, *options], node.folder / "logs/kubelet.log", "kubelet")


def stop(node: Node) -> None:
    """End everything on the node at once, containers too, as a power cut does."""
    daemons.kill(node.name)


def running(node: Node) -> bool:
    """Whether both programs of the node run."""
    return all(daemons.running(f"{node.name}/{program}", program) for program in ("containerd", "kubelet"))


def remove_private_folders() -> None:
    """Remove the empty folders over which the nodes mounted theirs, unless the machine or another cluster uses them."""
    mounted = {line.split()[4] for file in Path("/proc").glob("[0-9]*/mountinfo") for line in _lines(file)}
    for folder in _PRIVATE:
        # Removing a folder takes away what other namespaces have mounted over it.
        if folder not in mounted and Path(folder).is_dir() and not any(Path(folder).iterdir()):
            Path(folder).rmdir()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # the process has just ended
        return []


def _answers(node: Node) -> bool:
    """Whether containerd has read what an earlier life left, and lists it: until then the kubelet that asks it ends, for good."""
    call = ["--header", "content-type: application/grpc", "--header", "te: trailers", "--data-binary", "@-"]
    call += ["--http2-prior-knowledge", "--unix-socket", str(node.socket), "--output", "/dev/null", "--write-out", "%header{grpc-status}"]
    listed = ["curl", "--silent", *call, "http://localhost/runtime.v1.RuntimeService/ListPodSandbox"]
    return subprocess.run(listed, input=_NO_ARGUMENTS, check=False, capture_output=True).stdout == b"0"


def _write_settings(node: Node) -> None:
    for folder in ("cni", "logs", "manifests"):
        (node.folder / folder).mkdir(parents=True, exist_ok=True)
    (node.folder / "containerd.toml").write_text(_containerd(node))
    (node.folder / "cni/10-charalora.conflist").write_text(json.dumps(_cni(node), indent=1))
    (node.folder / "kubelet.json").write_text(json.dumps(_kubelet(node), indent=1))


def _containerd(node: Node) -> str:
    """The settings of containerd 1.6. `restrict_oom_score_adj`: a virtual machine may lack the right to lower a score."""
    return f"""version = 2
root = "{node.folder}/containerd"
state = "{node.folder}/run"
[grpc]
  address = "{node.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{node.folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{node.folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _cni(node: Node) -> dict[str, Any]:
    """Each pod has a wire of its own to the machine, which routes: with a bridge, answers between two pods could pass services by."""
    addresses = {
        "type": "host-local",
        "dataDir": str(node.folder / "addresses"),
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "0.4.0", "name": f"charalora-{node.name}", "plugins": [{"type": "ptp", "ipam": addresses}]}


def _kubelet(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "healthzBindAddress": node.address,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}/{node.name}/pods",
        "failCgroupV1": False,
        "makeIPTablesUtilChains": False,  # kube-proxy works with nftables
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(_RESOLVED if _RESOLVED.exists() else Path("/etc/resolv.conf")),
        "podLogsDir": str(node.folder / "pod-logs"),
        "staticPodPath": str(node.folder / "manifests"),
        "nodeLeaseDurationSeconds": 20,
        # The machine's disk is not the cluster's alone; images that were brought in by hand are never collected.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
    }


def proxy_settings(plane: ControlPlane) -> dict[str, Any]:
    """Of kube-proxy: one for both nodes, because they share the machine's network."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_NETWORK,
        "clientConnection": {"kubeconfig": str(plane.kubeconfig("system:kube-proxy"))},
        "conntrack": {"maxPerCore": 0, "min": 0},
        "healthzBindAddress": f"{plane.address}:10256",
        "metricsBindAddress": f"{plane.address}:10249",
    }


def start_proxy(plane: ControlPlane, hostname: str) -> None:
    """Start kube-proxy where it does not run."""
    settings = plane.folder / "kube-proxy.json"
    content = json.dumps(proxy_settings(plane), indent=1)
    if not settings.exists() or settings.read_text() != content:  # it ends when the file is written
        settings.write_text(content)
    command: list[str | Path] = [binary("kube-proxy"), f"--config={settings}", f"--hostname-override={hostname}"]
    daemons.start("control-plane/kube-proxy", command, plane.folder / "logs/kube-proxy.log")


def count_gpus(node: Node, kubectl: list[str | Path], since: datetime) -> bool:
    """Make a node count its GPUs that said it is ready since then; whether the scheduler can see them.

    A kubelet that registers may forget them, so this is asked until it is so.
    """
    found = subprocess.run([*kubectl, "get", "node", node.name, "-o", "json"], check=False, capture_output=True, text=True)
    if found.returncode:
        return False
    status = json.loads(found.stdout)["status"]
    ready = [condition for condition in status.get("conditions", []) if condition["type"] == "Ready" and condition["status"] == "True"]
    if not ready or datetime.fromisoformat(ready[0]["lastHeartbeatTime"]) < since.replace(microsecond=0):
        return False
    if status.get("allocatable", {}).get(GPU) == str(node.gpus):
        return True
    values = {key: {GPU: str(node.gpus)} for key in ("capacity", "allocatable")}
    patch = json.dumps({"status": values})
    subprocess.run([*kubectl, "patch", "node", node.name, "--subresource=status", "-p", patch], check=False, capture_output=True)
    return False


def forget(node: Node) -> None:
    """Remove the node's folder."""
    shutil.rmtree(node.folder, ignore_errors=True)
