"""What pictures are asked for, and what a picture is."""

import random
from dataclasses import dataclass

from PIL import Image

from charalora_spec.spec import Preview

_DEFAULT = Preview()
_SEEDS = 2**32


@dataclass(frozen=True)
class Recipe:
    """How pictures are made; the defaults are the guide's.

    Attributes:
        prompts: Each gets `num` · `batch` pictures.
        negative_prompt: What the pictures shall not show; emphasis works here too.
        width: Pixels, a multiple of the VAE's factor (8).
        height: Likewise.
        guidance_scale: How strictly the prompt is followed; 1 or less computes no guidance.
        inference_steps: Denoising steps.
        lora_scale: Strength of the LoRA. It is noted here; whoever puts the LoRA into the models sets it.
        num: Batches of pictures for each prompt.
        batch: Pictures computed at once; a picture does not depend on its neighbours.
        seed: Of the first picture of each prompt, the next has the next one; None draws one.
    """

    prompts: tuple[str, ...]
    negative_prompt: str = _DEFAULT.negative_prompt
    width: int = _DEFAULT.width
    height: int = _DEFAULT.height
    guidance_scale: float = float(_DEFAULT.guidance_scale)
    inference_steps: int = _DEFAULT.inference_steps
    lora_scale: float = float(_DEFAULT.lora_scale)
    num: int = _DEFAULT.num
    batch: int = 1
    seed: int | None = None

    @classmethod
    def of(cls, preview: Preview, word: str) -> "Recipe":
        """What a resource asks for; without prompts, a neutral one with the trigger word."""
        return cls(
            prompts=preview.prompts or (neutral_prompt(word),),
            negative_prompt=preview.negative_prompt,
            width=preview.width,
            height=preview.height,
            guidance_scale=preview.guidance_scale,
            inference_steps=preview.inference_steps,
            lora_scale=preview.lora_scale,
            num=preview.num,
            seed=preview.seed,
        )

    @property
    def pictures(self) -> int:
        """How many pictures it makes."""
        return len(self.prompts) * self.num * self.batch

    @property
    def denoising_steps(self) -> int:
        """How often `generate` reports a step."""
        return len(self.prompts) * self.num * self.inference_steps


@dataclass(frozen=True)
class Picture:
    """One picture and everything that makes it again.

    Attributes:
        image: RGB.
        prompt: What it shows.
        seed: Of its noise.
        number: Counted from 0 through all pictures of one call.
        recipe: The whole call's, with its seed.
        clip_skip: HCP counting, 1 where webui says 2.
    """

    image: Image.Image
    prompt: str
    seed: int
    number: int
    recipe: Recipe
    clip_skip: int


def neutral_prompt(word: str) -> str:
    """The prompt that `effective_preview_prompts` gives a resource without prompts, for commands that have no resource."""
    return f"masterpiece, best quality, 1girl, solo, {{{word}:1.2}}"


def drawn_seed() -> int:
    """A seed by chance, from the system: no generator that training uses moves."""
    return random.SystemRandom().randrange(_SEEDS)
