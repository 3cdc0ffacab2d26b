"""A base model in one .safetensors or .ckpt file, as webui and civitai share them: tensors by the names of the original implementation."""

from collections.abc import Mapping

from charalora_trainer.basemodel import original
from charalora_trainer.basemodel.expected import plain
from charalora_trainer.basemodel.facts import BaseModelFacts, Source, invalid
from charalora_trainer.basemodel.header import FLOATS, TensorInfo, read_header
from charalora_trainer.basemodel.pickles import read_names
from charalora_trainer.finding import Finding
from charalora_trainer.storage import KeyMissing

_PARTS = {original.UNET: "UNet", original.VAE: "VAE", original.TEXT_ENCODER: "text encoder"}
_FIRST = f"{original.UNET}input_blocks.0.0.weight"
# Beginnings of tensor names, and the models that have them.
_OTHERS = (
    ("conditioner.embedders.1.", "Stable Diffusion XL"),
    ("cond_stage_model.model.", "Stable Diffusion 2"),
    ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3"),
    ("model.diffusion_model.double_blocks.", "Flux"),
    ("double_blocks.", "Flux"),
    ("transformer.", "a transformer"),
    ("lora_unet_", "a LoRA"),
    ("lora_te_", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("string_to_param", "an embedding"),
    ("down_blocks.", "one part of a diffusers folder"),
    ("encoder.conv_in", "a VAE alone"),
)


def inspect_file(source: Source, key: str) -> tuple[BaseModelFacts | None, list[Finding]]:
    """What a single-file model is, from its header or, unopened, from its pickle.

    Raises:
        TrainingError: `BaseModelInvalid` for a damaged file or one that runs code.
    """
    try:
        entry = source.store.stat(key)
    except KeyMissing:
        return None, [invalid(f"There is no {source.where}; correct baseModel.uri.")]
    tensors = read_header(source.store, entry) if key.endswith(".safetensors") else read_names(source.store, entry)
    tensors = {original.today(name): info for name, info in tensors.items()}
    if found := problem(source.where, tensors):
        return None, [found]
    weights = dict.fromkeys(("unet", "vae", "text_encoder"), key)
    text = configs_of(tensors).text_encoder
    dtype = tensors[_FIRST].dtype
    return BaseModelFacts(source.where, "single file", (entry,), weights, text.hidden_size, text.vocab_size, 4, dtype, prediction=None), []


def configs_of(tensors: Mapping[str, TensorInfo]) -> original.Configs:
    """The widths that the tensors' shapes tell."""
    return original.configs({name: info.shape for name, info in tensors.items()})


def problem(where: str, tensors: Mapping[str, TensorInfo]) -> Finding | None:
    """Why a file cannot be trained on: the first part, tensor or shape in which it is no Stable Diffusion 1.x.

    Args:
        where: The file, for the message.
        tensors: What it holds, by `original.today` of its names; what it holds beside a Stable Diffusion does no harm.
    """
    absent = [what for prefix, what in _PARTS.items() if not any(name.startswith(prefix) for name in tensors)]
    kind = next((kind for start, kind in _OTHERS if any(name.startswith(start) for name in tensors)), None)
    if absent:
        what = f"is {kind}" if kind else f"has no {' and no '.join(absent)}"
        return invalid(f"{where} {what}; give a whole Stable Diffusion 1.x model.")
    wanted = original.counterparts(configs_of(tensors))
    missing = [name for name in wanted if name not in tensors]
    if missing:
        return invalid(f"{where} is incomplete: {len(missing)} of {len(wanted)} tensors are missing, such as {missing[0]}; fetch it again.")
    for name, today in wanted.items():
        shape, dtype = tensors[name].shape, tensors[name].dtype
        if shape is not None and plain(shape) != plain(today.shape):
            return invalid(
                f"{where} is no Stable Diffusion 1.x for text to picture: {name} is {_shape(shape)}, not {_shape(today.shape)}; "
                "give another model."
            )
        if dtype is not None and dtype not in FLOATS:
            return invalid(f"{where} has {name} in {dtype}; only F32, F16 and BF16 can be trained on, so give another file of this model.")
    return None


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
