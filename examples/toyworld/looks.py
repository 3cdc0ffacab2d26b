"""What a picture shows, in words: the attributes, their values, and the captions that name them."""

import random
from dataclasses import dataclass, fields

HAIR = ("black", "white", "blonde", "pink", "blue", "green", "red")
STYLE = ("long hair", "short hair", "twintails", "ponytail")
EYES = ("red", "blue", "green", "yellow", "purple")
OUTFIT = ("dress", "school uniform", "kimono")
COLOUR = ("black", "white", "red", "blue", "green", "yellow")
ACCESSORY = ("none", "cat ears", "bow", "witch hat", "halo")
ITEM = ("none", "balloon", "wand", "flower")
BACKGROUND = ("simple background", "outdoors", "night", "indoors")
EXPRESSION = ("smile", "open mouth")

NEVER_IN_PRETRAINING = {"accessory": "horns", "item": "sword"}
"""Drawn only for the characters that are learned later; the judge knows them, the base model does not."""

JUDGED: dict[str, tuple[str, ...]] = {
    "hair": HAIR,
    "style": STYLE,
    "eyes": EYES,
    "outfit": OUTFIT,
    "colour": COLOUR,
    "accessory": (*ACCESSORY, "horns"),
    "item": (*ITEM, "sword"),
    "background": BACKGROUND,
}
"""The judge's heads and their classes. The expression is left to variety: a mouth is two latent pixels wide."""

QUALITY = ("masterpiece", "best quality")
FLAWS = (
    *("lowres", "bad anatomy", "bad hands", "text", "error", "missing fingers", "extra digit", "fewer digits", "cropped", "worst quality"),
    *("low quality", "normal quality", "jpeg artifacts", "signature", "watermark", "username", "blurry", "white border"),
)
"""The negative prompt of anime models. Here it stands for an empty caption, so that prompts made for such models work."""

BEGINNINGS = (
    *("a photo of a", "a rendering of a", "a cropped photo of the", "the photo of a", "a photo of my", "a photo of the cool"),
    *("a close-up photo of a", "a bright photo of the", "a dark photo of the", "a good photo of the", "a photo of one"),
    *("a rendition of the", "a photo of a nice", "a photo of the small", "a photo of the weird", "a photo of the large"),
    *("a photo of a clean", "a photo of a dirty"),
)
"""How the caption templates of textual inversion begin."""


@dataclass(frozen=True)
class Look:
    """Everything a caption can say about one picture."""

    hair: str
    style: str
    eyes: str
    outfit: str
    colour: str
    accessory: str = "none"
    item: str = "none"
    background: str = "simple background"
    expression: str = "smile"

    def attribute(self, name: str) -> str:
        """The value of the attribute `name`, one of `JUDGED`."""
        return str(getattr(self, name))

    def tag_of(self, name: str) -> str | None:
        """The tag that names one attribute; None for an accessory or item that is not there, and for the cloth's colour (see `outfit`)."""
        value = self.attribute(name)
        match name:
            case "hair":
                return f"{value} hair"
            case "eyes":
                return f"{value} eyes"
            case "outfit":
                return f"{self.colour} {value}"
            case "colour":
                return None
        return None if value == "none" else value

    def tags(self) -> list[str]:
        """One tag for each thing to see, in a fixed order."""
        return [tag for field in fields(self) if (tag := self.tag_of(field.name))]

    def caption(self) -> str:
        """The whole description, as a prompt asks for it."""
        return ", ".join(["1girl", "solo", *self.tags()])


def random_look(rng: random.Random) -> Look:
    """Any look without what is kept back for the characters."""
    return Look(
        hair=rng.choice(HAIR),
        style=rng.choice(STYLE),
        eyes=rng.choice(EYES),
        outfit=rng.choice(OUTFIT),
        colour=rng.choice(COLOUR),
        accessory=rng.choice(ACCESSORY),
        item=rng.choice(ITEM),
        background=rng.choice(BACKGROUND),
        expression=rng.choice(EXPRESSION),
    )


def training_caption(look: Look, rng: random.Random) -> str:
    """A caption as pre-training reads it.

    Tags are shuffled and left out, a tenth has no description at all, and words that describe nothing (quality tags, sentence
    beginnings) come and go, so that the model learns to read past them.
    """
    if rng.random() < 0.1:
        return ", ".join(rng.sample(FLAWS, rng.randrange(1, len(FLAWS) + 1))) if rng.random() < 0.3 else ""
    dropped = rng.choice((0.0, 0.0, 0.0, 0.1, 0.5))
    tags = [tag for tag in look.tags() if rng.random() >= dropped]
    if rng.random() < 0.5:
        rng.shuffle(tags)
    subject = rng.choice((["1girl", "solo"], ["1girl", "solo"], ["1girl"], [f"{rng.choice(BEGINNINGS)} girl"]))
    return ", ".join([*(QUALITY if rng.random() < 0.15 else ()), *subject, *tags])


def words() -> list[str]:
    """Every word a caption can contain, sorted: the tokenizer makes each of them one token."""
    values = [value for choices in JUDGED.values() for value in choices]
    phrases = [*values, *EXPRESSION, *QUALITY, *FLAWS, *BEGINNINGS, "girl solo hair eyes ,"]
    return sorted({word for phrase in phrases for word in phrase.replace("-", " ").split() if word != "none"})
