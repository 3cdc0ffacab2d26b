"""The result of a soak, as a table for people."""

import os
import platform
import subprocess
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from soak_verdict import Kind, Stroke, Training

ROOT = Path(__file__).resolve().parent.parent
_RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Outcome:
    """What came of a soak.

    Attributes:
        seed: What decided the faults.
        seconds: For how long there were any.
        trainings: Everyone's end.
        strokes: Every fault.
        memory: The most that an operator took, bytes.
        problems: What does not hold; empty where all is well.
    """

    seed: int
    seconds: float
    trainings: list[Training]
    strokes: list[Stroke]
    memory: int
    problems: list[str]


def table(outcome: Outcome) -> str:
    """Faults, ends, costs and problems, in Markdown."""
    faults = Counter(stroke.kind for stroke in outcome.strokes)
    ends = Counter(_end(one) for one in outcome.trainings)
    attempts = Counter(attempt.reason for one in outcome.trainings for attempt in one.status.attempts)
    usage = [one.status.usage for one in outcome.trainings if one.status.usage is not None]
    spent, wasted = sum(one.gpu_seconds for one in usage), sum(one.wasted_gpu_seconds for one in usage)
    files = sum(len(one.status.artifacts) for one in outcome.trainings if not one.deleted)
    lines = [
        f"| {faults.total() - faults[Kind.NODE_UNHEARD]} faults in {outcome.seconds / 60:g} minutes | times |",
        "| --- | --- |",
        *(f"| {kind.value} | {faults[kind]} |" for kind in Kind if faults[kind]),
        "",
        f"| {len(outcome.trainings)} trainings ended | times |",
        "| --- | --- |",
        *(f"| {end} | {count} |" for end, count in ends.most_common()),
        "",
        f"| {sum(attempts.values())} attempts ended | times |",
        "| --- | --- |",
        *(f"| {reason} | {count} |" for reason, count in attempts.most_common()),
        "",
        f"{spent} GPU seconds, of which {wasted} were lost to faults; {files} files in the bucket, whose digests were computed anew.",
        f"The largest operator took {outcome.memory / 1e6:.0f} MB.",
        "",
        *(f"- **{problem}**" for problem in outcome.problems),
        "" if outcome.problems else "Every end is true, no account went back, and nothing is left.",
    ]
    return "\n".join(lines)


def write(outcome: Outcome) -> Path:
    """Keep the table with machine, date and commit; the file."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    now = datetime.now(UTC)
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
    head = f"# Soak: {now:%Y-%m-%d}\n\n{machine}; commit {commit}; seed {outcome.seed}. Repeat: `make soak`.\n\n"
    file = _RESULTS / f"{now:%Y-%m-%d}-soak.md"
    file.write_text(head + table(outcome) + "\n", encoding="utf-8")
    return file


def _end(training: Training) -> str:
    if training.deleted:
        return "deleted on purpose"
    return training.end.reason if training.end else "not visited"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
