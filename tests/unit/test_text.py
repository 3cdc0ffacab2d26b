"""From token ids to conditioning, against transformers' own forward pass."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel

from charalora_trainer.model.text import SplicedEmbedding, encode_ids, splice, spliced, weigh

VOCABULARY, DIM, LAYERS = 100, 32, 12
BOS, EOS = VOCABULARY - 2, VOCABULARY - 1


@pytest.fixture
def text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=DIM,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPTextModel(config).eval()
        nn.init.normal_(model.final_layer_norm.bias)
    return model


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    ids = torch.randint(0, BOS, (*shape, 77), generator=torch.Generator().manual_seed(seed))
    ids[..., 0], ids[..., -1] = BOS, EOS
    return ids


def rows(n: int = 4) -> nn.Parameter:
    return nn.Parameter(torch.randn(n, DIM, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_one_chunk_is_what_transformers_computes(text_encoder: CLIPTextModel, clip_skip: int) -> None:
    """The hidden state before the skipped layers, after the final norm; 77 rows."""
    ids = random_ids(2, 1)
    states = text_encoder(ids[:, 0], output_hidden_states=True).hidden_states[-1 - clip_skip]
    expected = text_encoder.final_layer_norm(states)

    conditioning = encode_ids(text_encoder, ids, clip_skip)

    assert (2, 77, DIM) == conditioning.shape
    torch.testing.assert_close(conditioning, expected)


def test_two_chunks_are_joined_without_the_inner_ends(text_encoder: CLIPTextModel) -> None:
    """152 rows: the first beginning, 75 + 75 inner rows, the last end; each chunk is read alone."""
    ids = random_ids(3, 2)
    first, second = (encode_ids(text_encoder, ids[:, [chunk]], 1) for chunk in (0, 1))

    conditioning = encode_ids(text_encoder, ids, 1)

    assert (3, 152, DIM) == conditioning.shape
    torch.testing.assert_close(conditioning, torch.cat([first[:, :-1], second[:, 1:]], dim=1))


def test_ids_behind_the_vocabulary_are_the_words_rows(text_encoder: CLIPTextModel) -> None:
    """The lookup gives learned rows and table rows side by side."""
    table = text_encoder.get_input_embeddings().weight
    word = rows()
    ids = torch.tensor([[BOS, 5, VOCABULARY, VOCABULARY + 3, EOS]])

    looked_up = SplicedEmbedding(table, word)(ids)

    assert torch.equal(torch.stack([table[BOS], table[5], word[0], word[3], table[EOS]])[None], looked_up)


def test_known_tokens_read_the_same_after_splicing(text_encoder: CLIPTextModel) -> None:
    """A text without the word is what the base model makes of it."""
    ids = random_ids(1, 1)
    before = encode_ids(text_encoder, ids, 1)

    splice(text_encoder, rows())

    assert torch.equal(before, encode_ids(text_encoder, ids, 1))


def test_the_word_reads_as_a_token_with_its_rows(text_encoder: CLIPTextModel) -> None:
    """Row r under id vocabulary + r conditions as the same vector in the table does."""
    word = rows(1)
    ids = random_ids(1, 1)
    ids[0, 0, 7] = 3
    with torch.no_grad():
        text_encoder.get_input_embeddings().weight[3] = word[0]
    expected = encode_ids(text_encoder, ids, 1)
    ids[0, 0, 7] = VOCABULARY

    splice(text_encoder, word)

    torch.testing.assert_close(encode_ids(text_encoder, ids, 1), expected)


def test_only_the_rows_get_gradients(text_encoder: CLIPTextModel) -> None:
    """The table is frozen; rows that the text does not name have a gradient of zero."""
    word = rows()
    splice(text_encoder, word)
    ids = random_ids(1, 1)
    ids[0, 0, 4] = VOCABULARY + 2

    torch.autograd.backward(encode_ids(text_encoder, ids, 1).square().sum())

    assert text_encoder.get_input_embeddings().weight.grad is None
    assert word.grad is not None
    assert [False, False, True, False] == word.grad.abs().sum(1).gt(0).tolist()


def test_rows_in_fp32_serve_a_half_precision_model(text_encoder: CLIPTextModel) -> None:
    """The lookup answers in the table's type, the gradient in the rows'."""
    word = rows()
    looked_up = SplicedEmbedding(nn.Parameter(text_encoder.get_input_embeddings().weight.bfloat16(), requires_grad=False), word)(
        torch.tensor([1, VOCABULARY])
    )

    looked_up.float().sum().backward()

    assert torch.bfloat16 == looked_up.dtype
    assert word.grad is not None
    assert torch.float32 == word.grad.dtype


def test_splicing_again_replaces_the_rows(text_encoder: CLIPTextModel) -> None:
    """The table is found behind the first splice."""
    table = text_encoder.get_input_embeddings().weight
    second = rows(2)

    splice(text_encoder, rows())
    splice(text_encoder, second)

    assert table is text_encoder.get_input_embeddings().weight
    assert second is text_encoder.get_input_embeddings().rows


def test_other_words_leave_nothing_behind(text_encoder: CLIPTextModel) -> None:
    """Pictures borrow the training's text encoder and give its own rows back, after an error too."""
    own = rows()
    splice(text_encoder, own)

    with pytest.raises(ValueError, match="boom"), spliced(text_encoder, torch.zeros(1, DIM)):
        raise ValueError("boom")

    assert own is text_encoder.get_input_embeddings().rows


def test_the_module_tree_stays(text_encoder: CLIPTextModel) -> None:
    """All 72 linear layers of a 12-layer text encoder keep their paths, and the table its key."""
    linear = [path for path, module in text_encoder.named_modules() if isinstance(module, nn.Linear)]
    keys = set(text_encoder.state_dict())

    splice(text_encoder, rows())

    assert 72 == len(linear)
    assert linear == [path for path, module in text_encoder.named_modules() if isinstance(module, nn.Linear)]
    assert {"embeddings.token_embedding.rows"} == set(text_encoder.state_dict()) - keys


def test_skipped_layers_are_not_computed(text_encoder: CLIPTextModel) -> None:
    """With clip skip 1 the last layer never runs."""
    ran: list[int] = []
    for number, layer in enumerate(text_encoder.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))

    encode_ids(text_encoder, random_ids(1, 1), 1)

    assert list(range(LAYERS - 1)) == ran


def test_nothing_waits_for_the_device(text_encoder: CLIPTextModel) -> None:
    """Shapes are known and no value is read: it runs on tensors that have no content."""
    splice(text_encoder, rows())

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        ids = mode.from_tensor(random_ids(2, 2))
        states = weigh(encode_ids(text_encoder, ids, 1), torch.ones(2, 152))

    assert (2, 152, DIM) == states.shape


def conditioning() -> Tensor:
    """Rows whose means have one sign, as CLIP's have."""
    return torch.randn(2, 77, DIM, generator=torch.Generator().manual_seed(3)) - 1.0


def test_no_emphasis_changes_nothing() -> None:
    """Weights of 1 are exact."""
    assert torch.equal(conditioning(), weigh(conditioning(), torch.ones(2, 77)))


def test_emphasis_multiplies_rows_and_restores_the_mean() -> None:
    """HCP's formula: rows times weights, times old mean over new mean, for each text alone."""
    weights = torch.ones(2, 77)
    weights[0, 3:7] = 1.2
    weights[1, 1] = 0.5
    strong = conditioning() * weights[..., None]
    expected = strong * (conditioning().mean((1, 2)) / strong.mean((1, 2)))[:, None, None]

    weighted = weigh(conditioning(), weights)

    torch.testing.assert_close(weighted, expected)
    torch.testing.assert_close(weighted.mean((1, 2)), conditioning().mean((1, 2)))


def test_a_mean_of_nothing_cannot_blow_up_the_conditioning() -> None:
    """Rows that average to zero (an untrained model's do) leave the quotient undefined; the rows keep their size."""
    centred = torch.nn.functional.layer_norm(conditioning(), (DIM,))
    weights = torch.ones(2, 77)
    weights[:, 3] = 1.5

    weighted = weigh(centred, weights)

    assert weighted.isfinite().all()
    assert weighted.abs().max() <= 1.5 * centred.abs().max()
    assert torch.equal(torch.zeros(1, 2, DIM), weigh(torch.zeros(1, 2, DIM), torch.tensor([[1.0, 1.2]])))


def test_emphasis_keeps_the_type() -> None:
    """Half precision in, half precision out; the means are taken in fp32."""
    assert torch.bfloat16 == weigh(conditioning().bfloat16(), torch.ones(2, 77)).dtype
