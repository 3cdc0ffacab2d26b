"""The text encoder: built to tell words apart and to bind each to the one before it, and not trained.

Trained together with the UNet it made all words alike, from transformers' random start and from this one, and the UNet learned to do
without them.
"""

import math

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from toyworld.tokenizer import POSITIONS

WIDTH = 128
HEADS = 4
PER_HEAD = WIDTH // HEADS
PLACE = slice(WIDTH - PER_HEAD, WIDTH)
"""The part of a token's vector that starts as its position; the rest starts as its word."""

WORD_SPREAD = 0.3
SHARPNESS = 1.4
LOUDNESS = 0.5


def text_encoder(tokenizer: CLIPTokenizer, seed: int = 0) -> CLIPTextModel:
    """CLIP's text transformer, small: three layers read a caption. The same seed gives the same reader."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        max_position_embeddings=POSITIONS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = CLIPTextModel(config)
        keep_words_apart(model)
        look_one_word_back(model)
    return model


def keep_words_apart(model: CLIPTextModel) -> None:
    """Large word vectors and small layers; transformers starts the other way round, as fits CLIP's own training."""
    words = model.embeddings.token_embedding.weight
    nn.init.normal_(words, std=WORD_SPREAD)
    words[:, PLACE] = 0
    for layer in model.encoder.layers:
        layer.self_attn.out_proj.weight.mul_(0.3)
        layer.mlp.fc2.weight.mul_(0.3)


def look_one_word_back(model: CLIPTextModel) -> None:
    """Make the first head of the first layer add to each word the one before it: "hair" must know that it is red.

    Positions are sines and cosines of frequencies whose sum vanishes at every distance but 0, up to 31 words; a query is its own
    position turned back by one.
    """
    frequencies = math.pi * (torch.arange(PER_HEAD // 2) + 0.5) / (PER_HEAD // 2)
    angles = torch.arange(POSITIONS)[:, None] * frequencies
    positions = model.embeddings.position_embedding.weight
    positions.zero_()
    positions[:, PLACE] = WORD_SPREAD * torch.cat([angles.sin(), angles.cos()], dim=1)
    cosine, sine = frequencies.cos().diag(), frequencies.sin().diag()
    turned_back = torch.cat([torch.cat([cosine, -sine], dim=1), torch.cat([sine, cosine], dim=1)])
    attention = model.encoder.layers[0].self_attn
    for projection, turn in ((attention.q_proj, turned_back), (attention.k_proj, torch.eye(PER_HEAD))):
        projection.weight[:PER_HEAD] = 0
        projection.weight[:PER_HEAD, PLACE] = SHARPNESS * turn
    read, write = nn.init.orthogonal_(torch.empty(PER_HEAD, PLACE.start)), nn.init.orthogonal_(torch.empty(PLACE.start, PER_HEAD))
    attention.v_proj.weight[:PER_HEAD] = 0
    attention.v_proj.weight[:PER_HEAD, : PLACE.start] = read
    attention.out_proj.weight[:, :PER_HEAD] = 0
    attention.out_proj.weight[: PLACE.start, :PER_HEAD] = LOUDNESS * write
