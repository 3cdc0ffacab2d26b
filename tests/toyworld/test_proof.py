"""Training learns the character: the proof of `make proof` with one seed, half of its steps and pictures, and margins."""

from pathlib import Path

import pytest
import yaml
from proof_cells import Cell, compute_all
from proof_examiner import BACKGROUNDS, BASE, BASE_WITHOUT_WORD, DIFFUSERS, WITHOUT_WORD, Figures
from proof_training import BOTH, LORA, WORD, Inputs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PICTURES = 32
STEPS = 200
DENOISING_STEPS = 20
SEED = 0

Rows = dict[str, Figures]

pytestmark = pytest.mark.timeout(3600)  # minutes of two cores, which others may share


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Four cells, two at a time."""
    folder = tmp_path_factory.mktemp("proof")
    inputs = Inputs(shorter_demo(folder), EXAMPLES / "toyworld/base", EXAMPLES / "toyworld/surtr_arknights")
    cells = [Cell(inputs, course, SEED, PICTURES) for course in (BOTH, LORA, WORD, None)]
    measured = compute_all(cells, folder, 2, lambda _, __: None)
    return {row.name: row for cell in measured for row in cell.rows}


def shorter_demo(folder: Path) -> Path:
    """The demo's resource with fewer steps."""
    resource = yaml.safe_load((EXAMPLES / "surtr.yaml").read_text(encoding="utf-8"))
    resource["spec"]["training"]["steps"] = STEPS
    resource["spec"]["preview"]["inferenceSteps"] = DENOISING_STEPS
    path = folder / "surtr.yaml"
    path.write_text(yaml.safe_dump(resource), encoding="utf-8")
    return path


def loss(rows: Rows, name: str) -> float:
    found = rows[name].held_out_loss
    assert found is not None
    return found


def test_the_judge_recognises_the_character_in_what_word_and_lora_draw(rows: Rows) -> None:
    """Far more of her than without them, from the trigger word alone."""
    assert rows[BOTH.name].recognition >= 0.75
    assert rows[BOTH.name].recognition >= 3 * rows[BASE].recognition


def test_the_loss_falls_on_pictures_that_training_never_saw(rows: Rows) -> None:
    """It is no memory of the 24 pictures."""
    assert loss(rows, BOTH.name) <= 0.5 * loss(rows, BASE)


def test_each_part_learns_alone_and_both_learn_more_than_the_word(rows: Rows) -> None:
    """The word alone can only choose among what the base model draws; her horns and her sword need the LoRA."""
    assert loss(rows, BASE) > loss(rows, WORD.name) > loss(rows, BOTH.name)
    assert loss(rows, BASE) > loss(rows, LORA.name)
    assert rows[BASE].recognition < rows[WORD.name].recognition < rows[BOTH.name].recognition


def test_diffusers_draws_the_same_from_the_files(rows: Rows) -> None:
    """Its own loaders, the webui file and the .pt: the pictures that the trainer's code draws."""
    difference = rows[DIFFUSERS].difference
    assert difference is not None

    assert difference <= 1.0
    assert rows[DIFFUSERS].recognition == pytest.approx(rows[BOTH.name].recognition, abs=0.03)


def test_the_prompt_still_decides_the_background(rows: Rows) -> None:
    assert rows[BACKGROUNDS].shares["background"] >= 0.6


def test_without_the_trigger_word_she_is_seen_less(rows: Rows) -> None:
    """The character is bound to her word, at least for a part."""
    assert rows[WITHOUT_WORD].recognition < rows[BOTH.name].recognition
    assert rows[WITHOUT_WORD].recognition >= rows[BASE_WITHOUT_WORD].recognition
