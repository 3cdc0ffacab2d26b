"""The check before a GPU is claimed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from basemodels import safetensors, write_base
from builders import character_lora
from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.basemodel import locate
from charalora_trainer.stages.check import CheckReport, check, raise_for_findings

NO_TORCH = """
import importlib
import sys
importlib.import_module(sys.argv[1])
print(*sorted({"torch", "numpy", "transformers", "diffusers", "peft", "accelerate"} & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Six pictures of different colours, with captions."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 96), (40 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"1girl, solo, number_{number}")
    return folder


def report(dataset: Path, base: Path | None, **overrides: Any) -> CheckReport:
    return check(character_lora(**overrides), dataset, base)


def outcome(checked: CheckReport) -> Outcome:
    with pytest.raises(TrainingError) as raised:
        raise_for_findings(checked)
    assert checked.outcome is raised.value.outcome
    return raised.value.outcome


def messages(checked: CheckReport, *, stops: bool) -> list[str]:
    return [finding.message for finding in checked.findings if finding.stops is stops]


def test_a_good_run_has_no_findings(dataset: Path, base: Path) -> None:
    """Nothing to say, and the plan to train on."""
    checked = report(dataset, base)

    assert ((), Outcome.SUCCEEDED, 6) == (checked.findings, checked.outcome, len(raise_for_findings(checked).pairs))


@pytest.mark.parametrize("module", ["charalora_trainer.stages.check", "charalora_trainer.stages.run"])
def test_no_torch_is_imported(module: str) -> None:
    """The preflight image has none; and what starts the processes of a training has no use for it: each of them imports its own."""
    loaded = subprocess.run([sys.executable, "-c", NO_TORCH, module], capture_output=True, text=True, check=True)

    assert "" == loaded.stdout.strip()


def test_a_word_of_the_vocabulary_is_taken(dataset: Path) -> None:
    """Its tokens would never reach the embedding."""
    assert Outcome.WORD_TAKEN is outcome(report(dataset, None, character__name="sword"))


def test_the_word_is_checked_with_the_base_model_s_own_tokenizer(dataset: Path, base: Path) -> None:
    """Another vocabulary takes other words: this one knows `illustration`, and no sword."""
    assert Outcome.SUCCEEDED is report(dataset, base, character__name="sword").outcome
    assert Outcome.WORD_TAKEN is outcome(report(dataset, base, character__name="illustration"))


def test_a_bad_data_set_stops(dataset: Path, base: Path) -> None:
    """With the data set's reason."""
    (dataset / "0.txt").unlink()

    assert Outcome.DATASET_INVALID is outcome(report(dataset, base))


def test_a_bad_base_model_stops(dataset: Path, tmp_path: Path) -> None:
    """With the base model's reason."""
    assert Outcome.BASE_MODEL_INVALID is outcome(report(dataset, tmp_path / "nothing"))


def test_everything_is_found_at_once_and_the_most_telling_reason_is_given(dataset: Path, tmp_path: Path) -> None:
    """Word, base model, prompt and data set are all wrong: one error tells all four."""
    (dataset / "0.txt").unlink()
    checked = report(dataset, tmp_path / "nothing", character__name="sword", preview__prompts=["{a"])
    with pytest.raises(TrainingError) as raised:
        raise_for_findings(checked)

    assert Outcome.WORD_TAKEN is raised.value.outcome
    assert all(finding.text in raised.value.message for finding in checked.findings if finding.stops)
    assert {Outcome.WORD_TAKEN, Outcome.BASE_MODEL_INVALID, Outcome.SPEC_INVALID, Outcome.DATASET_INVALID} == {
        finding.outcome for finding in checked.findings if finding.stops
    }


def test_several_problems_are_a_line_each_below_their_number(dataset: Path, tmp_path: Path) -> None:
    """As a wrong resource's are."""
    (dataset / "0.txt").unlink()
    checked = report(dataset, tmp_path / "nothing")
    with pytest.raises(TrainingError) as raised:
        raise_for_findings(checked)

    summary, *lines = raised.value.message.splitlines()
    assert f"{len(lines)} problems keep this training from starting:" == summary
    assert [finding.text for finding in checked.findings if finding.stops] == [line.strip() for line in lines]


def test_one_problem_is_one_line(dataset: Path, base: Path) -> None:
    """There is nothing to count."""
    (dataset / "0.txt").unlink()
    with pytest.raises(TrainingError) as raised:
        raise_for_findings(report(dataset, base))

    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("field", "value"), [("preview.prompts", ["1girl {surtr_arknights"]), ("preview.negativePrompt", "blurry}")], ids=["prompt", "negative"]
)
def test_a_prompt_that_cannot_be_read_stops(dataset: Path, base: Path, field: str, value: Any) -> None:
    """Before hours of training end in it; the field is named."""
    checked = report(dataset, base, **{field: value})

    assert Outcome.SPEC_INVALID is outcome(checked)
    assert messages(checked, stops=True)[0].startswith(f"spec.{field}")


def test_prompts_without_the_word_are_a_warning(dataset: Path, base: Path) -> None:
    """Pictures without the character are rarely meant."""
    checked = report(dataset, base, preview__prompts=["1girl, solo"])

    assert ["No prompt of spec.preview.prompts has the trigger word"] == [text.partition(";")[0] for text in messages(checked, stops=False)]


def test_a_word_inside_other_tags_is_a_warning(dataset: Path, base: Path) -> None:
    """`guitar` would be read as `gui` and the character. A tag that is the word itself is meant."""
    for number, caption in enumerate(["1girl, star_(sky)", "tar, solo", "guitar", "1girl"]):
        (dataset / f"{number}.txt").write_text(caption)

    checked = report(dataset, base, character__name="tar", preview__prompts=["tar"])

    [warning] = checked.findings
    assert Outcome.SUCCEEDED is checked.outcome
    assert warning.text.startswith("Captions with the trigger word inside another tag, such as 'guitar' (2): it would be read as the char")
    assert ("0.txt", "2.txt") == warning.files


@pytest.mark.parametrize(("held_out", "expected"), [(5, Outcome.SUCCEEDED), (6, Outcome.SPEC_INVALID)])
def test_held_out_pictures_must_leave_one_to_train_on(dataset: Path, base: Path, held_out: int, expected: Outcome) -> None:
    """Six pictures, of which five may be held out."""
    assert expected is report(dataset, base, training__loss__held_out=held_out).outcome


@pytest.mark.parametrize(("held_out", "expected"), [(None, Outcome.SPEC_INVALID), (1, Outcome.SUCCEEDED)])
def test_the_best_step_needs_pictures_to_measure_it_by(dataset: Path, base: Path, held_out: int | None, expected: Outcome) -> None:
    """Of six pictures none are held out unasked."""
    assert expected is report(dataset, base, output__keep="Best", training__loss__held_out=held_out).outcome


def test_another_prediction_than_the_model_s_is_a_warning(dataset: Path, tmp_path: Path) -> None:
    """Training would run and learn noise; but configs are wrong more often than people."""
    base = write_base(tmp_path / "base", scheduler={"prediction_type": "v_prediction"})

    (message,) = messages(report(dataset, base), stops=False)

    assert "set baseModel.prediction: v_prediction" in message


def test_a_damaged_tokenizer_is_reported_where_it_lies(dataset: Path, tmp_path: Path) -> None:
    """By the base model's uri, not by the temporary folder that it was read in."""
    base = write_base(tmp_path / "base")
    (base / "tokenizer/vocab.json").write_text("{")
    (message,) = messages(report(dataset, base), stops=True)

    assert f"file://{base}/tokenizer" in message


def test_a_tokenizer_larger_than_the_token_table_stops(dataset: Path, tmp_path: Path) -> None:
    """Its last tokens would have no row."""
    base = write_base(tmp_path / "base", text_encoder={"vocab_size": 100})

    assert Outcome.BASE_MODEL_INVALID is outcome(report(dataset, base))


def test_a_base_model_for_pictures_must_fit_the_word(dataset: Path, base: Path, tmp_path: Path) -> None:
    """The word's rows have the width of the base model that it was trained on."""
    other = write_base(tmp_path / "other", unet={"cross_attention_dim": 8}, text_encoder={"hidden_size": 8})

    assert Outcome.BASE_MODEL_INVALID is check(character_lora(), dataset, base, preview_base=other).outcome
    assert Outcome.SUCCEEDED is check(character_lora(), dataset, base, preview_base=base).outcome


def test_the_base_model_may_be_left_to_the_training(dataset: Path) -> None:
    """hf:// is fetched by the hub's own client, so nothing is looked at before."""
    checked = report(dataset, None)

    assert (Outcome.SUCCEEDED, None) == (checked.outcome, checked.base_model)


def test_a_single_file_is_checked_with_the_packaged_vocabulary(dataset: Path, tmp_path: Path) -> None:
    """Such a file has no tokenizer of its own."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors({"a": (1,)}))

    assert [Outcome.WORD_TAKEN, Outcome.BASE_MODEL_INVALID] == [
        finding.outcome for finding in report(dataset, file, character__name="sword").findings if finding.stops
    ]


def test_a_base_model_in_a_store_is_checked_where_it_lies(dataset: Path, base: Path) -> None:
    """The preflight looks at headers in the bucket; here the store is a folder."""
    assert Outcome.SUCCEEDED is check(character_lora(), dataset, locate(f"file://{base}/", Storage())).outcome


def test_the_samples_are_what_training_reads(dataset: Path, base: Path) -> None:
    """Word, vectors, tags: five texts, so that a person sees that captions are used."""
    samples = report(dataset, base, dataset__captions__tagDropout="0").samples

    assert 5 == len(samples)
    assert all(
        "surtr_arknights[0] surtr_arknights[1] surtr_arknights[2] surtr_arknights[3]" in " ".join(sample.tokens) for sample in samples
    )
    assert all(f"number {Path(sample.picture).stem}" in sample.text for sample in samples)


def test_the_summary_says_what_training_will_do(dataset: Path, base: Path) -> None:
    """Pictures and sizes, tokens, steps, effective rates, bytes to fetch, samples."""
    summary = report(dataset, base, training__steps=300).summary

    assert "Data set: 6 pictures in sizes 64x96 (6)" == summary[0].partition(";")[0]
    assert summary[1].startswith("Texts: ")
    assert "Steps: 300 of 8 pictures (4 x 1 x 2 processes) show each picture 400 times" == summary[2]
    assert "Base model: diffusers F16 epsilon" == summary[4].partition(",")[0]
    assert 10 == len(summary)


def test_the_guide_s_effective_rates(dataset: Path, base: Path) -> None:
    """Batch 4 on one GPU: 4e-4, 4e-5 and 1.2e-2."""
    line = check(character_lora(), dataset, base, processes=1).summary[3]

    assert "Learning rates: UNet 0.0004, text encoder 4e-05, embedding 0.012, which is 4 times those of the resource" == line


def test_unscaled_rates_are_those_of_the_resource(dataset: Path, base: Path) -> None:
    """scaleWithBatch: false."""
    line = report(dataset, base, training__learning_rate__scale_with_batch=False).summary[3]

    assert "Learning rates: UNet 0.0001, text encoder 1e-05, embedding 0.003" == line


def test_the_report_is_json(dataset: Path, base: Path) -> None:
    """For the operator: what `status.dataset` shows."""
    content = json.loads(json.dumps(report(dataset, base).to_json()))

    assert ("Succeeded", 6, [{"width": 64, "height": 96, "images": 6}], 1) == (
        content["reason"],
        content["dataset"]["images"],
        content["dataset"]["buckets"],
        content["dataset"]["chunks"],
    )


def test_a_report_of_failure_is_json_too(dataset: Path, tmp_path: Path) -> None:
    """With every finding."""
    (dataset / "0.txt").unlink()
    content = json.loads(json.dumps(report(dataset, tmp_path / "nothing").to_json()))

    assert ("BaseModelInvalid", None, None) == (content["reason"], content["dataset"], content["baseModel"])
    assert [["0.png"]] == [finding["files"] for finding in content["findings"] if finding["files"]]


def test_the_text_ends_with_what_has_to_be_done(dataset: Path, base: Path) -> None:
    """A terminal shows its end: warnings, then errors."""
    (dataset / "0.txt").unlink()
    (dataset / "notes.md").write_text("x")
    lines = report(dataset, base).text().splitlines()

    assert ["Warning", "Error"] == [line.partition(":")[0] for line in lines[-2:]]
