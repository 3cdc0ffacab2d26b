"""A training in a queue of Kueue's: its Job is Kueue's to let go, and what Kueue says of it is told in Kueue's own words.

Kueue's controller does not run here: a test moves its Workload as Kueue would.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer, Json, path_of, until
from charalora_operator import names
from charalora_spec.outcome import Outcome
from faults import Fault
from lives import CHECKED, FINISHED, conditions_of, finished, resource, state_of
from operators import Operator, settings_of
from paper_node import End, PaperNode, labels_of, paper_node
from workloads import QUEUE, WORKLOADS, Workload

NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor default-flavor, 2 more needed"
PREEMPTED = "Preempted to accommodate a workload (UID: 7, JobUID: 8) due to prioritization in the ClusterQueue"


def only_checks(pod: Json) -> End | None:
    """Checks pass, trainings go on."""
    return End(Outcome.SUCCEEDED, CHECKED) if labels_of(pod)[names.COMPONENT] == names.PREFLIGHT else None


@pytest.fixture(scope="module")
def node(server: ApiServer) -> Iterator[PaperNode]:
    """Where pods run."""
    with paper_node(server, only_checks) as node:
        yield node


@pytest.fixture(scope="module")
def operator(server: ApiServer, node: PaperNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator for every namespace."""
    del node
    operator = Operator(
        tmp_path_factory.mktemp("operator"), server.kubeconfig, settings_of(resyncSeconds=3600, lease={"namespace": "default"})
    )
    yield operator
    operator.stop()


class Queued:
    """A training in a queue."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self._server = server
        self._namespace = namespace
        server.namespace(namespace)
        server.create(resource(namespace, **{"scheduling.queueName": QUEUE}))

    @property
    def body(self) -> Json:
        """The resource as it is now."""
        return self._server.get("characterloras", self._namespace, "surtr")

    def job(self, name: str = "surtr-a1") -> Json:
        """A Job of it, as soon as it is there."""
        return dict(until(f"the Job {name}", lambda: self._server.find("jobs", self._namespace, name)))

    def until_it(self, what: str, holds: Callable[[Json], Any]) -> Json:
        """Wait for something that the resource's status says."""
        until(f"{self._namespace} to say {what}", lambda: holds(self.body))
        return self.body

    def until_told(self, condition: str, words: str) -> Json:
        """Wait for a condition's message."""
        return self.until_it(words, lambda body: words in conditions_of(body).get(condition, {}).get("message", ""))

    def change(self, **run: Any) -> None:
        """Edit spec.run."""
        self._server.change("characterloras", self._namespace, "surtr", {"spec": {"run": run}})


def test_without_kueue_the_message_says_so(server: ApiServer, operator: Operator) -> None:
    """The Job waits suspended, and claims nothing."""
    assert operator.runs
    queued = Queued(server, "without-kueue")
    body = queued.until_told("Succeeded", "Kueue is not installed in this cluster.")

    assert ("Queued", "False") == (state_of(body), conditions_of(body)["Admitted"]["status"])
    assert queued.job()["spec"]["suspend"] is True
    assert [] == server.all_of("pods", "without-kueue", labelSelector=f"{names.COMPONENT}={names.TRAINING}")


@pytest.fixture(scope="module")
def kueue(server: ApiServer, operator: Operator) -> ApiServer:
    """The API server with Kueue's Workloads, brought while the operator runs."""
    assert operator.runs
    server.define(WORKLOADS)
    return server


@pytest.mark.fault(Fault.EVICTED_BY_KUEUE)
def test_a_training_waits_is_admitted_evicted_and_admitted_again(kueue: ApiServer, node: PaperNode, tmp_path: Path) -> None:
    """The conditions follow, in Kueue's own words; the Job and what Kueue wrote into it stay as they are."""
    del tmp_path
    queued = Queued(kueue, "admitted")
    job = queued.job()
    assert (True, QUEUE) == (job["spec"]["suspend"], job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"])

    workload = Workload(kueue, job)
    workload.wait(NO_QUOTA)
    body = queued.until_told("Admitted", NO_QUOTA)
    assert ("Queued", "False", "Queued") == (state_of(body), *_told(body, "Admitted"))

    workload.admit()
    body = queued.until_it("that it runs", lambda body: state_of(body) == "Running")
    assert ("True", "Admitted") == _told(body, "Admitted")

    for _ in range(3):
        workload.evict(PREEMPTED)
        body = queued.until_told("Admitted", PREEMPTED)
        assert ("Queued", "False", "Queued") == (state_of(body), *_told(body, "Admitted"))
        until("the pods to go", lambda: not kueue.all_of("pods", "admitted", labelSelector=f"{names.COMPONENT}={names.TRAINING}"))

        workload.admit()
        queued.until_it("that it runs again", lambda body: state_of(body) == "Running")
    node.script = lambda pod: End(Outcome.SUCCEEDED, CHECKED if labels_of(pod)[names.COMPONENT] == names.PREFLIGHT else FINISHED)
    body = finished(kueue, "admitted")
    node.script = only_checks

    assert ("Succeeded", 1) == (state_of(body), body["status"]["attempt"])
    after = queued.job()
    assert (job["metadata"]["uid"], {"pool": "a100"}) == (after["metadata"]["uid"], after["spec"]["template"]["spec"]["nodeSelector"])
    ours = [entry["operation"] for entry in after["metadata"]["managedFields"] if entry["manager"] == names.MANAGER]
    assert ["Update"] == ours  # its making, and nothing after it


def test_pausing_in_the_queue_takes_the_job_back(kueue: ApiServer, operator: Operator) -> None:
    """And going on asks again, with the next attempt."""
    assert operator.runs
    queued = Queued(kueue, "paused")
    Workload(kueue, queued.job()).wait(NO_QUOTA)
    queued.until_told("Admitted", NO_QUOTA)

    queued.change(suspend=True)
    until("the Job to go", lambda: kueue.find("jobs", "paused", "surtr-a1") is None)
    queued.until_it("that it is paused", lambda body: state_of(body) == "Suspended")

    queued.change(suspend=False)
    body = queued.until_it("that it waits again", lambda body: state_of(body) == "Queued")
    again = kueue.get("jobs", "paused", body["status"]["jobName"])
    assert again["spec"]["suspend"] is True
    assert 0 == body["status"].get("usage", {}).get("gpuSeconds", 0)


def test_a_deactivated_workload_says_so(kueue: ApiServer, operator: Operator) -> None:
    """An administrator took it out of the queue."""
    assert operator.runs
    queued = Queued(kueue, "deactivated")
    workload = Workload(kueue, queued.job())
    workload.deactivate()
    body = queued.until_told("Admitted", f"Workload {workload.name} was deactivated: The workload is deactivated")

    assert "Queued" == state_of(body)
    assert kueue.ask("GET", path_of("jobs", "deactivated", "surtr-a1")).body["spec"]["suspend"] is True


def _told(body: Json, condition: str) -> tuple[str, str]:
    told = conditions_of(body)[condition]
    return told["status"], told["reason"]
