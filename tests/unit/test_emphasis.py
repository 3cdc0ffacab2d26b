"""Emphasis in prompts: what braces mean, what wrong ones say, and that writing a prompt again changes nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charalora_trainer.words.emphasis import PromptError, Span, parse, render, render_webui

PROMPTS = st.text(alphabet="ab:{}\\()[].12 ", max_size=40)


def weights(prompt: str) -> list[tuple[str, float]]:
    return [(span.text, round(span.weight, 6)) for span in parse(prompt)]


def test_weights_multiply() -> None:
    """The golden prompt: 1.1 without a number, nested weights multiplied."""
    expected = [("a ", 1), ("cat", 1.1), (" running ", 1), ("in the ", 1.2), ("city", 1.32)]

    assert expected == weights("a {cat} running {in the {city}:1.2}")


def test_plain_text_is_one_span() -> None:
    """Round and square brackets have no meaning, and outside of braces a colon has none."""
    assert [Span("(a:1.2), [b], re:zero", 1.0)] == parse("(a:1.2), [b], re:zero")


def test_no_text_is_no_span() -> None:
    """An empty prompt is valid."""
    assert [] == parse("")


@pytest.mark.parametrize(
    ("prompt", "text"),
    [(r"\{a\}", "{a}"), (r"a\\b", r"a\b"), (r"a\:b", "a:b"), (r"surtr \(arknights\)", "surtr (arknights)"), ("a\\", "a\\"), (r"\m", r"\m")],
)
def test_a_backslash_makes_a_character_plain(prompt: str, text: str) -> None:
    """Before any other character, and at the end, a backslash is itself."""
    assert [Span(text, 1.0)] == parse(prompt)


def test_an_escaped_colon_is_text() -> None:
    r"""`\\:` keeps a title whole inside braces."""
    assert [Span("re:zero", 1.3)] == parse(r"{re\:zero:1.3}")


def test_the_last_colon_brings_the_weight() -> None:
    """Earlier colons are text."""
    assert [Span("re:zero", 1.3)] == parse("{re:zero:1.3}")


def test_neighbours_of_one_weight_are_one_span() -> None:
    """Weight 1 in braces is no border: `{b:1}` between plain text joins it."""
    assert [Span("abc", 1.0)] == parse("a{b:1}c")


def test_a_title_in_braces_is_told_how_to_escape() -> None:
    """The message names the text that is no number and writes the prompt that works."""
    with pytest.raises(
        PromptError, match=re.escape(r"'zero' is no number of 0 or more, so it cannot be a weight; write {re\:zero} for the text")
    ):
        parse("{re:zero}")


@pytest.mark.parametrize(
    ("prompt", "position"),
    [
        ("{a", 0),
        ("a {b} {c", 6),
        ("{{a}", 0),
        ("a}", 1),
        ("{a}}", 3),
        ("x {}", 2),
        ("{a{:2}}", 2),
        ("{re:zero}", 4),
        ("{a:-1}", 3),
        ("{a:inf}", 3),
    ],
)
def test_the_position_of_a_mistake_is_given(prompt: str, position: int) -> None:
    """Counted from 0 in the error, from 1 in its message."""
    with pytest.raises(PromptError, match=rf"at character {position + 1}\)") as refused:
        parse(prompt)

    assert position == refused.value.position


def test_weights_without_bound_are_refused() -> None:
    """Products that no number can hold would turn the conditioning into NaN."""
    with pytest.raises(PromptError, match="infinity"):
        parse("{" * 4 + "a" + ":1e300}" * 4)


def test_deep_nesting_is_no_recursion() -> None:
    """A thousand braces parse as well as one."""
    [span] = parse("{" * 2000 + "a" + ":1}" * 2000)

    assert Span("a", 1.0) == span


@given(PROMPTS)
def test_any_text_parses_or_says_why(prompt: str) -> None:
    """Nothing but a PromptError ever leaves the parser, and it points into the prompt."""
    try:
        parse(prompt)
    except PromptError as error:
        assert 0 <= error.position <= len(prompt)  # noqa: PT017


@given(PROMPTS)
def test_a_rendered_prompt_parses_to_the_same_spans(prompt: str) -> None:
    """parse(render(parse(x))) is parse(x), exactly."""
    try:
        spans = parse(prompt)
    except PromptError:
        return

    assert spans == parse(render(spans))


@pytest.mark.parametrize(
    ("prompt", "webui"),
    [
        ("1girl, {surtr_arknights:1.2}", "1girl, (surtr_arknights:1.2)"),
        ("{in the {city}:1.2}", "(in the :1.2)(city:1.32)"),
        (r"surtr \(arknights\), [x]", r"surtr \(arknights\), \[x\]"),
        (r"a\\b", r"a\\b"),
        ("salt AND pepper, BREAK, ANDROID", "salt and pepper, break, ANDROID"),
    ],
)
def test_webui_reads_the_same_prompt(prompt: str, webui: str) -> None:
    """Emphasis in round brackets; brackets that are text, escaped; no command of webui's by accident."""
    assert webui == render_webui(parse(prompt))


@given(PROMPTS)
def test_webui_gives_every_character_its_weight(prompt: str) -> None:
    """Read by webui's rules, the rendered prompt has the same text with the same weights."""
    try:
        spans = parse(prompt)
    except PromptError:
        return
    expected = [(letter, span.weight) for span in spans for letter in span.text]

    read = read_by_webui(render_webui(spans))

    assert [letter for letter, _ in expected] == [letter for letter, _ in read]
    assert pytest.approx([weight for _, weight in expected], abs=1e-6) == [weight for _, weight in read]


def read_by_webui(prompt: str) -> list[tuple[str, float]]:
    """Webui's rules: `(text:1.2)` weighs its text, `(` alone 1.1, `[` 1 / 1.1, a backslash escapes brackets and itself."""
    letters: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []
    rest = prompt
    while rest:
        if escaped := re.match(r"\\([()\[\]\\])", rest):
            letters.append((escaped[1], 1.0))
            taken = 2
        elif (weight := re.match(r":\s*([+-]?[.\d]+)\s*\)", rest)) and opened and opened[-1][0] == "(":
            _, start = opened.pop()
            letters[start:] = [(letter, old * float(weight[1])) for letter, old in letters[start:]]
            taken = weight.end()
        else:
            assert rest[0] not in ")]", "only weighted groups are written"
            if rest[0] in "([":
                opened.append((rest[0], len(letters)))
            else:
                letters.append((rest[0], 1.0))
            taken = 1
        rest = rest[taken:]
    assert not opened
    return letters
