"""Events, which tell people what changed: one for each condition that says something new.

They are of the core API: `kubectl describe` sorts by a time that Events of events.k8s.io do not have, and mixes those up.
"""

from datetime import UTC, datetime, timedelta

from charalora_operator import names
from charalora_operator.model import Manifest, Resource
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.spec import API_VERSION, KIND
from charalora_spec.status import Condition, ConditionStatus, Status

_LONGEST_MESSAGE = 1024
_WAITING = {outcome.reason for outcome in Outcome if outcome.exit_code is None and outcome.retry is Retry.RETRY}


def news_of(resource: Resource, status: Status, now: datetime) -> list[Manifest]:
    """An Event for each condition whose status or reason is not what it was."""
    before = {condition.type: (condition.status, condition.reason) for condition in resource.status.conditions}
    changed = [condition for condition in status.conditions if before.get(condition.type) != (condition.status, condition.reason)]
    told = [condition for condition in changed if condition.type in before or _says_something(condition)]
    return [_event(resource, condition, now + timedelta(microseconds=number)) for number, condition in enumerate(told)]


def _says_something(condition: ConditionStatus) -> bool:
    """At the first visit most conditions are only there; the state is told, and what is known already."""
    return condition.status != "Unknown" or condition.type == Condition.SUCCEEDED.value


def _event(resource: Resource, condition: ConditionStatus, at: datetime) -> Manifest:
    name = names.event(resource.key.name, round(at.timestamp() * 1e6), resource.uid, condition.type, condition.reason)
    second = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": resource.key.namespace},
        "firstTimestamp": second,
        "lastTimestamp": second,
        "count": 1,
        "reportingComponent": f"charalora.dev/{names.MANAGER}",
        "reportingInstance": names.MANAGER,
        "type": _severity(condition),
        "reason": condition.reason[:128],
        "message": _cut(f"{condition.type}: {condition.message}"),
        "involvedObject": {
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
    if len(text.encode()) <= _LONGEST_MESSAGE:
        return text
    return text.encode()[: _LONGEST_MESSAGE - 3].decode(errors="ignore") + "…"
