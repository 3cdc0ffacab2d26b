"""What `charalora run` leaves in the bucket: one whole run from a bucket to a bucket, looked at from all sides."""

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from charalora_spec.outcome import Outcome
from charalora_trainer.runfile import load as load_resource
from services import S3, FaultyS3, faulty, fresh_bucket
from tiny_model import WIDTH
from trainings import WORD, TrainingJob, same_tensors

STEPS, SAVES = 25, (10, 20, 25)
PROMPTS = ("masterpiece, best quality, 1girl, solo, {surtr_arknights:1.2}", "sword: horns/night")
STATE = ("manifest.json", "saved.json", "training.safetensors", "train.log", "history.jsonl")
FILES = {
    "cfg.yaml",
    "train.log",
    "history.jsonl",
    "report.html",
    "report.json",
    "manifest.json",
    "civitai/README.md",
    "civitai/surtr_arknights.json",
    "civitai/surtr_arknights.safetensors",
    "civitai/surtr_arknights.pt",
    "civitai/surtr_arknights.preview.png",
    "civitai/samples/1.png",
    "civitai/samples/2.png",
    "diffusers/pytorch_lora_weights.safetensors",
    *(f"ckpts/{name}" for step in SAVES for name in (f"surtr_arknights-{step}.pt", f"unet-{step}.safetensors")),
    *(f"ckpts/{name}" for step in SAVES for name in (f"text_encoder-{step}.safetensors", f"lora-{step}.safetensors")),
    *(f"previews/{step}/0-0-masterpiece, best quality, 1girl, solo, {{surtr_ark.png" for step in SAVES),
    *(f"previews/{step}/1-0-sword_ horns_night.png" for step in SAVES),
    *(f"previews/{step}/{number}-0-info.yaml" for step in SAVES for number in (0, 1)),
    "state/run.json",
    "state/newest.json",
    *(f"state/step-{step:06}/{name}" for step in SAVES[-2:] for name in STATE),
}


@dataclass(frozen=True)
class Finished:
    """A run that ended well.

    Attributes:
        out: What it wrote to stdout.
        err: What it wrote to stderr.
        files: The output prefix.
        requests: What it asked of the service, in order.
    """

    job: TrainingJob
    out: str
    err: str
    files: dict[str, bytes]
    requests: tuple[str, ...]


@pytest.fixture(scope="module")
def finished(_seaweedfs: S3, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The command as a person types it, in an interpreter of its own: everything from a bucket, everything back."""
    folder = tmp_path_factory.mktemp("finished")
    with fresh_bucket(_seaweedfs) as s3, faulty(s3) as noting:
        for file in base_model.rglob("*"):
            if file.is_file():
                s3.put(f"base/{file.relative_to(base_model).as_posix()}", file.read_bytes())
        fields = {
            "training__steps": STEPS,
            "training__save_every": 10,
            "training__loss__held_out": 1,
            "preview__prompts": PROMPTS,
        }
        job = TrainingJob(noting, folder, s3.uri("base/")).with_fields(**fields).upload_dataset()
        command = [sys.executable, "-m", "charalora_trainer", *job.arguments()]
        ended = subprocess.run(command, env=job.variables, capture_output=True, text=True, timeout=600, check=False)
        assert ended.returncode == 0, ended.stderr
        yield Finished(job, ended.stdout, ended.stderr, job.output(), _asked(noting))


def _asked(s3: FaultyS3) -> tuple[str, ...]:
    return tuple(request.replace(f" /{s3.bucket}/", " ") for request in s3.requests)


def text(finished: Finished, name: str) -> str:
    return finished.files[name].decode()


def test_every_file_is_there_and_no_other(finished: Finished) -> None:
    """With the names of the guide's `exps/<time>` folder; two training states are kept."""
    others = finished.files.keys() - FILES

    assert set() == FILES - finished.files.keys()
    assert 1 == len(others)
    assert re.fullmatch(r"tblog/events\.out\.tfevents\.\d+\..+", others.pop())


def test_the_manifest_lists_every_file_with_its_size_and_digest(finished: Finished) -> None:
    """Every file that a user takes: all but the manifest itself and what only a resume needs."""
    listed = json.loads(text(finished, "manifest.json"))["files"]
    expected = {name for name in finished.files if name != "manifest.json" and not name.startswith("state/")}

    assert expected == {file["path"] for file in listed}
    for file in listed:
        content = finished.files[file["path"]]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"]), file["path"]


def test_the_manifest_is_written_last(finished: Finished) -> None:
    """Who finds it finds everything: no other file is sent or removed after it."""
    changes = [request for request in finished.requests if request.startswith(("PUT", "POST", "DELETE"))]

    assert "PUT output/manifest.json" == changes[-1]
    assert 1 == changes.count("PUT output/manifest.json")


def test_a_state_is_whole_before_its_manifest_and_its_files_stand_before_it(finished: Finished) -> None:
    """A machine that is lost at any moment has left every file of the steps before the state that is resumed."""
    for step in SAVES:
        before = finished.requests[: finished.requests.index(f"PUT output/state/step-{step:06}/manifest.json")]
        for name in ("unet", "text_encoder", "lora"):
            assert f"PUT output/ckpts/{name}-{step}.safetensors" in before
        for name in ("saved.json", "training.safetensors", "train.log", "history.jsonl"):
            assert f"PUT output/state/step-{step:06}/{name}" in before


def test_the_words_files_hold_its_vectors_and_need_no_code_to_open(finished: Finished) -> None:
    """`torch.load(weights_only=True)`, the loader that runs nothing."""
    for name in (*(f"ckpts/{WORD}-{step}.pt" for step in SAVES), f"civitai/{WORD}.pt"):
        content = torch.load(io.BytesIO(finished.files[name]), weights_only=True)

        [vectors] = content["string_to_param"].values()
        assert (4, WIDTH) == vectors.shape
        assert vectors.isfinite().all()


def test_what_was_learned_moves_on_from_save_to_save(finished: Finished) -> None:
    """Each checkpoint is another one."""
    for name in ("unet", "text_encoder", "lora"):
        saves = [load(finished.files[f"ckpts/{name}-{step}.safetensors"]) for step in SAVES]
        assert not same_tensors(saves[0], saves[1])
        assert not same_tensors(saves[1], saves[2])


def test_the_published_pair_is_of_the_step_with_the_lowest_held_out_loss(finished: Finished) -> None:
    """Its page says which one and why, and the resource's status the same."""
    by_step = losses(finished, "held_out_loss")
    best = min(by_step, key=lambda step: by_step[step])

    published = load(finished.files[f"civitai/{WORD}.safetensors"])
    expected = load(finished.files[f"ckpts/lora-{best}.safetensors"])

    assert published.keys() == expected.keys()
    assert all(torch.allclose(published[key].float(), expected[key].float(), atol=1e-3) for key in expected)
    assert f"| Step | {best} of {STEPS}: it has the lowest held-out loss, {by_step[best]:.4f}" in text(finished, "civitai/README.md")


def test_cfg_yaml_runs_again_and_learns_the_same_bits(finished: Finished, tmp_path: Path) -> None:
    """It holds every default; on the same kind of machine the same resource gives the same tensors and pictures."""
    file = tmp_path / "cfg.yaml"
    file.write_bytes(finished.files["cfg.yaml"])
    elsewhere = finished.job.s3.uri("again/")

    again = finished.job.start_command(
        "run", str(file), "--override", f"spec.output.uri={elsewhere}", "--work", str(tmp_path / "work"), "--processes", "1"
    ).wait()

    assert Outcome.SUCCEEDED is again.outcome, again.err
    for key in (key for key in finished.files if key.endswith(".safetensors")):
        assert same_tensors(load(finished.files[key]), load(finished.job.s3.get(f"again/{key}"))), key
    for key in (key for key in finished.files if key.endswith(".png") and key.startswith("previews")):
        assert pixels(finished.files[key]) == pixels(finished.job.s3.get(f"again/{key}")), key


def pixels(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).tobytes()


def test_cfg_yaml_is_the_resource_that_ran(finished: Finished, tmp_path: Path) -> None:
    """Reading it gives what was asked for."""
    file = tmp_path / "cfg.yaml"
    file.write_bytes(finished.files["cfg.yaml"])

    training = load_resource(file).spec.training

    assert WORD == load_resource(file).spec.character.name
    assert (STEPS, 10, 1) == (training.steps, training.save_every, training.loss.held_out)


def losses(finished: Finished, name: str = "loss") -> dict[int, Any]:
    entries = [json.loads(line) for line in text(finished, "history.jsonl").splitlines()]
    return {entry["step"]: entry[name] for entry in entries if name in entry}


def test_the_history_has_every_step_once_and_the_held_out_loss_of_every_save(finished: Finished) -> None:
    """The report's curve is drawn from it."""
    assert list(range(1, STEPS + 1)) == list(losses(finished))
    measured = losses(finished, "held_out_losses")
    assert list(SAVES) == list(losses(finished, "held_out_loss")) == list(measured)
    assert {64} == {len(single) for single in measured.values()}


def test_train_log_has_the_guides_lines(finished: Finished) -> None:
    """Every 20 steps and at the end, with the mean loss since the line before; 5 pictures in batches of 2 are 3 steps an epoch."""
    lines = re.findall(r"Step = \[.*", text(finished, "train.log"))
    by_step = losses(finished)

    rates = "LR_model = 2.00e-04, LR_word = 6.00e-03"
    means = [mean(by_step[step] for step in steps) for steps in (range(1, 21), range(21, 26))]

    assert [
        f"Step = [20/25], Epoch = [7/9]<2/3>, {rates}, Loss = {means[0]:.5f}",
        f"Step = [25/25], Epoch = [9/9]<1/3>, {rates}, Loss = {means[1]:.5f}",
    ] == lines


def test_tensorboard_shows_loss_and_rates_every_five_steps(finished: Finished, tmp_path: Path) -> None:
    """Under the guide's names, and the held-out loss at every save."""
    [name] = (name for name in finished.files if name.startswith("tblog/"))
    (tmp_path / Path(name).name).write_bytes(finished.files[name])
    board = EventAccumulator(str(tmp_path)).Reload()
    by_step = losses(finished)

    assert {"Loss", "LR_model", "LR_word", "HeldOutLoss"} == set(board.Tags()["scalars"])
    for tag in ("Loss", "LR_model", "LR_word"):
        assert [5, 10, 15, 20, 25] == [event.step for event in board.Scalars(tag)]
    assert [mean(by_step[at] for at in range(step - 4, step + 1)) for step in (5, 10, 15, 20, 25)] == pytest.approx(
        [event.value for event in board.Scalars("Loss")], rel=1e-5
    )
    assert list(SAVES) == [event.step for event in board.Scalars("HeldOutLoss")]


def test_pictures_say_how_they_were_made(finished: Finished) -> None:
    """The same prompts and seed at every save; what changes is the training."""
    for number, prompt in enumerate(PROMPTS):
        infos = [yaml.safe_load(finished.files[f"previews/{step}/{number}-0-info.yaml"]) for step in SAVES]
        assert [prompt] * 3 == [info["preview"]["prompts"][0] for info in infos]
        names = [name for name in sorted(finished.files) if re.match(rf"previews/\d+/{number}-0-.*png", name)]
        assert 3 == len({pixels(finished.files[name]) for name in names})


class References(HTMLParser):
    """What a page asks a browser to fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect every attribute that may name another file."""
        del tag
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}]


def test_the_report_needs_no_network(finished: Finished) -> None:
    """Everything is inside the page: pictures as data, no style, script or font from elsewhere."""
    page = text(finished, "report.html")
    references = References()
    references.feed(page)

    assert {name[:5] for name in references.found} <= {"data:"} | {name[:5] for name in references.found if name.startswith("#")}
    assert [] == re.findall(r"@import|url\((?!['\"]?(?:data:|#))", page)
    assert page.count("data:image/") >= 2 * len(SAVES)


def test_the_end_tells_where_the_files_are(finished: Finished) -> None:
    """On stdout; progress is on stderr."""
    uri = finished.job.s3.uri("output/")

    assert [f"Files: {uri}", f"Report: {uri}report.html"] == finished.out.splitlines()
    for stage in (
        "fetch data set",
        "check",
        "fetch base model",
        "load base model",
        "encode",
        "preview",
        "train",
        "prove",
        "report",
        "upload",
    ):
        assert re.search(rf"^{stage} .*took ", finished.err, re.MULTILINE), stage


def test_a_second_run_says_that_it_is_finished_and_changes_nothing(finished: Finished) -> None:
    """The files are asked for and compared with the manifest; nothing is sent."""
    before = stamps(finished.job.s3)
    asked = len(finished.job.s3.requests)  # type: ignore[attr-defined]  # the job's service is a FaultyS3

    again = finished.job.run(work="elsewhere")

    assert Outcome.SUCCEEDED is again.outcome
    assert "holds this training's finished files already; nothing is left to do." in again.err
    assert before == stamps(finished.job.s3)
    assert {"GET", "HEAD"} == {request.split()[0] for request in finished.job.s3.requests[asked:]}  # type: ignore[attr-defined]
    assert not (finished.job.folder / "elsewhere").exists()


def stamps(s3: S3) -> dict[str, tuple[str, object]]:
    listed = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="output/")["Contents"]
    return {found["Key"]: (found["ETag"], found["LastModified"]) for found in listed}
