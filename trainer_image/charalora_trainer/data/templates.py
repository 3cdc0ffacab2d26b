"""The sentences around a caption: each names the character once and ends with the tags, so the word learns what the tags leave open."""

from charalora_spec.spec import Templates

WORD = ("{word} {class}, {caption}",)

OBJECT = (
    "an illustration of {word} {class}, {caption}",
    "a drawing of {word} {class}, {caption}",
    "a picture of {word} {class}, {caption}",
    "an anime picture of {word} {class}, {caption}",
    "an anime screenshot of {word} {class}, {caption}",
    "a digital painting of {word} {class}, {caption}",
    "a detailed illustration of {word} {class}, {caption}",
    "a clean drawing of {word} {class}, {caption}",
    "a colorful illustration of {word} {class}, {caption}",
    "a bright picture of {word} {class}, {caption}",
    "a dim picture of {word} {class}, {caption}",
    "a sketch of {word} {class}, {caption}",
    "line art of {word} {class}, {caption}",
    "character art of {word} {class}, {caption}",
    "concept art of {word} {class}, {caption}",
    "fan art of {word} {class}, {caption}",
    "official art of {word} {class}, {caption}",
    "game artwork of {word} {class}, {caption}",
    "a poster of {word} {class}, {caption}",
    "a portrait of {word} {class}, {caption}",
    "a full view of {word} {class}, {caption}",
    "a close view of {word} {class}, {caption}",
    "a cropped picture of {word} {class}, {caption}",
    "a good picture of {word} {class}, {caption}",
    "a favorite picture of {word} {class}, {caption}",
    "a new illustration of {word} {class}, {caption}",
    "one more picture of {word} {class}, {caption}",
)


def sentences(templates: Templates) -> tuple[str, ...]:
    """The templates that a resource asks for, with the fields `{word}`, `{class}` and `{caption}`."""
    return OBJECT if templates is Templates.OBJECT else WORD
