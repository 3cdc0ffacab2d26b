"""A base model in one .safetensors or .ckpt file, as webui and civitai share them: tensors by the names of the original implementation."""

from collections.abc import Mapping

from charalora_trainer.basemodel.facts import BaseModelFacts, Source, invalid
from charalora_trainer.basemodel.header import TensorInfo, read_header
from charalora_trainer.basemodel.pickles import read_names
from charalora_trainer.finding import Finding
from charalora_trainer.storage import KeyMissing

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
_PARTS = {_UNET: "UNet", _VAE: "VAE", _TEXT: "text encoder"}

# A few tensors of each end of each part tell Stable Diffusion 1.x from everything else; without a config, their shapes are fixed.
_LANDMARKS: Mapping[str, tuple[int, ...]] = {
    f"{_UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    f"{_UNET}middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
    f"{_UNET}output_blocks.11.1.transformer_blocks.0.attn2.to_v.weight": (320, 768),
    f"{_UNET}out.2.weight": (4, 320, 3, 3),
    f"{_VAE}encoder.conv_in.weight": (128, 3, 3, 3),
    f"{_VAE}quant_conv.weight": (8, 8, 1, 1),
    f"{_VAE}decoder.conv_out.weight": (3, 128, 3, 3),
    f"{_TEXT}text_model.embeddings.token_embedding.weight": (49408, 768),
    f"{_TEXT}text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768),
    f"{_TEXT}text_model.encoder.layers.11.mlp.fc2.weight": (768, 3072),
}
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
    tensors = {_today(name): info for name, info in tensors.items()}
    if found := _problems(source.where, tensors):
        return None, found
    weights = dict.fromkeys(("unet", "vae", "text_encoder"), key)
    dtype = tensors[next(iter(_LANDMARKS))].dtype
    return BaseModelFacts(source.where, "single file", (entry,), weights, 768, 49408, 4, dtype, prediction=None), []


def _problems(where: str, tensors: Mapping[str, TensorInfo]) -> list[Finding]:
    absent = [what for prefix, what in _PARTS.items() if not any(name.startswith(prefix) for name in tensors)]
    kind = next((kind for start, kind in _OTHERS if any(name.startswith(start) for name in tensors)), None)
    if absent and kind:
        return [invalid(f"{where} is {kind}; give a whole Stable Diffusion 1.x model.")]
    if absent:
        return [invalid(f"{where} has no {' and no '.join(absent)}; give a whole Stable Diffusion 1.x model.")]
    missing = [name for name in _LANDMARKS if name not in tensors]
    if missing:
        return [
            invalid(f"{where} is incomplete: {missing[0]} is missing, and {len(missing) - 1} more of those looked for; fetch it again.")
        ]
    return [
        invalid(
            f"{where} is no Stable Diffusion 1.x for text to picture: {name} is {_shape(shape)}, not {_shape(asked)}; give another model."
        )
        for name, asked in _LANDMARKS.items()
        if (shape := tensors[name].shape) is not None and shape != asked
    ][:1]


def _today(name: str) -> str:
    """Files of the first generation left `text_model.` out of the text encoder's names."""
    inner = name.removeprefix(_TEXT)
    old = inner != name and inner.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return f"{_TEXT}text_model.{inner}" if old else name


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
