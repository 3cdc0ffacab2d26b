"""Every query of every dashboard, asked of a real Prometheus after real trainings: one good, one failed, one preempted, one paused."""

import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from charalora_spec.outcome import Outcome
from cluster_runs import Place, Run
from dashboards import FOLDER
from dashboards.asking import Query, Series, Window, boards, has_data, needs_gpu, panels, queries
from reasons import trainer, until_step

LONG = {"training.steps": 100_000, "training.saveEvery": 100, "training.loss.heldOut": 2, "preview.prompts": ["{surtr_arknights}"]}
"""It still runs when Prometheus is asked."""
DIVERGING = {
    "training.precision": "fp16",
    "training.steps": 60,
    "training.saveEvery": 60,
    "training.learningRate": {"unet": "1", "textEncoder": "1", "embedding": "1", "warmupSteps": 0},
    "training.lora.alpha": 1024.0,
}
SCRAPE_SECONDS = 2.0
SECONDS_TO_SCRAPE = 120.0
QUERIES = [query for board in boards(FOLDER) for panel in panels(board) for query in queries(board, panel)]


@pytest.fixture(scope="module")
def window(shared_place: Place) -> Window:
    """The time in which the trainings ran; the preempted one has saved in its second attempt and runs on."""
    place, began = shared_place, time.time()
    assert place.target.prometheus, "nobody knows where the Prometheus of this cluster answers"
    preempted = place.start("preempted", **LONG)
    place.start("paused", **{"run.suspend": True})
    until_step(preempted, 5)
    place.target.evict(place.namespace, trainer(preempted)["metadata"]["name"])
    others = [place.start("good"), place.start("failed", **DIVERGING)]
    saved = preempted.until("the second attempt", lambda status: status.attempt == 2 and status.checkpoint is not None).checkpoint
    assert saved is not None
    assert [Outcome.SUCCEEDED.reason, Outcome.LOSS_DIVERGED.reason] == [reason_of(run) for run in others]
    preempted.until("its next save", lambda status: status.checkpoint is not None and status.checkpoint.step > saved.step)
    variables = {"namespace": place.namespace, "resource": "preempted"}
    window = Window(place.target.prometheus, began - SCRAPE_SECONDS, time.time(), SCRAPE_SECONDS, variables)
    until_scraped(window)
    return window


def until_scraped(window: Window) -> None:
    """Return when Prometheus has asked everything again since the window's end, and so knows what became of the trainings."""
    scraped, deadline = Query("", "", "", "min(timestamp(up))", "", is_instant=True), time.monotonic() + SECONDS_TO_SCRAPE
    while scraped.ask(replace(window, end=time.time()))[0].points[0][1] <= window.end:
        assert time.monotonic() < deadline, f"Prometheus has not asked everything within {SECONDS_TO_SCRAPE:.0f} s"
        time.sleep(SCRAPE_SECONDS / 2)


def reason_of(run: Run) -> str:
    run.finish()
    return run.state


def asked(window: Window) -> Mapping[Query, list[Series]]:
    """What Prometheus answers now."""
    now = replace(window, end=time.time())
    return {query: query.ask(now) for query in QUERIES}


def test_every_query_has_data(window: Window) -> None:
    """But for the figures of a GPU, where there is none."""
    deadline, missing = time.monotonic() + SECONDS_TO_SCRAPE, QUERIES
    while missing and time.monotonic() < deadline:
        missing = [query for query, series in asked(window).items() if not has_data(series) and not needs_gpu(query)]

    assert [] == [f"{query.board}: {query.panel} {query.letter}: {query.expr}" for query in missing]


def test_the_fleet_tells_what_became_of_each(window: Window) -> None:
    """Names, reasons, attempts and lost GPU seconds, as the trainings had them."""
    found = {(query.panel, query.letter): series for query, series in asked(window).items()}

    assert {"preempted"} == {series.labels["resource"] for series in found["Trainings that run", "A"]}
    assert {"Succeeded": 1, "LossDiverged": 1} == {series.name: series.points[0][1] for series in found["How trainings ended", "A"]}
    assert {"LossDiverged": 1} == {
        series.labels["state"]: series.points[0][1] for series in found["Failed, still there", "A"] if "state" in series.labels
    }
    seen = {series.labels["resource"]: series.points[0][1] for series in found["Trainings of this time range", "B"]}
    assert {"preempted": 2, "good": 1, "failed": 1} == seen
    lost = {series.name: series.points[0][1] for series in found["GPU hours lost, by cause", "A"]}
    assert {"preemption", "failure", "pause"} == lost.keys()
    assert lost["failure"] > 0 == lost["pause"]
