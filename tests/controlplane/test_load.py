"""The benchmark of the operator under load, small: it measures everything, and no resource is lost. How fast it was, is not asked."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COUNT, RUNNING = 24, 4


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The result that the command writes as JSON, and its page."""
    folder = tmp_path_factory.mktemp("results")
    options = {"sizes": COUNT, "rate": 5, "seconds": 2, "plain": 8, "running": RUNNING, "watched": 3, "output": folder}
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py"), *(f"--{name}={value}" for name, value in options.items())]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (run.returncode, run.stderr), run.stdout
    (result,) = folder.glob("*.json")
    (page,) = folder.glob("*.md")
    return json.loads(result.read_text(encoding="utf-8")), page.read_text(encoding="utf-8")


def test_every_resource_gets_its_job_at_once_and_in_a_stream(measured: tuple[dict[str, Any], str]) -> None:
    """None is lost, and the operator meets no error."""
    one = measured[0]["sizes"][str(COUNT)]
    assert (COUNT, 10) == (one["burst"]["to_job"]["count"], one["stream"]["to_job"]["count"])
    assert (0, 0) == (one["lost"], one["burst"]["errors"])


def test_a_first_visit_writes_four_objects_and_a_cold_start_among_what_is_done_writes_none(measured: tuple[dict[str, Any], str]) -> None:
    """ConfigMap, Job, status and Event; a busy machine may see the Job's first state so late that it writes the status again."""
    one = measured[0]["sizes"][str(COUNT)]
    assert 4 <= one["burst"]["writes_each"] <= 6
    assert one["cold_start"]["visits"] >= COUNT
    assert one["cold_start"]["writes"] <= COUNT // 4


def test_every_training_runs_and_its_reports_reach_its_status(measured: tuple[dict[str, Any], str]) -> None:
    """On simulated nodes, through the check and the attempt."""
    trainings = measured[0]["trainings"]
    assert RUNNING == trainings["trainings"] == trainings["stream"]["to_job"]["count"]
    assert 0 == trainings["reporting"]["errors"]


def test_the_page_has_the_table_and_the_machine(measured: tuple[dict[str, Any], str]) -> None:
    """Each figure with its aim beside it."""
    result, page = measured
    for row in (
        "ratio to the plain client",
        "cold start until every resource was visited",
        "a step's age when the status tells it: p50, p99",
    ):
        assert f"| {row} | " in page
    assert f"What sets the limit at {COUNT}: the cores. A resource costs API server and etcd " in page
    assert {"date", "commit", "processor", "load", "kopf"} <= result["machine"].keys()
    assert f"- commit: {result['machine']['commit']}" in page
