"""What a training leaves behind: `spec.preview` and `spec.output`."""

from enum import Enum
from typing import Annotated

from pydantic import Field

from charalora_spec.parts import Part
from charalora_spec.values import ModelUri, Number, Size, StorageUri, Whole, between

NEGATIVE_PROMPT = (
    "lowres, worst quality, low quality, blurry, jpeg artifacts, bad anatomy, bad hands, extra digits, cropped, text, watermark, signature"
)


class Keep(Enum):
    """Which checkpoints stay in the output prefix."""

    ALL = "All"
    LAST = "Last"
    BEST = "Best"


class Preview(Part):
    """The pictures that are made at each checkpoint."""

    prompts: tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...] = Field(
        (),
        max_length=16,
        description="Prompts, at most 16; {word:1.2} weighs. Empty: one neutral prompt with the character's name.",
    )
    negative_prompt: str = Field(NEGATIVE_PROMPT, max_length=2000, description="What the pictures shall not show.")
    base_model: ModelUri | None = Field(None, description="Another base model to make the pictures with; null: the one that is trained on.")
    width: Size = Field(512, description="Width in pixels, a multiple of 8, 64 to 4096.")
    height: Size = Field(768, description="Height in pixels, a multiple of 8, 64 to 4096.")
    guidance_scale: Annotated[Number, between(0, 100)] = Field(
        Number("7.5"), description="How strictly the prompt is followed, 0 to 100; 1 or less: no guidance."
    )
    inference_steps: Whole = Field(30, ge=1, le=1000, description="Denoising steps of one picture.")
    lora_scale: Annotated[Number, between(0, 10)] = Field(
        Number("0.85"), description="Strength of the LoRA in the pictures, 0 to 10; 1 is as trained."
    )
    num: Whole = Field(1, ge=0, le=64, description="Pictures for each prompt; 0: none at all.")
    seed: Whole = Field(0, ge=0, le=4_294_967_295, description="Seed of the first picture; the same seed gives the same picture.")


class Output(Part):
    """Where the files go."""

    uri: StorageUri = Field(
        description="Where the files are written: s3://bucket/prefix/ or file:///folder/. One prefix belongs to one resource."
    )
    keep: Keep = Field(
        Keep.ALL,
        description="Checkpoints that stay at the end: All, only the Last, or only the Best by held-out loss (needs held-out pictures). "
        "The published pair is of the best step; with Last, and where nothing was held out, of the last. Pictures of every step stay.",
    )
