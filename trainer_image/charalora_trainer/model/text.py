"""From token ids to conditioning: trigger words spliced into CLIP's lookup, chunks joined, emphasis applied."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel
from transformers.masking_utils import create_causal_mask


class SplicedEmbedding(nn.Module):
    """CLIP's token table with the rows of trigger words behind it.

    The table stays as it is and frozen; ids from its size upwards look up `rows`, which alone get gradients. Shapes never depend on
    the ids, so nothing waits for the device.
    """

    def __init__(self, weight: nn.Parameter, rows: nn.Parameter) -> None:
        """`weight` is `[vocabulary, dim]`, `rows` `[sum of all words' vectors, dim]` in any floating type."""
        super().__init__()
        self.weight = weight
        self.rows = rows

    def forward(self, ids: Tensor) -> Tensor:
        """`[..., dim]` in the table's type, for ids of any shape."""
        vocabulary = self.weight.shape[0]
        known = functional.embedding(ids.clamp(max=vocabulary - 1), self.weight)
        learned = functional.embedding((ids - vocabulary).clamp(min=0), self.rows)
        return torch.where((ids >= vocabulary).unsqueeze(-1), learned.to(known.dtype), known)


def splice(text_encoder: CLIPTextModel, rows: nn.Parameter) -> None:
    """Let ids behind the vocabulary look up `rows` `[n, dim]`; rows that were spliced before are replaced, the table is frozen."""
    weight: nn.Parameter = text_encoder.get_input_embeddings().weight
    weight.requires_grad = False
    text_encoder.set_input_embeddings(SplicedEmbedding(weight, rows))


@contextmanager
def spliced(text_encoder: CLIPTextModel, rows: Tensor) -> Iterator[None]:
    """The text encoder with other words for a while; afterwards it has its own again."""
    own = text_encoder.get_input_embeddings()
    splice(text_encoder, nn.Parameter(rows.to(own.weight.device), requires_grad=False))
    try:
        yield
    finally:
        text_encoder.set_input_embeddings(own)


def encode_ids(text_encoder: CLIPTextModel, ids: Tensor, clip_skip: int) -> Tensor:
    """Conditioning `[B, 75·N + 2, C]` of token ids `[B, N, 77]`.

    Each chunk is read alone. Taken is the state before the last `clip_skip` layers, after the final norm; the skipped layers are not
    computed, so their LoRA gets no gradient. Of the joined chunks only the first beginning and the last end are kept, as HCP does.
    """
    batch, chunks, length = ids.shape
    states = text_encoder.embeddings(input_ids=ids.reshape(batch * chunks, length))
    mask = create_causal_mask(config=text_encoder.config, inputs_embeds=states, attention_mask=None, past_key_values=None)
    layers = text_encoder.encoder.layers
    for layer in layers[: len(layers) - clip_skip]:
        states = layer(states, mask, is_causal=True)
    states = text_encoder.final_layer_norm(states).reshape(batch, chunks, length, -1)
    return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)


def weigh(conditioning: Tensor, weights: Tensor) -> Tensor:
    """Emphasis: rows `[B, L, C]` times weights `[B, L]`, then each text scaled back to the mean it had, as HCP and webui do.

    The mean of weighted rows lies between the smallest and the largest weight times the old mean, as long as the rows' means have one
    sign (they do in CLIP). Where they do not, the quotient says nothing and can be of any size, so it is kept within that range.
    """
    strong = conditioning.float() * weights.float().unsqueeze(-1)
    restored = conditioning.float().mean((1, 2)) / strong.mean((1, 2))
    least, most = weights.float().amin(1).clamp(max=1.0), weights.float().amax(1).clamp(min=1.0)
    factor = torch.nan_to_num(restored, nan=1.0).clamp(1 / most, 1 / least.clamp(min=1e-3))
    return (strong * factor[:, None, None]).to(conditioning.dtype)
