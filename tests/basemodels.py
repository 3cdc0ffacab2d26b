"""Small base models of every layout, written without torch: files as they lie in a bucket, with zeros for weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from charalora_trainer.basemodel import expected
from charalora_trainer.basemodel.configs import TextEncoderConfig, UnetConfig, VaeConfig
from charalora_trainer.data.templates import OBJECT

Shapes = dict[str, tuple[int, ...]]

INDEX = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "prediction_type": "epsilon"}
UNET = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "sample_size": 16,
}
VAE = {"_class_name": "AutoencoderKL", "block_out_channels": [4, 4, 8, 8], "layers_per_block": 1, "latent_channels": 4}
TEXT_ENCODER = {"model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2}
WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


def write_base(folder: Path, **changes: Mapping[str, Any]) -> Path:
    """A whole diffusers folder. `changes` are merged into the config of the part that they are named after."""
    configs = {
        "unet": UNET | dict(changes.get("unet", {})),
        "vae": VAE | dict(changes.get("vae", {})),
        "text_encoder": TEXT_ENCODER | dict(changes.get("text_encoder", {})),
    }
    write(folder / "model_index.json", INDEX | dict(changes.get("index", {})))
    write(folder / "scheduler/scheduler_config.json", SCHEDULER | dict(changes.get("scheduler", {})))
    for part, config in configs.items():
        write(folder / part / "config.json", config)
        (folder / WEIGHTS[part]).write_bytes(safetensors(tensors(part, config)))
    write(folder / "tokenizer/tokenizer_config.json", {})
    write_tokenizer(folder / "tokenizer")
    return folder


def tensors(part: str, config: Mapping[str, Any]) -> Shapes:
    """What the part's weights have, by its config."""
    makers: dict[str, Callable[[], Shapes]] = {
        "unet": lambda: expected.unet(UnetConfig.model_validate(config)),
        "vae": lambda: expected.vae(VaeConfig.model_validate(config)),
        "text_encoder": lambda: expected.text_encoder(TextEncoderConfig.model_validate(config)),
    }
    return makers[part]()


def safetensors(shapes: Shapes, dtype: str = "F16", size: int = 2) -> bytes:
    """A whole file of zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin = end
        for side in (size, *shape):
            end = begin + (end - begin or 1) * side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def write(file: Path, content: Mapping[str, Any]) -> None:
    """A JSON file in a folder that is made for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_tokenizer(folder: Path) -> None:
    """CLIP's format with single letters and the letters of our templates; enough to count with."""
    from toyworld.tokenizer import byte_letters, learn_merges

    letters = byte_letters()
    words = sorted({word for sentence in OBJECT for word in sentence.split() if word.isalpha()})
    merges = learn_merges(words)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    write(folder / "vocab.json", {token: number for number, token in enumerate(dict.fromkeys(tokens))})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]), encoding="utf-8")
