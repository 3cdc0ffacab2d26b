from typing import Any

import pytest
from pydantic import ValidationError

from charalora_spec.status import Condition, Status

OBSERVED: dict[str, Any] = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Succeeded",
            "status": "Unknown",
            "reason": "Running",
            "message": "Step 42 of 100.",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "observedGeneration": 1,
        }
    ],
    "progress": {
        "step": 42,
        "steps": 100,
        "percent": "42%",
        "loss": "0.0812",
        "imagesPerSecond": "11.4",
        "etaSeconds": 60,
        "updatedAt": "2026-01-02T03:04:05Z",
    },
    "dataset": {"images": 24, "width": 128, "height": 128, "buckets": 1, "tokens": 17, "digest": "sha256:00"},
    "checkpoint": {"step": 40, "uri": "s3://loras/surtr/state/40/", "time": "2026-01-02T03:04:05Z"},
    "best": {"step": 40, "heldOutLoss": "0.07"},
    "attempt": 1,
    "preemptions": 0,
    "attempts": [
        {
            "attempt": 1,
            "reason": "Running",
            "startTime": "2026-01-02T03:04:05Z",
            "endTime": None,
            "gpuSeconds": 84,
            "wastedGpuSeconds": 0,
        }
    ],
    "usage": {"gpuSeconds": 84, "wastedGpuSeconds": 0},
    "artifacts": [{"kind": "webui", "uri": "s3://loras/surtr/ckpts/lora-100.safetensors", "bytes": 1, "sha256": "00"}],
    "startTime": "2026-01-02T03:04:05Z",
    "completionTime": None,
    "jobName": "surtr-a1",
}


def test_a_status_is_read_and_written_alike() -> None:
    """Every promised field is there, in its promised form."""
    assert OBSERVED == Status.model_validate(OBSERVED).model_dump(by_alias=True, mode="json")


def test_a_new_resource_has_no_status_yet() -> None:
    """The first visit starts from nothing."""
    assert Status() == Status.model_validate({})


def test_a_field_of_a_later_version_is_let_through() -> None:
    """An operator that was rolled back still reads what its successor wrote."""
    assert Status() == Status.model_validate({"fromTheFuture": 1})


def test_a_condition_always_has_a_reason() -> None:
    """`kubectl get` prints it as the state."""
    with pytest.raises(ValidationError, match="at least 1 character"):
        Status.model_validate({"conditions": [OBSERVED["conditions"][0] | {"reason": ""}]})


def test_the_conditions_have_these_names() -> None:
    """Other tools wait for them."""
    assert ["DatasetReady", "Admitted", "Training", "ArtifactsUploaded", "Succeeded"] == [condition.value for condition in Condition]
