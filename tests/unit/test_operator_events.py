"""What kubectl describe tells."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from charalora_operator.events import news_of
from charalora_operator.model import Key, Resource
from charalora_spec.status import Status

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def status(attempt: int = 1, **conditions: tuple[str, str, str]) -> Status:
    """A status with conditions by type: status, reason and message."""
    told = [
        {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": NOON.isoformat()}
        for kind, (value, reason, message) in conditions.items()
    ]
    return Status.model_validate({"conditions": told, "attempt": attempt})


def news(before: Status, now: Status, seconds: float = 0, uid: str = "uid-1") -> list[dict[str, Any]]:
    """The Events between two statuses."""
    resource = Resource(Key("artists", "surtr"), uid, 1, NOON, False, None, "", before)  # noqa: FBT003
    return news_of(resource, now, NOON + timedelta(seconds=seconds))


RUNNING = status(Succeeded=("Unknown", "Running", "Attempt 1 runs."), Training=("True", "Running", "Attempt 1 runs."))
FAILED = status(Succeeded=("False", "DatasetInvalid", "a.png has no caption."), Training=("True", "Running", "Attempt 1 runs."))


def test_a_changed_condition_is_told() -> None:
    (event,) = news(RUNNING, FAILED)
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "DatasetInvalid", "Succeeded: a.png has no caption.")
    assert event["regarding"] == {
        "apiVersion": "charalora.dev/v1alpha1", "kind": "CharacterLora", "name": "surtr", "namespace": "artists", "uid": "uid-1",
    }  # fmt: skip


def test_another_message_alone_is_no_news() -> None:
    """Progress is in the status and in the metrics."""
    later = status(Succeeded=("Unknown", "Running", "Step 400."), Training=("True", "Running", "Step 400."))
    assert news(RUNNING, later) == []


def test_the_first_visit_tells_the_state_and_what_is_known() -> None:
    """Not that nothing is known of the other conditions."""
    first = status(
        Succeeded=("Unknown", "Checking", ""), Training=("Unknown", "Pending", ""), DatasetReady=("True", "Checked", "24 pictures.")
    )
    assert [event["reason"] for event in news(Status(), first)] == ["Checking", "Checked"]


@pytest.mark.parametrize(
    ("reason", "severity"), [("Unschedulable", "Warning"), ("SecretMissing", "Warning"), ("Pending", "Normal"), ("Suspended", "Normal")]
)
def test_waiting_for_what_somebody_must_do_is_a_warning(reason: str, severity: str) -> None:
    assert [event["type"] for event in news(RUNNING, replace_succeeded(reason))] == [severity]


def replace_succeeded(reason: str) -> Status:
    """Running, but for the state."""
    return status(Succeeded=("Unknown", reason, ""), Training=("True", "Running", "Attempt 1 runs."))


def test_the_same_fact_has_the_same_name() -> None:
    """Told again after a crash, it is a conflict and no twin."""
    assert news(RUNNING, FAILED)[0]["metadata"] == news(RUNNING, FAILED, seconds=60)[0]["metadata"]


def test_the_same_of_another_attempt_or_resource_is_another_fact() -> None:
    names = {
        news(RUNNING, FAILED)[0]["metadata"]["name"],
        news(RUNNING, FAILED.model_copy(update={"attempt": 2}))[0]["metadata"]["name"],
        news(RUNNING, FAILED, uid="uid-2")[0]["metadata"]["name"],
    }
    assert len(names) == 3


def test_a_note_fits_into_an_event() -> None:
    """1024 bytes, and no half letter."""
    long = status(Succeeded=("False", "DatasetInvalid", "画像" * 600), Training=("True", "Running", ""))
    note = news(RUNNING, long)[0]["note"]
    assert 1000 < len(note.encode()) <= 1024
    assert note.endswith("…")
