r"""Emphasis in prompts, as the guide writes it: `{text:1.2}` multiplies a weight, `{text}` stands for 1.1, nesting multiplies.

A backslash makes a character plain: `\{ \} \: \\`, and also `\( \) \[ \]`, because captions and webui prompts write them. Outside of
braces a colon is plain anyway.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

DEFAULT_WEIGHT = 1.1

_PIECES = re.compile(r"(?P<escaped>\\[{}:\\()\[\]])|(?P<mark>[{}:])|(?P<plain>[^{}:\\]+|\\)")
_NUMBER = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_SHOWN = 40


@dataclass(frozen=True)
class Span:
    """A part of a prompt and what its rows of the conditioning are multiplied with."""

    text: str
    weight: float


class PromptError(ValueError):
    """A prompt whose braces do not add up. The message says what to write instead; `position` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"{message} (at character {position + 1})")
        self.position = position


@dataclass
class _Group:
    """An open brace: where it stands, what it holds so far, and the last colon as (position, number of spans before it)."""

    start: int
    spans: list[Span] = field(default_factory=list)
    colon: tuple[int, int] | None = None


def parse(text: str) -> list[Span]:
    r"""The prompt's spans in order, none of them empty, neighbours of different weight.

    Raises:
        PromptError: A brace has no partner, holds nothing, or its weight is no number of 0 or more.
    """
    groups = [_Group(start=-1)]
    for piece in _PIECES.finditer(text):
        group, position, mark = groups[-1], piece.start(), piece["mark"]
        if mark == "{":
            groups.append(_Group(position))
        elif mark == "}":
            if len(groups) == 1:
                raise PromptError(r"'}' closes nothing; remove it, or write \} for the brace itself", position)
            groups.pop()
            groups[-1].spans += _closed(group, text, position)
        else:
            if mark == ":" and len(groups) > 1:
                group.colon = (position, len(group.spans))
            group.spans.append(Span(piece["escaped"][1:] if piece["escaped"] else piece[0], 1.0))
    if len(groups) > 1:
        raise PromptError(r"'{' is never closed; add '}', or write \{ for the brace itself", groups[-1].start)
    return _joined(groups[0].spans)


def render(spans: Iterable[Span]) -> str:
    """A prompt that parses to `spans`."""
    return "".join(_written(span) for span in spans)


def render_webui(spans: Iterable[Span]) -> str:
    """The same prompt as webui writes it: `(text:1.2)`, with literal brackets escaped.

    Its commands AND and BREAK are written in lower case, where they are plain text and the same tokens.
    """
    return "".join(_written_for_webui(span) for span in spans)


def _closed(group: _Group, text: str, end: int) -> list[Span]:
    """The group's spans with its own weight multiplied in; `end` is the position of its closing brace."""
    spans, factor = group.spans, DEFAULT_WEIGHT
    if group.colon:
        colon, before = group.colon
        spans, factor = spans[:before], _weight(text, group.start, colon, end)
    if not any(span.text for span in spans):
        raise PromptError(r"the braces emphasise nothing; write text into them, or \{ and \} for braces themselves", group.start)
    weighted = [Span(span.text, span.weight * factor) for span in spans]
    if not all(math.isfinite(span.weight) for span in weighted):
        raise PromptError("the weights multiply to infinity; use smaller ones", group.start)
    return weighted


def _weight(text: str, start: int, colon: int, end: int) -> float:
    number = text[colon + 1 : end]
    if _NUMBER.fullmatch(number):
        return float(number.strip())  # float itself knows fewer spaces than `\s`
    escaped = rf"{text[start:colon]}\:{number}}}"
    advice = f"write {escaped} for the text" if len(escaped) <= _SHOWN else r"write \: for the text"
    shown = number if len(number) <= _SHOWN else number[:_SHOWN] + "…"
    raise PromptError(f"{shown!r} is no number of 0 or more, so it cannot be a weight; {advice}", colon + 1)


def _joined(spans: Iterable[Span]) -> list[Span]:
    filled = (span for span in spans if span.text)
    return [Span("".join(span.text for span in same), weight) for weight, same in groupby(filled, key=lambda span: span.weight)]


def _written(span: Span) -> str:
    if span.weight == 1:
        return _escaped(span.text, r"[{}\\]")
    escaped = _escaped(span.text, r"[{}:\\]")
    return f"{{{escaped}:{span.weight!r}}}"


def _written_for_webui(span: Span) -> str:
    text = re.sub(r"\b(AND|BREAK)\b", lambda command: command[0].lower(), _escaped(span.text, r"[()\[\]\\]"))
    number = f"{span.weight:.6f}".rstrip("0").rstrip(".")
    return text if span.weight == 1 else f"({text}:{number})"


def _escaped(text: str, characters: str) -> str:
    return re.sub(characters, r"\\\g<0>", text)
