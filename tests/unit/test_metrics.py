"""Figures for Prometheus: what is served, from when on, and whose."""

import socket
import threading
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from builders import character_lora
from charalora_spec.metrics import STAGE, STAGE_SECONDS, STEP_SECONDS, TRAINING
from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.cli.training import described
from charalora_trainer.console import LogConsole, MeteredConsole
from charalora_trainer.metrics import PORT, Metrics, served
from promtool import promtool


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus reads them; a name that stands there twice fails."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert len({family.name for family in families}) == len(families)
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
    }


def test_figures_are_served_while_the_block_runs_and_not_after() -> None:
    """Nothing is shown before it is known."""
    port = free_port()
    with served({PORT: str(port)}) as metrics:
        assert {} == scrape(port)
        metrics.set("step", 7)
        metrics.set("images", 28)
        metrics.set("learning_rate", 0.5, group="unet")
        metrics.set("learning_rate", 0.25, group="embedding")
        metrics.set("upload_bytes", lambda: 9.0)
        found = scrape(port)

    assert {
        "charalora_step": 7.0,
        "charalora_images_total": 28.0,
        "charalora_learning_rate{group=unet}": 0.5,
        "charalora_learning_rate{group=embedding}": 0.25,
        "charalora_upload_bytes_total": 9.0,
    } == found
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_without_a_port_nothing_listens() -> None:
    """On a person's own machine."""
    before = threading.active_count()

    with served({}) as metrics:
        metrics.set("step", 1)

        assert before == threading.active_count()
        assert 1.0 == metrics.value("step")


@pytest.mark.parametrize("port", ["many", "99999"])
def test_a_port_that_cannot_be_served_is_told(port: str) -> None:
    """One line, with what to do."""
    with pytest.raises(TrainingError, match=r"name a free port, such as 9400\.$") as refused, served({PORT: port}):
        pass

    assert Outcome.SPEC_INVALID is refused.value.outcome


def test_a_figure_that_nobody_listed_is_refused() -> None:
    """Each has its explanation."""
    with pytest.raises(KeyError):
        Metrics().set("stepp", 1)


def test_a_figure_has_the_labels_that_are_listed() -> None:
    """No more and no other, so that every query finds it."""
    for labels in ({}, {"gpu": "0"}, {"group": "unet", "gpu": "0"}):
        with pytest.raises(KeyError):
            Metrics().set("learning_rate", 0.1, **labels)


def test_every_listed_figure_is_served_as_it_is_listed(tmp_path: Path) -> None:
    """By whichever process knows it, in both forms that Prometheus asks for, and as its own checker wants it."""
    worker, metrics, registry = Metrics(), Metrics(), CollectorRegistry()
    for figure in TRAINING:
        if figure not in {STAGE, STAGE_SECONDS, STEP_SECONDS}:
            worker.set(figure.short, 1, **dict.fromkeys(figure.labels, "x"))
    worker.step_took(0.4)
    metrics.follow(tmp_path)
    with worker.handed_over(tmp_path / "0.prom"), worker.stage("train"), metrics.stage("check"):
        pass
    registry.register(metrics)

    assert not promtool("check", "metrics", content=generate_latest(registry).decode())
    page: bytes = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    found = list(openmetrics.text_string_to_metric_families(page.decode()))  # type: ignore[no-untyped-call]
    served = {family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation) for family in found}
    assert {figure.name: (figure.kind.value, figure.meaning) for figure in TRAINING} == served
    labels = {sample.name: set(sample.labels) - {"le"} for family in found for sample in family.samples}
    assert all(set(figure.labels) == labels[figure.series[0]] for figure in TRAINING)


def test_stages_are_told_by_their_first_word_while_they_run_and_after() -> None:
    """1 for those that run, 0 for those that ran; their time adds up."""
    metrics = Metrics()
    console = MeteredConsole(LogConsole(), metrics)

    with console.stage("fetch data set"):
        pass
    with console.stage("train"), console.stage("preview"):
        samples = {(sample.name, sample.labels.get("stage")): sample.value for metric in metrics.collect() for sample in metric.samples}

    stages = {name: value for (metric, name), value in samples.items() if metric == "charalora_stage"}
    assert {"fetch": 0.0, "train": 1.0, "preview": 1.0} == stages
    assert 0 < samples["charalora_stage_seconds", "preview"] <= samples["charalora_stage_seconds", "train"]


def test_a_stage_that_fails_does_not_run_any_more() -> None:
    """The last scrape of a failed training does not say that it trains."""
    metrics = Metrics()

    with pytest.raises(ValueError, match="x"), metrics.stage("train"):
        raise ValueError("x")

    [running] = [metric for metric in metrics.collect() if metric.name == "charalora_stage"]
    assert [0.0] == [sample.value for sample in running.samples]


def test_figures_of_worker_processes_are_served_with_those_of_the_launcher(tmp_path: Path) -> None:
    """One family each, whoever told them; the file is whole at every moment and complete at the end."""
    port, worker, other = free_port(), Metrics(), Metrics()
    with served({PORT: str(port)}) as metrics:
        with metrics.stage("check"):
            pass
        metrics.follow(tmp_path)
        with worker.handed_over(tmp_path / "0.prom"), other.handed_over(tmp_path / "1.prom"), worker.stage("train"):
            worker.set("step", 3)
            worker.step_took(0.4)
            worker.set("images", 12)
            worker.set("gpu_memory_bytes", 5.0, gpu="0")
            other.set("gpu_memory_bytes", 6.0, gpu="1")
        found = scrape(port)

    assert (3.0, 12.0, 3.0) == (found["charalora_step"], found["charalora_images_total"], metrics.value("step"))
    assert (5.0, 6.0) == (found["charalora_gpu_memory_bytes{gpu=0}"], found["charalora_gpu_memory_bytes{gpu=1}"])
    assert {"check", "train"} == {name[16:-1].removeprefix("stage=") for name in found if name.startswith("charalora_stage{")}
    assert (0.0, 1.0) == (found["charalora_step_seconds_bucket{le=0.2}"], found["charalora_step_seconds_bucket{le=0.5}"])


def test_a_scrape_never_sees_half_a_file(tmp_path: Path) -> None:
    """Two figures that are set together before each file is written are never read apart."""
    worker, reader = Metrics(), Metrics()
    reader.follow(tmp_path)
    stopped = threading.Event()

    def write() -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            worker.set("step", number)
            worker.set("steps", number)
            with worker.handed_over(tmp_path / "0.prom"):
                pass

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while reader.value("steps") is None:
            pass
        for _ in range(200):
            seen = {metric.name: metric.samples[0].value for metric in reader.collect()}
            assert seen["charalora_step"] == seen["charalora_steps"]
    finally:
        stopped.set()
        writer.join()


def test_a_training_says_what_it_is_and_where_its_files_go() -> None:
    """Dashboards show it and link the report."""
    run = character_lora(**{"output.uri": "s3://loras/surtr"})
    metrics = Metrics()
    metrics.set("training_info", 1, **described(run))
    registry = CollectorRegistry()
    registry.register(metrics)
    labels = {
        "word": "surtr_arknights",
        "base_model": run.spec.base_model.uri,
        "dataset": run.spec.dataset.uri,
        "output": "s3://loras/surtr/",
    }

    assert 1 == registry.get_sample_value("charalora_training_info", labels)
