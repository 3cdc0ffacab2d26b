"""A run in a container: what it leaves for its owner when it ends, what it serves while it runs, what it refuses to start on."""

import json
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from charalora_spec.outcome import TERMINATION_MESSAGE_BYTES, Outcome
from charalora_spec.status import Artifact, Best, DatasetStatus
from services import S3, ToxicS3, free_port
from trainings import WORD, Ended, Running, TrainingJob

Samples = dict[tuple[str, str], float]


def message_bytes(job: TrainingJob) -> int:
    return max(file.stat().st_size for file in job.folder.glob("run-*/told"))


def check(job: TrainingJob) -> Running:
    file = job.folder / "surtr.json"
    file.write_text(json.dumps(job.resource), encoding="utf-8")
    return job.start_command("check", str(file), "--processes", "1", "--work", str(job.folder / "check"))


def scrape(port: int) -> Samples | None:
    """Samples by name and by the value of their only label; None while no run answers: after it, another process may have its port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    told = {(sample.name.removeprefix("charalora_"), "".join(sample.labels.values())): sample.value for sample in samples}
    return told if "stage" in {name for name, _ in told} else None


def scraped(running: Running, port: int) -> tuple[list[Samples], Ended]:
    """Every scrape until the run ended."""
    seen: list[Samples] = []

    def keep() -> None:
        while running.alive:
            if (samples := scrape(port)) is not None:
                seen.append(samples)
            time.sleep(0.05)

    thread = threading.Thread(target=keep)
    thread.start()
    ended = running.wait()
    thread.join()
    return seen, ended


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_serves_its_figures_from_the_first_stage_to_the_last(job: TrainingJob, processes: int) -> None:
    """However many processes train. A checkpoint is told when it is whole in the store, and not before."""
    port = free_port()
    job = job.with_fields(training__steps=30, training__save_every=10, training__loss__held_out=1)
    job = job.with_environment(CHARALORA_METRICS_PORT=str(port))
    running = job.start(processes=processes)
    states: list[int] = []
    while running.alive and not states:
        samples = scrape(port)
        told = int((samples or {}).get(("last_checkpoint_step", ""), 0))
        if told:
            states = job.states()
            assert told in states or told < min(states)

    seen, ended = scraped(running, port)

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    last = seen[-1]
    assert ("step", "") in last, last
    assert (30, 30, 30 * 2 * processes) == (last["step", ""], last["steps", ""], last["images_total", ""])
    assert (30, 0, 0) == (last["last_checkpoint_step", ""], last["upload_failures_total", ""], last["nonfinite_steps_total", ""])
    assert 30 == last["step_seconds_count", ""] == last["step_seconds_bucket", "+Inf"]
    assert abs(time.time() - last["last_checkpoint_timestamp_seconds", ""]) < 300
    for name in ("loss", "images_per_second", "gradient_norm", "time_to_first_step_seconds", "checkpoint_seconds", "best_held_out_loss"):
        assert last[name, ""] > 0, name
    assert last["embedding_norm", WORD] > 0
    assert all(last["learning_rate", group] > 0 for group in ("unet", "text_encoder", "embedding"))
    assert ended.told["best"]["step"] == last["best_step", ""]
    assert last["upload_bytes_total", ""] > 1000
    assert {"fetch", "check", "load", "encode", "train", "save", "preview", "prove", "report", "upload"} <= {
        stage for name, stage in last if name == "stage"
    }
    assert not {"model_flops_utilization", "gpu_memory_bytes"} & {name for name, _ in last}
    steps = [samples["step", ""] for samples in seen if ("step", "") in samples]
    assert sorted(steps) == steps


def test_figures_are_there_before_anything_is_fetched(toxic_s3: ToxicS3, base_model: Path, tmp_path: Path) -> None:
    """The storage is slow; the operator sees the stage, and no step yet. Asked to stop there, the run says so at once."""
    port = free_port()
    job = TrainingJob(toxic_s3, tmp_path, base_model.as_uri()).upload_dataset().with_environment(CHARALORA_METRICS_PORT=str(port))
    toxic_s3.poison("bandwidth", rate=1)
    running = job.start()
    running.until_true(lambda: (scrape(port) or {}).get(("stage", "fetch")) == 1)
    assert not {"step", "loss", "eta_seconds", "last_checkpoint_step"} & {name for name, _ in scrape(port) or {}}

    running.terminate()
    ended = running.wait(30)

    assert Outcome.INTERRUPTED is ended.outcome, ended.err
    assert "Interrupted" == ended.told["reason"]
    assert "step" not in ended.told


def test_a_check_that_is_asked_to_stop_says_so(toxic_s3: ToxicS3, base_model: Path, tmp_path: Path) -> None:
    """While it looks at a base model behind a slow line."""
    for path in (path for path in base_model.rglob("*") if path.is_file()):
        toxic_s3.put(f"base/{path.relative_to(base_model).as_posix()}", path.read_bytes())
    job = TrainingJob(toxic_s3, tmp_path, toxic_s3.uri("base/")).upload_dataset()
    toxic_s3.poison("bandwidth", rate=4)
    running = check(job)
    running.until("fetch data set .* took")

    running.terminate()
    ended = running.wait(30)

    assert (Outcome.INTERRUPTED, "Interrupted") == (ended.outcome, ended.told["reason"])


def test_what_a_check_found_is_a_status(job: TrainingJob) -> None:
    """The data set by the names of the resource's status, and warnings."""
    ended = check(job.with_fields(preview__prompts=["1girl"])).wait()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    found = DatasetStatus.model_validate(ended.told["dataset"])
    assert (6, 64, 64, 1) == (found.images, found.width, found.height, found.buckets)
    assert "surtr can be trained." == ended.told["message"]
    assert any("trigger word" in warning for warning in ended.told["warnings"])


def test_findings_about_four_hundred_files_fit_into_the_message(job: TrainingJob) -> None:
    """They name ten and count the rest."""
    job.upload_dataset({f"{'ü' * 60}-{number:03}.png": b"no picture" for number in range(400)})

    ended = check(job).wait()

    assert Outcome.DATASET_INVALID is ended.outcome, ended.err
    assert message_bytes(job) <= TERMINATION_MESSAGE_BYTES
    assert "cannot be trained yet: " in ended.told["message"]
    assert " and 390 more]" in ended.told["message"]


def test_a_finished_run_tells_the_files_that_people_use(job: TrainingJob) -> None:
    """Their digests are those of what lies there; told again when there was nothing left to do."""
    job = job.with_fields(training__loss__held_out=1)
    for ended in (job.run(), job.run()):
        assert Outcome.SUCCEEDED is ended.outcome, ended.err
        told = [Artifact.model_validate(artifact) for artifact in ended.told["artifacts"]]
        assert ["embedding", "unet", "textEncoder", "webui", "report", "manifest"] == [artifact.kind for artifact in told]
        for artifact in told:
            assert artifact.bytes == len(job.s3.get(artifact.uri.removeprefix(job.s3.uri())))
        assert ended.told["best"]["step"] in {4, 8}
        assert Best.model_validate(ended.told["best"] | {"heldOutLoss": str(ended.told["best"]["heldOutLoss"])})
        assert (8, 8) == (ended.told["steps"], ended.told["savedStep"])


def test_a_stopped_run_tells_how_far_it_got(job: TrainingJob) -> None:
    """The last step, and the state that is whole in the store."""
    job = job.with_fields(training__steps=400, training__save_every=100)
    running = job.start()
    running.until_true(lambda: 100 in job.states())
    running.terminate()
    ended = running.wait()

    assert Outcome.INTERRUPTED is ended.outcome, ended.err
    assert job.states()[-1] == ended.told["savedStep"] == ended.told["step"] >= 100


def test_a_machine_with_other_gpus_than_asked_for_is_refused_before_anything_is_fetched(job: TrainingJob) -> None:
    """A wrong device plugin costs seconds."""
    ended = job.with_environment(CHARALORA_GPUS="64").run()

    assert Outcome.GPU_MISMATCH is ended.outcome
    assert "where 64 were asked for" in ended.line
    assert not (job.folder / "work").exists()


def test_a_prefix_that_cannot_be_written_is_found_by_the_check(job: TrainingJob, s3: S3) -> None:
    """Credentials that may only read: the prefix is named, and what to do."""
    reader = job.with_environment(AWS_ACCESS_KEY_ID=s3.reader_access_key, AWS_SECRET_ACCESS_KEY=s3.reader_secret_key)

    ended = check(reader).wait()

    assert Outcome.STORAGE_ACCESS_DENIED is ended.outcome, ended.err
    assert f"{s3.uri('output/')}state/.write-test" in ended.line
    assert "correct the credentials or their rights" in ended.line


def test_a_bucket_that_does_not_exist_is_named_whosever_it_is(job: TrainingJob) -> None:
    """The output's and the base model's."""
    output = check(job.with_fields(output__uri="s3://no-such-output/x/")).wait()
    base = check(job.with_fields(base_model__uri="s3://no-such-models/x/")).wait()

    assert [Outcome.BUCKET_NOT_FOUND] * 2 == [output.outcome, base.outcome], (output.err, base.err)
    assert "The bucket no-such-output does not exist" in output.line
    assert "The bucket no-such-models does not exist" in base.line


def test_a_check_leaves_nothing_in_the_prefix(job: TrainingJob) -> None:
    """Its test object goes again."""
    assert Outcome.SUCCEEDED is check(job).wait().outcome

    assert [] == job.output_keys()
