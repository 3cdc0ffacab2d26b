"""webui's LoRA files: names, precision, and what is no plain LoRA of Stable Diffusion 1.x."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from adapters import convolution, same, sd15_adapter, small_adapter, text_encoder_modules, unet_modules, written
from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.export import tensorfile, webui
from charalora_trainer.export.matrices import deviation
from charalora_trainer.export.module_names import text_encoder_path, underscored, unet_path
from charalora_trainer.weights import Adapter, LoraModule


def test_the_guides_recipe_has_the_golden_keys_for_webui() -> None:
    """696 keys, with the prefixes that every reader knows."""
    keys = webui.tensors(sd15_adapter(), torch.float32).keys()

    assert len(keys) == 696
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight" in keys
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha" in keys
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_down.weight" in keys


@pytest.mark.parametrize("alpha", [1.0, 0.3, 8.0, 1e-3, 12.5])
def test_what_webui_files_hold_is_what_was_written(tmp_path: Path, alpha: float) -> None:
    """In fp32 nothing changes."""
    adapter = small_adapter(alpha)

    assert same(adapter, webui.read(webui.write(adapter, tmp_path / "lora-100.safetensors")))


def test_fp16_halves_the_file_and_keeps_the_strength(tmp_path: Path) -> None:
    """The merged update stays within a thousandth, alpha 1.0 is exact in fp16."""
    adapter = sd15_adapter()
    whole = webui.write(adapter, tmp_path / "whole.safetensors")
    half = webui.write(adapter, tmp_path / "half.safetensors", dtype=torch.float16)

    assert half.stat().st_size < 0.52 * whole.stat().st_size
    assert {torch.float16} == {tensor.dtype for tensor in load_file(half).values()}
    read = webui.read(half)
    assert max(deviation(module, read.unet[path]).relative for path, module in list(adapter.unet.items())[::20]) < 1e-3


def test_an_alpha_that_fp16_cannot_hold_stays_fp32() -> None:
    """0.3 would become 0.30005, a different strength."""
    found = webui.tensors(small_adapter(alpha=0.3), torch.float16)

    assert torch.float32 == found["lora_te_text_model_encoder_layers_3_mlp_fc1.alpha"].dtype
    assert torch.float16 == found["lora_unet_up_blocks_1_resnets_2_conv1.alpha"].dtype


def test_fp16_that_overflows_is_refused(tmp_path: Path) -> None:
    """The message counts the entries and says what to do; nothing is written."""
    adapter = Adapter(unet={"conv_in": LoraModule(torch.full((1, 4), 1e5), torch.ones(8, 1), 1.0)}, text_encoder={})

    with pytest.raises(TrainingError, match=r"4 entries are too large for fp16, .* write fp32") as error:
        webui.write(adapter, tmp_path / "lora.safetensors", dtype=torch.float16)
    assert Outcome.EXPORT_INVALID is error.value.outcome
    assert [] == list(tmp_path.iterdir())


def test_fp16_that_underflows_is_refused_where_it_changes_the_update(tmp_path: Path) -> None:
    """Entries below 6e-8 become zero: here that is half of the update, with large alpha."""
    down = torch.ones(2, 4)
    up = torch.tensor([[1e-8, 1e-3], [1e-8, 1e-3]])
    up[:, 0] *= torch.tensor([1.0, 2.0])
    adapter = Adapter(unet={"conv_in": LoraModule(down * torch.tensor([[1e5], [1.0]]).clamp(max=6e4), up, 2e6)}, text_encoder={})

    with pytest.raises(TrainingError, match=r"2 of 12 entries became zero; conv_in changed most"):
        webui.write(adapter, tmp_path / "lora.safetensors", dtype=torch.float16)


def test_entries_that_vanish_without_effect_are_allowed() -> None:
    """Early in a training many entries of `up` are tiny; their update is smaller than the base model's own rounding."""
    adapter = Adapter(unet={"conv_in": LoraModule(torch.ones(1, 4), torch.full((8, 1), 1e-9), 1.0)}, text_encoder={})

    lost = webui.rounding(adapter, torch.float16)

    assert (0, 8, 12) == (lost.overflowed, lost.vanished, lost.entries)
    assert lost.worst[1].within(torch.float16)


def test_metadata_does_not_change_the_data(tmp_path: Path) -> None:
    """Civitai's AutoV3 hashes what follows the header."""
    file = webui.write(small_adapter(), tmp_path / "lora.safetensors")
    data = file.read_bytes()
    model_hash = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()

    assert model_hash == tensorfile.read(file).metadata["sshs_model_hash"]


def test_the_name_table_knows_every_weight_of_the_unet() -> None:
    """Every Linear and convolution, `time_emb_proj`, `conv_shortcut`, `conv_in` and `conv_out` among them."""
    paths = [path for path, module in unet_modules().items() if isinstance(module, nn.Linear | nn.Conv2d)]

    assert len(paths) > 250
    assert paths == [unet_path(underscored(path)) for path in paths]


def test_the_name_table_knows_every_weight_of_the_text_encoder() -> None:
    """All 72."""
    paths = [path for path, module in text_encoder_modules().items() if isinstance(module, nn.Linear)]

    assert len(paths) == 72
    assert paths == [text_encoder_path(underscored(path)) for path in paths]


@pytest.mark.parametrize("name", ["down_blocks_0_attentions_0_proj_inn", "xdown_blocks_0_resnets_0_conv1", "middle_block_1_proj_in", ""])
def test_a_name_that_is_no_module_has_no_path(name: str) -> None:
    """Names are never guessed."""
    assert unet_path(name) is None


def test_a_missing_alpha_is_strength_one(tmp_path: Path) -> None:
    """The rule of webui, kohya and ComfyUI."""
    tensors = webui.tensors(small_adapter(), torch.float32)
    file = written({key: tensor for key, tensor in tensors.items() if not key.endswith(".alpha")}, tmp_path)

    assert {1.0} == {module.scale for module in webui.read(file).unet.values()}


def test_a_numbered_text_encoder_is_read(tmp_path: Path) -> None:
    """`lora_te1_` is what some programs write for SD1.5."""
    adapter = small_adapter()
    tensors = {key.replace("lora_te_", "lora_te1_"): tensor for key, tensor in webui.tensors(adapter, torch.float32).items()}

    assert same(adapter, webui.read(written(tensors, tmp_path)))


def test_a_bf16_file_is_read(tmp_path: Path) -> None:
    """Every bf16 number is an fp32 number."""
    module = convolution()
    stored = webui.tensors(Adapter(unet={"conv_in": module}, text_encoder={}), torch.float32)
    file = written({key: tensor.bfloat16() for key, tensor in stored.items()}, tmp_path)

    assert torch.equal(module.down.bfloat16().float(), webui.read(file).unet["conv_in"].down)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_unet_conv_in.lora_mid.weight", "lora_mid.weight of conv_in; only plain LoRA"),
        ("lora_unet_conv_in.hada_w1_a", "hada_w1_a of conv_in; only plain LoRA"),
        ("lora_unet_conv_in.lokr_w1", "lokr_w1 of conv_in; only plain LoRA"),
        ("lora_unet_conv_in.dora_scale", "dora_scale of conv_in; only plain LoRA"),
        ("lora_unet_input_blocks_4_1_proj_in.alpha", "lora_unet_input_blocks_4_1_proj_in, which is no module"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "belongs to no module of Stable Diffusion 1.x"),
        ("bundle_emb.surtr.string_to_param.*", "belongs to no module of Stable Diffusion 1.x"),
    ],
)
def test_a_key_that_is_no_plain_lora_is_refused_by_name(tmp_path: Path, key: str, message: str) -> None:
    """Silently dropping it would change the picture."""
    module = {
        "lora_unet_conv_in.lora_down.weight": torch.ones(1, 4),
        "lora_unet_conv_in.lora_up.weight": torch.ones(8, 1),
        "lora_unet_conv_in.alpha": torch.tensor(1.0),
    }

    with pytest.raises(TrainingError, match=re.escape(message)):
        webui.read(written(module | {key: torch.ones(1)}, tmp_path))


def test_a_module_that_readers_cannot_find_is_refused(tmp_path: Path) -> None:
    """A path without `text_model.`, as transformers 5 names it, would be dropped silently by kohya."""
    adapter = Adapter(unet={}, text_encoder={"encoder.layers.0.mlp.fc1": convolution()})

    with pytest.raises(TrainingError, match=r"encoder.layers.0.mlp.fc1 has no name in webui's LoRA files"):
        webui.write(adapter, tmp_path / "lora.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_file_tells_its_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    """That of its matrices: an alpha that fp16 cannot hold is kept in fp32."""
    assert dtype is webui.precision(webui.write(small_adapter(alpha=0.1), tmp_path / "lora.safetensors", dtype=dtype))
