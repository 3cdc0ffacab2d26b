"""Every figure that Prometheus can ask for: declared here once, with what it means.

The operator serves its own and reads some of the trainings', alerts and dashboards are made of both, and docs/metrics.md is this file as a
table.
"""

from dataclasses import dataclass
from enum import Enum

PREFIX = "charalora_"
TOTAL = "_total"


class Kind(Enum):
    """What Prometheus may do with a figure."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: As a query names it: with its unit, and a counter with `_total`.
        kind: Counter, gauge or histogram.
        meaning: What it says, in a sentence.
        labels: What tells its series apart.
        buckets: Upper bounds of a histogram, in its unit.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def short(self) -> str:
        """Its name among ours."""
        return self.name.removeprefix(PREFIX).removesuffix(TOTAL)

    @property
    def unit(self) -> str:
        """The base unit that its name ends with; empty for a plain number."""
        unit = self.short.rpartition("_")[2]
        return unit if unit in {"seconds", "bytes"} else ""

    @property
    def series(self) -> tuple[str, ...]:
        """The names that it has in the store of Prometheus."""
        return (*(f"{self.name}_{part}" for part in ("bucket", "sum", "count")),) if self.kind is Kind.HISTOGRAM else (self.name,)


def _counter(name: str, meaning: str, *labels: str) -> Figure:
    return Figure(f"{PREFIX}{name}{TOTAL}", Kind.COUNTER, meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Figure:
    return Figure(f"{PREFIX}{name}", Kind.GAUGE, meaning, labels)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Figure:
    return Figure(f"{PREFIX}{name}", Kind.HISTOGRAM, meaning, labels, buckets)


TRAININGS = _gauge("trainings", "Resources by state; the states are the reasons of docs/troubleshooting.md.", "namespace", "state")
OUTCOMES = _counter("training_outcomes", "Trainings that ended, by the reason of their end.", "namespace", "reason")
ATTEMPTS = _counter(
    "attempts", "Training Jobs that were made: the first of a training, after a preemption, a failure or a pause.", "namespace", "cause"
)
GPU_SECONDS = _counter(
    "gpu_seconds",
    "GPU seconds that the pods of ended attempts held: useful, or wasted because their steps were lost, by what the attempt was lost to.",
    "namespace",
    "outcome",
    "cause",
)
CREATE_TO_JOB = _histogram("create_to_job_seconds", "From a resource to its first Job.", (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300))
CREATE_TO_FIRST_STEP = _histogram(
    "create_to_first_step_seconds",
    "From a resource to the first step that its status tells.",
    (5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400),
)
RECONCILE = _histogram(
    "reconcile_seconds",
    "Seconds of a visit to a resource, by its result: ok or error.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    "result",
)
ERRORS = _counter("reconcile_errors", "Visits that failed and are repeated, by what failed: api_ and a code, or an exception.", "kind")
QUEUE_DEPTH = _gauge("queue_depth", "Resources that are due.")
QUEUE_OLDEST = _gauge("queue_oldest_seconds", "Seconds that the oldest of them has waited.")
WATCH_AGE = _gauge("watch_age_seconds", "Seconds since a watch was last known to have told everything.", "resource")
REQUESTS = _counter(
    "api_requests", "Requests to the API server, by HTTP verb and status code; `none` where no answer came.", "verb", "code"
)
LEADER = _gauge("leader", "1 where this operator works, 0 where it stands by.")

OPERATOR = (
    *(TRAININGS, OUTCOMES, ATTEMPTS, GPU_SECONDS, CREATE_TO_JOB, CREATE_TO_FIRST_STEP, RECONCILE, ERRORS),
    *(QUEUE_DEPTH, QUEUE_OLDEST, WATCH_AGE, REQUESTS, LEADER),
)
"""What an operator serves."""

STEP_SECONDS = _histogram("step_seconds", "Time of an optimizer step.", (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0))
STAGE = _gauge("stage", "1 for a stage that runs, 0 for one that ran.", "stage")
STAGE_SECONDS = _gauge("stage_seconds", "Time that a stage has taken so far.", "stage")

TRAINING = (
    _gauge("training_info", "Always 1; its labels say what is trained, and where the files go.", "word", "base_model", "dataset", "output"),
    _gauge("step", "Last optimizer step that is done."),
    _gauge("steps", "Optimizer steps in all."),
    _gauge("loss", "Mean training loss of the newest 20 steps."),
    _gauge("held_out_loss", "Newest loss on the pictures that training never sees; each noise level counts the same (geometric mean)."),
    _gauge("best_step", "Save step with the lowest held-out loss."),
    _gauge("best_held_out_loss", "Held-out loss of that step."),
    _gauge("overfitting", "1 when the held-out loss has risen above the best step's by more than chance in the last two saves, else 0."),
    _counter("images", "Pictures trained on in this attempt."),
    _gauge("images_per_second", "Pictures trained on per second, all processes together."),
    STEP_SECONDS,
    _gauge("eta_seconds", "Seconds to the last step at the speed of this attempt."),
    _gauge("learning_rate", "Learning rate of the newest step: of the UNet, the text encoder or the embedding.", "group"),
    _gauge("gradient_norm", "Length of the newest step's gradient, before clipping."),
    _gauge("embedding_norm", "Mean length of the trigger word's vectors.", "word"),
    _counter("nonfinite_steps", "Steps skipped because their gradients were not finite, all attempts."),
    _gauge("model_flops_utilization", "Share of the GPUs' peak that the models' arithmetic reaches, 0 to 1."),
    _gauge("gpu_memory_bytes", "Memory of a GPU that this training holds.", "gpu"),
    STAGE,
    STAGE_SECONDS,
    _gauge("time_to_first_step_seconds", "From the start of the command to the end of this attempt's first step."),
    _gauge("checkpoint_seconds", "From a step's end until its state was whole in the output store, newest."),
    _gauge("last_checkpoint_step", "Step of the newest training state that is whole in the output store."),
    _gauge("last_checkpoint_timestamp_seconds", "Unix time at which that state was whole in the output store."),
    _counter("upload_bytes", "Bytes of the files that were sent to the output store."),
    _counter("upload_failures", "Uploads that failed, also those that succeeded later."),
)
"""What the first process of a running training serves; a figure that is not known yet is absent."""
