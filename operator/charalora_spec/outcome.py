"""How a run can end: the reason users see, the exit code the trainer returns, and whether trying again can help.

Everything that speaks of outcomes reads this table: the trainer exits with the code, the Job's podFailurePolicy is built from it, and the
resource's conditions carry the reason. Codes stay clear of 2 (wrong command line) and of 126 and above (the shell and signals).
"""

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, Self

TERMINATION_MESSAGE_BYTES = 4096
"""What Kubernetes keeps of a container's termination message."""

_SIGTERM_EXIT = 128 + 15


class Retry(Enum):
    """Whether the same run can get further when it is started again."""

    NEVER = "Never"
    RETRY = "Retry"
    RESUME = "Resume"


class Outcome(Enum):
    """A reason with its exit code (None: only the operator can know), its retry verdict and its meaning."""

    SUCCEEDED = ("Succeeded", 0, Retry.NEVER, "Every file is in the output prefix and was proven.")
    INTERNAL_ERROR = ("InternalError", 1, Retry.RETRY, "The program met something that it does not know; its log has the details.")
    SPEC_INVALID = ("SpecInvalid", 64, Retry.NEVER, "The resource has fields that are wrong or contradict each other.")
    DATASET_INVALID = ("DatasetInvalid", 65, Retry.NEVER, "The pictures or captions cannot be trained on as they are.")
    WORD_TAKEN = ("WordTaken", 66, Retry.NEVER, "The trigger word already means something to the base model's tokenizer.")
    DATASET_CHANGED = ("DatasetChanged", 67, Retry.NEVER, "The data set is not the one that was checked.")
    BUCKET_NOT_FOUND = ("BucketNotFound", 68, Retry.NEVER, "The bucket that a uri names does not exist.")
    STORAGE_UNREACHABLE = ("StorageUnreachable", 69, Retry.RETRY, "The object storage did not answer, or not in time.")
    STORAGE_ACCESS_DENIED = ("StorageAccessDenied", 70, Retry.NEVER, "The object storage refused the credentials.")
    BASE_MODEL_INVALID = ("BaseModelInvalid", 71, Retry.NEVER, "The base model is missing, incomplete, unsafe to open or of another kind.")
    LOSS_DIVERGED = ("LossDiverged", 72, Retry.NEVER, "The loss stopped being a finite number and did not come back.")
    OUTPUT_OCCUPIED = ("OutputOccupied", 73, Retry.NEVER, "The output prefix belongs to another run, or to a newer attempt of this one.")
    EXPORT_INVALID = ("ExportInvalid", 74, Retry.NEVER, "A written file is not what training computed.")
    INTERRUPTED = ("Interrupted", 75, Retry.RESUME, "The process was asked to stop and saved its state.")
    CUDA_OUT_OF_MEMORY = ("CudaOutOfMemory", 76, Retry.NEVER, "The training does not fit into the GPU's memory.")
    HOST_OUT_OF_MEMORY = ("HostOutOfMemory", 77, Retry.NEVER, "The training does not fit into the memory it may use.")
    GPU_MISMATCH = ("GpuMismatch", 78, Retry.NEVER, "The machine shows other GPUs than the resource asks for.")
    DISK_FULL = ("DiskFull", 79, Retry.RETRY, "The working folder's disk, or the bucket, is full.")

    PENDING = ("Pending", None, Retry.NEVER, "Nothing runs yet.")
    CHECKING = ("Checking", None, Retry.NEVER, "Data set, trigger word, base model and storage are looked at, before a GPU is claimed.")
    QUEUED = ("Queued", None, Retry.RETRY, "The training waits in its queue for quota.")
    RUNNING = ("Running", None, Retry.NEVER, "The training runs.")
    SUSPENDED = ("Suspended", None, Retry.RESUME, "The training is paused on request.")
    IMAGE_PULL_FAILED = ("ImagePullFailed", None, Retry.RETRY, "A node cannot fetch the trainer's image; the cluster keeps trying.")
    UNSCHEDULABLE = ("Unschedulable", None, Retry.RETRY, "No node has what the pods ask for; the cluster keeps looking.")
    QUOTA_EXCEEDED = ("QuotaExceeded", None, Retry.RETRY, "The namespace's quota leaves no room for the pods.")
    PODS_REFUSED = ("PodsRefused", None, Retry.RETRY, "The cluster's rules refuse the pods; the message has the cluster's own words.")
    SECRET_MISSING = ("SecretMissing", None, Retry.RETRY, "A Secret that the pods need does not exist.")
    PREEMPTED = ("Preempted", None, Retry.RESUME, "The cluster took the pods away for something else.")
    STALLED = ("Stalled", None, Retry.RESUME, "The training stopped making steps.")
    DEADLINE_EXCEEDED = ("DeadlineExceeded", None, Retry.NEVER, "The training took longer than run.deadlineSeconds.")

    def __init__(self, reason: str, exit_code: int | None, retry: Retry, meaning: str) -> None:
        self.reason = reason
        self.exit_code = exit_code
        self.retry = retry
        self.meaning = meaning

    @classmethod
    def of_exit_code(cls, code: int) -> Self:
        """The outcome that a process's exit code stands for.

        143 is a process that SIGTERM ended before it could save: what was saved earlier can be resumed. Any other unknown code is an
        internal error.
        """
        if code == _SIGTERM_EXIT:
            return cls.INTERRUPTED
        return next((outcome for outcome in cls if outcome.exit_code == code), cls.INTERNAL_ERROR)

    @classmethod
    def of_reason(cls, reason: str) -> Self | None:
        """The outcome that a reason names; None for a word that is no reason of ours."""
        return next((outcome for outcome in cls if outcome.reason == reason), None)


FINAL = tuple(
    outcome
    for outcome in Outcome
    if outcome.exit_code is not None or outcome in {Outcome.PREEMPTED, Outcome.STALLED, Outcome.DEADLINE_EXCEEDED}
)
"""With what a training can end for good; the others say for what it waits."""


class TrainingError(Exception):
    """A run ended for a known reason. The outcome says which, and whether trying again can help."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message

    def __reduce__(self) -> tuple[type["TrainingError"], tuple[Outcome, str]]:
        """Pickled as it is made: worker processes hand such errors to their parent."""
        return TrainingError, (self.outcome, self.message)


def termination_message(outcome: Outcome, message: str, details: Mapping[str, Any] | None = None) -> str:
    """The JSON object that the container leaves behind, at most 4096 bytes of UTF-8.

    It is `{"reason", "message", **details}`. What does not fit is left out: first the details, largest first, named under "omitted"; then
    the end of the message.
    """
    kept = dict(details or {})
    omitted: list[str] = []
    while kept and _bytes_over(_document(outcome, message, kept, omitted)) > 0:
        largest = max(kept, key=lambda name: len(json.dumps(kept[name])))
        omitted.append(largest)
        del kept[largest]
    document = _document(outcome, message, kept, omitted)
    while (over := _bytes_over(document)) > 0:
        message = message[: -max(1, over // 6)]  # one character takes at most 6 bytes in JSON
        document = _document(outcome, message + "…", kept, omitted)
    return document


def _document(outcome: Outcome, message: str, details: Mapping[str, Any], omitted: list[str]) -> str:
    document = {"reason": outcome.reason, "message": message, **details}
    return json.dumps(document | ({"omitted": sorted(omitted)} if omitted else {}), ensure_ascii=False)


def _bytes_over(text: str) -> int:
    return len(text.encode()) - TERMINATION_MESSAGE_BYTES
