"""The rows of the proof: what is asked of each model, and what the judge says to its pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from proof_measures import Subject, draw, draw_in_diffusers, held_out_loss
from proof_training import BOTH, Trained

from charalora_spec.spec import CharacterLoraSpec
from charalora_trainer.weights import Word
from charalora_trainer.words import embedding
from toyworld.characters import CHARACTERS
from toyworld.judge import Judge
from toyworld.looks import BACKGROUND

SUBJECT = "1girl, solo"

BASE = "nothing (the base model)"
BASE_WITHOUT_WORD = f'base model: "{SUBJECT}"'
BASE_BACKGROUNDS = f'base model: "{SUBJECT}, BACKGROUND"'
WORD_OF_BOTH = "the word of both, its LoRA switched off"
LORA_OF_BOTH = "the LoRA of both, its word untrained"
DIFFUSERS = "both, the webui file and the .pt in diffusers"
WITHOUT_WORD = f'both: "{SUBJECT}"'
BACKGROUNDS = f'both: "{SUBJECT}, WORD, BACKGROUND"'


@dataclass(frozen=True)
class Figures:
    """What was measured for one row with one seed.

    Attributes:
        name: Of the row: what was trained, or what was asked for.
        shares: For each attribute of hers, the share of pictures that show it; `background` is the share with the one that was asked for.
        held_out_loss: Where the row has one.
        difference: Mean difference to the pictures of our own sampler, in levels of 255.
    """

    name: str
    shares: Mapping[str, float]
    held_out_loss: float | None = None
    difference: float | None = None

    @property
    def recognition(self) -> float:
        """Mean over the judge's heads but for the background, which belongs to no character."""
        hers = [share for name, share in self.shares.items() if name != "background"]
        return sum(hers) / len(hers)


@dataclass(frozen=True)
class Row:
    """Figures and the pictures behind them.

    Attributes:
        figures: What was measured.
        pictures: In the order of the prompts.
        prompts: How many prompts share them equally.
    """

    figures: Figures
    pictures: list[Image.Image]
    prompts: int = 1


class Examiner:
    """Asks models for pictures and has them judged.

    Args:
        spec: Of the training.
        base: The base model's folder.
        pictures: How many for each row, a multiple of 16.
    """

    def __init__(self, spec: CharacterLoraSpec, base: Path, pictures: int) -> None:
        self._spec = spec
        self._base = base
        self._count = pictures
        self._judge = Judge.load()
        self._character = CHARACTERS[spec.character.name]
        self._prompt = f"{SUBJECT}, {spec.character.name}"

    def base(self) -> Iterator[Row]:
        """The base model without any file; it reads the trigger word as letters."""
        subject = Subject.of(self._spec, self._base)
        yield self._learned(BASE, subject)
        yield self._shown(BASE_WITHOUT_WORD, draw(subject, [SUBJECT], self._count))
        yield self._with_backgrounds(BASE_BACKGROUNDS, subject, SUBJECT)

    def trained(self, name: str, trained: Trained) -> Row:
        """What a training left, asked by the trigger word alone."""
        return self._learned(name, Subject.of(self._spec, self._base, trained.adapter, trained.word))

    def both(self, trained: Trained) -> Iterator[Row]:
        """A joint training in every respect: its parts, in another program, without the word, and with a background."""
        subject = Subject.of(self._spec, self._base, trained.adapter, trained.word)
        row = self._learned(BOTH.name, subject)
        yield row
        yield self._shown(WITHOUT_WORD, draw(subject, [SUBJECT], self._count))
        yield self._with_backgrounds(BACKGROUNDS, subject, self._prompt)
        yield self._learned(LORA_OF_BOTH, replace(subject, words=(self._untrained_word(subject),)))
        yield self._learned(WORD_OF_BOTH, Subject.of(self._spec, self._base, None, trained.word))
        pictures = draw_in_diffusers(self._spec, self._base, trained, self._prompt, self._count)
        shown = self._shown(DIFFUSERS, pictures)
        yield replace(shown, figures=replace(shown.figures, difference=_difference(pictures, row.pictures)))

    def _learned(self, name: str, subject: Subject) -> Row:
        row = self._shown(name, draw(subject, [self._prompt], self._count))
        return replace(row, figures=replace(row.figures, held_out_loss=held_out_loss(subject, self._character)))

    def _untrained_word(self, subject: Subject) -> Word:
        """The word as its training began."""
        character, models = self._spec.character, subject.models
        table = models.text_encoder.get_input_embeddings().weight.detach()
        return embedding.create(character.name, character.vectors, character.init_text, self._spec.training.seed, table, models.tokenizer)

    def _with_backgrounds(self, name: str, subject: Subject, prompt: str) -> Row:
        return self._shown(name, draw(subject, [f"{prompt}, {background}" for background in BACKGROUND], self._count), BACKGROUND)

    def _shown(self, name: str, pictures: list[Image.Image], backgrounds: Sequence[str] = ()) -> Row:
        """Judge pictures; with `backgrounds`, an equal number of pictures was asked to have each of them."""
        look = self._character.look
        each = len(pictures) // len(backgrounds) if backgrounds else 0
        looks = [replace(look, background=backgrounds[number // each]) if each else look for number in range(len(pictures))]
        shares = self._judge.agreement(pictures, looks)
        if not backgrounds:
            shares = {attribute: share for attribute, share in shares.items() if attribute != "background"}
        return Row(Figures(name, shares), pictures, max(1, len(backgrounds)))


def _difference(pictures: list[Image.Image], others: list[Image.Image]) -> float:
    pairs = zip(pictures, others, strict=True)
    return float(np.mean([np.abs(np.asarray(one, dtype=np.float32) - np.asarray(other, dtype=np.float32)).mean() for one, other in pairs]))
