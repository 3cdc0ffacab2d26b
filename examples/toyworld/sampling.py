"""Pictures from the toy base model."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

BASE = Path(__file__).with_name("base")
BATCH = 16


def load_base(folder: Path = BASE) -> StableDiffusionPipeline:
    """The base model in fp32, with DDIM as its sampler."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline, prompts: list[str], first_seed: int = 0, steps: int = 30, guidance: float = 6.0
) -> list[Image.Image]:
    """One picture for each prompt; picture n starts from noise of seed `first_seed + n`, whatever the batch."""
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        dice = [torch.Generator().manual_seed(first_seed + first + offset) for offset in range(len(part))]
        pictures += pipeline(part, generator=dice, num_inference_steps=steps, guidance_scale=guidance).images
    return pictures
