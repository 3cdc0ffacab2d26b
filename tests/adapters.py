"""LoRA adapters for tests: Stable Diffusion 1.5's shapes without its weights, a small one, and what is told about a training."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from charalora_trainer.export.metadata import BucketFacts, DatasetFacts, TrainedBase, TrainingFacts
from charalora_trainer.weights import Adapter, LoraModule

UNET_TARGETS = re.compile(r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))")
TEXT_TARGETS = re.compile(r".*\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))")
DOWN_BLOCK, UP_BLOCK = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


@cache
def unet_modules() -> dict[str, nn.Module]:
    """Stable Diffusion 1.5's UNet without its weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=768,
            attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=(DOWN_BLOCK, DOWN_BLOCK, DOWN_BLOCK, "DownBlock2D"),
            up_block_types=("UpBlock2D", UP_BLOCK, UP_BLOCK, UP_BLOCK),
        )
    return dict(unet.named_modules())


@cache
def text_encoder_modules() -> dict[str, nn.Module]:
    """Its text encoder, under the paths that files use."""
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    return {f"text_model.{path.removeprefix('text_model.')}": module for path, module in model.named_modules()}


@cache
def sd15_adapter() -> Adapter:
    """What the guide's recipe trains: rank 8 in the UNet, rank 4 in the text encoder, alpha 1."""
    generator = torch.Generator().manual_seed(0)
    return Adapter(
        unet={path: lora(module, 8, generator) for path, module in unet_modules().items() if UNET_TARGETS.fullmatch(path)},
        text_encoder={path: lora(module, 4, generator) for path, module in text_encoder_modules().items() if TEXT_TARGETS.fullmatch(path)},
    )


def lora(module: nn.Module, rank: int, generator: torch.Generator) -> LoraModule:
    assert isinstance(module, nn.Linear)
    return linear(module.in_features, module.out_features, rank, generator)


def linear(inner: int, outer: int, rank: int, generator: torch.Generator, alpha: float = 1.0) -> LoraModule:
    down = torch.randn(rank, inner, generator=generator) / inner**0.5
    return LoraModule(down, torch.randn(outer, rank, generator=generator) * 0.01, alpha)


def convolution(rank: int = 4) -> LoraModule:
    generator = torch.Generator().manual_seed(1)
    return LoraModule(torch.randn(rank, 6, 3, 3, generator=generator), torch.randn(10, rank, 1, 1, generator=generator), 2.0)


def small_adapter(alpha: float = 1.0) -> Adapter:
    """One Linear and one convolution of a UNet, one Linear of a text encoder."""
    generator = torch.Generator().manual_seed(2)
    return Adapter(
        unet={
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": linear(12, 20, 8, generator, alpha),
            "up_blocks.1.resnets.2.conv1": convolution(),
        },
        text_encoder={"text_model.encoder.layers.3.mlp.fc1": linear(16, 64, 6, generator, alpha)},
    )


def same(expected: Adapter, actual: Adapter) -> bool:
    """Bit for bit, with the same alphas."""
    return same_modules(expected.unet, actual.unet) and same_modules(expected.text_encoder, actual.text_encoder)


def same_modules(expected: object, actual: object) -> bool:
    assert isinstance(expected, dict)
    assert isinstance(actual, dict)
    return expected.keys() == actual.keys() and all(
        torch.equal(one.down, actual[path].down) and torch.equal(one.up, actual[path].up) and one.alpha == actual[path].alpha
        for path, one in expected.items()
    )


def written(tensors: dict[str, Tensor], folder: Path) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "given.safetensors")
    return folder / "given.safetensors"


def training_facts(**changes: Any) -> TrainingFacts:
    """The guide's training of Surtr, at its last step."""
    buckets = (BucketFacts(512, 704, 24), BucketFacts(704, 512, 6))
    facts = TrainingFacts(
        name="surtr_arknights",
        step=1000,
        steps=1000,
        seed=114514,
        rates={"unet": 4e-4, "text_encoder": 4e-5, "embedding": 1.2e-2},
        batch=4,
        total_batch=4,
        base_model=TrainedBase("animefull-latest"),
        dataset=DatasetFacts("surtr_dataset", 30, buckets, {"1girl": 30, "solo": 28, "horns": 30}),
        started=datetime(2026, 11, 22, 20, 0, tzinfo=UTC),
        saved=datetime(2026, 11, 22, 20, 30, tzinfo=UTC),
    )
    return replace(facts, **changes)
