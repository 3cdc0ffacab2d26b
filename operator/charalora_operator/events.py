"""Events, which tell people what changed: one for each condition that says something new."""

from datetime import UTC, datetime

from charalora_operator import names
from charalora_operator.model import Manifest, Resource
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.spec import API_VERSION, KIND
from charalora_spec.status import Condition, ConditionStatus, Status

_LONGEST_NOTE = 1024
_WAITING = {outcome.reason for outcome in Outcome if outcome.exit_code is None and outcome.retry is Retry.RETRY}
_ACTION = "Reconcile"


def news_of(resource: Resource, status: Status, now: datetime) -> list[Manifest]:
    """An Event for each condition whose status or reason is not what it was."""
    before = {condition.type: (condition.status, condition.reason) for condition in resource.status.conditions}
    changed = [condition for condition in status.conditions if before.get(condition.type) != (condition.status, condition.reason)]
    return [_event(resource, condition, status, now) for condition in changed if condition.type in before or _says_something(condition)]


def _says_something(condition: ConditionStatus) -> bool:
    """At the first visit most conditions are only there; the state is told, and what is known already."""
    return condition.status != "Unknown" or condition.type == Condition.SUCCEEDED.value


def _event(resource: Resource, condition: ConditionStatus, status: Status, now: datetime) -> Manifest:
    fact = (
        resource.uid,
        condition.type,
        condition.status,
        condition.reason,
        str(status.attempt),
        condition.last_transition_time.isoformat(),
    )
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": names.event(resource.key.name, *fact), "namespace": resource.key.namespace},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"charalora.dev/{names.MANAGER}",
        "reportingInstance": names.MANAGER,
        "action": _ACTION,
        "type": _severity(condition),
        "reason": condition.reason[:128],
        "note": _cut(f"{condition.type}: {condition.message}"),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": resource.key.name,
            "namespace": resource.key.namespace,
            "uid": resource.uid,
        },
    }


def _severity(condition: ConditionStatus) -> str:
    failed = condition.type == Condition.SUCCEEDED.value and condition.status == "False"
    return "Warning" if failed or condition.reason in _WAITING else "Normal"


def _cut(text: str) -> str:
    """At most 1024 bytes, as the API server counts."""
    if len(text.encode()) <= _LONGEST_NOTE:
        return text
    return text.encode()[: _LONGEST_NOTE - 3].decode(errors="ignore") + "…"
