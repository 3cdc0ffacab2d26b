"""Pictures on a real, if tiny and untrained, Stable Diffusion: what decides them, and the files that they become."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from builders import character_lora
from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Prediction, Preview, effective_preview_prompts
from charalora_trainer.model.load import DiffusionModels, load_models
from charalora_trainer.model.lora import add_lora, set_strength
from charalora_trainer.model.text import splice
from charalora_trainer.stages.picture_files import Ingredient, Ingredients
from charalora_trainer.stages.preview import Picture, Recipe, generate, neutral_prompt, save_picture
from charalora_trainer.weights import Word
from toyworld.architecture import untrained_base
from toyworld.reading import WIDTH as TEXT_WIDTH

RECIPE = Recipe(prompts=("1girl, red eyes",), negative_prompt="blurry", width=64, height=96, inference_steps=3, seed=7)
WORD = Word("surtr_arknights-100", torch.randn(4, TEXT_WIDTH, generator=torch.Generator().manual_seed(0)))
CLIP_SKIP = 1


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    untrained_base(folder)
    return folder


@pytest.fixture(scope="module")
def models(base: Path) -> DiffusionModels:
    return load_models(base, Prediction.EPSILON)


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(np.int16)


def made(models: DiffusionModels, recipe: Recipe, *words: Word) -> list[Picture]:
    return list(generate(models, words, recipe, CLIP_SKIP))


def assert_same(first: Picture, second: Picture) -> None:
    """Equal but for the rounding of sums that are taken in another order."""
    assert np.abs(pixels(first) - pixels(second)).max() <= 2


def test_a_picture_is_what_diffusers_makes_of_the_same_settings(base: Path, models: DiffusionModels) -> None:
    """StableDiffusionPipeline with its Euler ancestral sampler and the same seed: the same pixels."""
    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    pipeline.scheduler = EulerAncestralDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        RECIPE.prompts[0],
        negative_prompt=RECIPE.negative_prompt,
        width=64,
        height=96,
        num_inference_steps=3,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(7),
    ).images[0]

    [picture] = generate(models, [], RECIPE, clip_skip=0)

    assert (64, 96) == picture.image.size
    assert np.abs(np.asarray(expected).astype(np.int16) - pixels(picture)).max() <= 2


def test_clip_skip_reaches_the_text_encoder(models: DiffusionModels) -> None:
    """Another layer's state conditions another picture."""
    [first], [second] = (list(generate(models, [], RECIPE, clip_skip)) for clip_skip in (0, 1))

    assert not np.array_equal(pixels(first), pixels(second))


def test_the_seed_decides_the_picture(models: DiffusionModels) -> None:
    """The same seed gives the same pixels, another one others."""
    [first], [again], [other] = (made(models, replace(RECIPE, seed=seed)) for seed in (7, 7, 8))

    assert np.array_equal(pixels(first), pixels(again))
    assert np.abs(pixels(first) - pixels(other)).mean() > 5


def test_seed_0_is_a_seed(models: DiffusionModels) -> None:
    """It is no synonym for a drawn one."""
    [first], [again] = (made(models, replace(RECIPE, seed=0)) for _ in range(2))

    assert 0 == first.seed
    assert np.array_equal(pixels(first), pixels(again))


def test_a_drawn_seed_is_recorded_and_repeats_the_picture(models: DiffusionModels) -> None:
    """Without a seed each call has its own, and the picture says which."""
    [drawn], [other] = (made(models, replace(RECIPE, seed=None)) for _ in range(2))
    [again] = made(models, replace(RECIPE, seed=drawn.seed))

    assert drawn.seed != other.seed
    assert np.array_equal(pixels(drawn), pixels(again))


def test_a_picture_does_not_depend_on_its_batch(models: DiffusionModels) -> None:
    """Picture i has seed + i and is the one that its seed gives alone."""
    together = made(models, replace(RECIPE, num=2, batch=2))

    assert [7, 8, 9, 10] == [picture.seed for picture in together]
    assert [0, 1, 2, 3] == [picture.number for picture in together]
    for picture in together:
        [alone] = made(models, replace(RECIPE, seed=picture.seed))
        assert_same(alone, picture)


def test_every_prompt_gets_the_same_seeds(models: DiffusionModels) -> None:
    """So that prompts can be compared."""
    pictures = made(models, replace(RECIPE, prompts=("1girl", "sword"), num=2))

    assert [("1girl", 7), ("1girl", 8), ("sword", 7), ("sword", 8)] == [(picture.prompt, picture.seed) for picture in pictures]
    assert np.abs(pixels(pictures[0]) - pixels(pictures[2])).mean() > 0.1


def test_no_guidance_ignores_the_negative_prompt(models: DiffusionModels) -> None:
    """At a scale of 1 the prompt alone is computed."""
    [first], [other] = (made(models, replace(RECIPE, guidance_scale=1.0, negative_prompt=text)) for text in ("", "sword"))

    assert np.array_equal(pixels(first), pixels(other))


def test_emphasis_works_in_the_negative_prompt_too(models: DiffusionModels) -> None:
    """Weights on either side change the picture."""
    pictures = [
        made(models, replace(RECIPE, prompts=(prompt,), negative_prompt=negative))[0]
        for prompt, negative in (("1girl", "blurry"), ("{1girl:1.5}", "blurry"), ("1girl", "{blurry:1.5}"))
    ]

    assert 3 == len({pixels(picture).tobytes() for picture in pictures})


def test_long_prompts_get_the_chunks_they_need(models: DiffusionModels) -> None:
    """The 77th token still changes the picture, on either side."""
    long = "sword " * 76
    pictures = [
        made(models, replace(RECIPE, prompts=(prompt,), negative_prompt=negative))[0]
        for prompt, negative in (("sword", "blurry"), (long + "horns", "blurry"), (long + "girl", "blurry"), ("sword", long))
    ]

    assert 4 == len({pixels(picture).tobytes() for picture in pictures})


def test_the_word_shows_and_answers_to_both_names(models: DiffusionModels) -> None:
    """The rows of `surtr_arknights-100` are reached with and without the step, and without them the picture is another."""
    [plain], [stepped], [without] = (
        made(models, replace(RECIPE, prompts=(prompt,)), *words)
        for prompt, words in (("{surtr_arknights:1.2}", [WORD]), ("{surtr_arknights-100:1.2}", [WORD]), ("{surtr_arknights:1.2}", []))
    )

    assert np.array_equal(pixels(plain), pixels(stepped))
    assert not np.array_equal(pixels(plain), pixels(without))


def test_two_steps_of_a_word_keep_their_names(models: DiffusionModels) -> None:
    """With steps 100 and 200 loaded, the bare name would be a guess, so it is plain text."""
    later = Word("surtr_arknights-200", -WORD.vectors)
    bare, first, second = (
        made(models, replace(RECIPE, prompts=(prompt,)), WORD, later)[0]
        for prompt in ("surtr_arknights", "surtr_arknights-100", "surtr_arknights-200")
    )

    assert 3 == len({pixels(picture).tobytes() for picture in (bare, first, second)})


def test_the_models_are_given_back_between_pictures(base: Path) -> None:
    """In the middle of a training: mode, words, gradients and random numbers are as before, whatever pictures were made or left out."""
    models = load_models(base, Prediction.EPSILON)
    add_lora(models, character_lora(training__lora={"dropout": 0.5}).spec.training.lora)
    rows = torch.nn.Parameter(torch.zeros(4, TEXT_WIDTH))
    splice(models.text_encoder, rows)
    models.unet.train()
    models.text_encoder.train()
    torch.manual_seed(3)
    expected = torch.randn(3)

    torch.manual_seed(3)
    pictures = generate(models, [WORD], replace(RECIPE, num=3), CLIP_SKIP)
    next(pictures)

    assert rows is models.text_encoder.get_input_embeddings().rows
    assert models.unet.training
    assert models.text_encoder.training
    assert not models.vae.training
    assert not torch.is_inference_mode_enabled()
    assert torch.equal(expected, torch.randn(3))
    loss = models.unet(torch.randn(1, 4, 8, 8), 5, torch.randn(1, 77, TEXT_WIDTH)).sample.sum()
    torch.autograd.backward(loss)


def test_half_precision_models_make_nearly_the_same_picture(base: Path, models: DiffusionModels) -> None:
    """UNet and text encoder in bf16, latents, noise and VAE in fp32."""
    half = load_models(base, Prediction.EPSILON).to(torch.device("cpu"), torch.bfloat16)

    [expected], [picture] = (made(one, RECIPE, WORD) for one in (models, half))

    assert np.abs(pixels(expected) - pixels(picture)).mean() < 3


def test_the_lora_works_at_its_strength(base: Path) -> None:
    """The strength that is set on the models shows; at 0 the picture is the base model's."""
    models = load_models(base, Prediction.EPSILON)
    [expected] = made(models, RECIPE)
    add_lora(models, character_lora().spec.training.lora)
    with torch.no_grad():
        for name, parameter in models.unet.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)

    set_strength(models, 0.0)
    [without] = made(models, RECIPE)
    set_strength(models, 0.85)
    [with_lora] = made(models, RECIPE)

    assert_same(expected, without)
    assert np.abs(pixels(expected) - pixels(with_lora)).mean() > 0.1


def test_a_base_model_of_velocity_is_sampled_as_such(base: Path, models: DiffusionModels) -> None:
    """The prediction type reaches the sampler."""
    [noise], [velocity] = (made(one, RECIPE) for one in (models, load_models(base, Prediction.V_PREDICTION)))

    assert np.abs(pixels(noise) - pixels(velocity)).mean() > 1


def test_each_denoising_step_is_reported(models: DiffusionModels) -> None:
    """As many as the recipe announces, whatever the batch."""
    recipe = replace(RECIPE, prompts=("1girl", "sword"), num=2, batch=2)
    steps: list[None] = []

    pictures = list(generate(models, [], recipe, CLIP_SKIP, lambda: steps.append(None)))

    assert (8, 12) == (recipe.pictures, recipe.denoising_steps)
    assert (8, 12) == (len(pictures), len(steps))


@pytest.mark.parametrize(
    ("change", "says"),
    [({"prompts": ("{re:zero}",)}, r"re\\:zero"), ({"negative_prompt": "{a"}, "never closed"), ({"width": 60}, "multiple of 8")],
)
def test_a_wrong_recipe_says_what_to_do(models: DiffusionModels, change: dict[str, object], says: str) -> None:
    """Before any picture is computed."""
    with pytest.raises(TrainingError, match=says) as refused:
        made(models, replace(RECIPE, **change))  # type: ignore[arg-type]

    assert Outcome.SPEC_INVALID == refused.value.outcome


def test_the_guides_defaults() -> None:
    """512x768, 7.5, 30 steps, strength 0.85, one picture, a drawn seed, a negative prompt."""
    recipe = Recipe(prompts=("1girl",))

    assert (512, 768, 7.5, 30, 0.85) == (recipe.width, recipe.height, recipe.guidance_scale, recipe.inference_steps, recipe.lora_scale)
    assert (1, 1, None) == (recipe.num, recipe.batch, recipe.seed)
    assert "lowres" in recipe.negative_prompt


def test_a_resource_without_prompts_shows_its_character() -> None:
    """One neutral prompt with the trigger word, the one that the check reads; the resource's own prompts win."""
    assert effective_preview_prompts(character_lora().spec) == Recipe.of(Preview(), "surtr_arknights").prompts
    assert (neutral_prompt("surtr_arknights"),) == Recipe.of(Preview(), "surtr_arknights").prompts
    assert ("sword",) == Recipe.of(Preview(prompts=("sword",)), "surtr_arknights").prompts
    assert 0 == Recipe.of(Preview(), "surtr_arknights").seed


def drawn(prompt: str = "1girl, {surtr_arknights:1.2}", seed: int = 7) -> Picture:
    """A picture for tests of files, which no model is needed for."""
    return Picture(Image.new("RGB", (8, 8), "red"), prompt, seed, 0, replace(RECIPE, prompts=(prompt,)), CLIP_SKIP)


def test_files_are_named_as_the_guide_names_them(tmp_path: Path) -> None:
    """`{n}-{seed}-{prompt[:50]}.png`, `{n}-{seed}-info.yaml`; what no file system takes is an underscore."""
    save_picture(drawn('a/b\\c:d*e?f"g<h>i|j\n' + "x" * 50), tmp_path)
    save_picture(drawn("1girl", seed=0), tmp_path)

    assert ["0-7-a_b_c_d_e_f_g_h_i_j_" + "x" * 30 + ".png", "0-7-info.yaml", "1-0-1girl.png", "1-0-info.yaml"] == sorted(
        file.name for file in tmp_path.iterdir()
    )


def test_foreign_files_do_no_harm(tmp_path: Path) -> None:
    """The number after the largest, whatever else lies there."""
    for name in ("foo.png", "-1-x.png", "²-7-x.png", "41-7-old.png", ".draft"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()

    image, _ = save_picture(drawn(), tmp_path)

    assert image.name.startswith("42-7-")


def test_processes_that_write_at_once_share_no_number(tmp_path: Path) -> None:
    """Three processes, ten pictures each: numbers 0 to 29, nothing lost, no claim left."""
    program = """
import sys
from pathlib import Path
from PIL import Image
from charalora_trainer.stages.picture_files import save_picture
from charalora_trainer.stages.recipe import Picture, Recipe
for _ in range(10):
    save_picture(Picture(Image.new("RGB", (8, 8)), "1girl", 7, 0, Recipe(("1girl",)), 1), Path(sys.argv[1]))
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]

    assert [0, 0, 0] == [process.wait(timeout=120) for process in processes]
    assert list(range(30)) == sorted(int(file.name.split("-")[0]) for file in tmp_path.glob("*.png"))
    assert 60 == len(list(tmp_path.iterdir()))


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Neither a part of it nor its claim on a number."""
    unwritable = replace(drawn(), image=Image.new("HSV", (8, 8)))

    with pytest.raises(OSError, match="HSV"):
        save_picture(unwritable, tmp_path)

    assert [] == list(tmp_path.iterdir())


def test_the_yaml_makes_the_picture_again(models: DiffusionModels, tmp_path: Path) -> None:
    """Every setting is resolved; its `preview` is one that a resource takes, and gives the same pixels."""
    picture = made(models, replace(RECIPE, num=2), WORD)[1]
    _, info = save_picture(
        picture,
        tmp_path,
        Ingredients(Ingredient("toy", "ab" * 32), Ingredient("lora-100"), (Ingredient("surtr_arknights-100", "cd" * 32),)),
    )

    noted = yaml.safe_load(info.read_text(encoding="utf-8"))
    recipe = Recipe.of(Preview.model_validate(noted["preview"]), "surtr_arknights")
    [again] = made(models, recipe, WORD)

    assert (8, 1, "Euler a") == (noted["seed"], noted["clipSkip"], noted["sampler"])
    assert {"name": "toy", "sha256": "ab" * 32} == noted["baseModel"]
    assert {"name": "lora-100", "sha256": None} == noted["lora"]
    assert [{"name": "surtr_arknights-100", "sha256": "cd" * 32}] == noted["embeddings"]
    assert {"charalora", "torch", "diffusers", "transformers"} == set(noted["versions"])
    assert_same(picture, again)


def test_the_png_tells_webui_how_it_was_made(tmp_path: Path) -> None:
    """The `parameters` text as webui writes it, its own emphasis included: pasting it there sets the same picture up."""
    sources = Ingredients(Ingredient("toy", "ab" * 32), Ingredient("lora-100", "ef" * 32), (Ingredient("surtr_arknights", "cd" * 32),))
    image, _ = save_picture(drawn(r"1girl, {surtr_arknights:1.2}, re:zero \(x\)"), tmp_path, sources)

    text = Image.open(image).info["parameters"]

    last = (
        "Steps: 3, Sampler: Euler a, CFG scale: 7.5, Seed: 7, Size: 64x96, Model hash: ababababab, Model: toy, Clip skip: 2, "
        'Lora hashes: "lora-100: efefefefefef", TI hashes: "surtr_arknights: cdcdcdcdcdcd", Version: Charalora 0.1.0'
    )
    assert [
        r"1girl, (surtr_arknights:1.2), re:zero \(x\) <lora:lora-100:0.85>",
        "Negative prompt: blurry",
        last,
    ] == text.splitlines()


def test_webui_reads_every_parameter_back(tmp_path: Path) -> None:
    """By webui's own expression for the last line (modules/infotext_utils.py), values with commas or colons are quoted JSON."""
    image, _ = save_picture(drawn(), tmp_path, Ingredients(Ingredient("toy: the first, small", "ab" * 32)))

    last = Image.open(image).info["parameters"].splitlines()[-1]
    read = dict(re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last))

    assert ("7", "64x96", "2") == (read["Seed"], read["Size"], read["Clip skip"])
    assert "toy: the first, small" == json.loads(read["Model"])


def test_any_language_fits_into_the_png(tmp_path: Path) -> None:
    """Text beyond Latin-1 is kept."""
    image, _ = save_picture(drawn("史尔特尔, ✨"), tmp_path)

    assert "史尔特尔, ✨" == Image.open(image).info["parameters"].splitlines()[0]
    assert "0-7-史尔特尔, ✨.png" == image.name
