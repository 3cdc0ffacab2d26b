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
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "DatasetInvalid", "Succeeded: a.png has no caption.")
    assert event["involvedObject"] == {
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


def test_the_names_of_events_are_in_the_order_of_what_happened() -> None:
    """What happened first stands first, within a visit and from one to the next: kubectl sorts by whole seconds, then by name."""
    first = status(DatasetReady=("True", "Checked", "24 pictures."), Succeeded=("Unknown", "Pending", ""))
    told = [*news(Status(), first), *news(first, RUNNING, seconds=0.01), *news(RUNNING, FAILED, seconds=0.02)]

    assert ["Checked", "Pending", "Running", "Running", "DatasetInvalid"] == [event["reason"] for event in told]
    names = [event["metadata"]["name"] for event in told]
    assert names == sorted(set(names))
    assert {"2026-06-01T12:00:00Z"} == {event[stamp] for event in told for stamp in ("firstTimestamp", "lastTimestamp")}


def test_a_fact_that_is_told_again_has_the_same_name() -> None:
    """When the answer to its creation was lost, that is a conflict and no twin; of another resource it is another fact."""
    [event], [again], [other] = news(RUNNING, FAILED), news(RUNNING, FAILED), news(RUNNING, FAILED, uid="uid-2")

    assert event == again
    assert event["metadata"]["name"] != other["metadata"]["name"]


def test_a_note_fits_into_an_event() -> None:
    """1024 bytes, and no half letter."""
    long = status(Succeeded=("False", "DatasetInvalid", "画像" * 600), Training=("True", "Running", ""))
    note = news(RUNNING, long)[0]["message"]
    assert 1000 < len(note.encode()) <= 1024
    assert note.endswith("…")
