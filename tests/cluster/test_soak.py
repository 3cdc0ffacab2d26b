"""The soak itself, shortly and without what takes long to heal, so that it is never broken; `make soak` does all of it for half an hour."""

import pytest
from soak import soak
from soak_report import table
from soak_verdict import Kind

from target import Target

pytestmark = pytest.mark.alone  # it kills operators and the API server

QUICK = (
    Kind.OPERATOR_KILLED,
    Kind.POD_DELETED,
    Kind.POD_EVICTED,
    Kind.JOB_DELETED,
    Kind.PAUSED,
    Kind.RESOURCE_DELETED,
    Kind.API_SERVER_KILLED,
)


def test_a_minute_of_faults_leaves_nothing_untrue_and_nothing_behind(target: Target) -> None:
    outcome = soak(target, 60, 7, (3.0, 8.0), QUICK)

    assert [] == outcome.problems, table(outcome)
    assert outcome.strokes
    assert outcome.trainings
