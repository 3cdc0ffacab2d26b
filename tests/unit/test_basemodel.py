"""Base models: what they are, what of them is needed, and what keeps them from being trained."""

import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import basemodels
from basemodels import UNET, VAE, WEIGHTS, safetensors, tensors, write, write_base
from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.basemodel import BaseModelFacts, Source, expected, files_to_fetch, inspect, locate, original, weights_of
from charalora_trainer.basemodel.configs import TextEncoderConfig, UnetConfig, VaeConfig, unusual
from charalora_trainer.basemodel.pickles import ALLOWED_GLOBALS
from charalora_trainer.finding import Finding
from charalora_trainer.storage.local import LocalStore
from charalora_trainer.storage.store import Entry
from faults import Fault

SINGLE = {name: today.shape for name, today in original.counterparts(original.configs({})).items()}
"""Stable Diffusion 1.5 in one file."""


def look(path: Path) -> tuple[BaseModelFacts | None, list[Finding]]:
    return inspect(locate(str(path), Storage()))


def facts(path: Path) -> BaseModelFacts:
    known, found = look(path)
    assert known is not None, found
    return known


def problem(path: Path) -> str:
    """The one finding's message."""
    known, found = look(path)
    assert known is None
    assert {Outcome.BASE_MODEL_INVALID} == {finding.outcome for finding in found}
    assert 1 == len(found), found
    return found[0].message


def single(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A single-file model; the zeros of its data are a hole in the file, not gigabytes."""
    whole = safetensors_header(shapes)
    path.write_bytes(whole[0])
    with path.open("r+b") as stream:
        stream.truncate(len(whole[0]) + whole[1])
    return path


def safetensors_header(shapes: dict[str, tuple[int, ...]]) -> tuple[bytes, int]:
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text, end


def torch_saved(shapes: dict[str, tuple[int, ...]], file: Path) -> Path:
    torch.save({name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}, file)
    return file


# What a good model says.


def test_a_diffusers_folder_is_known(tmp_path: Path) -> None:
    """Layout, width of the text, rows of the vocabulary, number format and prediction come from configs and headers."""
    known = facts(write_base(tmp_path))

    assert ("diffusers", 12, 49408, 4, "F16", "epsilon") == (
        known.layout,
        known.text_width,
        known.vocabulary,
        known.latent_channels,
        known.dtype,
        known.prediction,
    )


def test_a_single_file_is_known(tmp_path: Path) -> None:
    """A .safetensors file as civitai has them."""
    known = facts(single(tmp_path / "model.safetensors", SINGLE))

    assert ("single file", 768, 49408, ["model.safetensors"]) == (
        known.layout,
        known.text_width,
        known.vocabulary,
        [entry.key for entry in known.files],
    )


def test_the_first_generation_s_names_are_known(tmp_path: Path) -> None:
    """Old files leave `text_model.` out."""
    old = {name.replace("transformer.text_model.", "transformer."): shape for name, shape in SINGLE.items()}

    assert "single file" == facts(single(tmp_path / "old.safetensors", old)).layout


def test_a_ckpt_is_known_without_opening_it(tmp_path: Path) -> None:
    """Names are read from its pickle's text; shapes stay unknown."""
    small = dict.fromkeys(SINGLE, (1,))
    torch.save({"state_dict": {name: torch.zeros(1) for name in small}, "global_step": 7}, tmp_path / "model.ckpt")

    assert ("single file", None) == ((known := facts(tmp_path / "model.ckpt")).layout, known.dtype)


def test_a_folder_of_bin_files_is_known(tmp_path: Path) -> None:
    """The first Stable Diffusions were published as .bin."""
    write_base(tmp_path)
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")):
        config = json.loads((tmp_path / part / "config.json").read_text())
        torch_saved(tensors(part, config), tmp_path / part / f"{name}.bin")
        (tmp_path / WEIGHTS[part]).unlink()

    assert "text_encoder/pytorch_model.bin" == facts(tmp_path).weights["text_encoder"]


def test_only_what_training_reads_is_fetched(tmp_path: Path) -> None:
    """No safety checker, no second copy of the weights, no Flax."""
    write_base(tmp_path)
    good = set(files_to_fetch(LocalStore(tmp_path)))
    for name in ("safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin", "unet/diffusion_flax_model.msgpack", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    assert good == set(files_to_fetch(LocalStore(tmp_path))) == {entry.key for entry in facts(tmp_path).files}
    assert set(WEIGHTS.values()) < good


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["model.fp16.safetensors", "pytorch_model.bin"], "model.fp16.safetensors"),
        (["pytorch_model.bin", "pytorch_model.fp16.bin"], "pytorch_model.bin"),
        (["pytorch_model.fp16.bin"], "pytorch_model.fp16.bin"),
        (["model.non_ema.safetensors", "model.onnx"], None),
    ],
)
def test_safetensors_are_chosen_before_pickles(names: list[str], chosen: str | None) -> None:
    """Then full precision before fp16; other variants are nobody's default."""
    assert (chosen and f"text_encoder/{chosen}") == weights_of("text_encoder", [f"text_encoder/{name}" for name in names])


def test_weights_are_not_read(tmp_path: Path) -> None:
    """A look costs the headers: of a single file of two gigabytes, less than a megabyte."""
    path = single(tmp_path / "model.safetensors", SINGLE | {"model.diffusion_model.more": (1024, 1024, 1024)})
    store = Counting(path.parent)
    known, _ = inspect(Source(store, path.name))

    assert known is not None
    assert store.seen < 1024 * 1024


def test_facts_are_json(tmp_path: Path) -> None:
    """For the status and the report."""
    content = json.loads(json.dumps(facts(write_base(tmp_path)).to_json()))

    assert sum(entry["size"] for entry in content["files"]) == content["bytes"]


# Expected tensors, compared with the libraries that define them.


def test_the_unet_s_tensors_are_those_of_diffusers() -> None:
    """Stable Diffusion 1.5 in its own shapes: 686 tensors."""
    with torch.device("meta"):
        model = UNet2DConditionModel(cross_attention_dim=768)

    assert 686 == len(shapes_of(model))
    assert shapes_of(model) == expected.unet(UnetConfig.model_validate(dict(model.config)))


@pytest.mark.parametrize(
    "config",
    [
        {"layers_per_block": 1, "block_out_channels": (32, 64, 96)} | dict.fromkeys(("down_block_types",), ("CrossAttnDownBlock2D",) * 3),
        {"use_linear_projection": True},
    ],
)
def test_other_unets_of_the_family_too(config: dict[str, Any]) -> None:
    """The toy world's numbers of blocks and layers, and linear projections."""
    if "down_block_types" in config:
        config = config | {"up_block_types": ("CrossAttnUpBlock2D",) * 3}
    with torch.device("meta"):
        model = UNet2DConditionModel(cross_attention_dim=128, **config)

    assert shapes_of(model) == expected.unet(UnetConfig.model_validate(dict(model.config)))


def test_the_vae_s_tensors_are_those_of_diffusers() -> None:
    """248 tensors."""
    config = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    with torch.device("meta"):
        model = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **config)

    assert 248 == len(shapes_of(model))
    assert shapes_of(model) == expected.vae(VaeConfig.model_validate(dict(model.config)))


def test_the_text_encoder_s_tensors_are_those_of_transformers() -> None:
    """196 tensors, under the names that files have."""
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        model = CLIPTextModel(config)
    written = {f"text_model.{name.removeprefix('text_model.')}": shape for name, shape in shapes_of(model).items()}

    assert 196 == len(written)
    assert written == expected.text_encoder(TextEncoderConfig.model_validate(config.to_dict()))


def test_diffusers_own_defaults_are_not_unusual() -> None:
    """Every setting that a config file spells out is known."""
    with torch.device("meta"):
        model = UNet2DConditionModel(cross_attention_dim=768)

    assert [] == unusual(model.config)


def test_every_allowed_global_is_one_that_torch_allows() -> None:
    """What is let through here must load with `weights_only=True`."""
    from torch._weights_only_unpickler import _get_allowed_globals

    assert {f"{module}.{name}" for module, name in ALLOWED_GLOBALS} <= set(_get_allowed_globals())


# What is wrong with others.


def test_nothing_there(tmp_path: Path) -> None:
    """An empty prefix or a folder that does not exist."""
    assert "There is no base model at" in problem(tmp_path / "nothing")


def test_a_missing_single_file(tmp_path: Path) -> None:
    """A file that does not exist."""
    assert "There is no" in problem(tmp_path / "model.safetensors")


def test_a_folder_of_single_files(tmp_path: Path) -> None:
    """The message names one to write."""
    single(tmp_path / "anime.safetensors", SINGLE)

    assert f"{tmp_path}/anime.safetensors" in problem(tmp_path)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """Some other files."""
    (tmp_path / "a.png").write_bytes(b"x")

    assert "no diffusers folder" in problem(tmp_path)


@pytest.mark.parametrize(
    ("index", "what"),
    [
        (
            {"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
            "Stable Diffusion XL",
        ),
        ({"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}, "StableDiffusion3Pipeline"),
        ({"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}, "FluxPipeline"),
    ],
)
def test_another_pipeline(tmp_path: Path, index: dict[str, Any], what: str) -> None:
    """One finding says what it is, instead of a hundred that say what it lacks."""
    assert what in problem(write_base(tmp_path, index=index))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"unet": {"cross_attention_dim": 1024}, "text_encoder": {"hidden_size": 1024}}, "Stable Diffusion 2"),
        ({"unet": {"cross_attention_dim": 16}}, "16 wide and a text encoder 12 wide"),
        ({"unet": {"in_channels": 9}}, "inpainting"),
        ({"unet": {"addition_embed_type": "text_time"}}, "addition_embed_type"),
        ({"unet": {"down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D"]}}, "AttnDownBlock2D"),
        ({"vae": {"block_out_channels": [4, 8]}}, "2 times smaller, not 8 times"),
        ({"text_encoder": {"max_position_embeddings": 248}}, "248 positions"),
    ],
)
def test_another_architecture(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    """Told by configs alone; the weights of these folders fit their configs."""
    plain = {
        part: {key: value for key, value in change.items() if part != "unet" or key in CHANGES_SHAPES} for part, change in changes.items()
    }
    write_base(tmp_path, **plain)
    if "unet" in changes:
        write(tmp_path / "unet/config.json", UNET | changes["unet"])

    assert what in problem(tmp_path)


CHANGES_SHAPES = {"cross_attention_dim", "in_channels"}


@pytest.mark.parametrize(
    "name",
    ["unet/config.json", *WEIGHTS.values(), "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"],
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """By its path, or by its part where any of several files would do."""
    (write_base(tmp_path) / name).unlink()

    assert name.split("/", maxsplit=1)[0] in problem(tmp_path)


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    """Neither vocab.json and merges.txt nor tokenizer.json."""
    (write_base(tmp_path) / "tokenizer/merges.txt").unlink()

    assert "no tokenizer" in problem(tmp_path)


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    """Three missing files are three findings."""
    write_base(tmp_path)
    for name in ("unet/config.json", WEIGHTS["vae"], "scheduler/scheduler_config.json"):
        (tmp_path / name).unlink()

    assert 3 == len(look(tmp_path)[1])


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    """The header is compared with what the config asks for."""
    shapes = tensors("unet", UNET)
    del shapes["mid_block.attentions.0.proj_in.weight"]
    (write_base(tmp_path) / WEIGHTS["unet"]).write_bytes(safetensors(shapes))

    assert f"1 of {len(shapes) + 1} tensors are missing, such as mid_block.attentions.0.proj_in.weight" in problem(tmp_path)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    """With both shapes."""
    shapes = tensors("unet", UNET) | {"conv_in.weight": (8, 9, 3, 3)}
    (write_base(tmp_path) / WEIGHTS["unet"]).write_bytes(safetensors(shapes))

    assert "conv_in.weight is (8, 9, 3, 3), not (8, 4, 3, 3)" in problem(tmp_path)


def test_fp8_weights_are_refused(tmp_path: Path) -> None:
    """Eight bits are for generating; training needs more."""
    (write_base(tmp_path) / WEIGHTS["unet"]).write_bytes(safetensors(tensors("unet", UNET), "F8_E4M3", 1))

    assert "F8_E4M3" in problem(tmp_path)


def test_the_older_names_of_a_vae_s_attention_are_known(tmp_path: Path) -> None:
    """`query` for `to_q`, as most files of Stable Diffusion 1.5 have it; and a convolution for a matrix."""
    old = {}
    for name, shape in tensors("vae", VAE).items():
        attention = ".attentions." in name and "group_norm" not in name
        for new, older in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{older}.")  # noqa: PLW2901
        old[name] = (*shape, 1, 1) if attention and name.endswith("weight") else shape
    (write_base(tmp_path) / WEIGHTS["vae"]).write_bytes(safetensors(old))

    assert "diffusers" == facts(tmp_path).layout


def test_a_text_encoder_without_its_prefix_is_known(tmp_path: Path) -> None:
    """Transformers 5 writes names without `text_model.`."""
    bare = {name.removeprefix("text_model."): shape for name, shape in tensors("text_encoder", basemodels.TEXT_ENCODER).items()}
    (write_base(tmp_path) / WEIGHTS["text_encoder"]).write_bytes(safetensors(bare))

    assert "diffusers" == facts(tmp_path).layout


def test_weights_in_several_files_are_refused(tmp_path: Path) -> None:
    """Sharded files are for models ten times as large."""
    (write_base(tmp_path) / WEIGHTS["unet"]).rename(tmp_path / "unet/diffusion_pytorch_model-00001-of-00002.safetensors")
    write(tmp_path / "unet/diffusion_pytorch_model.safetensors.index.json", {})

    assert "several files" in problem(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"block_out_channels": "no"}',
        b'{"block_out_channels": [1000000]}',
        b'{"layers_per_block": [2]}',
    ],
)
def test_a_damaged_config_is_a_finding(tmp_path: Path, content: bytes) -> None:
    """Whatever is in the file."""
    (write_base(tmp_path) / "unet/config.json").write_bytes(content)

    assert "unet/config.json" in problem(tmp_path)


WHOLE = safetensors({"a": (2, 3), "b": (4,)})


def header(content: object, data: int = 20) -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def tensor(begin: int, end: int, shape: object = (2, 3), dtype: object = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"", "it has 0 bytes", id="empty"),
        pytest.param(WHOLE[:5], "it has 5 bytes", id="shorter than its length"),
        pytest.param(WHOLE[:-1], "promises 20 bytes of tensors, 19 are there", id="truncated by one byte"),
        pytest.param(WHOLE[:40], "header would have", id="truncated in its header"),
        pytest.param(WHOLE + b"\0", "promises 20 bytes of tensors, 21 are there", id="a byte too many"),
        pytest.param(b"\xff" * 8 + WHOLE[8:], "header would have", id="an absurd length"),
        pytest.param((8).to_bytes(8, "little") + b"no JSON!", "no JSON", id="no JSON"),
        pytest.param((50_000).to_bytes(8, "little") + b"[" * 50_000, "no JSON", id="nested without end"),
        pytest.param(header([]), "no JSON object", id="a list"),
        pytest.param(header({"a": tensor(0, 12), "b": tensor(8, 20)}), "overlap", id="overlapping"),
        pytest.param(header({"a": tensor(0, 12), "b": tensor(16, 28)}, 28), "gap", id="with a gap"),
        pytest.param(header({"a": tensor(0, 20)}), "contradict", id="of another size than its shape"),
        pytest.param(header({"a": tensor(0, 20, (2, -5))}), "contradict", id="of negative size"),
        pytest.param(header({"a": tensor(0, 20, (2, 2.5))}), "contradict", id="of broken size"),
        pytest.param(header({"a": tensor(0, 20, (2,) * 1_000_000)}), "contradict", id="of a million dimensions"),
        pytest.param(header({"a": tensor(0, 12, dtype="F17")}), "contradict", id="of unknown type"),
        pytest.param(header({"a": tensor(0, 12, dtype=[])}), "contradict", id="of no type"),
        pytest.param(header({"a": 3}), "incomplete", id="not described"),
        pytest.param(header({"a": {"dtype": "F16"}}), "incomplete", id="half described"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", id="Git LFS"),
    ],
)
def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, data: bytes, what: str) -> None:
    """The header is input from outside: every contradiction is named, none is believed."""
    (tmp_path / "model.safetensors").write_bytes(data)

    assert what in problem(tmp_path / "model.safetensors")


@pytest.mark.fault(Fault.HOSTILE_FILES)
def test_any_damage_to_a_header_is_a_finding(tmp_path: Path) -> None:
    """Fuzzing: whatever the bytes, the answer is a finding and never another error."""
    generator = random.Random(4)
    for _ in range(500):
        data = bytearray(WHOLE)
        for _ in range(generator.choice([1, 2, 6])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        (tmp_path / "model.safetensors").write_bytes(data)
        assert look(tmp_path / "model.safetensors")[1]


@pytest.mark.parametrize(
    ("prefix", "what"),
    [
        ("conditioner.embedders.1.model.ln_final.weight", "Stable Diffusion XL"),
        ("cond_stage_model.model.ln_final.weight", "Stable Diffusion 2"),
        ("model.diffusion_model.double_blocks.0.img_attn.proj.weight", "Flux"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.alpha", "a LoRA"),
        ("down_blocks.0.resnets.0.conv1.weight", "one part of a diffusers folder"),
        ("something.else", "no UNet and no VAE and no text encoder"),
    ],
)
def test_another_single_file(tmp_path: Path, prefix: str, what: str) -> None:
    """Told by the names of its tensors."""
    assert what in problem(single(tmp_path / "model.safetensors", {prefix: (1,)}))


def test_a_single_file_for_inpainting(tmp_path: Path) -> None:
    """Nine channels at its entrance."""
    shapes = SINGLE | {"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)}

    assert "320x9x3x3, not 320x4x3x3" in problem(single(tmp_path / "model.safetensors", shapes))


def test_a_single_file_without_a_vae(tmp_path: Path) -> None:
    """Some are published so, to be used with another VAE."""
    shapes = {name: shape for name, shape in SINGLE.items() if not name.startswith("first_stage_model")}

    assert "has no VAE" in problem(single(tmp_path / "model.safetensors", shapes))


class Attack:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os

        return os.system, ("touch /tmp/charalora-was-attacked",)


def zipped(content: object, file: Path, protocol: int = 2, name: str = "archive/data.pkl") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, pickle.dumps(content, protocol))
    return file


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, protocol: int) -> None:
    """In every protocol, and without running it."""
    message = problem(zipped({"state_dict": Attack()}, tmp_path / "model.ckpt", protocol))

    assert "runs code" in message
    assert not Path("/tmp/charalora-was-attacked").exists()  # noqa: S108


def test_the_code_is_named(tmp_path: Path) -> None:
    """So that a person can judge."""
    assert "system" in problem(zipped(Attack(), tmp_path / "model.ckpt"))


@pytest.mark.parametrize(
    "pickled",
    [
        b"ios\nsystem\n(S'true'\ntR.",  # INST
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pa name\n.",  # PERSID
        b"cbuiltins\neval\n.",
        b"ctorch\nload\n.",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
    ],
)
def test_every_way_to_name_code_is_known(tmp_path: Path, pickled: bytes) -> None:
    """Opcodes that `weights_only=True` does not know either."""
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)

    assert "runs code" in problem(tmp_path / "model.ckpt")


@pytest.mark.parametrize("part", [0.2, 0.9, 0.999])
def test_a_truncated_ckpt_is_refused(tmp_path: Path, part: float) -> None:
    """A zip archive's directory is at its end."""
    data = torch_saved(dict.fromkeys(SINGLE, (100,)), tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(data[: int(part * len(data))])

    assert "truncated" in problem(tmp_path / "model.ckpt")


def test_a_ckpt_of_before_2020_is_refused(tmp_path: Path) -> None:
    """Old files are pickles in a row, which cannot be looked into by parts."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.ckpt", _use_new_zipfile_serialization=False)

    assert "older than PyTorch 1.6" in problem(tmp_path / "model.ckpt")


def test_a_packed_pickle_is_refused(tmp_path: Path) -> None:
    """Torch never packs; a packed one could be a bomb."""
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"a" * 1000)

    assert "no file that torch.save wrote" in problem(tmp_path / "model.ckpt")


def test_any_damage_to_a_ckpt_is_a_finding(tmp_path: Path) -> None:
    """Fuzzing the directory and the pickle: never another error."""
    file = torch_saved({"a": (1,)}, tmp_path / "model.ckpt")
    original, generator = file.read_bytes(), random.Random(9)
    for _ in range(300):
        data = bytearray(original)
        for _ in range(generator.choice([1, 3, 10])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        file.write_bytes(data)
        assert look(file)[1]


class Counting(LocalStore):
    """A real folder that counts what is read of it."""

    seen = 0

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """The same bytes."""
        data = super().read(key, start, end)
        self.seen += len(data)
        return data


class Failing(LocalStore):
    """A real folder behind a network that fails at the weights."""

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """Nothing of the weights."""
        if key.endswith(".safetensors"):
            raise TrainingError(Outcome.STORAGE_UNREACHABLE, "gone")
        return super().read(key, start, end)


def test_a_storage_fault_is_no_fault_of_the_model(tmp_path: Path) -> None:
    """It is raised as what it is, and tried again by whoever may."""
    with pytest.raises(TrainingError) as raised:
        inspect(Source(Failing(write_base(tmp_path))))

    assert Outcome.STORAGE_UNREACHABLE is raised.value.outcome


def test_locating_splits_a_file_from_its_folder(tmp_path: Path) -> None:
    """A store is a folder; the file is a key in it."""
    source = locate(f"file://{tmp_path}/sub/model.ckpt", Storage())

    assert (f"file://{tmp_path}/sub/", "model.ckpt") == (source.store.uri, source.file)


def test_a_file_uri_may_be_percent_encoded(tmp_path: Path) -> None:
    """As `Path.as_uri` writes it."""
    file = single(tmp_path / "a model #1.safetensors", SINGLE)

    assert inspect(locate(file.as_uri(), Storage()))[0] is not None


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_an_entry_is_what_the_store_lists(tmp_path: Path) -> None:
    """So that it can be staged without asking again."""
    known = facts(single(tmp_path / "model.safetensors", SINGLE))

    assert (Entry("model.safetensors", (size := (tmp_path / "model.safetensors").stat().st_size), known.files[0].etag),) == known.files
    assert size == known.bytes
