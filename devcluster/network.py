"""The cluster's addresses on this machine, and the way of its pods to the outside."""

import json
import socket
import subprocess
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from layout import HOST_ADDRESS, HOST_NETWORK, LINK, NODES, POD_NETWORK, SERVICE_NETWORK, STATE, ClusterError

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARD_BEFORE = STATE / "ip_forward"
_RULES = f"""
table ip {LINK}
delete table ip {LINK}
table ip {LINK} {{
  chain outside {{
    type nat hook postrouting priority srcnat;
    ip saddr {POD_NETWORK} ip daddr != {{ {POD_NETWORK}, {SERVICE_NETWORK}, {HOST_NETWORK} }} masquerade
  }}
}}
"""
_PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))


def up() -> None:
    """Make the addresses and the rules; again is the same as once.

    Raises:
        ClusterError: The machine uses these networks for something else, or is a Kubernetes node already.
    """
    if not _exists():
        _refuse_conflicts()
        _run("ip", "link", "add", LINK, "type", "bridge")
    for address in (HOST_ADDRESS, *(node.address for node in NODES.values())):
        _run("ip", "address", "replace", f"{address}/32", "dev", LINK)
    _run("ip", "link", "set", LINK, "up")
    _run("ip", "route", "replace", SERVICE_NETWORK, "dev", LINK)  # for a machine without a default route
    if not _FORWARD_BEFORE.exists():
        _FORWARD_BEFORE.write_text(_FORWARD.read_text())
    _FORWARD.write_text("1")
    subprocess.run(["nft", "-f", "-"], input=_RULES, text=True, check=True)


def down() -> None:
    """Remove them, and what kube-proxy wrote."""
    for family, table in (("ip", LINK), *_PROXY_TABLES):
        _run("nft", "add", "table", family, table)  # so that deleting it never fails
        _run("nft", "delete", "table", family, table)
    if _exists():
        _run("ip", "link", "delete", LINK)
    for interface in _of_pods():
        subprocess.run(["ip", "link", "delete", interface], check=False, capture_output=True)  # one whose pod goes just now goes by itself
    if _FORWARD_BEFORE.exists():
        _FORWARD.write_text(_FORWARD_BEFORE.read_text())
        _FORWARD_BEFORE.unlink()


def _of_pods() -> list[str]:
    """This machine's ends of pods' networks: of a pod that was being made when its node was killed, nobody else takes it away."""
    pods, routes = IPv4Network(POD_NETWORK), json.loads(_output("ip", "-j", "-4", "route"))
    found = {route["dev"] for route in routes if route["dst"] != "default" and IPv4Network(route["dst"]).subnet_of(pods)}
    return sorted(name for name in found if name.startswith("veth"))


def _exists() -> bool:
    return LINK in {name for _, name in socket.if_nameindex()}


def _refuse_conflicts() -> None:
    ours = [ip_network(network) for network in (HOST_NETWORK, POD_NETWORK, SERVICE_NETWORK)]
    for route in json.loads(_output("ip", "-j", "-4", "route")):
        if route["dst"] != "default" and any(ip_network(route["dst"]).overlaps(network) for network in ours):
            raise ClusterError(f"The development cluster uses {', '.join(map(str, ours))}, but this machine has a route to {route['dst']}.")
    tables: list[dict[str, Any]] = [
        entry["table"] for entry in json.loads(_output("nft", "-j", "list", "tables"))["nftables"] if "table" in entry
    ]
    if any((table["family"], table["name"]) in _PROXY_TABLES for table in tables):
        raise ClusterError(
            "Another Kubernetes runs on this machine (nftables has a table kube-proxy); the development cluster needs one without."
        )


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
