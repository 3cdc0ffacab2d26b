"""What the operator writes below `status`: rebuilt from what is observed, never the only copy of anything."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from charalora_spec.parts import Part
from charalora_spec.values import Number, Whole


class Condition(Enum):
    """The conditions of a CharacterLora; all are present from the first visit."""

    DATASET_READY = "DatasetReady"
    ADMITTED = "Admitted"
    TRAINING = "Training"
    ARTIFACTS_UPLOADED = "ArtifactsUploaded"
    SUCCEEDED = "Succeeded"


class StatusPart(Part):
    """A part that lets fields of another version through unread."""

    model_config = ConfigDict(extra="ignore")


class ConditionStatus(StatusPart):
    """One condition, in the form that every Kubernetes tool reads."""

    type: Annotated[str, Field(max_length=316)] = Field(description="Name of the condition, such as Succeeded.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, Field(min_length=1, max_length=1024)] = Field(description="One word why; for Succeeded the state of the run.")
    message: Annotated[str, Field(max_length=32768)] = Field(description="What happened and what to do, for people.")
    last_transition_time: datetime = Field(description="When status last changed.")
    observed_generation: Whole = Field(0, ge=0, description="Generation of the resource that this was said about.")


class Progress(StatusPart):
    """How far the training is."""

    step: Whole = Field(0, ge=0, description="Optimizer steps done.")
    steps: Whole = Field(0, ge=0, description="Optimizer steps in all.")
    percent: Annotated[str, Field(max_length=4)] = Field("0%", description="The same as text, such as 42%.")
    loss: Number | None = Field(None, description="Smoothed training loss.")
    images_per_second: Number | None = Field(None, description="Pictures trained on per second, all GPUs together.")
    eta_seconds: Whole | None = Field(None, description="Seconds to the last step at this rate.")
    updated_at: datetime | None = Field(None, description="When this was measured.")


class DatasetStatus(StatusPart):
    """The data set that was checked."""

    images: Whole = Field(ge=0, description="Pictures that are trained on.")
    width: Whole | None = Field(None, description="Width in pixels, when there is one size.")
    height: Whole | None = Field(None, description="Height in pixels, when there is one size.")
    buckets: Whole = Field(ge=0, description="Groups of pictures of one size.")
    tokens: Whole = Field(ge=0, description="Tokens of the longest caption.")
    digest: Annotated[str, Field(max_length=128)] = Field(description="Digest of pictures and captions; the training must find the same.")


class CheckpointStatus(StatusPart):
    """The newest state that a training can resume from."""

    step: Whole = Field(ge=0, description="Optimizer step of the state.")
    uri: str = Field(max_length=2048, description="Where it lies.")
    time: datetime = Field(description="When it was saved.")


class Best(StatusPart):
    """The checkpoint with the lowest held-out loss."""

    step: Whole = Field(ge=0, description="Its step.")
    held_out_loss: Number = Field(description="Its held-out loss.")


class Usage(StatusPart):
    """What the training cost."""

    gpu_seconds: Whole = Field(0, ge=0, description="GPU seconds of all attempts.")
    wasted_gpu_seconds: Whole = Field(0, ge=0, description="GPU seconds whose work was lost.")


class AttemptStatus(StatusPart):
    """One start of the training."""

    attempt: Whole = Field(ge=1, description="Its number, from 1.")
    reason: Annotated[str, Field(max_length=63)] = Field(description="How it ended, or Running.")
    start_time: datetime | None = Field(None, description="When its first pod had a node.")
    end_time: datetime | None = Field(None, description="When it ended.")
    gpu_seconds: Whole = Field(0, ge=0, description="GPU seconds that it held.")
    wasted_gpu_seconds: Whole = Field(0, ge=0, description="Those of them after the last state that was saved.")


class Artifact(StatusPart):
    """One file for the user."""

    kind: str = Field(max_length=63, description="What it is: embedding, unet, textEncoder, webui, report, manifest.")
    uri: str = Field(max_length=2048, description="Where it lies.")
    bytes: Whole = Field(ge=0, description="Its size in bytes.")
    sha256: Annotated[str, Field(max_length=64)] = Field(description="Its SHA-256 in hexadecimal.")


class Status(StatusPart):
    """What the operator observed last."""

    observed_generation: Whole = Field(0, ge=0, description="Generation of the resource that this status speaks of.")
    conditions: tuple[ConditionStatus, ...] = Field((), max_length=16, description="The state, one condition for each question.")
    progress: Progress | None = Field(None, description="How far the training is.")
    dataset: DatasetStatus | None = Field(None, description="The data set that was checked.")
    checkpoint: CheckpointStatus | None = Field(None, description="The newest state that a training can resume from.")
    best: Best | None = Field(None, description="The checkpoint with the lowest held-out loss.")
    attempt: Whole = Field(0, ge=0, description="Number of the current attempt, from 1.")
    preemptions: Whole = Field(0, ge=0, description="Attempts that the cluster ended.")
    attempts: tuple[AttemptStatus, ...] = Field((), max_length=20, description="The newest attempts, oldest first; at most 20.")
    usage: Usage | None = Field(None, description="What the training cost.")
    artifacts: tuple[Artifact, ...] = Field((), max_length=512, description="The files of a finished training.")
    start_time: datetime | None = Field(None, description="When the first attempt started.")
    completion_time: datetime | None = Field(None, description="When the training ended, well or not.")
    job_name: str | None = Field(None, max_length=63, description="Job of the current attempt.")
