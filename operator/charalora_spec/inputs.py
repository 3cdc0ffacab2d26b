"""What a training starts from: `spec.character`, `spec.dataset` and `spec.baseModel`."""

from enum import Enum
from typing import Annotated, ClassVar

from pydantic import Field

from charalora_spec.parts import Part, Rule
from charalora_spec.values import WORD, FileExtension, ModelUri, Number, Size, StorageUri, Switch, Whole, between


class Sizing(Enum):
    """How pictures become batches of one size."""

    SAME = "Same"
    BUCKET = "Bucket"
    FIT = "Fit"


class OnMissing(Enum):
    """What happens to a picture without a caption."""

    FAIL = "Fail"
    SKIP = "Skip"
    WORD_ONLY = "WordOnly"


class Templates(Enum):
    """The sentences around a caption."""

    OBJECT = "object"
    WORD = "word"


class Prediction(Enum):
    """What the base model's UNet predicts."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


class Character(Part):
    """Who is learned."""

    name: Annotated[str, Field(min_length=1, max_length=63), WORD] = Field(
        description="Trigger word, name of the embedding and of the files, such as surtr_arknights; 1 to 63 characters."
    )
    vectors: Whole = Field(4, ge=1, le=64, description="Rows of the embedding: how many of a prompt's 75 positions the word takes.")
    init_text: str = Field(
        "", max_length=1024, description="Words whose vectors the embedding starts from; empty: random, with standard deviation 0.017."
    )
    class_: str = Field(
        "", alias="class", max_length=256, description="What the character is, for {class} in the caption templates, such as 1girl."
    )


class Captions(Part):
    """How a picture's tags become the text that it is trained with."""

    extension: FileExtension = Field("txt", description="Extension of the caption files, without the dot.")
    on_missing: OnMissing = Field(
        OnMissing.FAIL,
        description="Picture without caption: Fail stops the run, Skip leaves it out and says so, WordOnly trains it with the word alone.",
    )
    shuffle_tags: Switch = Field(default=True, description="Put the tags in another order each time a picture is seen.")
    tag_dropout: Annotated[Number, between(0, 1)] = Field(Number("0.1"), description="Chance of each tag to be left out each time, 0 to 1.")
    keep_tags: Whole = Field(0, ge=0, le=75, description="First tags that are neither moved nor left out.")
    caption_dropout: Annotated[Number, between(0, 1)] = Field(
        Number("0"), description="Chance of the whole caption to be empty each time, 0 to 1."
    )
    templates: Templates = Field(
        Templates.OBJECT,
        description='object: textual-inversion sentences such as "a photo of a {word} {class}, {tags}"; word: "{word} {class}, {tags}".',
    )


_NEEDS_SIZE = "is needed with sizing: Bucket or Fit; write the size that the pictures shall get, in pixels"


_NEEDS_SIZE = "is needed with sizing: Bucket or Fit; write the size that the pictures shall get, in pixels"


def _sized(sizing: Sizing, size: int | None) -> bool:
    return sizing is Sizing.SAME or size is not None


class Dataset(Part):
    """The captioned pictures."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("width", ("sizing", "width"), "self.sizing == 'Same' || has(self.width)", _NEEDS_SIZE, _sized),
        Rule("height", ("sizing", "height"), "self.sizing == 'Same' || has(self.height)", _NEEDS_SIZE, _sized),
    )

    uri: StorageUri = Field(description="Where the pictures and captions lie: s3://bucket/prefix/ or file:///folder/.")
    sizing: Sizing = Field(
        Sizing.SAME,
        description="Same: all pictures have one size already. Bucket: groups by aspect ratio, each of about width × height pixels. "
        "Fit: every picture is scaled and cut to width × height.",
    )
    width: Size | None = Field(None, description="Width in pixels, a multiple of 8, 64 to 4096; null with Same: taken from the pictures.")
    height: Size | None = Field(None, description="Height in pixels, a multiple of 8, 64 to 4096; null with Same: taken from the pictures.")
    captions: Captions = Field(Captions(), description="How tags become the text of a picture.")
    flip: Switch = Field(
        default=False, description="Show every second picture mirrored; not for characters with a side parting or one eye patch."
    )


class BaseModelSource(Part):
    """The Stable Diffusion 1.x model that is adapted."""

    uri: ModelUri = Field(
        description="A diffusers folder (safetensors or .bin) or one .safetensors or .ckpt file: s3://bucket/key, "
        "hf://organisation/repository[@revision], or file:///path under the mounted cache (anywhere with `charalora run`)."
    )
    prediction: Prediction = Field(Prediction.EPSILON, description="What the model's UNet predicts: epsilon (the noise) or v_prediction.")
