"""The chart on the real cluster: its own test, an upgrade and a removal in mid-run, one namespace alone, and who leads."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from charalora_operator.permissions import PERMISSIONS
from charalora_spec.spec import GROUP, PLURAL
from charalora_spec.status import Condition
from cluster_runs import Place, Run
from faults import Fault
from reasons import own_operator
from target import CHART, OPERATOR_NAMESPACE, Target

pytestmark = pytest.mark.alone  # it takes the operators away, and brings others

RELEASE = "charalora"
CRD = f"{PLURAL}.{GROUP}"
LONG: dict[str, Any] = {"training.steps": 720, "training.saveEvery": 90, "resources.cpu": "1"}
"""Some twenty seconds of training, so that there is a middle."""


@pytest.fixture
def release(target: Target) -> Iterator[Callable[..., str]]:
    """Helm on the operator's release; in the end it stands as it was."""
    if not target.is_ours:
        pytest.fail("This removes and upgrades the operator, which other people's trainings may need: leave CLUSTER unset.")

    def helm(*arguments: str) -> str:
        return target.run_helm(*arguments, "--namespace", OPERATOR_NAMESPACE)

    yield helm
    target.install()


def in_the_middle(run: Run) -> str:
    """The uid of the Job of a training that has saved something and is not done."""
    status = run.until("a saved state", lambda status: status.checkpoint is not None)
    assert status.completion_time is None, "It was over before anything could happen to it."
    return job(run)


def job(run: Run) -> str:
    """The uid of the training's only Job."""
    [uid] = [one["metadata"]["uid"] for one in run.owned("jobs") if one["metadata"]["name"].endswith("-a1")]
    return str(uid)


def succeeded(run: Run) -> None:
    run.finish()
    assert run.state == "Succeeded", run.story()
    assert 1 == run.status.attempt
    assert 1 == len(run.trainers())


def test_helm_test_passes(release: Callable[..., str]) -> None:
    said = release("test", RELEASE, "--logs", "--timeout", "2m")

    assert "Phase:          Succeeded" in said
    assert "An operator is ready: ok" in said
    assert "The API server knows CharacterLora" in said


@pytest.mark.fault(Fault.UPGRADED)
def test_an_upgrade_in_mid_run_keeps_the_training(place: Place, release: Callable[..., str]) -> None:
    run = place.start("upgraded", **LONG)
    before = in_the_middle(run)
    operators = names_of_pods(place.target)

    place.target.install("--set", "settings.log.level=debug,settings.gracePeriodSeconds=45")

    assert not operators & names_of_pods(place.target)
    assert "45" in release("get", "values", RELEASE)
    assert before == job(run)
    succeeded(run)
    assert before == job(run)


@pytest.mark.fault(Fault.UPGRADED)
def test_a_chart_of_another_version_comes_and_goes_in_mid_run(place: Place, release: Callable[..., str], tmp_path: Path) -> None:
    """`helm upgrade`, then `helm rollback`. The newer definition has one more field, and the training uses it in between."""
    run = place.start("forth-and-back", **(LONG | {"training.steps": 2000}))
    before = in_the_middle(run)
    old = json.loads(release("history", RELEASE, "--output", "json"))[-1]["revision"]

    place.target.install("--set", "settings.log.level=debug", chart=newer_chart(tmp_path))
    run.patch({"spec": {"run": {"annealing": True}}})
    run.until("a warning", lambda _: "spec.run.annealing: is not a field" in run.message(Condition.TRAINING))
    assert "charalora-0.2.0" in release("list", "--filter", RELEASE)
    assert place.target.get("clora", run.name, "-n", place.namespace)["spec"]["run"]["annealing"] is True
    release("rollback", RELEASE, str(old), "--wait", "--timeout", "5m")

    assert "charalora-0.1.0" in release("list", "--filter", RELEASE)
    assert before == job(run)
    succeeded(run)
    assert before == job(run)


def newer_chart(folder: Path) -> Path:
    """The chart as a later version might be, with a field that this version's operator does not know."""
    chart = folder / "charalora"
    shutil.copytree(CHART, chart)
    about, definition = chart / "Chart.yaml", chart / "templates/crd.yaml"
    about.write_text(about.read_text().replace("version: 0.1.0", "version: 0.2.0", 1))
    known = "                    suspend:\n                      default: false\n"
    field = "                    annealing:\n                      type: boolean\n"
    assert known in definition.read_text()
    definition.write_text(definition.read_text().replace(known, field + known, 1))
    return chart


def test_a_removed_release_leaves_the_definition_the_resources_and_what_runs(place: Place, release: Callable[..., str]) -> None:
    """Trainings need no operator to go on; a new installation takes up what has happened since."""
    run = place.start("orphan", **LONG)
    before = in_the_middle(run)

    release("uninstall", RELEASE, "--wait", "--timeout", "2m")

    assert set() == names_of_pods(place.target)
    assert CRD == place.target.get("crd", CRD)["metadata"]["name"]
    assert before == job(run)
    place.target.run("wait", "--for=condition=Complete", f"job/{run.status.job_name}", "-n", place.namespace, "--timeout=240s")
    assert "manifest.json" in place.output("orphan")
    assert run.status.completion_time is None, "Somebody writes its status without an operator."
    place.target.install()
    succeeded(run)
    assert run.status.artifacts


def test_one_namespace_alone_needs_roles_only(place: Place) -> None:
    """Its operator has no right beyond it, and the training ends well; the cluster's other operator may not write there."""
    with own_operator(place):
        run = place.start("apart", **{"resources.cpu": "1"})
        succeeded(run)

        account = f"system:serviceaccount:{place.namespace}:{operator_account(place)}"
        rights = {
            (one.group, one.resource, verb, where): may(place.target, account, verb, one.resource, one.group, where)
            for one in PERMISSIONS
            if not one.own_namespace
            for verb in one.verbs
            for where in (place.namespace, "default")
        }
        assert {place.namespace} == {where for (*_, where), allowed in rights.items() if allowed}
        assert not [right for right, allowed in rights.items() if right[-1] == place.namespace and not allowed]
        assert not may(place.target, account, "get", "secrets", "", place.namespace)
        bound = [one["metadata"]["name"] for one in place.target.get("clusterrolebindings")["items"] if account_is_bound(one, account)]
        assert [] == bound


@pytest.mark.fault(Fault.LEADER_KILLED)
def test_leader_and_standby_are_ready_and_the_standby_leads_when_the_leader_is_gone(target: Target) -> None:
    """Its pod is deleted by force; whether it still gives its Lease back or not, the other one is in time."""
    pods = names_of_pods(target)
    first = leader(target)
    assert 2 == len(pods)
    assert first in pods
    target.run("wait", "--for=condition=Ready", "pods", "-l", OPERATORS, "-n", OPERATOR_NAMESPACE, "--timeout=60s")

    target.run("delete", "pod", first, "-n", OPERATOR_NAMESPACE, "--grace-period=0", "--force")
    began = time.monotonic()
    while leader(target) in {first, ""}:
        assert time.monotonic() - began < 20, "Nobody took over within 20 seconds."
        time.sleep(0.5)

    assert leader(target) in pods - {first}
    target.run("wait", "--for=condition=Ready", "pods", "-l", OPERATORS, "-n", OPERATOR_NAMESPACE, "--timeout=90s")
    assert 2 == len(names_of_pods(target))


OPERATORS = "app.kubernetes.io/component=operator"


def names_of_pods(target: Target) -> set[str]:
    """The operators that are there and not on their way out."""
    pods = target.get("pods", "-n", OPERATOR_NAMESPACE, "-l", OPERATORS)["items"]
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def leader(target: Target) -> str:
    """The pod whose Lease it is."""
    identity = target.get("lease", RELEASE, "-n", OPERATOR_NAMESPACE)["spec"].get("holderIdentity", "")
    return str(identity).rpartition("_")[0]


def operator_account(place: Place) -> str:
    """The ServiceAccount of the operator in a place."""
    [pod, *_] = place.target.get("pods", "-n", place.namespace, "-l", OPERATORS)["items"]
    return str(pod["spec"]["serviceAccountName"])


def may(target: Target, account: str, verb: str, resource: str, group: str, namespace: str) -> bool:
    """Whether the API server allows something to an account."""
    plural, _, subresource = resource.partition("/")
    wanted = {"namespace": namespace, "verb": verb, "group": group, "resource": plural, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": account, "groups": ["system:serviceaccounts", "system:authenticated"], "resourceAttributes": wanted},
    }
    answer = json.loads(target.run("create", "-f", "-", "-o", "json", content=json.dumps(review)))
    return bool(answer["status"]["allowed"])


def account_is_bound(binding: dict[str, Any], account: str) -> bool:
    """Whether a ClusterRoleBinding names an account."""
    subjects = binding.get("subjects") or []
    return any(f"system:serviceaccount:{one.get('namespace')}:{one['name']}" == account for one in subjects)
