"""Captions: from what taggers write to what training reads."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import character_lora
from charalora_spec.spec import Captions, Character, Templates
from charalora_trainer.data.captions import compose, fill, most_tokens, parse
from charalora_trainer.data.templates import OBJECT, WORD, sentences
from charalora_trainer.words.prompt import PromptTokenizer
from charalora_trainer.words.tokenizer import load_tokenizer

TAGS = ("1girl", "solo", "red hair", "horns", "smile")
SURTR = "surtr_arknights"
ENCODER = PromptTokenizer(load_tokenizer(), {SURTR: 4})


def rules(**overrides: object) -> Captions:
    """The tags as they are, in the plainest template, but for the overrides."""
    plain = {"shuffle_tags": False, "tag_dropout": 0.0, "templates": "word"} | overrides
    return character_lora(dataset__captions=plain_wire(plain)).spec.dataset.captions


def plain_wire(fields: dict[str, object]) -> dict[str, object]:
    names = {"shuffle_tags": "shuffleTags", "tag_dropout": "tagDropout", "keep_tags": "keepTags", "caption_dropout": "captionDropout"}
    return {names.get(name, name): value for name, value in fields.items()}


def composed(count: int = 1, tags: tuple[str, ...] = TAGS, class_: str = "", **overrides: object) -> list[str]:
    generator = random.Random(3)
    return [compose(tags, SURTR, class_, rules(**overrides), generator) for _ in range(count)]


def tags_of(text: str) -> list[str]:
    """The tags behind the word."""
    return text.split(", ")[1:]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        pytest.param("1girl, solo", ("1girl", "solo"), id="commas"),
        pytest.param("1girl,solo ,  smile", ("1girl", "solo", "smile"), id="spaces around commas are not part of a tag"),
        pytest.param("long_hair", ("long hair",), id="underscores are spaces"),
        pytest.param("^_^, o_o, >_<, long_hair", ("^_^", "o_o", ">_<", "long hair"), id="emoticons keep theirs"),
        pytest.param(r"surtr_\(arknights\)", ("surtr (arknights)",), id="escaped parentheses"),
        pytest.param("surtr_(arknights)", ("surtr (arknights)",), id="plain parentheses"),
        pytest.param(r"\\m/", (r"\m/",), id="an escaped backslash"),
        pytest.param(r"\m/", (r"\m/",), id="a plain backslash"),
        pytest.param("{}, (:3)", ("{}", "(:3)"), id="braces and colons are tags"),
        pytest.param("1girl, solo\nsmile\r\n", ("1girl", "solo", "smile"), id="lines"),
        pytest.param("1girl,, , solo,", ("1girl", "solo"), id="nothing between commas"),
        pytest.param("1girl\N{FULLWIDTH COMMA}solo", ("1girl", "solo"), id="full-width commas"),
        pytest.param("\ufeff1girl", ("1girl",), id="a byte order mark"),
        pytest.param("a  girl\twith horns", ("a girl with horns",), id="a sentence"),
        pytest.param(" , \n", (), id="only separators"),
        pytest.param("", (), id="nothing"),
    ],
)
def test_a_caption_is_read(text: str, tags: tuple[str, ...]) -> None:
    """What taggers, waifuc and people write."""
    assert tags == parse(text)


@given(st.lists(st.text("abc xyz", min_size=1).map(str.strip).filter(bool), max_size=6))
def test_what_is_read_reads_the_same_again(words: list[str]) -> None:
    """Tags joined by commas are those tags."""
    tags = parse(", ".join(words))

    assert tags == parse(", ".join(tags))


def test_the_word_stands_before_the_tags() -> None:
    """The plain template."""
    assert [f"{SURTR}, 1girl, solo, red hair, horns, smile"] == composed()


def test_the_class_stands_behind_the_word() -> None:
    """`surtr_arknights 1girl, …`."""
    assert [f"{SURTR} woman, 1girl"] == composed(tags=("1girl",), class_="woman")


@pytest.mark.parametrize("template", OBJECT)
def test_an_empty_class_leaves_no_space_before_the_comma(template: str) -> None:
    """HCP writes `a photo of a surtr_arknights , smile`."""
    assert " ," not in fill(template, SURTR, "", "smile")


@pytest.mark.parametrize("template", OBJECT + WORD)
def test_an_empty_caption_leaves_no_comma(template: str) -> None:
    """All tags dropped: the sentence ends with the word."""
    assert fill(template, SURTR, "", "").endswith(SURTR)


def test_there_are_27_sentences_that_end_alike() -> None:
    """As many as the guide's recipe has; each with the word, the class and the tags at its end."""
    assert 27 == len(set(OBJECT))
    assert all(template.endswith(" {word} {class}, {caption}") for template in OBJECT)


def test_the_word_template_is_the_word_alone() -> None:
    """`templates: word`."""
    assert ("{word} {class}, {caption}",) == sentences(Templates.WORD)


def test_templates_are_drawn_evenly() -> None:
    """2,700 draws of 27 sentences: each about 100 times (four standard deviations)."""
    drawn = Counter(text.partition(f" {SURTR}")[0] for text in composed(2700, templates="object"))

    assert 27 == len(drawn)
    assert all(60 <= count <= 140 for count in drawn.values())


def test_tags_are_shuffled() -> None:
    """Every order of three tags comes up."""
    orders = set(composed(200, tags=("a", "b", "c"), shuffle_tags=True))

    assert 6 == len(orders)


def test_the_first_tags_are_kept_in_their_place() -> None:
    """keepTags: 2 holds two, and the others still move."""
    texts = [tags_of(text) for text in composed(50, shuffle_tags=True, keep_tags=2)]

    assert {("1girl", "solo")} == {tuple(tags[:2]) for tags in texts}
    assert len({tuple(tags[2:]) for tags in texts}) > 1


def test_each_tag_is_left_out_with_its_chance() -> None:
    """TagDropout 0.1 of 10,000 tags: about 1,000 (four standard deviations)."""
    left = sum(len(tags_of(text)) for text in composed(2000, tag_dropout=0.1))

    assert 8880 <= left <= 9120


def test_kept_tags_are_never_left_out() -> None:
    """With tagDropout 1 they are all that remains."""
    assert [["1girl", "solo"]] * 20 == [tags_of(text) for text in composed(20, tag_dropout=1.0, keep_tags=2)]


def test_all_tags_may_be_left_out() -> None:
    """The word alone remains."""
    assert [SURTR] == composed(tag_dropout=1.0)


def test_a_dropped_caption_is_the_unconditional_prompt() -> None:
    """CaptionDropout leaves nothing, the word neither, whatever keepTags says."""
    assert [""] * 20 == composed(20, caption_dropout=1.0, keep_tags=5)


def test_captions_are_dropped_with_their_chance() -> None:
    """CaptionDropout 0.2 of 2,000: about 400 (four standard deviations)."""
    assert 328 <= composed(2000, caption_dropout=0.2).count("") <= 472


def test_dropping_captions_changes_no_other_draw() -> None:
    """The same seed gives the same texts where none is dropped."""
    never, sometimes = composed(50, shuffle_tags=True), composed(50, shuffle_tags=True, caption_dropout=0.5)

    assert all(other in {"", text} for text, other in zip(never, sometimes, strict=True))


def test_the_word_stands_once() -> None:
    """A tag that is the word itself, which parsing spelled with spaces, is left to the template."""
    assert [f"{SURTR}, 1girl"] == composed(tags=parse("surtr_arknights, 1girl"))


def test_braces_in_tags_stay_as_they_are() -> None:
    """A caption asks for no emphasis, so nothing is escaped."""
    assert [f"{SURTR}, {{}}, (:3)"] == composed(tags=("{}", "(:3)"))


def test_the_same_generator_gives_the_same_text() -> None:
    """What is composed depends on the generator alone."""
    assert composed(20, shuffle_tags=True, tag_dropout=0.5) == composed(20, shuffle_tags=True, tag_dropout=0.5)


def surtr(class_: str = "") -> Character:
    return Character.model_validate({"name": SURTR, "class": class_})


def counted(text: str) -> int:
    """As training counts, by the encoder that it uses."""
    return ENCODER.encode_caption(text).tokens


def test_the_longest_text_is_counted() -> None:
    """No draw is longer, and some draw is as long."""
    tags, class_ = ("1girl", "solo", "long red hair", "surtr (arknights)", "^_^"), "woman"
    most = most_tokens(tags, surtr(class_), rules(templates="object"), counted)
    drawn = [counted(text) for text in composed(300, tags=tags, class_=class_, shuffle_tags=True, templates="object")]

    assert most == max(drawn)


@given(
    st.lists(st.sampled_from(["a", "^_^", "(x)", ":3", "...", "it's", "ünïcode", "?!", "red hair", "k-on!", "{}"]), unique=True, max_size=5)
)
def test_no_text_is_longer_than_the_longest(tags: list[str]) -> None:
    """Punctuation merges with the comma behind it; whatever the tags, the count is never too small."""
    most = most_tokens(tags, surtr(), rules(), counted)

    assert all(counted(text) <= most for text in composed(10, tags=tuple(tags), shuffle_tags=True, tag_dropout=0.3))
