from typing import Any

import pytest
from pydantic import ValidationError

from builders import character_lora, character_lora_wire
from charalora_spec.crd import custom_resource_definition
from charalora_spec.spec import CharacterLora, CharacterLoraSpec, effective_preview_prompts

DEFAULTS: dict[str, Any] = {
    "character": {"name": "surtr_arknights", "vectors": 4, "initText": "", "class": ""},
    "dataset": {
        "uri": "s3://datasets/surtr_arknights/",
        "sizing": "Same",
        "width": None,
        "height": None,
        "captions": {
            "extension": "txt",
            "onMissing": "Fail",
            "shuffleTags": True,
            "tagDropout": "0.1",
            "keepTags": 0,
            "captionDropout": "0",
            "templates": "object",
        },
        "flip": False,
    },
    "baseModel": {"uri": "s3://models/toy/", "prediction": "epsilon"},
    "training": {
        "steps": 1000,
        "saveEvery": 100,
        "batchSize": 4,
        "gradientAccumulation": 1,
        "seed": 114514,
        "precision": "bf16",
        "clipSkip": 1,
        "learningRate": {
            "unet": "1e-4",
            "textEncoder": "1e-5",
            "embedding": "3e-3",
            "scaleWithBatch": True,
            "warmupSteps": 50,
            "schedule": "constant",
        },
        "lora": {"unetRank": 8, "textEncoderRank": 4, "alpha": "1.0", "dropout": "0", "layers": "guide"},
        "optimizer": {"weightDecay": "1e-3", "embeddingWeightDecay": "5e-4", "maxGradNorm": "1.0"},
        "loss": {"minSnrGamma": None, "noiseOffset": "0", "heldOut": None},
    },
    "preview": {
        "prompts": [],
        "negativePrompt": "lowres, worst quality, low quality, blurry, jpeg artifacts, bad anatomy, bad hands, extra digits, cropped, "
        "text, watermark, signature",
        "baseModel": None,
        "width": 512,
        "height": 768,
        "guidanceScale": "7.5",
        "inferenceSteps": 30,
        "loraScale": "0.85",
        "num": 1,
        "seed": 0,
    },
    "output": {"uri": "s3://loras/surtr/", "keep": "All"},
    "storage": {"endpoint": "", "region": "us-east-1", "secretName": "s3-credentials", "caSecretName": "", "addressingStyle": "auto"},
    "resources": {"gpus": 2, "nodes": 1, "gpuResource": "nvidia.com/gpu", "cpu": "8", "memory": "32Gi", "sharedMemory": "8Gi"},
    "cache": {"claimName": None, "node": False},
    "scheduling": {"queueName": None, "priorityClassName": None, "nodeSelector": {}, "tolerations": [], "serviceAccountName": None},
    "run": {"suspend": False, "retries": 3, "preemptionRetries": 20, "deadlineSeconds": None, "ttlSecondsAfterFinished": None},
}


def test_four_fields_are_enough_and_the_rest_is_the_guides_recipe() -> None:
    """Every field that is left out has the default that is promised to users."""
    assert DEFAULTS == character_lora().spec.model_dump(by_alias=True, mode="json")


def test_a_file_with_every_default_written_out_means_the_same_as_one_without() -> None:
    """What the operator mounts is what the user asked for."""
    written_out = CharacterLoraSpec.model_validate(DEFAULTS)

    assert character_lora().spec == written_out


@pytest.mark.parametrize("required", ["character.name", "dataset.uri", "baseModel.uri", "output.uri"])
def test_what_has_no_sensible_default_is_required(required: str) -> None:
    """Name, pictures, base model and output cannot be guessed."""
    with pytest.raises(ValidationError, match="Field required"):
        character_lora(**{required: ...})


def test_what_was_written_is_written_back() -> None:
    """Numbers keep their spelling on the way through the class, so that a mounted file equals the applied one."""
    numbers = {"unet": "2.50e-4", "textEncoder": "0", "embedding": "0.0030"}
    spec = character_lora(training__learningRate=numbers).spec

    assert numbers.items() <= spec.model_dump(by_alias=True, mode="json")["training"]["learningRate"].items()


def test_a_resource_survives_the_way_through_json() -> None:
    """The trainer reads from the mounted file what the operator validated."""
    resource = character_lora(training__learningRate__unet="2.50e-4", dataset__sizing="Fit", dataset__width=64, dataset__height=128)

    assert resource == CharacterLora.model_validate_json(resource.model_dump_json(by_alias=True))


def test_numbers_in_quotes_are_numbers_in_python() -> None:
    """They are parsed once, here."""
    assert 1e-4 == character_lora().spec.training.learning_rate.unet


@pytest.mark.parametrize("written", [0.1, 1, "", "fast", "-1", "1e999", "nan", "inf", "0x1", " 1", "1\n", "1,5", "1_0", ".5"])
def test_what_is_not_a_plain_number_in_quotes_is_refused(written: Any) -> None:
    """Kubernetes would refuse a bare number, and a number that is not finite would ruin a training late."""
    wire = character_lora_wire()
    wire["spec"]["training"] = {"learningRate": {"unet": written}}

    with pytest.raises(ValidationError, match="in quotes"):
        CharacterLora.model_validate(wire)


def test_null_means_left_out() -> None:
    """The API server drops a null before it fills in defaults; the same file must mean the same without a cluster."""
    wire = character_lora_wire(training__steps=None, preview__prompts=None, storage=None, dataset__width=None)

    assert character_lora() == CharacterLora.model_validate(wire)


def test_a_misspelt_field_is_refused_even_when_it_is_empty() -> None:
    """A field without a value is null in YAML."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        character_lora(training__stepz=None)


@pytest.mark.parametrize("field", ["training__steps", "preview__seed", "resources__gpus"])
@pytest.mark.parametrize("written", ["10", True, 10.0])
def test_a_whole_number_is_nothing_but_a_whole_number(field: str, written: Any) -> None:
    """No text, no switch, no point: the API server takes none of them either."""
    wire = character_lora_wire()
    part, name = field.split("__")
    wire["spec"][part] = {name: written}

    with pytest.raises(ValidationError, match="valid integer"):
        CharacterLora.model_validate(wire)


def test_an_unknown_field_is_refused() -> None:
    """A misspelt field would otherwise train with its default."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        character_lora(training__stepz=5)


def test_the_wire_speaks_camel_case_only() -> None:
    """Kubernetes would drop a snake_case field."""
    wire = character_lora_wire()
    wire["spec"]["training"] = {"save_every": 5}

    with pytest.raises(ValidationError, match="Extra inputs"):
        CharacterLora.model_validate(wire)


def test_a_resource_cannot_be_changed() -> None:
    """What ran is what was asked for."""
    spec = character_lora().spec

    with pytest.raises(ValidationError, match="frozen"):
        spec.training.steps = 5  # type: ignore[misc]


def test_what_kubernetes_adds_to_an_object_is_let_through() -> None:
    """A resource that was read back from a cluster runs on this machine, too."""
    wire = character_lora_wire() | {"status": {"attempt": 2, "fromTheFuture": []}}
    wire["metadata"] |= {"uid": "1", "resourceVersion": "2", "managedFields": [{}], "creationTimestamp": "2026-01-01T00:00:00Z"}

    assert "surtr" == CharacterLora.model_validate(wire).metadata.name


def test_the_prompts_of_the_previews_are_the_users() -> None:
    """Given prompts are used as they are."""
    assert ("a {cat}",) == effective_preview_prompts(character_lora(preview__prompts=["a {cat}"]).spec)


def test_without_prompts_one_neutral_prompt_shows_the_character() -> None:
    """A CRD's default cannot name the character, so an empty list stands for it."""
    assert ("masterpiece, best quality, 1girl, solo, {skadi:1.2}",) == effective_preview_prompts(
        character_lora(character__name="skadi").spec
    )


def _leaves(node: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    inner = node.get("properties") or {}
    return {p: leaf for name, child in inner.items() for p, leaf in _leaves(child, f"{path}.{name}").items()} if inner else {path: node}


SCHEMA = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
LEAVES = _leaves(SCHEMA["spec"], "spec")


def test_the_resource_has_these_fields_and_no_others() -> None:
    """A field more is a decision: it must be said in the table of defaults above."""

    def names(value: Any, path: str) -> set[str]:
        return (
            {name for key, inner in value.items() for name in names(inner, f"{path}.{key}")}
            if isinstance(value, dict) and value
            else {path}
        )

    assert names(DEFAULTS, "spec") == set(LEAVES)


def test_every_field_is_described() -> None:
    """`kubectl explain` answers for each field, in sentences."""
    assert [] == [path for path, leaf in LEAVES.items() if not leaf["description"].endswith(".")]


def test_every_whole_number_has_bounds() -> None:
    """A typo of one zero too many is caught before a GPU is claimed."""
    assert [] == [path for path, leaf in LEAVES.items() if leaf["type"] == "integer" and not {"minimum", "maximum"} <= leaf.keys()]
