"""What a soak takes for true."""

from typing import Any

import pytest
from soak_verdict import Kind, Stroke, Training, problems_of

from charalora_spec.outcome import Outcome
from charalora_spec.status import Status

NOON = 1_780_000_000.0


def ended(reason: str, *attempts: str, **status: Any) -> Training:
    """A training that ended so, in attempts that ended so, each a minute long."""
    kinds = {"type": "Succeeded", "status": "True" if reason == "Succeeded" else "False", "reason": reason, "message": "So it is."}
    accounts = [
        {"attempt": number, "reason": one, "startTime": NOON + 60 * number, "endTime": NOON + 60 * number + 59, "gpuSeconds": 50}
        for number, one in enumerate(attempts, 1)
    ]
    told = {
        "conditions": [kinds | {"lastTransitionTime": NOON}],
        "attempts": accounts,
        "attempt": len(accounts),
        "usage": {"gpuSeconds": 50 * len(accounts)},
    }
    training = Training("t001", NOON)
    training.read(Status.model_validate(told | status), NOON + 1000)
    return training


def test_success_without_faults_is_true() -> None:
    assert [] == list(problems_of(ended("Succeeded", "Succeeded"), []))


def test_an_attempt_that_a_fault_explains_is_true() -> None:
    deleted = Stroke(Kind.POD_DELETED, NOON + 70, NOON + 70, "t001")

    assert [] == list(problems_of(ended("Succeeded", "Interrupted", "Succeeded"), [deleted]))


def test_a_node_that_was_not_heard_of_explains_that_a_pod_was_given_up() -> None:
    unheard = Stroke(Kind.NODE_UNHEARD, NOON + 90, NOON + 130, about="node-b")

    assert [] == list(problems_of(ended("Succeeded", "Preempted", "Succeeded"), [unheard]))
    assert "nothing explains" in next(problems_of(ended("Succeeded", "Interrupted", "Succeeded"), [unheard]))


@pytest.mark.parametrize(
    "stroke",
    [
        Stroke(Kind.POD_DELETED, NOON + 70, NOON + 70, "t002"),
        Stroke(Kind.POD_DELETED, NOON + 500, NOON + 500, "t001"),
        Stroke(Kind.OPERATOR_KILLED, NOON + 70, NOON + 70),
    ],
    ids=["of another training", "later", "of another kind"],
)
def test_an_attempt_that_no_fault_explains_is_a_problem(stroke: Stroke) -> None:
    [problem] = problems_of(ended("Succeeded", "Interrupted", "Succeeded"), [stroke])

    assert "Attempt 1 ended with Interrupted, which nothing explains." == problem


def test_an_end_may_be_called_by_a_pause_that_followed_it_closely() -> None:
    paused, much_later = (Stroke(Kind.PAUSED, NOON + 119 + late, NOON + 150, "t001") for late in (10, 20))
    training = ended("Succeeded", "Suspended", "Succeeded")

    assert [] == list(problems_of(training, [paused]))
    assert ["Attempt 1 ended with Suspended, which nothing explains."] == list(problems_of(training, [much_later]))


def test_a_failure_needs_a_fault_that_explains_it() -> None:
    denied = Stroke(Kind.STORAGE_DENIED, NOON + 60, NOON + 90)
    training = ended(Outcome.STORAGE_ACCESS_DENIED.reason)

    assert [] == list(problems_of(training, [denied]))
    assert "nothing explains" in next(problems_of(training, []))


def test_what_has_not_ended_is_a_problem() -> None:
    assert "It has not ended: never visited: " == next(problems_of(Training("t001", NOON), []))


def test_an_account_that_went_back_is_a_problem() -> None:
    training = ended("Succeeded", "Succeeded")
    training.read(training.status.model_copy(update={"attempt": 0}), NOON + 1001)

    assert "attempt went from 1 back to 0" in list(problems_of(training, []))


def test_sums_that_do_not_add_up_are_a_problem() -> None:
    training = ended("Succeeded", "Succeeded", usage={"gpuSeconds": 51, "wastedGpuSeconds": 52})

    assert 2 == len(list(problems_of(training, [])))


def test_what_was_deleted_on_purpose_need_not_end() -> None:
    training = Training("t001", NOON, deleted=True)

    assert [] == list(problems_of(training, []))
