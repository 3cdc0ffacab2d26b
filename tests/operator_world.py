"""A resource, its Jobs and its pods as the operator would see them; each test says only what matters to it."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from builders import character_lora
from charalora_operator import document, names
from charalora_operator.model import Create, Ending, JobFacts, JobState, Key, Observed, PodFacts, Resource, Sample, Workload
from charalora_operator.plan import Plan, plan_of
from charalora_operator.settings import Settings
from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora
from charalora_spec.status import Condition, ConditionStatus, Status

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DIGEST = "d" * 64
CHECKED: dict[str, Any] = {"dataset": {"images": 24, "width": 128, "height": 128, "buckets": 1, "tokens": 31, "digest": DIGEST}}
SETTINGS = Settings.model_validate({"trainerImage": "charalora/trainer:1", "preflightImage": "charalora/preflight:1"})


def after(seconds: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(seconds=seconds)


def told(outcome: Outcome, message: str = "", **details: Any) -> str:
    """A termination message."""
    return json.dumps({"reason": outcome.reason, "message": message or outcome.meaning, **details})


@dataclass
class World:
    """One resource and what the cluster has of it; `look` plans, does what was planned and keeps the status, as the operator would."""

    run: CharacterLora | None = field(default_factory=lambda: character_lora(resources__gpus=2))
    settings: Settings = SETTINGS
    now: datetime = NOON
    generation: int = 1
    problem: str = ""
    deleting: bool = False
    status: Status = field(default_factory=Status)
    jobs: dict[str, JobFacts] = field(default_factory=dict)
    pods: dict[str, PodFacts] = field(default_factory=dict)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    sample: Sample | None = None
    workload: Workload | None = None
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def resource(self) -> Resource:
        """As the API server has it."""
        return Resource(Key("artists", "surtr"), "uid-1", self.generation, NOON, self.deleting, self.run, self.problem, self.status)

    @property
    def observed(self) -> Observed:
        """As the mirror has it."""
        return Observed(dict(self.jobs), tuple(self.pods.values()), self.sample, self.workload, dict(self.refused))

    def plan(self) -> Plan:
        """What the operator would do now."""
        return plan_of(self.resource, self.observed, self.settings, self.now)

    def look(self) -> Plan:
        """Let the operator work once."""
        plan = self.plan()
        for action in plan.actions:
            if isinstance(action, Create):
                self._make(action.manifest)
        self.status = Status.model_validate(json.loads(plan.status.model_dump_json(by_alias=True)))  # as it comes back from the API server
        return plan

    def change(self, **overrides: Any) -> None:
        """Edit the spec."""
        assert self.run is not None
        self.run = character_lora(**{"resources__gpus": 2, **overrides})
        self.generation += 1

    def _make(self, manifest: dict[str, Any]) -> None:
        name, labels = manifest["metadata"]["name"], manifest["metadata"]["labels"]
        self.made[f"{manifest['kind']}/{name}"] = manifest
        if manifest["kind"] == "Job" and name not in self.jobs:
            state = JobState.SUSPENDED if manifest["spec"].get("suspend") else JobState.ACTIVE
            self.jobs[name] = JobFacts(
                name,
                labels[names.COMPONENT],
                int(labels.get(names.ATTEMPT, 0)),
                state,
                created=self.now,
                run=labels[names.RUN],
                started=self.now if state is JobState.ACTIVE else None,
            )

    @property
    def check(self) -> str:
        """Name of the present check's Job."""
        assert self.run is not None
        return names.preflight_job("surtr", document.run_digest(self.run))

    def pod(self, job: str, index: int = 0, **facts: Any) -> PodFacts:
        """Put a pod there, running on node-a unless `facts` say otherwise."""
        running: dict[str, Any] = {"phase": "Running", "node": "node-a", "scheduled": self.now, "running_since": self.now, "ip": "10.0.0.1"}
        pod = PodFacts(f"{job}-{index}", job, index, created=self.now, **running | facts)
        self.pods[pod.name] = pod
        return pod

    def end_pod(self, job: str, message: str, exit_code: int = 0, index: int = 0, cluster_reason: str = "") -> None:
        """Let a pod's container end now."""
        ending = Ending(exit_code, cluster_reason or ("Error" if exit_code else "Completed"), message, self.now)
        phase = "Failed" if exit_code else "Succeeded"
        pod = self.pods.get(f"{job}-{index}") or self.pod(job, index)
        self.pods[pod.name] = replace(pod, phase=phase, ending=ending)

    def end_job(self, job: str, state: JobState = JobState.FAILED, why: tuple[str, str] = ("BackoffLimitExceeded", "")) -> None:
        """Let the Job controller notice the end: of the whole Job, so no pod of it runs any more, unless it is still ending."""
        for pod in [pod for pod in self.pods.values() if pod.job == job and pod.phase == "Running" and state is not JobState.ENDING]:
            self.pods[pod.name] = replace(pod, phase="Failed")
        self.jobs[job] = replace(self.jobs[job], state=state, why=("", "") if state is JobState.SUCCEEDED else why, ended=self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def pass_check(self) -> None:
        """From nothing to a started first attempt."""
        self.look()
        self.end_pod(self.check, told(Outcome.SUCCEEDED, "24 pictures of 128 × 128.", **CHECKED))
        self.end_job(self.check, JobState.SUCCEEDED)
        self.look()

    def train(self, attempt: int = 1) -> str:
        """From nothing, or a pause, to a running attempt; its Job's name."""
        if not self.jobs:
            self.pass_check()
        job = names.training_job("surtr", attempt)
        assert job in self.jobs, f"attempt {attempt} was not started; there are {sorted(self.jobs)}"
        assert self.run is not None
        for index in range(self.run.spec.resources.nodes):
            self.pod(job, index, node=f"node-{'ab'[index]}")
        self.look()
        return job

    def fail(self, job: str, outcome: Outcome, message: str = "", **details: Any) -> None:
        """An attempt ends in a way that the trainer tells."""
        self.end_pod(job, told(outcome, message, **details), outcome.exit_code or 1)
        self.end_job(job)
        self.look()

    def succeed(self, job: str, **details: Any) -> None:
        """An attempt finishes."""
        self.end_pod(job, told(Outcome.SUCCEEDED, **details))
        self.end_job(job, JobState.SUCCEEDED)
        self.look()

    def report(self, job: str, step: int, moved: datetime | None = None, **figures: float) -> None:
        """The trainer's metrics were read."""
        values = {"charalora_step": float(step)} | {f"charalora_{name}": value for name, value in figures.items()}
        self.sample = Sample(job, self.now, moved or self.now, values, "train")

    def condition(self, condition: Condition) -> ConditionStatus:
        """One condition as users see it."""
        return next(one for one in self.status.conditions if one.type == condition.value)

    @property
    def state(self) -> str:
        """The STATE column."""
        return self.condition(Condition.SUCCEEDED).reason
