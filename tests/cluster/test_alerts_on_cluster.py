"""Alerts that fire for real: the development cluster's Prometheus has our rules, with seconds in place of minutes that an alert waits."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cluster_runs import Place
from target import OPERATOR_NAMESPACE, Target

pytestmark = pytest.mark.alone  # it takes the operators away

SECONDS = 180.0
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Alert = Mapping[str, Any]


@pytest.fixture(autouse=True)
def _ours(target: Target) -> None:
    assert target.is_ours, "Rules are loaded into the Prometheus of the development cluster alone: run this without CLUSTER."


def firing(target: Target, name: str, **labels: str) -> list[Alert]:
    """The alerts of a name that fire now."""
    answer = json.loads(_DIRECTLY.open(f"{target.prometheus}/api/v1/alerts", timeout=30).read())
    return [
        alert
        for alert in answer["data"]["alerts"]
        if alert["state"] == "firing" and {"alertname": name, **labels}.items() <= alert["labels"].items()
    ]


def wait_for(what: str, look: Callable[[], Any]) -> Any:
    """What is there at last; an empty list is not there yet."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {SECONDS:.0f} s in vain for {what}"
        time.sleep(1)
    return found


def test_prometheus_has_every_alert_and_each_can_be_evaluated(target: Target) -> None:
    """On the figures that operators and trainings really serve."""
    groups = json.loads(_DIRECTLY.open(f"{target.prometheus}/api/v1/rules?type=alert", timeout=30).read())["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert 10 == len(rules)
    assert [] == [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")]


def test_a_training_that_fails_at_once_in_a_new_namespace_is_told(place: Place) -> None:
    """Its end is there at the first scrape already."""
    place.start("nowhere", **{"cache.node": True}).finish()

    [alert] = wait_for("the alert", lambda: firing(place.target, "CharaloraTrainingFailed", namespace=place.namespace))

    assert ("SpecInvalid", "warning") == (alert["labels"]["reason"], alert["labels"]["severity"])
    assert f"1 of the trainings in {place.namespace} ended with SpecInvalid" in alert["annotations"]["description"]


def test_a_visit_that_fails_again_and_again_is_told(place: Place) -> None:
    """The namespace may have no Jobs, so that every visit is refused."""
    target, namespace = place.target, place.namespace
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-jobs", "namespace": namespace}}
    target.apply(quota | {"spec": {"hard": {"count/jobs.batch": "0"}}})
    quota_counts = ("get", "resourcequota", "no-jobs", "-n", namespace, "-o", "jsonpath={.status.hard}")
    wait_for("the quota", lambda: target.run(*quota_counts))
    place.start()

    [alert] = wait_for("the alert", lambda: firing(target, "CharaloraReconcileErrors", kind="api_403"))

    assert OPERATOR_NAMESPACE == alert["labels"]["namespace"]
    target.run("delete", "clora", "surtr", "-n", namespace)


def test_operators_that_are_gone_are_told_and_their_return_as_well(target: Target) -> None:
    """From the figures of any to those of none, and back."""
    wait_for("the operators' figures", lambda: not firing(target, "CharaloraOperatorDown"))
    scale = ("scale", "deployment", "charalora", "-n", OPERATOR_NAMESPACE)
    target.run(*scale, "--replicas=0")
    try:
        [alert] = wait_for("the alert", lambda: firing(target, "CharaloraOperatorDown"))
    finally:
        target.run(*scale, "--replicas=2")
        target.run("rollout", "status", "deployment/charalora", "-n", OPERATOR_NAMESPACE, "--timeout=5m")

    assert "critical" == alert["labels"]["severity"]
    wait_for("its end", lambda: not firing(target, "CharaloraOperatorDown"))
