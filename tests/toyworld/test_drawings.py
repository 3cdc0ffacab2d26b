"""Drawings are functions of a look and a seed, and keep the characters apart from what pre-training sees."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from toyworld.characters import CHARACTERS, DATASET_SIZE, Character, pretraining_look, resemble
from toyworld.drawing import SIZE, draw
from toyworld.looks import JUDGED, NEVER_IN_PRETRAINING

SURTR = CHARACTERS["surtr_arknights"]
DATASET = Path(__file__).parents[2] / "examples" / "toyworld" / SURTR.name


def test_the_same_seed_draws_the_same_picture() -> None:
    assert draw(SURTR.look, 7).tobytes() == draw(SURTR.look, 7).tobytes()


def test_another_seed_moves_things_a_little() -> None:
    assert draw(SURTR.look, 7).tobytes() != draw(SURTR.look, 8).tobytes()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in JUDGED.items() for value in values])
def test_every_attribute_changes_the_picture(name: str, value: str) -> None:
    look = replace(SURTR.look, **{name: value})
    others = [replace(SURTR.look, **{name: other}) for other in JUDGED[name] if other != value]

    assert all(draw(look, 1).tobytes() != draw(other, 1).tobytes() for other in others)


def test_pretraining_meets_no_character() -> None:
    looks = [pretraining_look(random.Random(seed)) for seed in range(3000)]

    assert not any(resemble(look, character.look) for look in looks for character in CHARACTERS.values())
    assert not any(look.attribute(name) == value for look in looks for name, value in NEVER_IN_PRETRAINING.items())


@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
def test_pictures_for_judging_are_never_those_of_the_data_set(character: Character) -> None:
    taught = {character.dataset_picture(number).tobytes() for number in range(DATASET_SIZE)}
    others = {character.other_picture(number).tobytes() for number in range(2 * DATASET_SIZE)}

    assert not taught & others


def test_no_two_characters_resemble_each_other() -> None:
    looks = [character.look for character in CHARACTERS.values()]

    assert [] == [(one, other) for one in looks for other in looks if one is not other and resemble(one, other)]


def test_captions_leave_to_the_trigger_word_what_belongs_to_the_character() -> None:
    tags = {tag for number in range(DATASET_SIZE) for tag in SURTR.caption(number).split(", ")}
    own = {SURTR.look.tag_of(name) for name in JUDGED if name != "background"}

    assert not tags & own


def test_the_committed_data_set_is_what_the_program_draws() -> None:
    for number in range(DATASET_SIZE):
        with Image.open(DATASET / f"{number:02d}.png") as picture:
            assert (SIZE, SIZE) == picture.size
            assert SURTR.dataset_picture(number).tobytes() == picture.convert("RGB").tobytes()
        assert SURTR.caption(number) == (DATASET / f"{number:02d}.txt").read_text(encoding="utf-8").strip()
