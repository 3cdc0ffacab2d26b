"""The proof as tables, a sheet of pictures, and what it falls short of."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from PIL import Image, ImageDraw
from proof_cells import Measured, side_by_side
from proof_examiner import (
    BACKGROUNDS,
    BASE,
    BASE_BACKGROUNDS,
    BASE_WITHOUT_WORD,
    DIFFUSERS,
    LORA_OF_BOTH,
    WITHOUT_WORD,
    WORD_OF_BOTH,
    Figures,
)
from proof_training import BOTH, GUIDE, LORA, WORD

from toyworld.characters import Character

LEARNED = (BASE, WORD.name, LORA.name, BOTH.name, DIFFUSERS, GUIDE.name, WORD_OF_BOTH, LORA_OF_BOTH)
SHOWN = (BASE, WORD.name, LORA.name, BOTH.name, DIFFUSERS, GUIDE.name, WITHOUT_WORD, BACKGROUNDS)
PROMPTS = (BASE_WITHOUT_WORD, WITHOUT_WORD, BASE_BACKGROUNDS, BACKGROUNDS)
ATTRIBUTES = (BASE, WORD.name, LORA.name, BOTH.name)
NAME = "proof-toyworld"
TITLE_HEIGHT = 16

LEAST_RECOGNITION = 0.80
LEAST_GAIN = 3.0
MOST_LOSS = 0.90
MOST_DIFFERENCE = 1.0  # levels of 255: thirty steps let the rounding of another order of sums grow


@dataclass(frozen=True)
class Proof:
    """All that was measured.

    Attributes:
        cells: Finished cells.
        facts: What else is worth knowing, by name: machine, versions, settings.
    """

    cells: Sequence[Measured]
    facts: dict[str, str]

    def rows(self, name: str) -> list[Figures]:
        """A row's figures, one for each seed."""
        return [row for cell in self.cells for row in cell.rows if row.name == name]

    def recognition(self, name: str) -> list[float]:
        """Of a row, one for each seed."""
        return [row.recognition for row in self.rows(name)]

    def loss(self, name: str) -> list[float]:
        """Of a row, one for each seed; empty where the row has none."""
        return [row.held_out_loss for row in self.rows(name) if row.held_out_loss is not None]

    def difference(self) -> float:
        """The largest between diffusers' pictures and ours."""
        return max(row.difference or 0.0 for row in self.rows(DIFFUSERS))


def shortcomings(proof: Proof) -> list[str]:
    """What keeps the proof from holding; nothing where it holds."""
    both, base = mean(proof.recognition(BOTH.name)), mean(proof.recognition(BASE))
    loss, difference = max(proof.loss(BOTH.name)) / mean(proof.loss(BASE)), proof.difference()
    claims = {
        f"she is recognised in {both:.2f} of what both draw, not in {LEAST_RECOGNITION}": both >= LEAST_RECOGNITION,
        f"that is {both / base:.1f} times as often as without training, not {LEAST_GAIN} times": both >= LEAST_GAIN * base,
        f"the highest held-out loss of both is {loss:.2f} of the base model's, not {MOST_LOSS}": loss <= MOST_LOSS,
        f"diffusers draws pictures that differ by {difference:.2f} levels, not by {MOST_DIFFERENCE}": difference <= MOST_DIFFERENCE,
    }
    return [sentence for sentence, holds in claims.items() if not holds]


def verdict(proof: Proof) -> str:
    """One paragraph: whether the proof holds, and how the parts alone compare."""
    wrong = shortcomings(proof)
    holds = f"**The proof does not hold**: {'; '.join(wrong)}." if wrong else "**The proof holds.**"
    base, word, lora, both = (mean(proof.recognition(name)) for name in ATTRIBUTES)
    return (
        f"{holds} She is recognised in {both:.2f} of what both draw, {both / base:.1f} times as often as in what the base model draws "
        f"({base:.2f}). In recognition {WORD.name} ({word:.2f}) {_place(base, word, both)}, and {LORA.name} ({lora:.2f}) "
        f"{_place(base, lora, both)}."
    )


def markdown(proof: Proof) -> str:
    """Everything that was measured, in tables."""
    learned = [[name, spread(proof.loss(name), 4), spread(proof.recognition(name))] for name in LEARNED]
    prompts = [[name, spread(proof.recognition(name)), spread(_shares(proof, name, "background"))] for name in PROMPTS]
    hers = [attribute for attribute in proof.rows(BASE)[0].shares if attribute != "background"]
    attributes = [[attribute, *(spread(_shares(proof, name, attribute)) for name in ATTRIBUTES)] for attribute in hers]
    return "\n".join(
        [
            "# Training learns the character",
            "",
            verdict(proof),
            "",
            table(["trained", "held-out loss", "recognition"], learned),
            "",
            f"Mean of {len(proof.rows(BOTH.name))} seeds, in brackets the lowest and the highest.",
            "*Held-out loss*: 24 pictures of her that no training saw, each at four fixed noises and timesteps, the same in all rows.",
            "*Recognition*: the mean over seven attributes of the share of pictures that show hers, says a classifier trained on",
            "drawings alone. The prompt is `1girl, solo` and the trigger word; noise, sampler and strength are the same in all rows.",
            "",
            table(["asked for", "recognition", "background as asked"], prompts),
            "",
            table(["attribute", *ATTRIBUTES], attributes),
            "",
            table(["measured with", ""], [[name, value] for name, value in proof.facts.items()]),
            "",
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is readable on a terminal too."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    padded = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and in brackets the lowest and highest."""
    if not values:
        return ""
    middle = f"{mean(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def sheet(proof: Proof, character: Character) -> Image.Image:
    """Pictures of the first seed; a column has the same noise in all rows but the drawings."""
    strips = [("her, as drawn", side_by_side([character.other_picture(number) for number in range(8)]))]
    for name in SHOWN:
        cell = next(cell for cell in proof.cells if any(row.name == name for row in cell.rows))
        strips.append((f"{name}: recognised in {spread(proof.recognition(name))}", cell.strip(name)))
    width, height = strips[0][1].size
    image = Image.new("RGB", (width, (height + TITLE_HEIGHT) * len(strips)), "white")
    pen = ImageDraw.Draw(image)
    for number, (title, strip) in enumerate(strips):
        top = number * (height + TITLE_HEIGHT)
        pen.text((3, top + 2), title, fill="black")
        image.paste(strip, (0, top + TITLE_HEIGHT))
    return image.quantize(256)  # a third of the size, for a repository


def write(proof: Proof, character: Character, folder: Path) -> None:
    """Leave tables, figures and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.md").write_text(markdown(proof), encoding="utf-8")
    cells = [
        {"rows": [asdict(row) | {"recognition": row.recognition} for row in cell.rows], "seconds": round(cell.seconds, 1)}
        | {"training_seconds": round(cell.training_seconds, 1)}
        for cell in proof.cells
    ]
    (folder / f"{NAME}.json").write_text(json.dumps({"facts": proof.facts, "cells": cells}, indent=1) + "\n", encoding="utf-8")
    sheet(proof, character).save(folder / f"{NAME}.png", optimize=True)


def _place(base: float, value: float, both: float) -> str:
    return "lies between the two" if base < value < both else "does not lie between the two"


def _shares(proof: Proof, name: str, attribute: str) -> list[float]:
    return [row.shares[attribute] for row in proof.rows(name) if attribute in row.shares]
