"""Prompts to token ids: words, chunks and weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from charalora_trainer.words.emphasis import PromptError
from charalora_trainer.words.prompt import CHUNK, PromptTokenizer
from charalora_trainer.words.tokenizer import load_tokenizer, token_ids

BOS, EOS, FIRST = 49406, 49407, 49408
TOKENIZER = load_tokenizer()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return TOKENIZER


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> PromptTokenizer:
    return PromptTokenizer(tokenizer, {"surtr": 4, "amiya": 2}, aliases={"surtr-1000": "surtr"})


def content(ids: tuple[int, ...]) -> list[int]:
    """What a chunk holds between beginning and end."""
    assert ids[0] == BOS
    return list(ids[1 : ids.index(EOS)])


def test_a_chunk_is_77_ids_with_begin_end_and_filling(prompts: PromptTokenizer, tokenizer: Tokenizer) -> None:
    """Beginning, the text, then the end to the last position, as CLIP pads."""
    tokens = prompts.encode("a cat")

    assert ((BOS, *token_ids(tokenizer, "a cat"), *[EOS] * 74),) == tokens.ids
    assert (2, 0) == (tokens.tokens, tokens.truncated)


def test_an_empty_prompt_is_one_empty_chunk(prompts: PromptTokenizer) -> None:
    """Nothing to say still conditions the model."""
    assert ((BOS, *[EOS] * 76),) == prompts.encode("").ids


def test_a_word_is_its_rows(prompts: PromptTokenizer) -> None:
    """Four vectors are four ids from the vocabulary's size upwards; the next word's rows follow."""
    assert [FIRST, FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4, FIRST + 5] == content(prompts.encode("surtr amiya").ids[0])


def test_an_alias_is_the_same_word(prompts: PromptTokenizer) -> None:
    """`surtr-1000`, as the guide's file names have it, means the rows of `surtr`; the longer name matches first."""
    assert prompts.encode("a surtr b").ids == prompts.encode("a surtr-1000 b").ids


def test_case_matters(prompts: PromptTokenizer, tokenizer: Tokenizer) -> None:
    """`Surtr` is not the word."""
    assert token_ids(tokenizer, "Surtr") == content(prompts.encode("Surtr").ids[0])


def test_a_word_is_found_inside_longer_strings(prompts: PromptTokenizer, tokenizer: Tokenizer) -> None:
    """As the guide's system does it: `surtrX` is the word and `x`."""
    assert [*range(FIRST, FIRST + 4), *token_ids(tokenizer, "x")] == content(prompts.encode("surtrX").ids[0])


def test_emphasis_weighs_every_token_of_its_text(prompts: PromptTokenizer) -> None:
    """The golden weights for one token a word."""
    tokens = prompts.encode("a {cat} running {in the {city}:1.2}")

    assert pytest.approx([1, 1, 1.1, 1, 1.2, 1.2, 1.32, 1]) == tokens.weights[0][:8]


def test_emphasis_covers_all_rows_of_a_word(prompts: PromptTokenizer) -> None:
    """The weight stands on each of the four rows, and the next token has its own."""
    tokens = prompts.encode("x {surtr:1.2} y")

    assert (1, 1, 1.2, 1.2, 1.2, 1.2, 1, 1) == tokens.weights[0][:8]


def test_braces_do_not_join_with_punctuation(prompts: PromptTokenizer, tokenizer: Tokenizer) -> None:
    """`({cat})` has the tokens of `(`, `cat` and `)`, none of a brace."""
    assert [*token_ids(tokenizer, "("), *token_ids(tokenizer, "cat"), *token_ids(tokenizer, ")")] == content(
        prompts.encode("({cat})").ids[0]
    )


def test_a_caption_is_plain_text(prompts: PromptTokenizer, tokenizer: Tokenizer) -> None:
    """Danbooru has tags such as `:}`; in a caption they are no mistake, and the word still counts."""
    tokens = prompts.encode_caption("surtr, :}, {a:2}")

    assert [*range(FIRST, FIRST + 4), *token_ids(tokenizer, ", :}, {a:2}")] == content(tokens.ids[0])
    assert {1.0} == set(tokens.weights[0])


def test_a_wrong_prompt_says_so(prompts: PromptTokenizer) -> None:
    """The parser's error reaches the caller."""
    with pytest.raises(PromptError):
        prompts.encode("{surtr")


def test_a_long_prompt_takes_more_chunks(prompts: PromptTokenizer) -> None:
    """76 tokens need two chunks, whose conditioning has 152 rows when joined."""
    tokens = prompts.encode("cat " * 76)

    assert [75, 1] == [len(content(ids)) for ids in tokens.ids]
    assert 152 == len(tokens.joined_weights)


def test_a_word_is_never_split(prompts: PromptTokenizer) -> None:
    """With two positions left, a word of four begins the next chunk."""
    tokens = prompts.encode("cat " * 73 + "surtr")

    assert [73, 4] == [len(content(ids)) for ids in tokens.ids]
    assert 0 == tokens.truncated


def test_a_given_number_of_chunks_is_filled_up(prompts: PromptTokenizer) -> None:
    """A short negative prompt gets as many chunks as the long prompt beside it."""
    tokens = prompts.encode("cat", chunks=2)

    assert (BOS, *[EOS] * 76) == tokens.ids[1]
    assert 2 == len(tokens.weights)


def test_what_does_not_fit_is_counted(prompts: PromptTokenizer) -> None:
    """A word that is cut off counts with all its rows, and nothing after it slips in."""
    tokens = prompts.encode("cat " * 73 + "surtr dog", chunks=1)

    assert 73 == len(content(tokens.ids[0]))
    assert (78, 5) == (tokens.tokens, tokens.truncated)


def test_joined_weights_follow_the_joined_rows(prompts: PromptTokenizer) -> None:
    """First beginning, all inner positions, last end: the weight of token 76 stands at row 76."""
    tokens = prompts.encode("cat " * 75 + "{dog:1.5}")

    assert 76 == tokens.joined_weights.index(1.5)


def test_a_word_that_fills_more_than_a_chunk_is_refused(tokenizer: Tokenizer) -> None:
    """Its rows could never be read together."""
    with pytest.raises(ValueError, match="1 to 75"):
        PromptTokenizer(tokenizer, {"surtr": 76})


@given(st.text(alphabet="ab1 ,{}:.2surt", max_size=400), st.integers(1, 3))
def test_every_token_is_kept_or_counted(text: str, chunks: int) -> None:
    """Kept and truncated tokens are all there are, and words are whole."""
    prompts = PromptTokenizer(TOKENIZER, {"surt": 4})

    tokens = prompts.encode_caption(text, chunks)
    kept = [content(ids) for ids in tokens.ids]

    assert tokens.tokens == sum(map(len, kept)) + tokens.truncated
    assert all(len(ids) <= CHUNK for ids in kept)
    assert all(FIRST + row in ids for ids in kept for row in range(4) if FIRST in ids)
