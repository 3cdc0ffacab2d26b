"""The LoRA layer, against peft's own arithmetic."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from charalora_trainer.model.lora import ADAPTER, LoraLinear

Layer = nn.Module


def layers(*, bias: bool = True, dropout: float = 0.0) -> tuple[Layer, Layer]:
    """Ours and peft's around the same weights, with a LoRA that acts."""
    made = []
    for mapping in ({nn.Linear: LoraLinear}, {}):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5, bias=bias))
        model.requires_grad_(requires_grad=False)
        config = LoraConfig(r=2, lora_alpha=3.0, lora_dropout=dropout, target_modules=["0"], init_lora_weights=False)
        config._register_custom_module(mapping)
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
        made.append(model[0])
    ours, theirs = made
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def computed(layer: Layer, x: Tensor) -> list[Tensor]:
    """Output, gradient of the input, gradients of the matrices."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    output = layer(x)
    (output**2).sum().backward()
    return [output.detach(), *(p.grad for p in (x, *layer.parameters()) if p.grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6), (2, 3, 2, 6)])
def test_it_computes_what_pefts_layer_computes(shape: tuple[int, ...], bias: bool) -> None:  # noqa: FBT001
    """Output and all gradients are the same, for inputs of two dimensions and more, with and without bias."""
    ours, theirs = layers(bias=bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))

    for our, their in zip(computed(ours, x), computed(theirs, x), strict=True):
        torch.testing.assert_close(our, their)


def test_dropout_takes_the_same_inputs_from_the_low_path() -> None:
    """Dropout acts before the down matrix alone, as in peft."""
    ours, theirs = layers(dropout=0.5)
    x = torch.randn(4, 6)

    for our, their in zip(computed(ours, x), computed(theirs, x), strict=True):
        torch.testing.assert_close(our, their)


@pytest.mark.parametrize(
    "change",
    [lambda layer: layer.set_scale(ADAPTER, 0.85), lambda layer: layer.enable_adapters(enabled=False), lambda layer: layer.merge()],
)
def test_strength_merging_and_switching_off_act_as_in_peft(change: Callable[[Layer], None]) -> None:
    """What pictures and proofs do with a layer gives peft's outputs."""
    ours, theirs = layers()
    x = torch.randn(4, 6)
    for layer in (ours, theirs):
        change(layer)

    torch.testing.assert_close(ours(x), theirs(x))
