"""`charalora generate` on what a whole training left: which files it takes, what decides a picture, and what it says when it cannot."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from builders import character_lora
from charalora_spec.outcome import Outcome
from charalora_trainer import cfg
from charalora_trainer.export.metadata import file_hashes
from commands import charalora
from services import S3
from single_model import random_parts, tensors_of
from tiny_model import tiny_base
from trainings import WORD, pictures

STEPS = 2
PROMPT = f"solo, {{{WORD}:1.2}}, smile"
SMALL = ("--width", "64", "--height", "64", "--num-inference-steps", "2", "--seed", "7")


@dataclass(frozen=True)
class Trained:
    """A finished training and where its files are."""

    base: Path
    exps: Path


def trained_on(base: Path, folder: Path) -> Trained:
    """Two steps on six pictures, at rates so high that they show; a checkpoint and a preview each."""
    (folder / "dataset").mkdir()
    for name, content in pictures().items():
        (folder / "dataset" / name).write_bytes(content)
    rates = {"unet": 2e-2, "textEncoder": 1e-2, "embedding": 1e-2, "warmupSteps": 0, "scaleWithBatch": False}
    run = character_lora(
        dataset__uri=(folder / "dataset").as_uri(),
        baseModel__uri=base.as_uri(),
        output__uri=(folder / "exps").as_uri(),
        training={"steps": STEPS, "saveEvery": 1, "batchSize": 2, "precision": "fp32", "learningRate": rates},
        preview={"prompts": [PROMPT], "width": 64, "height": 64, "inferenceSteps": 2, "seed": 7},
    )
    (folder / "surtr.yaml").write_text(cfg.text(run))
    ended = charalora(folder, "run", str(folder / "surtr.yaml"), "--processes", "1", "--work", str(folder / "work"))
    assert 0 == ended.code, ended.err
    return Trained(base, folder / "exps")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """On a diffusers folder."""
    folder = tmp_path_factory.mktemp("generate")
    tiny_base(folder / "base")
    return trained_on(folder / "base", folder)


def generated(trained: Trained, folder: Path, *options: str, step: int = STEPS, prompt: str = PROMPT) -> list[Path]:
    """The pictures of one command."""
    arguments = ("--exp-dir", str(trained.exps), "--model-steps", str(step), "--prompt", prompt, "--output-dir", str(folder / "output"))
    ended = charalora(folder, "generate", *arguments, *SMALL, *options)
    assert 0 == ended.code, ended.err
    return [Path(line) for line in ended.out.splitlines()]


def pixels(picture: Path) -> np.ndarray:
    return np.asarray(Image.open(picture)).astype(np.int16)


def info(picture: Path) -> dict[str, object]:
    """What the file beside a picture says."""
    number, seed, *_ = picture.name.split("-")
    read: dict[str, object] = yaml.safe_load((picture.parent / f"{number}-{seed}-info.yaml").read_text(encoding="utf-8"))
    return read


def preview(trained: Trained, step: int) -> Path:
    [picture] = (trained.exps / "previews" / str(step)).glob("*.png")
    return picture


@pytest.mark.parametrize("step", [1, 2])
def test_a_picture_is_the_preview_of_its_step(trained: Trained, tmp_path: Path, step: int) -> None:
    """The run's own files, strength and seed give what training showed, but for the rounding of a file."""
    [picture] = generated(trained, tmp_path, step=step)

    assert np.abs(pixels(preview(trained, step)) - pixels(picture)).max() <= 2
    assert np.abs(pixels(preview(trained, 3 - step)) - pixels(picture)).max() > 2


def test_the_word_may_name_its_step(trained: Trained, tmp_path: Path) -> None:
    """As the guide writes it; with and without, the same file is meant. Another step's word may be asked for by name."""
    [plain] = generated(trained, tmp_path)
    [stepped] = generated(trained, tmp_path, prompt=PROMPT.replace(WORD, f"{WORD}-2"))
    [other] = generated(trained, tmp_path, prompt=PROMPT.replace(WORD, f"{WORD}-1"))

    assert np.array_equal(pixels(plain), pixels(stepped))
    assert not np.array_equal(pixels(plain), pixels(other))


def test_the_seed_decides_and_the_strength_shows(trained: Trained, tmp_path: Path) -> None:
    """The guide's strength is 0.85; at 0 the LoRA does nothing."""
    [first], [again], [explicit], [other], [strong], [without] = (
        generated(trained, tmp_path, *options)
        for options in ((), (), ("--alpha", "0.85"), ("--seed", "0"), ("--alpha", "1"), ("--alpha", "0"))
    )

    assert np.array_equal(pixels(first), pixels(again))
    assert np.array_equal(pixels(first), pixels(explicit))
    assert 4 == len({pixels(picture).tobytes() for picture in (first, other, strong, without)})
    assert 0 == info(other)["seed"]


def test_without_a_seed_one_is_drawn_and_noted(trained: Trained, tmp_path: Path) -> None:
    """It makes the picture again."""
    options = ("--exp-dir", str(trained.exps), "--model-steps", "2", "--prompt", PROMPT, *SMALL[:-2])
    drawn = charalora(tmp_path, "generate", *options, "--output-dir", str(tmp_path / "drawn"))
    picture = Path(drawn.out.strip())
    [again] = generated(trained, tmp_path, "--seed", str(info(picture)["seed"]))

    assert np.array_equal(pixels(picture), pixels(again))


def test_each_picture_says_what_it_was_made_with(trained: Trained, tmp_path: Path) -> None:
    """Names and digests: of the LoRA's tensors, as webui has them, and of the embedding's file."""
    first, second = generated(trained, tmp_path, "--num", "2")

    ckpts = trained.exps / "ckpts"
    noted = info(second)
    assert [8, "0.85"] == [noted["seed"], noted["preview"]["loraScale"]]  # type: ignore[index]
    assert {"name": f"lora-{STEPS}", "sha256": file_hashes(ckpts / f"lora-{STEPS}.safetensors").model_hash} == noted["lora"]
    digest = hashlib.sha256((ckpts / f"{WORD}-{STEPS}.pt").read_bytes()).hexdigest()
    assert [{"name": f"{WORD}-{STEPS}", "sha256": digest}] == noted["embeddings"]
    assert {"name": "base", "sha256": None} == noted["baseModel"]
    assert f'TI hashes: "{WORD}-{STEPS}: {digest[:12]}"' in Image.open(first).info["parameters"]


def test_other_embeddings_are_words_too(trained: Trained, tmp_path: Path) -> None:
    """Any .pt beside the LoRA that a prompt names, by its file's name."""
    exps = tmp_path / "exps"
    shutil.copytree(trained.exps, exps)
    shutil.copyfile(exps / "ckpts" / f"{WORD}-1.pt", exps / "ckpts" / "texalter.pt")
    (exps / "ckpts" / "unrelated.pt").write_bytes(b"damaged, and not asked for")

    copied = Trained(trained.base, exps)
    [named] = generated(copied, tmp_path, prompt=PROMPT.replace(WORD, "texalter"))
    [same_rows] = generated(copied, tmp_path, prompt=PROMPT.replace(WORD, f"{WORD}-1"))

    assert np.array_equal(pixels(same_rows), pixels(named))


def test_files_in_a_bucket_are_fetched(trained: Trained, tmp_path: Path, s3: S3) -> None:
    """An output prefix as it is, of which only what is needed is fetched."""
    for file in (path for path in trained.exps.rglob("*") if path.is_file()):
        s3.put(f"loras/{file.relative_to(trained.exps).as_posix()}", file.read_bytes())
    environment = s3.environment | {"AWS_ENDPOINT_URL": s3.endpoint}
    options = ("--exp-dir", s3.uri("loras/"), "--prompt", PROMPT, *SMALL, "--output-dir", str(tmp_path / "output"))

    ended = charalora(tmp_path, "generate", "--model-steps", "2", *options, **environment)
    unknown = charalora(tmp_path, "generate", "--model-steps", "3", *options, **environment)

    assert 0 == ended.code, ended.err
    assert np.abs(pixels(preview(trained, 2)) - pixels(Path(ended.out.strip()))).max() <= 2
    [fetched] = (tmp_path / "cache/runs/generate/trainings").iterdir()
    assert {"cfg.yaml", "lora-2.safetensors", "text_encoder-2.safetensors", "unet-2.safetensors", f"{WORD}-2.pt"} == {
        path.name for path in fetched.rglob("[!.]*.*")
    }
    assert f"{s3.uri('loras/')}ckpts has no LoRA of step 3; it has the steps 1, 2." in unknown.line


@pytest.mark.parametrize(
    ("change", "outcome", "says"),
    [
        (("--model-steps", "1000"), Outcome.SPEC_INVALID, "has no LoRA of step 1000; it has the steps 1, 2."),
        (("--exp-dir", "/nowhere"), Outcome.SPEC_INVALID, "has no LoRA of step 2; give the folder of a training."),
        (("--exp-dir", "ftp://there"), Outcome.SPEC_INVALID, "ftp://there is no store that can be opened"),
        (("--prompt", f"{{{WORD}-3:1.2}}"), Outcome.SPEC_INVALID, f"names {WORD}-3, which has no file in ckpts; there are {WORD}-1, "),
        (("--prompt", "{solo"), Outcome.SPEC_INVALID, "cannot be read"),
        (("--pretrained-model", "/no/model"), Outcome.BASE_MODEL_INVALID, "There is no base model at file:///no/model/"),
        (("--pretrained-model", "no/model.ckpt"), Outcome.BASE_MODEL_INVALID, "no/model.ckpt; give the uri of one."),
        (("--width", "60"), Outcome.SPEC_INVALID, "multiple of 8"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_what_to_do(
    trained: Trained, tmp_path: Path, change: tuple[str, str], outcome: Outcome, says: str
) -> None:
    """And no picture."""
    asked = {"--exp-dir": str(trained.exps), "--model-steps": "2", "--prompt": PROMPT, "--output-dir": str(tmp_path / "output")}
    asked |= {**dict(zip(SMALL[::2], SMALL[1::2], strict=True)), change[0]: change[1]}

    ended = charalora(tmp_path, "generate", *(part for option in asked.items() for part in option))

    assert outcome is ended.outcome
    assert says in ended.line
    assert "Traceback" not in ended.err
    assert not (tmp_path / "output").exists()


def test_a_folder_of_hcp_needs_its_base_model_told(trained: Trained, tmp_path: Path) -> None:
    """It has no cfg.yaml of ours and no LoRA for webui; with a base model the pictures are the same."""
    shutil.copytree(trained.exps / "ckpts", tmp_path / "exps" / "ckpts", ignore=shutil.ignore_patterns("lora-*"))
    (tmp_path / "exps" / "cfg.yaml").write_text("_base_: [cfgs/train/examples/lora_anime_character.yaml]\n")
    untold = Trained(trained.base, tmp_path / "exps")

    ended = charalora(tmp_path, "generate", "--exp-dir", str(untold.exps), "--model-steps", "2", "--prompt", PROMPT, *SMALL)
    [picture] = generated(untold, tmp_path, "--pretrained-model", str(trained.base))

    assert "does not tell its base model; give one with --pretrained-model." in ended.line
    assert np.abs(pixels(preview(trained, 2)) - pixels(picture)).max() <= 2
    assert {"name": "lora-2", "sha256": None} == info(picture)["lora"]


def test_a_lora_of_the_unet_alone_is_enough(trained: Trained, tmp_path: Path) -> None:
    """The text encoder's file is not there when it was not trained."""
    shutil.copytree(trained.exps, tmp_path / "exps")
    (tmp_path / "exps" / "ckpts" / f"text_encoder-{STEPS}.safetensors").unlink()

    [picture] = generated(Trained(trained.base, tmp_path / "exps"), tmp_path)

    assert not np.array_equal(pixels(preview(trained, STEPS)), pixels(picture))


def test_a_base_model_of_another_architecture_is_told(trained: Trained, tmp_path: Path) -> None:
    """By the module that has no place."""
    save_file(tensors_of(random_parts()), tmp_path / "model.safetensors")
    arguments = ("--exp-dir", str(trained.exps), "--model-steps", "2", "--prompt", PROMPT, *SMALL)

    ended = charalora(tmp_path, "generate", *arguments, "--pretrained-model", str(tmp_path / "model.safetensors"))

    assert Outcome.EXPORT_INVALID is ended.outcome
    assert "of its architecture" in ended.line


@pytest.fixture(scope="module")
def trained_on_a_file(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """On one .safetensors file."""
    folder = tmp_path_factory.mktemp("single file")
    save_file(tensors_of(random_parts()), folder / "anime full.safetensors")
    return trained_on(folder / "anime full.safetensors", folder)


def test_a_whole_training_on_a_single_file(trained_on_a_file: Trained) -> None:
    """Check, training, previews, exports and the proof in diffusers: 160 and 72 modules, as on every Stable Diffusion 1.x."""
    exps = trained_on_a_file.exps

    assert 3 * (160 + 72) == len(load_file(exps / "civitai" / f"{WORD}.safetensors"))
    assert (exps / "manifest.json").is_file()
    assert preview(trained_on_a_file, STEPS)


def as_ckpt(base: Path) -> Path:
    """The same weights as the first generation had them."""
    torch.save({"state_dict": load_file(base)}, base.with_suffix(".ckpt"))
    return base.with_suffix(".ckpt")


@pytest.mark.parametrize("keep", [lambda base: base, as_ckpt], ids=["safetensors", "ckpt"])
def test_pictures_on_a_single_file(trained_on_a_file: Trained, tmp_path: Path, keep: Callable[[Path], Path]) -> None:
    """The preview again, with the digest that webui and civitai know the base model by; from a .ckpt of the same weights too."""
    base = keep(trained_on_a_file.base)
    [picture] = generated(trained_on_a_file, tmp_path, "--pretrained-model", str(base))

    assert np.abs(pixels(preview(trained_on_a_file, STEPS)) - pixels(picture)).max() <= 2
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    assert {"name": base.stem, "sha256": digest} == info(picture)["baseModel"]
    assert f"Model hash: {digest[:10]}, Model: {base.stem}" in Image.open(picture).info["parameters"]
