"""The command line as people and Jobs use it: real commands on a tiny untrained model."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from charalora_spec.outcome import Outcome
from charalora_trainer.runfile import load
from services import S3
from toyworld.architecture import untrained_base
from toyworld.characters import CHARACTERS

COMMANDS = ("run", "check", "embed", "train", "generate", "convert", "report")
HEAVY = ("accelerate", "diffusers", "numpy", "peft", "torch", "transformers")
WITHOUT_HEAVY = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY}:
            raise ImportError(name + " was imported")
sys.meta_path.insert(0, Refuse())
from charalora_trainer.__main__ import main
sys.exit(main())
"""
WORD = "surtr_arknights"
SMALL = (
    "spec.training.precision=fp32",
    "spec.training.batchSize=2",
    "spec.training.loss.heldOut=2",
    "spec.preview.width=64",
    "spec.preview.height=64",
    "spec.preview.inferenceSteps=2",
)


@dataclass(frozen=True)
class World:
    """A base model, a data set, a resource and a finished training."""

    base: Path
    pictures: Path
    resource: Path
    exps: Path


def charalora(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does."""
    return subprocess.run(
        [sys.executable, "-m", "charalora_trainer", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"CHARALORA_CACHE": str(folder / "cache")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def overrides(*more: str) -> list[str]:
    """A training so small that it takes seconds."""
    return [part for override in (*SMALL, *more) for part in ("--override", override)]


def train(world_folder: Path, pictures: Path, base: Path, exps: Path) -> subprocess.CompletedProcess[str]:
    """The guide's command, with four steps."""
    command = ["train", "--character-name", WORD, "--dataset-dir", pictures, "--base-model", base, "--exp-dir", exps]
    return charalora(*command, "--steps", 4, "--save-every", 2, *overrides(), folder=world_folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once: the training is the slow part. Its folder has a space and an accent, as people's have."""
    folder = tmp_path_factory.mktemp("wörld of toys")
    base, pictures, exps = folder / "base", folder / "pictures", folder / "exps" / "one"
    untrained_base(base)
    CHARACTERS[WORD].write_dataset(pictures, size=6)
    done = train(folder, pictures, base, exps)
    assert 0 == done.returncode, done.stderr
    return World(base, pictures, exps / "cfg.yaml", exps)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples_and_without_torch(command: str, tmp_path: Path) -> None:
    """Help comes at once, on a machine without any of the heavy libraries too."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HEAVY, command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    assert f"Examples:\n    charalora {command} " in done.stdout


def test_help_lists_the_commands_in_the_order_of_their_use(tmp_path: Path) -> None:
    """Not by the alphabet."""
    shown = charalora("--help", folder=tmp_path).stdout

    assert list(COMMANDS) == re.findall(r"^  (\w+)  ", shown.split("Commands:")[1], re.MULTILINE)


def test_a_check_needs_no_torch(world: World, tmp_path: Path) -> None:
    """The preflight image has none."""
    command = ["check", str(world.resource), "--processes", "1", "--work", str(tmp_path)]

    done = subprocess.run([sys.executable, "-c", WITHOUT_HEAVY, *command], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert "Data set: 6 pictures" in done.stdout


def test_a_check_tells_every_problem_with_its_reason_and_the_summary_last(world: World, tmp_path: Path) -> None:
    """A line each, no traceback, the most telling reason as exit code."""
    pictures = tmp_path / "pictures"
    CHARACTERS[WORD].write_dataset(pictures, size=4)
    (pictures / "00.txt").unlink()
    (pictures / "01.txt").write_text("")
    (pictures / "02.png").write_bytes((pictures / "02.png").read_bytes()[:200])

    done = charalora(
        "check", world.resource, "--processes", 1, "--dataset", pictures, "--override", "spec.character.name=red",
        "--override", "spec.output.uri=file:///nowhere/else/", folder=tmp_path,
    )  # fmt: skip

    lines = [line for line in done.stderr.splitlines() if line.startswith("charalora: ")]
    assert Outcome.WORD_TAKEN.exit_code == done.returncode
    assert ["WordTaken", "DatasetInvalid", "DatasetInvalid", "DatasetInvalid", "WordTaken"] == [line.split(": ")[1] for line in lines]
    assert lines[-1].endswith("cannot be trained yet: 4 problems.")
    assert "Traceback" not in done.stderr


def test_a_check_as_json_is_json_and_nothing_else(world: World, tmp_path: Path) -> None:
    """Progress is on stderr."""
    report = json.loads(charalora("check", world.resource, "--processes", 1, "--json", folder=tmp_path).stdout)

    assert "Succeeded" == report["reason"]
    assert 6 == report["dataset"]["images"]


def test_a_wrong_resource_is_told_field_by_field(world: World, tmp_path: Path) -> None:
    """Exit code 64, and no guess what was meant is run."""
    done = charalora(
        "check", world.resource, "--override", "spec.training.steps=many", "--override", "spec.charakter.name=x", folder=tmp_path
    )

    assert Outcome.SPEC_INVALID.exit_code == done.returncode
    assert "charalora: SpecInvalid: spec.training.steps: must be a whole number" in done.stderr
    assert "charalora: SpecInvalid: spec.charakter: is not a field; did you mean character?" in done.stderr


def test_a_container_leaves_behind_how_it_ended(world: World, tmp_path: Path) -> None:
    """Reason, message and findings as JSON, for the operator."""
    log = tmp_path / "termination-log"

    charalora(
        "check", world.resource, "--override", "spec.dataset.uri=file:///nothing/here/", folder=tmp_path, CHARALORA_TERMINATION_LOG=str(log)
    )

    left = json.loads(log.read_text())
    assert "OutputOccupied" == left["reason"]
    assert "trains something else" in left["message"]


def test_a_training_leaves_the_guides_tree(world: World) -> None:
    """What people know is where they expect it."""
    found = {path.relative_to(world.exps).as_posix() for path in world.exps.rglob("*") if path.is_file()}

    assert {"cfg.yaml", "train.log", "report.html", "manifest.json", f"civitai/{WORD}.safetensors", f"civitai/{WORD}.pt"} <= found
    for step in (2, 4):
        assert {f"ckpts/{name}" for name in (f"{WORD}-{step}.pt", f"unet-{step}.safetensors", f"text_encoder-{step}.safetensors")} <= found
    assert [name for name in found if name.startswith("tblog/events.out.tfevents.")]


def test_the_training_log_has_the_guides_lines(world: World) -> None:
    """Warm-up of 50 steps: at step 4 the rates are 3/50 or 4/50 of two pictures' worth, never more."""
    [line] = [line for line in (world.exps / "train.log").read_text().splitlines() if "Step = " in line]

    assert re.search(
        r" INFO Step = \[4/4\], Epoch = \[2/2\]<2/2>, LR_model = \d\.\d\de-0\d, LR_word = \d\.\d\de-0\d, Loss = \d+\.\d{5}$", line
    )


def test_what_ran_can_be_run_again_and_is_known_to_be_done(world: World, tmp_path: Path) -> None:
    """cfg.yaml is the resource; its output has all files already."""
    done = charalora("run", world.resource, "--processes", 1, folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    assert "nothing is left to do" in done.stderr
    assert 4 == load(world.resource).spec.training.steps


def test_a_success_tells_the_operator_where_the_files_are(world: World, tmp_path: Path) -> None:
    """With sizes and digests."""
    log = tmp_path / "termination-log"

    charalora("run", world.resource, "--processes", 1, folder=tmp_path, CHARALORA_TERMINATION_LOG=str(log))

    left = json.loads(log.read_text())
    assert "Succeeded" == left["reason"]
    kinds = ["embedding", "unet", "textEncoder", "webui", "report", "manifest"]
    assert kinds == [artifact["kind"] for artifact in left["artifacts"]]
    assert left["artifacts"][-1]["uri"].endswith("/manifest.json")


def test_an_embedding_is_the_one_that_training_starts_from(world: World, tmp_path: Path) -> None:
    """The guide's second command; the same seed is used by default."""
    done = charalora("embed", world.base, WORD, 4, folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    rows = torch.load(tmp_path / "embs" / f"{WORD}.pt", weights_only=True)["string_to_param"]["*"]
    trained = torch.load(world.exps / "ckpts" / f"{WORD}-2.pt", weights_only=True)["string_to_param"]["*"]
    assert (4, 128) == tuple(rows.shape)
    assert 1e-3 > (rows - trained).abs().max()  # two steps in the warm-up move it by less


def test_an_embedding_is_not_written_over(world: World, tmp_path: Path) -> None:
    """Unless that is asked for."""
    (tmp_path / "embs").mkdir()
    (tmp_path / "embs" / f"{WORD}.pt").write_bytes(b"precious")

    done = charalora("embed", world.base, WORD, 4, folder=tmp_path)

    assert 2 == done.returncode
    assert "--replace" in done.stderr
    assert b"precious" == (tmp_path / "embs" / f"{WORD}.pt").read_bytes()


def test_pictures_are_made_as_in_the_guide(world: World, tmp_path: Path) -> None:
    """The word with its step or without; a picture and its settings each; seed 0 is a seed."""
    size = ["--width", 64, "--height", 64, "--num-inference-steps", 2, "--seed", 0]
    prompts = ["--prompt", f"solo, {{{WORD}-4:1.2}}", "--prompt", f"solo, {{{WORD}:1.2}}"]

    done = charalora("generate", "--exp-dir", world.exps, "--model-steps", 4, *prompts, *size, folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    with_step, without = (tmp_path / line for line in done.stdout.splitlines())
    assert Image.open(with_step).tobytes() == Image.open(without).tobytes()
    assert 0 == yaml.safe_load((tmp_path / "output" / "0-0-info.yaml").read_text())["seed"]


def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(world: World, tmp_path: Path) -> None:
    """The guide's default is step 1000."""
    done = charalora("generate", "--exp-dir", world.exps, "--prompt", "x", folder=tmp_path)

    assert Outcome.SPEC_INVALID.exit_code == done.returncode
    assert "has no LoRA of step 1000; it has the steps 2, 4." in done.stderr


def test_the_guides_conversion_gives_what_training_wrote(world: World, tmp_path: Path) -> None:
    """Spelled with underscores, as in the guide."""
    ckpts = world.exps / "ckpts"

    done = charalora(
        "convert", "--to_webui", "--lora_path", ckpts / "unet-4.safetensors", "--lora_path_TE", ckpts / "text_encoder-4.safetensors",
        "--dump_path", "lora-4.safetensors", "--auto_scale_alpha", folder=tmp_path,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    converted, written = load_file(tmp_path / "lora-4.safetensors"), load_file(ckpts / "lora-4.safetensors")
    assert written.keys() == converted.keys()
    assert all(torch.allclose(written[key].float(), converted[key].float(), atol=1e-6) for key in written)


@pytest.mark.parametrize("as_uri", [False, True])
def test_a_report_is_made_again_where_it_is_asked_for(world: World, tmp_path: Path, *, as_uri: bool) -> None:
    """From the folder, or from the uri that the resource calls it by, spaces and all."""
    done = charalora("report", world.exps.as_uri() if as_uri else world.exps, "--to", "again.html", folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    assert f"<h1>{WORD}</h1>" in (tmp_path / "again.html").read_text()


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_report_is_made_from_a_bucket(world: World, tmp_path: Path, s3: S3, *, is_finished: bool) -> None:
    """Of a training that is over, and of one that has no manifest yet; the files that it lists are the same."""
    for path in (path for path in world.exps.rglob("*") if path.is_file() and (is_finished or path.name != "manifest.json")):
        s3.put(f"w/{path.relative_to(world.exps).as_posix()}", path.read_bytes())

    done = charalora("report", s3.uri("w/"), "--endpoint", s3.endpoint, "--to", "remote.html", folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    page = (tmp_path / "remote.html").read_text()
    digest = hashlib.sha256((world.exps / "ckpts" / "lora-4.safetensors").read_bytes()).hexdigest()
    assert digest in page
    assert 3 == page.count("data:image/webp;base64,") - 6  # two pictures by step, the last of them on top, and six of the data set


def test_an_index_of_a_bucket_is_written_into_it_and_a_folder_has_one_too(world: World, tmp_path: Path, s3: S3) -> None:
    """The page lies where its links lead; browsers are told that it is one."""
    for path in (path for path in world.exps.rglob("*") if path.is_file()):
        s3.put(f"w/{path.relative_to(world.exps).as_posix()}", path.read_bytes())

    remote = charalora("report", "--index", s3.uri(), "--endpoint", s3.endpoint, folder=tmp_path)
    local = charalora("report", world.exps.parent, "--index", folder=tmp_path)

    assert [f"{s3.uri()}index.html\n", f"file://{world.exps.parent}/index.html\n"] == [remote.stdout, local.stdout], remote.stderr
    assert 'href="./w/report.html"' in s3.get("index.html").decode()
    assert f'href="./{world.exps.name}/report.html"' in (world.exps.parent / "index.html").read_text()
    assert "text/html; charset=utf-8" == s3.client.head_object(Bucket=s3.bucket, Key="index.html")["ContentType"]


def test_an_index_is_written_nowhere_else(tmp_path: Path) -> None:
    """Its links would lead nowhere."""
    done = charalora("report", ".", "--index", "--to", "x.html", folder=tmp_path)

    assert 2 == done.returncode
    assert "so it takes no --to" in done.stderr


def test_a_folder_that_is_no_training_has_no_report(tmp_path: Path) -> None:
    """It says what is missing."""
    done = charalora("report", tmp_path, folder=tmp_path)

    assert Outcome.SPEC_INVALID.exit_code == done.returncode
    assert "has no cfg.yaml and no report.json; give the output folder of a training." in done.stderr


def test_an_error_that_nobody_foresaw_is_one_line_and_a_file(world: World, tmp_path: Path) -> None:
    """A history that was edited by hand, badly."""
    (tmp_path / "history.jsonl").write_text("not JSON\n")
    for name in ("cfg.yaml", "report.json"):
        (tmp_path / name).write_bytes((world.exps / name).read_bytes())

    done = charalora("report", ".", folder=tmp_path, TMPDIR=str(tmp_path))

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    [log] = tmp_path.glob("charalora-error-*.log")
    assert f"please report it with {log}." in done.stderr
    assert "Traceback" in log.read_text()


def test_a_traceback_is_shown_to_who_asks_for_it(world: World, tmp_path: Path) -> None:
    """At level DEBUG."""
    (tmp_path / "history.jsonl").write_text("not JSON\n")
    for name in ("cfg.yaml", "report.json"):
        (tmp_path / name).write_bytes((world.exps / name).read_bytes())

    done = charalora("--log-level", "debug", "report", ".", folder=tmp_path, TMPDIR=str(tmp_path))

    assert "Traceback" in done.stderr
    assert "charalora: InternalError: JSONDecodeError" in done.stderr
    assert [] == list(tmp_path.glob("charalora-error-*.log"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_asked_to_stop_saves_and_says_so(world: World, tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 75, one line, and a state to go on from."""
    out = tmp_path / "out"
    arguments = ["run", world.resource, "--processes", 1, "--work", tmp_path / "work"]
    arguments += overrides("spec.training.steps=5000", "spec.training.saveEvery=5000", f"spec.output.uri={out.as_uri()}")
    training = subprocess.Popen(
        [sys.executable, "-m", "charalora_trainer", *map(str, arguments)],
        cwd=tmp_path,
        stderr=(tmp_path / "stderr").open("w"),
        stdout=subprocess.DEVNULL,
    )
    try:
        _await(lambda: "\ntrain " in (tmp_path / "stderr").read_text(), training)
        training.send_signal(number)
        code = training.wait(timeout=120)
    finally:
        training.kill()

    last = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert Outcome.INTERRUPTED.exit_code == code
    assert re.search(r"^charalora: Interrupted: .* after step \d+ of 5000", last)
    assert list((out / "state").glob("step-*/training.safetensors"))


def _await(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < until, "the training did not begin"
        time.sleep(0.05)
