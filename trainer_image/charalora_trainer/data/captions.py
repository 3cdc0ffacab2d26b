"""From a caption file to the text of one training step."""

import random
import re
from collections.abc import Callable, Sequence

from charalora_spec.spec import Captions, Character
from charalora_trainer.data.templates import sentences

LONGEST_EMOTICON = 3
"""`^_^` and `o_o` keep their underscore; in anything longer it stands for a space."""

_SEPARATORS = re.compile("[,\N{FULLWIDTH COMMA}\r\n]")
_ESCAPED = re.compile(r"\\([\\()])")


def parse(text: str) -> tuple[str, ...]:
    r"""The tags of a caption, stripped, in their order; none where the text has only separators.

    Tags are separated by commas (a full-width one too) or newlines. Taggers write `long_hair` and `surtr_\(arknights\)`, base models know
    `long hair` and `surtr (arknights)`: underscores become spaces but in emoticons, escapes are taken away.
    """
    tags = (" ".join(_plain(tag.strip()).split()) for tag in _SEPARATORS.split(text.removeprefix("\ufeff")))
    return tuple(tag for tag in tags if tag)


def compose(tags: Sequence[str], word: str, class_: str, rules: Captions, rng: random.Random) -> str:
    """The text that a picture is trained with this time: plain text, in which no character asks for emphasis.

    All tags but the first `keep_tags` are shuffled, then each of them is left out with probability `tag_dropout`; a template, drawn
    uniformly, puts the word before them. With probability `caption_dropout` the text is empty instead, the word left out too: that is the
    unconditional prompt of classifier-free guidance, which is what other trainers call caption dropout as well.
    A tag that is the word itself is left out, because the template names it.
    """
    dropped = rng.random() < rules.caption_dropout
    others = [tag for tag in tags if not is_word(tag, word)]
    kept, moving = others[: rules.keep_tags], others[rules.keep_tags :]
    if rules.shuffle_tags:
        rng.shuffle(moving)
    moving = [tag for tag in moving if rng.random() >= rules.tag_dropout]
    template = rng.choice(sentences(rules.templates))
    return "" if dropped else fill(template, word, class_, ", ".join([*kept, *moving]))


def most_tokens(tags: Sequence[str], character: Character, rules: Captions, count: Callable[[str], int]) -> int:
    """Positions that the longest text of these tags takes, whatever order, omissions and template are drawn.

    A tag and the comma behind it may merge into other tokens than the two alone, so both ways are counted.

    Args:
        tags: As parsed.
        character: Its word, class and number of vectors.
        rules: Which templates there are.
        count: Positions of a text, in which the word counts for its vectors.
    """
    others = [tag for tag in tags if not is_word(tag, character.name)]
    sentence = max(count(fill(template, character.name, character.class_, "") + ",") for template in sentences(rules.templates))
    inner, last = [count(tag + ",") for tag in others], [count(tag) for tag in others]
    end = max((alone - followed for alone, followed in zip(last, inner, strict=True)), default=0)
    # A word inside the tags may have to wait for the next 75 positions, because its vectors are never parted.
    waiting = (character.vectors - 1) * sum(tag.count(character.name) for tag in others)
    return sentence + sum(inner) + end + waiting


def fill(template: str, word: str, class_: str, caption: str) -> str:
    """A template's sentence. An empty class or caption leaves neither a space nor a comma behind."""
    filled = template.format(word=word, caption=caption, **{"class": class_})
    return " ".join(filled.split()).replace(" ,", ",").rstrip(" ,")


def is_word(tag: str, word: str) -> bool:
    """Whether a parsed tag is the trigger word, whose underscores parsing made spaces."""
    return tag == _plain(word)


def _plain(tag: str) -> str:
    spaced = tag.replace("_", " ") if len(tag) > LONGEST_EMOTICON else tag
    return _ESCAPED.sub(r"\1", spaced)
