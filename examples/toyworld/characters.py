"""Characters to teach: ten girls whom pre-training never saw, and the demo's data set of one of them."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from toyworld.drawing import draw
from toyworld.looks import BACKGROUND, EXPRESSION, Look, random_look

DATASET_SEED = 100_000
OTHERS_SEED = 200_000
DATASET_SIZE = 24


@dataclass(frozen=True)
class Character:
    """A name, and what stays the same in every picture of her."""

    name: str
    look: Look

    def scene(self, number: int) -> Look:
        """Her look in scene `number`: backgrounds and expressions take turns, because nothing else about her varies."""
        return replace(
            self.look,
            background=BACKGROUND[number % len(BACKGROUND)],
            expression=EXPRESSION[number // len(BACKGROUND) % len(EXPRESSION)],
        )

    def caption(self, number: int) -> str:
        """What varies in scene `number`, and no more.

        Tags of what belongs to her are left out, as dataset tools prune them: what no tag explains is what the trigger word has to learn.
        """
        scene = self.scene(number)
        return f"1girl, solo, {scene.background}, {scene.expression}"

    def dataset_picture(self, number: int) -> Image.Image:
        """Picture `number` of the training data."""
        return draw(self.scene(number), DATASET_SEED + number)

    def other_picture(self, number: int) -> Image.Image:
        """Picture `number` of those that training never sees: for the held-out loss and for judging."""
        return draw(self.scene(number), OTHERS_SEED + number)

    def write_dataset(self, folder: Path, size: int = DATASET_SIZE) -> None:
        """Write captioned pictures: NN.png and NN.txt."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(size):
            self.dataset_picture(number).save(folder / f"{number:02d}.png", optimize=True)
            (folder / f"{number:02d}.txt").write_text(self.caption(number) + "\n", encoding="utf-8")


def cast(*looks: tuple[str, Look]) -> dict[str, Character]:
    """Characters by name."""
    return {name: Character(name, look) for name, look in looks}


CHARACTERS = cast(
    ("surtr_arknights", Look("white", "twintails", "red", "dress", "black", "horns", "sword")),
    ("skadi_arknights", Look("blue", "long hair", "red", "dress", "red", "witch hat", "sword")),
    ("texas_arknights", Look("black", "short hair", "yellow", "school uniform", "black", "cat ears", "sword")),
    ("exusiai_arknights", Look("red", "short hair", "yellow", "school uniform", "red", "halo", "wand")),
    ("amiya_arknights", Look("pink", "ponytail", "blue", "school uniform", "blue", "horns", "flower")),
    ("nian_arknights", Look("white", "ponytail", "purple", "kimono", "red", "horns", "balloon")),
    ("dusk_arknights", Look("black", "long hair", "red", "kimono", "green", "horns", "sword")),
    ("shamare_arknights", Look("blonde", "twintails", "green", "dress", "green", "cat ears", "sword")),
    ("suzuran_arknights", Look("blonde", "long hair", "yellow", "kimono", "white", "horns", "wand")),
    ("mostima_arknights", Look("blue", "ponytail", "blue", "kimono", "black", "halo", "sword")),
)
"""Names follow the tag style of a real data set; apart from that the girls are inventions of this toy world."""


def resemble(look: Look, other: Look) -> bool:
    """Whether two looks share three of these four: hair, style, eyes, clothes."""
    shared = (look.hair == other.hair, look.style == other.style, look.eyes == other.eyes)
    return sum(shared) + ((look.outfit, look.colour) == (other.outfit, other.colour)) >= 3


def pretraining_look(rng: random.Random) -> Look:
    """A random look that resembles no character: hers must be new to the base model as a whole, not only horns and sword."""
    while True:
        look = random_look(rng)
        if not any(resemble(look, character.look) for character in CHARACTERS.values()):
            return look


def main() -> None:
    """Write the demo's data set."""
    character = CHARACTERS["surtr_arknights"]
    character.write_dataset(Path(__file__).with_name(character.name))


if __name__ == "__main__":
    main()
