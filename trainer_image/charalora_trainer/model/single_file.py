"""A base model of one .safetensors or .ckpt file: its tensors under today's names, each one in its place."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Prediction
from charalora_trainer.basemodel import original
from charalora_trainer.basemodel.configs import TextEncoderConfig, UnetConfig, VaeConfig
from charalora_trainer.basemodel.header import TensorInfo
from charalora_trainer.basemodel.single_file import configs_of, problem
from charalora_trainer.words.embedding import DAMAGED

# What no tensor's shape tells, as Stable Diffusion 1.x has it; the rest is the libraries' default.
_HEADS = 8
_SCALING_FACTOR = 0.18215
_CLIP_HEAD = 64
_BOS, _EOS = 49406, 49407
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

_M = TypeVar("_M", bound=nn.Module)


def load_parts(path: Path) -> tuple[UNet2DConditionModel, CLIPTextModel, AutoencoderKL]:
    """UNet, text encoder and VAE in fp32 on the CPU. Every weight comes from the file: one that is missing is an error.

    Of a file with averaged weights beside the others (EMA), the others are taken: those are the ones to train further.

    Raises:
        TrainingError: `BaseModelInvalid` when the file is missing, damaged, needs code to load or is no Stable Diffusion 1.x.
    """
    tensors = {original.today(name): tensor for name, tensor in _read(path).items()}
    infos = {name: TensorInfo(_DTYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape)) for name, tensor in tensors.items()}
    if found := problem(str(path), infos):
        raise TrainingError(found.outcome, found.message)
    configs = configs_of(infos)
    weights: dict[str, dict[str, Tensor]] = {"unet": {}, "text_encoder": {}, "vae": {}}
    for name, today in original.counterparts(configs).items():
        weights[today.part][today.name] = tensors[name].reshape(today.shape).to(torch.float32)
    with init_empty_weights():  # tens of seconds of random numbers that would be written over
        unet, text_encoder, vae = _unet(configs.unet), _text_encoder(configs.text_encoder), _vae(configs.vae)
    return _filled(unet, weights["unet"]), _filled(text_encoder, weights["text_encoder"]), _filled(vae, weights["vae"])


def scheduler(prediction: Prediction) -> DDPMScheduler:
    """Stable Diffusion 1.x's noise schedule: such a file does not tell its own."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type=prediction.value,
    )


def _unet(config: UnetConfig) -> UNet2DConditionModel:
    return UNet2DConditionModel(**config.model_dump(), sample_size=64, attention_head_dim=_HEADS)


def _vae(config: VaeConfig) -> AutoencoderKL:
    blocks = len(config.block_out_channels)
    return AutoencoderKL(
        **config.model_dump(),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        sample_size=512,
        scaling_factor=_SCALING_FACTOR,
    )


def _text_encoder(config: TextEncoderConfig) -> CLIPTextModel:
    heads = config.hidden_size // _CLIP_HEAD
    sizes = {**config.model_dump(), "num_attention_heads": heads, "projection_dim": config.hidden_size}
    return CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=_BOS, eos_token_id=_EOS))


def _filled(module: _M, weights: Mapping[str, Tensor]) -> _M:
    """Give every parameter its tensor. Newer versions of transformers leave `text_model.` out of their own names."""
    own = module.state_dict().keys()
    named = {name if name in own else name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    module.load_state_dict(named, strict=True, assign=True)
    return module


def _read(path: Path) -> Mapping[str, Tensor]:
    """All tensors, in memory when they are used: a file may hold twice what is needed."""
    if not path.is_file():
        _refuse(path, "is not there", "correct the base model's uri")
    try:
        return load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except SafetensorError as error:
        _refuse(path, f"is no whole safetensors file ({error})", "fetch it again")
    except pickle.UnpicklingError:
        _refuse(path, "is damaged or runs code when it is opened", "convert it to .safetensors where you trust it")
    except DAMAGED as error:
        _refuse(path, f"cannot be read ({type(error).__name__})", "fetch it again, or convert it to .safetensors if it is older than 2020")


def _unpickled(path: Path) -> dict[str, Tensor]:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}


def _refuse(path: Path, what: str, advice: str) -> NoReturn:
    raise TrainingError(Outcome.BASE_MODEL_INVALID, f"The base model {path} {what}; {advice}.")
