"""The development cluster itself: a second one, beside any that runs, with a name and a network namespace of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = f"charalora-test-{os.getpid()}"
STATE = Path(f"/var/lib/{NAME}-devcluster")
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Own:
    """The cluster of this file."""

    def command(self, *arguments: str) -> list[str]:
        """How one of its commands is called."""
        inside = ["nsenter", f"--net=/run/netns/{NAME}", "env", f"CHARALORA_DEVCLUSTER={NAME}"]
        return [*inside, sys.executable, str(ROOT / "devcluster/cluster.py"), *arguments]

    def run(self, *arguments: str) -> str:
        """What a command prints."""
        done = self.fail(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fail(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """How a command ends."""
        return subprocess.run(self.command(*arguments), check=False, capture_output=True, text=True)

    def status(self) -> dict[str, Any]:
        """What `status` says."""
        facts: dict[str, Any] = json.loads(self.run("status", "--json"))
        return facts

    def kubectl(self, *arguments: str, content: object = None) -> str:
        """What kubectl prints."""
        kubectl = [f"{self.status()['programs']}/kubectl", f"--kubeconfig={STATE / 'kubeconfig'}", *arguments]
        text = None if content is None else json.dumps(content)
        done = subprocess.run(["nsenter", f"--net=/run/netns/{NAME}", *kubectl], input=text, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def logs(self, *pods: dict[str, Any]) -> str:
        """What pods printed, after they ended well."""
        self.kubectl("apply", "-f", "-", content={"apiVersion": "v1", "kind": "List", "items": list(pods)})
        names = [f"{pod['kind']}/{pod['metadata']['name']}" for pod in pods if pod["kind"] in {"Pod", "Job"}]
        for name in names:
            wanted = "--for=condition=Complete" if name.startswith("Job") else "--for=jsonpath={.status.phase}=Succeeded"
            self.kubectl("wait", wanted, name, "--timeout=90s")
        found = "".join(self.kubectl("logs", name, "--all-pods" if name.startswith("Job") else "--tail=-1") for name in names)
        for pod in pods:
            self.kubectl("delete", pod["kind"], pod["metadata"]["name"], "--wait=false")
        return found


@pytest.fixture(scope="module")
def own() -> Iterator[Own]:
    """Running, from nothing; it ends with the file."""
    assert os.geteuid() == 0, "The development cluster's nodes start containers: run these tests as root."
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    cluster = Own()
    try:
        subprocess.run(["nsenter", f"--net=/run/netns/{NAME}", "ip", "link", "set", "lo", "up"], check=True)
        cluster.run("up")
        yield cluster
    finally:
        cluster.run("down")
        subprocess.run(["ip", "netns", "delete", NAME], check=True)


@pytest.fixture(scope="module")
def image(own: Own) -> str:
    """An image with Python and boto3 that both nodes have."""
    reference: str = json.loads(own.run("images", "preflight"))["preflight"]
    return reference


def pod(name: str, image: str, script: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs a script of Python once."""
    container = {"name": "main", "image": image, "command": ["python", "-c", script], "imagePullPolicy": "Never"}
    if "resources" in spec:
        container["resources"] = spec.pop("resources")
    body = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def processes() -> dict[int, str]:
    """Command lines that name this file's cluster."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if NAME in line and int(file.parent.name) != os.getpid():
            found[int(file.parent.name)] = line
    return found


def traces() -> list[str]:
    """Everything on this machine that the cluster may leave behind."""
    inside = ["nsenter", f"--net=/run/netns/{NAME}"]
    links = subprocess.run([*inside, "ip", "-j", "link"], check=True, stdout=subprocess.PIPE, text=True).stdout
    tables = subprocess.run([*inside, "nft", "list", "tables"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [
        *processes().values(),
        *(line for line in Path("/proc/mounts").read_text().splitlines() if str(STATE) in line),
        *(link["ifname"] for link in json.loads(links) if link["ifname"] != "lo"),
        *tables.splitlines(),
        *map(str, Path("/sys/fs/cgroup").glob(f"{NAME}*")),
        *map(str, Path("/sys/fs/cgroup").glob(f"*/{NAME}*")),
        *map(str, Path("/run/netns").glob("cni-*")),
        *map(str, STATE.parent.glob(STATE.name)),
    ]


def test_two_nodes_are_ready_and_count_their_gpus(own: Own) -> None:
    facts = own.status()

    assert facts["running"]
    assert [("node-a", True, 8), ("node-b", True, 4)] == [(node["name"], node["ready"], node["gpus"]) for node in facts["nodes"]]


def test_up_again_changes_nothing(own: Own) -> None:
    before = processes()
    began = time.monotonic()

    own.run("up")

    assert before == processes()
    assert time.monotonic() - began < 20


def test_pods_on_both_nodes_reach_names_and_s3(own: Own, image: str) -> None:
    facts = own.status()["s3"]
    script = f"""
import boto3, socket
print("at", socket.gethostbyname("s3.devcluster.svc.cluster.local"))
s3 = boto3.client("s3", endpoint_url="{facts["endpointInCluster"]}", region_name="us-east-1",
                  aws_access_key_id="{facts["accessKey"]}", aws_secret_access_key="{facts["secretKey"]}")
name = socket.gethostname()
s3.create_bucket(Bucket=name)
s3.put_object(Bucket=name, Key="a", Body=name.encode())
print("read", s3.get_object(Bucket=name, Key="a")["Body"].read().decode())
"""
    both = [pod(f"s3-{node}", image, script, nodeName=node) for node in ("node-a", "node-b")]

    logs = own.logs(*both)

    assert logs.count("at 10.96.0.33") == 2
    assert {"read s3-node-a", "read s3-node-b"} <= set(logs.splitlines())


def test_s3_answers_on_this_machine(own: Own) -> None:
    facts = own.status()["s3"]
    script = (
        f"import boto3; print(boto3.client('s3', endpoint_url={facts['endpoint']!r}, region_name='us-east-1', "
        f"aws_access_key_id={facts['readerAccessKey']!r}, aws_secret_access_key={facts['readerSecretKey']!r}).list_buckets()['Buckets'])"
    )

    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{NAME}", sys.executable, "-c", script], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_pods_of_an_indexed_job_find_each_other_across_nodes(own: Own, image: str) -> None:
    script = """
import http.server, os, socket, time, urllib.request
if os.environ["JOB_COMPLETION_INDEX"] == "0":
    server = http.server.HTTPServer(("", 29500), http.server.SimpleHTTPRequestHandler)
    server.handle_request()
    print("asked on", os.environ["NODE"])
else:
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen("http://gang-0.gang:29500", timeout=5).read()
            break
        except OSError:
            if time.monotonic() > until: raise
            time.sleep(0.2)
    print("answered on", os.environ["NODE"])
"""
    spec = pod("", image, script)["spec"]
    spec["containers"][0]["env"] = [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    apart = {"labelSelector": {"matchLabels": {"batch.kubernetes.io/job-name": "gang"}}, "topologyKey": "kubernetes.io/hostname"}
    spec |= {"subdomain": "gang", "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gang"},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"batch.kubernetes.io/job-name": "gang"}},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "gang"},
        "spec": {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0, "template": {"spec": spec}},
    }

    logs = own.logs(service, job)

    where = dict(re.findall(r"(asked|answered) on (node-.)", logs))
    assert {"asked", "answered"} == set(where)
    assert {"node-a", "node-b"} == set(where.values())


def test_the_scheduler_counts_the_gpus(own: Own, image: str) -> None:
    asking = {count: {"limits": {GPU: str(count)}} for count in (8, 9)}
    own.kubectl("apply", "-f", "-", content=pod("nine", image, "", resources=asking[9]))

    logs = own.logs(pod("eight", image, "print('ran')", resources=asking[8], nodeSelector={"kubernetes.io/hostname": "node-a"}))

    own.kubectl("wait", "--for=condition=PodScheduled=False", "pod/nine", "--timeout=30s")
    refused = json.loads(own.kubectl("get", "pod", "nine", "-o", "json"))["status"]["conditions"][0]
    own.kubectl("delete", "pod", "nine", "--wait=false")
    assert "ran" in logs
    assert refused["reason"] == "Unschedulable"
    assert f"Insufficient {GPU}" in refused["message"]


def test_a_killed_node_is_lost_and_comes_back_with_its_gpus(own: Own, image: str) -> None:
    own.run("node", "kill", "node-b")
    assert not [line for line in processes().values() if "/node-b/" in line]
    own.kubectl("wait", "--for=condition=Ready=Unknown", "node/node-b", "--timeout=60s")
    lost = own.status()["nodes"][1]

    own.run("node", "start", "node-b")

    back = own.status()["nodes"][1]
    assert (False, True) == (lost["ready"], back["ready"])
    assert back["gpus"] == 4
    assert "again" in own.logs(pod("again", image, "print('again')", nodeName="node-b"))


def test_up_repairs_what_a_crash_took(own: Own) -> None:
    lost = [number for number, line in processes().items() if "kube-apiserver" in line or ("kubelet" in line and "node-a" in line)]
    assert len(lost) == 2
    for number in lost:
        os.kill(number, signal.SIGKILL)
    assert not own.status()["running"]

    own.run("up")

    assert own.status()["running"]


def test_repair_starts_the_api_server_and_leaves_a_node_that_is_away(own: Own) -> None:
    """Whoever took its power has a reason."""
    own.run("node", "kill", "node-b")
    (server,) = [number for number, line in processes().items() if "kube-apiserver" in line]
    os.kill(server, signal.SIGKILL)

    own.run("repair")

    assert "node-b" in own.kubectl("get", "nodes")
    assert [] == [line for line in processes().values() if "kubelet" in line and "node-b" in line]
    own.run("node", "start", "node-b")


def test_another_checkout_is_told_whose_cluster_this_is(own: Own, tmp_path: Path) -> None:
    owner = STATE / "owner"
    ours = owner.read_text()
    owner.write_text(str(tmp_path))

    refused = own.fail("up")
    owner.write_text(ours)

    assert refused.returncode == 1
    assert str(tmp_path) in refused.stderr


def test_every_request_is_in_the_audit_log(own: Own) -> None:
    own.kubectl("get", "configmap", "an-audited-name", "--ignore-not-found")

    lines = [json.loads(line) for line in Path(own.status()["auditLog"]).read_text().splitlines()]

    asked = [line for line in lines if line.get("objectRef", {}).get("name") == "an-audited-name"]
    assert [("get", "configmaps", "admin")] == [(one["verb"], one["objectRef"]["resource"], one["user"]["username"]) for one in asked]


def test_down_leaves_nothing_even_when_up_was_killed(own: Own) -> None:
    assert traces()
    own.run("down")
    assert [] == traces()

    with subprocess.Popen(own.command("up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
        while not any("kubelet" in line for line in processes().values()):
            assert starting.poll() is None
            time.sleep(0.1)
        starting.kill()
    assert traces()
    own.run("down")
    assert [] == traces()


def test_a_control_plane_without_nodes_ends_with_its_caller(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "devcluster/cluster.py"), "control-plane", str(tmp_path / "plane"), "--controllers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdin
        assert serving.stdout
        facts = json.loads(serving.stdout.readline())
        kubectl = subprocess.run(
            [sys.executable, ROOT / "devcluster/binaries.py", "kubectl"], check=True, stdout=subprocess.PIPE, text=True
        )
        asked = [
            kubectl.stdout.strip(),
            f"--kubeconfig={facts['kubeconfig']}",
            "wait",
            "--for=create",
            "serviceaccount/default",
            "--timeout=30s",
        ]
        subprocess.run(asked, check=True)
        serving.stdin.close()

    assert serving.returncode == 0
    running = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    assert not [line for line in running if bytes(tmp_path) in line]
