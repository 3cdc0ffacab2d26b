"""Which tensors a part of Stable Diffusion 1.x must have, from its config: the names that diffusers and transformers give them.

Only the family's own form is spelled out here; `configs.unusual` tells a config of another form.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from charalora_trainer.basemodel.configs import TextEncoderConfig, UnetConfig, VaeConfig

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]


def unet(config: UnetConfig) -> dict[str, Shape]:
    """Tensors of a UNet2DConditionModel."""
    return dict(_unet(config))


def vae(config: VaeConfig) -> dict[str, Shape]:
    """Tensors of an AutoencoderKL."""
    return dict(_vae(config))


def text_encoder(config: TextEncoderConfig) -> dict[str, Shape]:
    """Tensors of a CLIPTextModel."""
    return dict(_text_encoder(config))


def plain(shape: Shape) -> Shape:
    """The shape of a matrix, for a 1x1 convolution too: older files write one as the other, and loading turns them."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _unet(config: UnetConfig) -> Shapes:
    channels = config.block_out_channels
    layers, context = config.layers_per_block, config.cross_attention_dim
    linear, time = config.use_linear_projection, 4 * channels[0]
    yield from _conv("conv_in", config.in_channels, channels[0])
    yield from _linear("time_embedding.linear_1", channels[0], time)
    yield from _linear("time_embedding.linear_2", time, time)
    for block, (kind, wide) in enumerate(zip(config.down_block_types, channels, strict=True)):
        name = f"down_blocks.{block}"
        for layer in range(layers):
            narrow = channels[max(0, block - 1)] if layer == 0 else wide
            yield from _resnet(f"{name}.resnets.{layer}", narrow, wide, time)
            if kind.startswith("CrossAttn"):
                yield from _transformer(f"{name}.attentions.{layer}", wide, context, linear=linear)
        if block < len(channels) - 1:
            yield from _conv(f"{name}.downsamplers.0.conv", wide, wide)
    yield from _resnet("mid_block.resnets.0", channels[-1], channels[-1], time)
    yield from _transformer("mid_block.attentions.0", channels[-1], context, linear=linear)
    yield from _resnet("mid_block.resnets.1", channels[-1], channels[-1], time)
    upwards = channels[::-1]
    for block, (kind, wide) in enumerate(zip(config.up_block_types, upwards, strict=True)):
        name, below, skipped = f"up_blocks.{block}", upwards[max(0, block - 1)], upwards[min(block + 1, len(upwards) - 1)]
        for layer in range(layers + 1):
            # Each layer also takes what the way down left at its height; the last one that of the block above.
            taken = (below if layer == 0 else wide) + (skipped if layer == layers else wide)
            yield from _resnet(f"{name}.resnets.{layer}", taken, wide, time)
            if kind.startswith("CrossAttn"):
                yield from _transformer(f"{name}.attentions.{layer}", wide, context, linear=linear)
        if block < len(channels) - 1:
            yield from _conv(f"{name}.upsamplers.0.conv", wide, wide)
    yield from _norm("conv_norm_out", channels[0])
    yield from _conv("conv_out", channels[0], config.out_channels)


def _vae(config: VaeConfig) -> Shapes:
    channels = config.block_out_channels
    layers, latent = config.layers_per_block, config.latent_channels
    yield from _conv("encoder.conv_in", config.in_channels, channels[0])
    yield from _vae_blocks("encoder.down_blocks", [channels[0], *channels], layers, "downsamplers")
    yield from _vae_middle("encoder", channels[-1])
    yield from _norm("encoder.conv_norm_out", channels[-1])
    yield from _conv("encoder.conv_out", channels[-1], 2 * latent)
    yield from _conv("decoder.conv_in", latent, channels[-1])
    yield from _vae_middle("decoder", channels[-1])
    yield from _vae_blocks("decoder.up_blocks", [channels[-1], *channels[::-1]], layers + 1, "upsamplers")
    yield from _norm("decoder.conv_norm_out", channels[0])
    yield from _conv("decoder.conv_out", channels[0], config.out_channels)
    if config.use_quant_conv:
        yield from _conv("quant_conv", 2 * latent, 2 * latent, 1)
    if config.use_post_quant_conv:
        yield from _conv("post_quant_conv", latent, latent, 1)


def _vae_blocks(name: str, channels: Sequence[int], layers: int, sampler: str) -> Shapes:
    """Blocks from one number of channels to the next; all but the last change the resolution."""
    for block, (before, after) in enumerate(pairwise(channels)):
        for layer in range(layers):
            yield from _resnet(f"{name}.{block}.resnets.{layer}", before if layer == 0 else after, after)
        if block < len(channels) - 2:
            yield from _conv(f"{name}.{block}.{sampler}.0.conv", after, after)


def _vae_middle(half: str, wide: int) -> Shapes:
    name = f"{half}.mid_block"
    yield from _resnet(f"{name}.resnets.0", wide, wide)
    yield from _resnet(f"{name}.resnets.1", wide, wide)
    yield from _norm(f"{name}.attentions.0.group_norm", wide)
    for matrix in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _linear(f"{name}.attentions.0.{matrix}", wide, wide)


def _text_encoder(config: TextEncoderConfig) -> Shapes:
    wide, inner = config.hidden_size, config.intermediate_size
    yield "text_model.embeddings.token_embedding.weight", (config.vocab_size, wide)
    yield "text_model.embeddings.position_embedding.weight", (config.max_position_embeddings, wide)
    for layer in range(config.num_hidden_layers):
        name = f"text_model.encoder.layers.{layer}"
        yield from _norm(f"{name}.layer_norm1", wide)
        for matrix in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{name}.self_attn.{matrix}", wide, wide)
        yield from _norm(f"{name}.layer_norm2", wide)
        yield from _linear(f"{name}.mlp.fc1", wide, inner)
        yield from _linear(f"{name}.mlp.fc2", inner, wide)
    yield from _norm("text_model.final_layer_norm", wide)


def _resnet(name: str, before: int, after: int, time: int | None = None) -> Shapes:
    yield from _norm(f"{name}.norm1", before)
    yield from _conv(f"{name}.conv1", before, after)
    if time:
        yield from _linear(f"{name}.time_emb_proj", time, after)
    yield from _norm(f"{name}.norm2", after)
    yield from _conv(f"{name}.conv2", after, after)
    if before != after:
        yield from _conv(f"{name}.conv_shortcut", before, after, 1)


def _transformer(name: str, wide: int, context: int, *, linear: bool) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    yield from _norm(f"{name}.norm", wide)
    for matrix in ("proj_in", "proj_out"):
        yield from _linear(f"{name}.{matrix}", wide, wide) if linear else _conv(f"{name}.{matrix}", wide, wide, 1)
    for attention, source in (("attn1", wide), ("attn2", context)):
        yield f"{block}.{attention}.to_q.weight", (wide, wide)
        yield f"{block}.{attention}.to_k.weight", (wide, source)
        yield f"{block}.{attention}.to_v.weight", (wide, source)
        yield from _linear(f"{block}.{attention}.to_out.0", wide, wide)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{block}.{norm}", wide)
    yield from _linear(f"{block}.ff.net.0.proj", wide, 8 * wide)  # GEGLU: twice the inner width of 4 · wide
    yield from _linear(f"{block}.ff.net.2", 4 * wide, wide)


def _conv(name: str, before: int, after: int, kernel: int = 3) -> Shapes:
    yield f"{name}.weight", (after, before, kernel, kernel)
    yield f"{name}.bias", (after,)


def _linear(name: str, before: int, after: int) -> Shapes:
    yield f"{name}.weight", (after, before)
    yield f"{name}.bias", (after,)


def _norm(name: str, wide: int) -> Shapes:
    yield f"{name}.weight", (wide,)
    yield f"{name}.bias", (wide,)
