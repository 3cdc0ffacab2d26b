"""The alerts: each fires when it should, says what to do, stays quiet when it should, and recovers.

promtool runs the rules as Prometheus does, on figures of a minute each: `0x3 1+2x4` is 0 four times, then 1, 3, 5, 7 and 9.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from charalora_spec.metrics import OPERATOR, TRAINING
from monitoring import ALERTS
from promtool import promtool

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in RULES]
RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["What it means", "How to look", "What to do"]

LEADER = 'charalora_leader{namespace="charalora-system", pod="charalora-a"}'
STANDBY = 'charalora_leader{namespace="charalora-system", pod="charalora-b"}'
OLDEST = 'charalora_queue_oldest_seconds{namespace="charalora-system", pod="charalora-a"}'
ERRORS = 'charalora_reconcile_errors_total{namespace="charalora-system", pod="charalora-a", kind="api_403"}'
FAILED = 'charalora_training_outcomes_total{namespace="artists", reason="DatasetInvalid", pod="charalora-a"}'
SUCCEEDED = 'charalora_training_outcomes_total{namespace="artists", reason="Succeeded", pod="charalora-a"}'
FAILURES = 'charalora_attempts_total{namespace="artists", cause="failure", pod="charalora-a"}'
PREEMPTIONS = 'charalora_attempts_total{namespace="artists", cause="preemption", pod="charalora-a"}'
PAUSES = 'charalora_attempts_total{namespace="artists", cause="pause", pod="charalora-a"}'
USEFUL = 'charalora_gpu_seconds_total{namespace="artists", outcome="useful", pod="charalora-a"}'
WASTED = 'charalora_gpu_seconds_total{namespace="artists", outcome="wasted", pod="charalora-a"}'
_SURTR = 'namespace="artists", resource="surtr", attempt="1", pod="surtr-a1-0-x7k2p"'
STEP, STEPS = f"charalora_step{{{_SURTR}}}", f"charalora_steps{{{_SURTR}}}"
TRAINS, DRAWS = f'charalora_stage{{{_SURTR}, stage="train"}}', f'charalora_stage{{{_SURTR}, stage="preview"}}'
LOST_UPLOADS = f"charalora_upload_failures_total{{{_SURTR}}}"
SKIPPED = f"charalora_nonfinite_steps_total{{{_SURTR}}}"

Fired = Mapping[str, str] | None
OPERATORS = {"namespace": "charalora-system"}
ARTISTS = {"namespace": "artists"}
OF_SURTR = ARTISTS | {"resource": "surtr"}
STALLED = OF_SURTR | {"attempt": "1", "pod": "surtr-a1-0-x7k2p"}


@dataclass(frozen=True)
class Story:
    """What Prometheus is told, minute by minute, and what follows.

    Attributes:
        alert: Which one it is about.
        series: The figures, in promtool's notation.
        then: By minute, the labels of the alert that fires; None while there is none.
        says: Its description while it fires.
    """

    alert: str
    series: Mapping[str, str]
    then: Mapping[int, Fired]
    says: str = field(default="", repr=False)


STORIES = {
    "the operators are gone, and come back": Story(
        "CharaloraOperatorDown",
        {LEADER: "1x5 stale _x9 1x5", STANDBY: "0x5 stale _x9 0x5"},
        {5: None, 10: None, 11: {}, 15: {}, 16: None},
        "Prometheus gets figures of no operator. Running trainings go on, but nothing new starts and nobody's status moves.",
    ),
    "one operator goes, the other takes over": Story("CharaloraOperatorDown", {LEADER: "1x5 stale _x19", STANDBY: "0x5 1x20"}, {25: None}),
    "nobody takes the lease, until somebody does": Story(
        "CharaloraNoLeader",
        {LEADER: "1x2 0x6 0x5", STANDBY: "0x2 0x6 1x5"},
        {2: None, 4: None, 5: OPERATORS, 8: OPERATORS, 10: None},
        "No operator in charalora-system has held the Lease for two minutes. Nothing starts, and nobody's status moves.",
    ),
    "the standby takes over within a minute": Story("CharaloraNoLeader", {LEADER: "1x5 0x20", STANDBY: "0x6 1x20"}, {6: None, 20: None}),
    "a resource is not looked at, then it is": Story(
        "CharaloraQueueStuck",
        {OLDEST: "0 60+60x8 0x5"},
        {4: None, 7: OPERATORS | {"pod": "charalora-a"}, 12: None},
        "A resource has been due for 7m 0s in the operator charalora-system/charalora-a and was not looked at.",
    ),
    "a burst of resources waits for a minute": Story("CharaloraQueueStuck", {OLDEST: "0x5 100x2 0x10"}, {6: None, 12: None}),
    "a visit fails every five minutes, then its quota is raised": Story(
        "CharaloraReconcileErrors",
        {ERRORS: "0x2 1x4 2x4 3x4 4x4 5x4 6x30"},
        {10: None, 20: OPERATORS | {"kind": "api_403"}, 45: None},
        "Visits of the operator in charalora-system have failed with api_403 for a quarter of an hour.",
    ),
    "the API server restarts": Story("CharaloraReconcileErrors", {ERRORS: "0x2 40x30"}, {5: None, 20: None, 30: None}),
    "a training fails": Story(
        "CharaloraTrainingFailed",
        {FAILED: "0x90 1x90", SUCCEEDED: "0+1x180"},
        {90: None, 92: ARTISTS | {"reason": "DatasetInvalid"}, 140: ARTISTS | {"reason": "DatasetInvalid"}, 152: None},
        "In the last hour 1 of the trainings in artists ended with DatasetInvalid; nothing tries again.",
    ),
    "the first training of a namespace fails before the first scrape": Story(
        "CharaloraTrainingFailed",
        {FAILED: "_x10 1x90"},
        {9: None, 11: ARTISTS | {"reason": "DatasetInvalid"}, 72: None},
        "In the last hour 1 of the trainings in artists ended with DatasetInvalid; nothing tries again.",
    ),
    "the operator starts anew after a failure of yesterday": Story(
        "CharaloraTrainingFailed", {FAILED: "3x90 _ 0x90", SUCCEEDED: "7x90 _ 0+1x90"}, {70: None, 95: None, 150: None}
    ),
    "a training stands still, and goes on": Story(
        "CharaloraTrainingStalled",
        {STEP: "0+20x10 200x20 220+20x10", STEPS: "1000x40", TRAINS: "1x40"},
        {20: None, 27: STALLED, 30: STALLED, 32: None},
        "artists/surtr has stood at step 200 for a quarter of an hour, and its GPUs with it.",
    ),
    "a training draws pictures for long": Story(
        "CharaloraTrainingStalled", {STEP: "0+20x10 200x30", STEPS: "1000x40", TRAINS: "1x40", DRAWS: "0x10 1x30"}, {30: None, 40: None}
    ),
    "a training waits for its uploads at the end": Story(
        "CharaloraTrainingStalled", {STEP: "0+100x10 1000x30", STEPS: "1000x40", TRAINS: "1x10 0x30"}, {30: None, 40: None}
    ),
    "seven attempts in an hour, then none": Story(
        "CharaloraRestartingOften",
        {FAILURES: "0x60 0+1x3 3x120", PREEMPTIONS: "0x60 0+1x4 4x120"},
        {61: None, 70: ARTISTS, 100: ARTISTS, 130: None},
        "In the last hour trainings in artists were started again 7 times, after failures or preemptions.",
    ),
    "a nightly pause of everything": Story(
        "CharaloraRestartingOften", {FAILURES: "2x90", PAUSES: "0x60 0+30x2 60x28"}, {70: None, 90: None}
    ),
    "uploads fail, and arrive later": Story(
        "CharaloraUploadsFailing",
        {LOST_UPLOADS: "0x5 0+1x6 6x40"},
        {5: None, 7: None, 10: OF_SURTR, 30: None},
        (
            "Files of artists/surtr did not reach the object storage, each after a minute of trying. They are sent again; until then a "
            "lost node loses what they hold."
        ),
    ),
    "uploads of an earlier attempt failed": Story("CharaloraUploadsFailing", {LOST_UPLOADS: "6x40"}, {5: None, 40: None}),
    "half of the day's GPU time is lost, a day later it is not": Story(
        "CharaloraGpuSecondsWasted",
        {USEFUL: "0x10 0+800x9 7200x3000", WASTED: "0x10 0+800x9 7200x3000"},
        {10: None, 30: ARTISTS, 1000: ARTISTS, 1500: None},
        "50% of the GPU seconds of the last day in artists, and more than an hour, went into steps that were lost.",
    ),
    "a short training is lost as a whole": Story(
        "CharaloraGpuSecondsWasted", {USEFUL: "0x60", WASTED: "0x10 600x50"}, {30: None, 60: None}
    ),
    "one in ten GPU seconds is lost": Story(
        "CharaloraGpuSecondsWasted", {USEFUL: "0+9000x100", WASTED: "0+1000x100"}, {60: None, 100: None}
    ),
    "steps are skipped, then no more": Story(
        "CharaloraLossNotFinite",
        {SKIPPED: "0x5 0+3x10 30x40"},
        {5: None, 15: OF_SURTR, 40: None},
        ("artists/surtr has skipped 27 steps in a quarter of an hour, because their gradients were not finite. Twenty in a row end it."),
    ),
    "fp16 looks for its scale": Story("CharaloraLossNotFinite", {SKIPPED: "0 12x40"}, {2: None, 10: None, 40: None}),
    "an attempt goes on from a state with skipped steps": Story("CharaloraLossNotFinite", {SKIPPED: "_x3 19x40"}, {5: None, 40: None}),
}


@pytest.mark.parametrize("title", STORIES)
def test_an_alert_in_a_story(title: str, tmp_path: Path) -> None:
    """With its labels and all of its words."""
    story = STORIES[title]
    [rule] = [rule for rule in RULES if rule["alert"] == story.alert]
    annotations = {**rule["annotations"], "description": story.says}

    def expected(labels: Fired) -> list[dict[str, Any]]:
        return [] if labels is None else [{"exp_labels": {**rule["labels"], **labels}, "exp_annotations": annotations}]

    told = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in story.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": story.alert, "exp_alerts": expected(labels)} for minute, labels in story.then.items()
        ],
    }
    test = tmp_path / "story.yaml"
    test.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [told]}))

    print(promtool("test", "rules", test))


@pytest.mark.parametrize("alert", NAMES)
def test_every_alert_fires_recovers_and_stays_quiet(alert: str) -> None:
    """In one story it fires after quiet minutes and is quiet again at the end; in another one it never fires."""
    stories = [list(story.then.values()) for story in STORIES.values() if story.alert == alert]

    assert any(then[0] is None and then[-1] is None and any(fired is not None for fired in then) for then in stories)
    assert any(all(fired is None for fired in then) for then in stories)


def test_the_rules_are_as_prometheus_wants_them() -> None:
    """Expressions and templates as promtool checks them."""
    assert f"{len(RULES)} rules found" in promtool("check", "rules", ALERTS)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description", "runbook_url"} == rule["annotations"].keys()
    assert f"https://charalora.dev/runbooks/{rule['alert']}.md" == rule["annotations"]["runbook_url"]


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert sorted(NAMES) == sorted(page.stem for page in RUNBOOKS.glob("*.md"))


@pytest.mark.parametrize("alert", NAMES)
def test_a_page_says_what_it_means_how_to_look_and_what_to_do(alert: str) -> None:
    """With commands."""
    text = (RUNBOOKS / f"{alert}.md").read_text()

    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert "```sh\nkubectl " in text.partition("## How to look")[2].partition("## What to do")[0]


def test_every_figure_that_an_alert_or_a_page_asks_for_exists() -> None:
    """By the names that Prometheus stores."""
    served = {name for figure in (*OPERATOR, *TRAINING) for name in figure.series}
    asked = {alert: set(re.findall(r"\bcharalora_[a-z_]+\b", text)) for alert, text in _queries().items()}

    assert all(asked[alert] for alert in NAMES)
    assert {} == {where: names - served for where, names in asked.items() if names - served}


def _queries() -> dict[str, str]:
    return {rule["alert"]: rule["expr"] for rule in RULES} | {page.name: page.read_text() for page in RUNBOOKS.glob("*.md")}
