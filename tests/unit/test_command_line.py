"""What the command line makes of what is typed, and what it says at the end."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from charalora_spec.outcome import TERMINATION_MESSAGE_BYTES, Outcome, TrainingError, termination_message
from charalora_trainer.cli.ending import Ending
from charalora_trainer.cli.main import charalora
from charalora_trainer.cli.resource import file_uri, model_uri, overridden, parsed, resource_name
from charalora_trainer.cli.train import resource
from charalora_trainer.failures import known_failure

TRAINER = Path(__file__).resolve().parents[2] / "trainer_image"


def test_help_names_every_environment_variable() -> None:
    """Those that the sources name, and no other."""
    named = {variable for file in TRAINER.rglob("*.py") for variable in re.findall(r"CHARALORA_[A-Z_]+", file.read_text())}

    assert named == set(re.findall(r"CHARALORA_[A-Z_]+", CliRunner().invoke(charalora, ["--help"]).output))


def test_a_stop_that_comes_while_a_finalizer_runs_is_obeyed() -> None:
    """What is raised in a finalizer is lost, so it is raised once more."""
    script = """if True:
        import os, signal, time, weakref
        from charalora_trainer.__main__ import obey_stops

        class Connection: pass

        obey_stops()
        connection = Connection()
        weakref.finalize(connection, os.kill, os.getpid(), signal.SIGTERM)
        try:
            del connection
            time.sleep(60)
        except KeyboardInterrupt:
            print("stopped")
    """

    assert "stopped\n" == subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=50).stdout


def test_an_override_changes_one_field_and_leaves_the_document() -> None:
    """The other fields stay; parts on the way are made."""
    document = {"spec": {"training": {"steps": 1000, "seed": 1}}}

    changed = overridden(document, ["spec.training.steps=20", "spec.dataset.captions.keepTags=2"])

    assert {"spec": {"training": {"steps": 20, "seed": 1}, "dataset": {"captions": {"keepTags": 2}}}} == changed
    assert {"spec": {"training": {"steps": 1000, "seed": 1}}} == document


def test_a_value_may_contain_an_equals_sign() -> None:
    """Only the first one separates."""
    assert {"spec": {"a": "x=y"}} == overridden({}, ["spec.a=x=y"])


@pytest.mark.parametrize("override", ["spec.training.steps", "training.steps=20", "spec=1", "spec..steps=1", "=1"])
def test_an_override_that_is_none_is_refused(override: str) -> None:
    """With an example of one that is."""
    with pytest.raises(click.BadParameter, match=r"write for example spec\.training\.steps=20"):
        overridden({}, [override])


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (20, "20"),
        (True, "true"),
        (None, "null"),
        ("Bucket", "Bucket"),
        ("0.5", "0.5"),
        ("1e-4", "1e-4"),
        ("1.0", "1.0"),
        (["a", "b"], "[a, b]"),
        ("{surtr", "{surtr"),
        ("", "''"),
    ],
)
def test_a_value_is_read_as_yaml_but_numbers_that_are_not_whole_stay_text(expected: object, value: str) -> None:
    """As the resource has them."""
    assert expected == parsed(value)


def test_a_model_is_a_uri_a_path_or_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on this machine comes before the hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local" / "model").mkdir(parents=True)

    assert "s3://models/toy/" == model_uri("s3://models/toy/")
    assert "hf://deepghs/animefull-latest" == model_uri("deepghs/animefull-latest")
    assert "hf://org/model@v1.0" == model_uri("org/model@v1.0")
    assert f"file://{tmp_path}/local/model" == model_uri("local/model")
    assert f"file://{tmp_path}/missing.safetensors" == model_uri("missing.safetensors")


def test_a_path_becomes_a_uri_that_the_resource_takes() -> None:
    """Spaces and other letters included."""
    assert "file:///data/my%20pictures" == file_uri(Path("/data/my pictures"))


@pytest.mark.parametrize(
    ("expected", "character"),
    [("surtr-arknights", "surtr_arknights"), ("a", "A"), ("x", "_x_"), ("character", "___"), ("a" * 63, "a" * 70)],
)
def test_a_resource_is_named_after_its_character(expected: str, character: str) -> None:
    """As a DNS label."""
    assert expected == resource_name(character)


def test_the_guides_training_is_a_resource_with_every_default(tmp_path: Path) -> None:
    """1000 steps, a checkpoint every 100, the guide's rates."""
    run = resource("surtr_arknights", tmp_path / "pictures", "org/model", tmp_path / "exps", {"training.steps": 1000}, [])

    assert "surtr_arknights" == run.spec.character.name
    assert (1000, 100, 4) == (run.spec.training.steps, run.spec.training.save_every, run.spec.training.batch_size)
    assert (1e-4, 1e-5, 3e-3) == tuple(getattr(run.spec.training.learning_rate, part) for part in ("unet", "text_encoder", "embedding"))
    assert f"file://{tmp_path}/pictures" == run.spec.dataset.uri


def test_overrides_come_after_the_options(tmp_path: Path) -> None:
    """The more exact word counts."""
    fields = {"training.steps": 1000, "training.saveEvery": 100}

    run = resource("w_x", tmp_path, "org/model", tmp_path, fields, ["spec.training.steps=500", "spec.training.lora.alpha=2.0"])

    assert (500, 2.0) == (run.spec.training.steps, run.spec.training.lora.alpha)


def test_several_problems_are_a_line_each_and_the_summary_comes_last() -> None:
    """The last line of a terminal is the one that is read first."""
    error = TrainingError(Outcome.SPEC_INVALID, "surtr.yaml has 2 problems:\n  spec.a: is wrong\n  spec.b: is missing")

    assert [
        "charalora: SpecInvalid: spec.a: is wrong",
        "charalora: SpecInvalid: spec.b: is missing",
        "charalora: SpecInvalid: surtr.yaml has 2 problems",
    ] == Ending.by(error).lines


def test_a_status_gets_everything_in_one_line() -> None:
    """A condition's message has no line breaks."""
    ending = Ending(
        Outcome.WORD_TAKEN, "2 problems.", ((Outcome.WORD_TAKEN, "The word is taken."), (Outcome.DATASET_INVALID, "No caption."))
    )

    assert "2 problems. The word is taken. No caption." == ending.message
    assert "charalora: DatasetInvalid: No caption." == ending.lines[1]


def test_an_error_without_a_message_says_what_its_reason_means() -> None:
    """Never an empty line."""
    assert [f"charalora: DiskFull: {Outcome.DISK_FULL.meaning}"] == Ending.by(TrainingError(Outcome.DISK_FULL, "")).lines


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (Outcome.DISK_FULL, OSError(errno.ENOSPC, "No space left on device", "/work/x")),
        (Outcome.DISK_FULL, OSError(errno.EDQUOT, "Disk quota exceeded")),
        (Outcome.HOST_OUT_OF_MEMORY, MemoryError()),
        (
            Outcome.HOST_OUT_OF_MEMORY,
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ),
        (Outcome.CUDA_OUT_OF_MEMORY, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        (Outcome.WORD_TAKEN, TrainingError(Outcome.WORD_TAKEN, "x")),
    ],
)
def test_the_machines_limits_are_told_as_outcomes(expected: Outcome, error: Exception) -> None:
    """A full disk is no mystery."""
    known = known_failure(error)

    assert known is not None
    assert expected is known.outcome


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOENT, "gone"), RuntimeError("x"), KeyError("x")])
def test_what_nobody_foresaw_is_not_given_a_reason(error: Exception) -> None:
    """It is an internal error, with a traceback for us."""
    assert known_failure(error) is None


def test_a_real_failed_allocation_is_recognised() -> None:
    """What torch says today when the host's memory is not enough: a number that no machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)

    known = known_failure(caught.value)

    assert known is not None
    assert Outcome.HOST_OUT_OF_MEMORY is known.outcome


def test_four_hundred_problems_are_told_in_whole_sentences_as_far_as_there_is_room_and_the_rest_counted() -> None:
    """What the status shows beside them is not lost for it."""
    problems = tuple((Outcome.DATASET_INVALID, f'Picture "{number:03}" ü: too small; make it larger.') for number in range(400))
    dataset = {"images": 400, "width": None, "height": None, "buckets": 3, "tokens": 40, "digest": "d" * 64}
    ending = Ending(Outcome.DATASET_INVALID, "400 problems.", problems, {"dataset": dataset})

    written = termination_message(ending.outcome, ending.message, ending.details)

    left = json.loads(written)
    told = left["message"].count("make it larger.")
    assert len(written.encode()) <= TERMINATION_MESSAGE_BYTES
    assert told > 30
    assert left["message"].endswith(f"make it larger. And {400 - told} more; see the log.")
    assert dataset == left["dataset"]
