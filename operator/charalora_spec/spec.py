"""The resource `CharacterLora`, which a user writes, the operator mounts and the trainer reads: one class for all three."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, JsonValue

from charalora_spec.cluster import AddressingStyle, Cache, Resources, Run, Scheduling, Storage, Toleration
from charalora_spec.inputs import BaseModelSource, Captions, Character, Dataset, OnMissing, Prediction, Sizing, Templates
from charalora_spec.outputs import Keep, Output, Preview
from charalora_spec.parts import CEL_RULES, Part, Rule
from charalora_spec.training import Layers, LearningRate, Lora, Loss, Optimizer, Precision, Schedule, Training
from charalora_spec.values import LABEL

__all__ = [
    "API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION", "AddressingStyle", "BaseModelSource", "Cache", "Captions", "Character",
    "CharacterLora", "CharacterLoraSpec", "Dataset", "Keep", "Layers", "LearningRate", "Lora", "Loss", "Metadata", "OnMissing",
    "Optimizer", "Output", "Precision", "Prediction", "Preview", "Resources", "Run", "Schedule", "Scheduling", "Sizing", "Storage",
    "Templates", "Toleration", "Training", "effective_preview_prompts",
]  # fmt: skip

GROUP = "charalora.dev"
VERSION = "v1alpha1"
KIND = "CharacterLora"
PLURAL = "characterloras"
API_VERSION = f"{GROUP}/{VERSION}"

_FIXED: dict[str, JsonValue] = {
    CEL_RULES: [{"rule": "self == oldSelf", "message": "A started training cannot change; create a new CharacterLora."}]
}


class CharacterLoraSpec(Part):
    """What a user asks for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "output",
            ("training", "output"),
            "self.output.keep != 'Best' || !has(self.training.loss.heldOut) || self.training.loss.heldOut >= 1",
            "keep: Best needs training.loss.heldOut of 1 or more, which is what best is measured by; leave heldOut out or keep All",
            lambda training, output: output.keep is not Keep.BEST or training.loss.held_out != 0,
        ),
    )

    character: Character = Field(description="Who is learned. Cannot change.", json_schema_extra=_FIXED)
    dataset: Dataset = Field(description="The captioned pictures. Cannot change.", json_schema_extra=_FIXED)
    base_model: BaseModelSource = Field(description="The model that is adapted. Cannot change.", json_schema_extra=_FIXED)
    training: Training = Field(Training(), description="How it is trained. Cannot change.", json_schema_extra=_FIXED)
    preview: Preview = Field(Preview(), description="Pictures made at each checkpoint. Cannot change.", json_schema_extra=_FIXED)
    output: Output = Field(description="Where the files go. Cannot change.", json_schema_extra=_FIXED)
    storage: Storage = Field(Storage(), description="How the object storage is reached.")
    resources: Resources = Field(Resources(), description="What a cluster gives to the training. Cannot change.", json_schema_extra=_FIXED)
    cache: Cache = Field(Cache(), description="A warm place for base models and compiled kernels.")
    scheduling: Scheduling = Field(Scheduling(), description="Where and when the cluster runs the pods.")
    run: Run = Field(Run(), description="What may change while the training runs.")


class Metadata(Part):
    """The part of Kubernetes' object metadata that we read; the rest is let through unread."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(min_length=1, max_length=63), LABEL] = Field(description="Name of the resource, a DNS label.")
    namespace: Annotated[str, Field(min_length=1, max_length=63), LABEL] = Field("default", description="Namespace of the resource.")
    labels: Mapping[str, str] = Field({}, description="Labels of the resource.")
    annotations: Mapping[str, str] = Field({}, description="Annotations of the resource.")


class CharacterLora(Part):
    """A character to learn: the whole resource."""

    api_version: Literal["charalora.dev/v1alpha1"] = Field(description="charalora.dev/v1alpha1")
    kind: Literal["CharacterLora"] = Field(description="CharacterLora")
    metadata: Metadata = Field(description="Name and namespace.")
    spec: CharacterLoraSpec = Field(description="What is asked for.")
    status: dict[str, Any] = Field({}, exclude=True, description="What the operator last observed; let through unread.")


def effective_preview_prompts(spec: CharacterLoraSpec) -> tuple[str, ...]:
    """The prompts of the preview pictures: the user's, or one neutral prompt with the character's name."""
    return spec.preview.prompts or (f"masterpiece, best quality, 1girl, solo, {{{spec.character.name}:1.2}}",)
