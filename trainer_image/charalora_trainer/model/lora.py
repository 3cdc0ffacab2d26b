"""LoRA on the base model: which modules get one, and the way between peft's modules and plain values."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Lora
from charalora_trainer.model.load import DiffusionModels
from charalora_trainer.weights import Adapter, LoraModule

# The guide's layers: `re:.*\.attn.?$`, `re:.*\.ff$` in the UNet and `re:.*self_attn$`, `re:.*mlp$` in the text encoder,
# every Linear below them. On Stable Diffusion 1.5 these are 160 and 72 modules.
UNET_TARGETS = re.compile(r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))")
TEXT_ENCODER_TARGETS = re.compile(r".*\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))")
# transformers 5 leaves this part out of CLIPTextModel's module paths; every file format has it.
TEXT_MODEL = "text_model."
ADAPTER = "default"


class LoraLinear(Linear):  # type: ignore[misc]
    """peft's layer with fewer passes over memory: one product multiplies up, scales and adds to what the base layer computed."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, ..., in]` to `[B, ..., out]`."""
        if self.merged or self.disable_adapters:
            return cast("Tensor", super().forward(x))
        inputs = x.flatten(0, -2)
        low = self.lora_A[ADAPTER](self.lora_dropout[ADAPTER](inputs))
        outputs: Tensor = self.base_layer(inputs)
        outputs.addmm_(low, self.lora_B[ADAPTER].weight.t(), alpha=self.scaling[ADAPTER])
        return outputs.view(*x.shape[:-1], -1)


def add_lora(models: DiffusionModels, lora: Lora) -> None:
    """Freeze the base model and put untrained LoRA modules into it: down random, up zero, so nothing changes yet."""
    for module, targets, rank in (
        (models.unet, UNET_TARGETS, lora.unet_rank),
        (models.text_encoder, TEXT_ENCODER_TARGETS, lora.text_encoder_rank),
    ):
        _inject(module, targets.pattern, rank=rank, alpha=lora.alpha, dropout=lora.dropout)
    models.vae.requires_grad_(requires_grad=False)


def apply_adapter(models: DiffusionModels, adapter: Adapter, strength: float) -> None:
    """Put a trained adapter into the base model, at `strength` times its trained effect; one that is there is replaced.

    Raises:
        TrainingError: `ExportInvalid`, naming a module that the base model lacks or whose shapes differ.
    """
    for module, trained in ((models.unet, adapter.unet), (models.text_encoder, adapter.text_encoder)):
        if not trained:
            continue
        hosts = dict(_module_paths(module))
        missing = [path for path in trained if path not in hosts]
        if missing:
            raise TrainingError(
                Outcome.EXPORT_INVALID,
                f"{len(missing)} LoRA modules have no place in this base model (first: {missing[0]}); use one of its architecture.",
            )
        layers = dict(_lora_layers(module))
        if not layers:
            pattern = "|".join(re.escape(hosts[path]) for path in trained)
            _inject(module, pattern, rank=max(value.rank for value in trained.values()), alpha=1.0, dropout=0.0)
            layers = dict(_lora_layers(module))
        for path, value in trained.items():
            _fill(layers[path], value, path)
    set_strength(models, strength)


def adapter_of(models: DiffusionModels, value: Callable[[nn.Parameter], Tensor]) -> Adapter:
    """The LoRA in the models as plain values; `value` gives each matrix in fp32 on the CPU."""
    return Adapter(unet=_snapshot(models.unet, value), text_encoder=_snapshot(models.text_encoder, value))


def set_strength(models: DiffusionModels, strength: float) -> None:
    """Let the LoRA act at `strength` times its trained effect (1.0 while training, the guide's 0.85 in pictures)."""
    for module in (models.unet, models.text_encoder):
        for _, layer in _lora_layers(module):
            layer.set_scale(ADAPTER, strength)


def lora_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The trainable matrices of one model, down before up, in the order of its modules."""
    return [matrix.weight for _, layer in _lora_layers(module) for matrix in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER])]


def _inject(module: nn.Module, targets: str, *, rank: int, alpha: float, dropout: float) -> None:
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, init_lora_weights=True)
    config._register_custom_module({nn.Linear: LoraLinear})  # noqa: SLF001 (the way that peft's documentation gives)
    inject_adapter_in_model(config, module, adapter_name=ADAPTER)


def _lora_layers(module: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    for path, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            yield _file_path(module, path), layer


def _module_paths(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Path in files and path in this library's version, of every module."""
    for path, _ in module.named_modules():
        yield _file_path(module, path), path


def _file_path(module: nn.Module, path: str) -> str:
    is_text_encoder = not path.startswith(TEXT_MODEL) and type(module).__name__.startswith("CLIPTextModel")
    return TEXT_MODEL + path if is_text_encoder else path


def _snapshot(module: nn.Module, value: Callable[[nn.Parameter], Tensor]) -> Mapping[str, LoraModule]:
    return {
        path: LoraModule(value(layer.lora_A[ADAPTER].weight), value(layer.lora_B[ADAPTER].weight), float(layer.lora_alpha[ADAPTER]))
        for path, layer in _lora_layers(module)
    }


def _fill(layer: LoraLayer, value: LoraModule, path: str) -> None:
    """Give one peft layer its trained matrices; a smaller rank than the layer's is padded with zeros, which change nothing."""
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    if down.shape[1:] != value.down.shape[1:] or up.shape[0] != value.up.shape[0]:
        raise TrainingError(
            Outcome.EXPORT_INVALID,
            f"LoRA shapes {tuple(value.up.shape)} x {tuple(value.down.shape)} do not fit {path}; use a base model of its architecture.",
        )
    with torch.no_grad():
        down.zero_()[: value.rank].copy_(value.down)
        up.zero_()[:, : value.rank].copy_(value.up)
    layer.lora_alpha[ADAPTER] = value.scale * layer.r[ADAPTER]
