"""What is read from a training's metrics, and when it is told."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web

from charalora_operator.mirror import Kind, Mirror
from charalora_operator.model import Key, Sample
from charalora_operator.progress import Progress, is_news, sample_of
from charalora_operator.queue import KeyQueue
from operator_world import SETTINGS
from services import free_port

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PAGE = """\
# HELP charalora_step Optimizer steps done.
# TYPE charalora_step gauge
charalora_step 41.0
# TYPE charalora_steps gauge
charalora_steps 1000.0
# TYPE charalora_loss gauge
charalora_loss 0.0812
# TYPE charalora_images counter
charalora_images_total 656.0
# TYPE charalora_learning_rate gauge
charalora_learning_rate{group="unet"} 0.0001
# TYPE charalora_stage gauge
charalora_stage{stage="fetch"} 0.0
charalora_stage{stage="upload"} 1.0
charalora_stage{stage="train"} 1.0
"""


def sample(seconds: float = 0, **figures: float) -> Sample:
    """A reading so long after noon."""
    at = NOON + timedelta(seconds=seconds)
    return Sample("surtr-a1", at, at, {f"charalora_{name}": value for name, value in ({"step": 0.0, "steps": 1000.0} | figures).items()})


def test_figures_are_the_values_without_labels() -> None:
    read = sample_of("surtr-a1", PAGE, NOON, None)
    assert read.figures == {"charalora_step": 41, "charalora_steps": 1000, "charalora_loss": 0.0812, "charalora_images_total": 656}


def test_the_stage_is_the_one_that_people_wait_for() -> None:
    """Uploads go on beside the training."""
    assert sample_of("surtr-a1", PAGE, NOON, None).stage == "train"
    assert sample_of("surtr-a1", PAGE.replace('{stage="train"} 1', '{stage="train"} 0'), NOON, None).stage == "upload"


def test_a_step_that_stands_still_keeps_the_time_of_its_last_move() -> None:
    first = sample_of("surtr-a1", PAGE, NOON, None)
    second = sample_of("surtr-a1", PAGE, NOON + timedelta(seconds=10), first)
    assert (first.moved, second.moved, second.at) == (NOON, NOON, NOON + timedelta(seconds=10))
    third = sample_of("surtr-a1", PAGE.replace("step 41", "step 42"), NOON + timedelta(seconds=20), second)
    assert third.moved == NOON + timedelta(seconds=20)


def test_another_attempt_begins_anew() -> None:
    """The same step of another Job is a move."""
    first = sample_of("surtr-a1", PAGE, NOON, None)
    assert sample_of("surtr-a2", PAGE, NOON + timedelta(seconds=60), first).moved == NOON + timedelta(seconds=60)


def test_what_is_no_number_is_absent() -> None:
    read = sample_of("surtr-a1", "charalora_step NaN\ncharalora_loss +Inf\ncharalora_steps 10\n", NOON, None)
    assert read.figures == {"charalora_steps": 10}


@pytest.mark.parametrize("page", ["<html>busy</html>", "charalora_step forty-one\n", 'charalora_step{stage="train 1\n'])
def test_what_is_no_metrics_page_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        sample_of("surtr-a1", page, NOON, None)


def told(answers: dict[str, str | int]) -> tuple[Progress, KeyQueue]:
    """One round over trainings that answer with a page or a status code, by address."""

    async def read() -> tuple[Progress, KeyQueue]:
        async def metrics(request: web.Request) -> web.Response:
            answer = answers[str(request.host).split(":", maxsplit=1)[0]]
            return web.Response(text=answer) if isinstance(answer, str) else web.Response(status=answer)

        application = web.Application()
        application.add_routes([web.get("/metrics", metrics)])
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", port := free_port()).start()  # noqa: S104 - two addresses of the loopback network
        queue = KeyQueue()
        progress = Progress(mirror_of(answers), queue, SETTINGS, port)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            await progress.round(session)
        await runner.cleanup()
        return progress, queue

    return asyncio.run(read())


def mirror_of(addresses: Iterable[str]) -> Mirror:
    """A running training at each address."""
    mirror = Mirror()
    for number, address in enumerate(addresses):
        labels = {"charalora.dev/resource": f"surtr-{number}", "app.kubernetes.io/component": "training"}
        labels["batch.kubernetes.io/job-name"] = "surtr-a1"
        metadata = {
            "name": "surtr-a1",
            "namespace": "artists",
            "resourceVersion": "1",
            "creationTimestamp": NOON.isoformat(),
            "labels": labels,
        }
        owner = [{"uid": f"job-{number}", "controller": True}]
        mirror.event(Kind.JOBS, {"metadata": metadata | {"uid": f"job-{number}"}}, deleted=False)
        pod = {"metadata": metadata | {"uid": f"pod-{number}", "ownerReferences": owner}, "status": {"phase": "Running", "podIP": address}}
        mirror.event(Kind.PODS, pod, deleted=False)
    return mirror


def test_running_trainings_are_read_and_queued() -> None:
    """One that does not answer, or answers nonsense, keeps nobody from the others."""
    progress, queue = told({"127.0.0.1": PAGE, "127.0.0.2": 503, "127.0.0.3": "<html>", "127.0.0.4": "#" * 2**21, "127.0.0.5": PAGE})
    read = [progress.sample(Key("artists", f"surtr-{number}")) for number in range(5)]
    assert [bool(sample and sample.figures) for sample in read] == [True, False, False, False, True]
    assert queue.depth == 2


@pytest.mark.parametrize("other", [503, PAGE])
def test_a_silent_training_knows_whether_its_neighbours_are_heard(other: str | int) -> None:
    progress, _ = told({"127.0.0.1": 503, "127.0.0.2": other})
    silent = progress.sample(Key("artists", "surtr-0"))
    assert silent
    assert isinstance(other, str) is (silent.heard_nearby is not None)


NEWS = {
    "the first reading": (None, sample(), True),
    "nothing moved": (sample(step=41), sample(10, step=41), False),
    "less than a per cent": (sample(step=41), sample(10, step=49), False),
    "a per cent": (sample(step=41), sample(10, step=50), True),
    "a checkpoint": (sample(step=41), sample(10, step=42, last_checkpoint_step=40), True),
    "half a minute passed": (sample(step=41), sample(30, step=42), True),
    "no steps are known yet": (sample(steps=0), sample(10, steps=0), False),
    "another attempt": (sample(step=41), replace(sample(1, step=41), job="surtr-a2"), True),
    "absurd numbers": (sample(step=1e308, steps=1e-308), sample(1, step=1e308, steps=1e-308), False),
}


@pytest.mark.parametrize(("told", "new", "expected"), NEWS.values(), ids=NEWS.keys())
def test_a_reading_is_told_when_it_says_more(told: Sample | None, new: Sample, expected: bool) -> None:  # noqa: FBT001
    assert is_news(told, new, 30) is expected
