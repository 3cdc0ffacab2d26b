from typing import Any

import pytest
from pydantic import ValidationError

from builders import character_lora
from charalora_spec.spec import CharacterLora

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "saving later than training ends": ({"training.steps": 50, "training.saveEvery": 60}, "spec.training.saveEvery", "greater than steps"),
    "saving later than a short training ends, by default": ({"training.steps": 50}, "spec.training.save_every", "greater than steps"),
    "a width that is no multiple of 8": (
        {"dataset.sizing": "Fit", "dataset.width": 100, "dataset.height": 96}, "spec.dataset.width", "multiple of 8",
    ),
    "a preview's height that is no multiple of 8": ({"preview.height": 100}, "spec.preview.height", "multiple of 8"),
    "Fit without width": ({"dataset.sizing": "Fit", "dataset.height": 64}, "spec.dataset.width", "needed with sizing"),
    "Fit without height": ({"dataset.sizing": "Fit", "dataset.width": 64}, "spec.dataset.height", "needed with sizing"),
    "Bucket without height": ({"dataset.sizing": "Bucket", "dataset.width": 64}, "spec.dataset.height", "needed with sizing"),
    "several nodes without a GPU": ({"resources.gpus": 0, "resources.nodes": 2}, "spec.resources.nodes", "gpus of 1 or more"),
    "the best of what nothing measures": ({"output.keep": "Best", "training.loss.heldOut": 0}, "spec.output", "heldOut of 1 or more"),
    "a data set by http": ({"dataset.uri": "https://example.com/a/"}, "spec.dataset.uri", "must be s3://"),
    "a data set without a scheme": ({"dataset.uri": "/data/surtr"}, "spec.dataset.uri", "must be s3://"),
    "a data set on the hub": ({"dataset.uri": "hf://org/repo"}, "spec.dataset.uri", "must be s3://"),
    "a relative file": ({"baseModel.uri": "file://models/toy"}, "spec.baseModel.uri", "must be s3://"),
    "a bucket with a capital": ({"output.uri": "s3://Loras/surtr/"}, "spec.output.uri", "must be s3://"),
    "a hub without a repository": ({"baseModel.uri": "hf://org"}, "spec.baseModel.uri", "must be s3://"),
    "a control character in a uri": ({"dataset.uri": "s3://datasets/a\nb/"}, "spec.dataset.uri", "must be s3://"),
    "a way out of a folder": ({"baseModel.uri": "file:///cache/../etc"}, "spec.baseModel.uri", "must not contain '..'"),
    "a way out at the end": ({"output.uri": "s3://loras/a/.."}, "spec.output.uri", "must not contain '..'"),
    "a password in a data set's uri": ({"dataset.uri": "s3://user:pass@datasets/a/"}, "spec.dataset.uri", "credential"),
    "a user in an endpoint": ({"storage.endpoint": "http://me@localhost:8333"}, "spec.storage.endpoint", "credential"),
    "a signed uri": ({"baseModel.uri": "s3://models/a.ckpt?X-Amz-Signature=1"}, "spec.baseModel.uri", "credential"),
    "a signed uri in small letters": ({"preview.baseModel": "s3://models/a?x-amz-credential=1"}, "spec.preview.baseModel", "credential"),
    "a signed uri of the old kind": ({"dataset.uri": "s3://d-s/a?AWSAccessKeyId=1&Signature=2"}, "spec.dataset.uri", "credential"),
    "an endpoint that is no address": ({"storage.endpoint": "localhost:8333"}, "spec.storage.endpoint", "must be http"),
    "a word with a comma": ({"character.name": "surtr,arknights"}, "spec.character.name", "must start with a letter"),
    "a word with a dot": ({"character.name": "surtr.v2"}, "spec.character.name", "must start with a letter"),
    "a word with a space": ({"character.name": "surtr arknights"}, "spec.character.name", "must start with a letter"),
    "a word with a brace": ({"character.name": "surtr{"}, "spec.character.name", "must start with a letter"),
    "a word that starts with a digit": ({"character.name": "2b"}, "spec.character.name", "must start with a letter"),
    "a word that ends with a line end": ({"character.name": "surtr\n"}, "spec.character.name", "must start with a letter"),
    "a word in other letters": ({"character.name": "史尔特尔"}, "spec.character.name", "must start with a letter"),
    "a word of 64 letters": ({"character.name": "a" * 64}, "spec.character.name", "at most 63"),
    "an empty word": ({"character.name": ""}, "spec.character.name", "at least 1"),
    "a name with capitals": ({"metadata.name": "Surtr"}, "metadata.name", "lower-case"),
    "a name with a dot": ({"metadata.name": "surtr.v2"}, "metadata.name", "lower-case"),
    "a name of 64 letters": ({"metadata.name": "a" * 64}, "metadata.name", "at most 63"),
    "an extension with its dot": ({"dataset.captions.extension": ".txt"}, "spec.dataset.captions.extension", "after a file name's dot"),
    "a chance above 1": ({"dataset.captions.tagDropout": "1.01"}, "spec.dataset.captions.tagDropout", "from 0 to 1"),
    "no strength at all": ({"training.lora.alpha": "0"}, "spec.training.lora.alpha", "from 0.001"),
    "an amount of memory in words": ({"resources.memory": "lots"}, "spec.resources.memory", "quantity"),
    "a GPU without a vendor": ({"resources.gpuResource": "gpu"}, "spec.resources.gpuResource", "extended resource"),
    "a queue with a slash": ({"scheduling.queueName": "team/queue"}, "spec.scheduling.queueName", "Kubernetes object"),
    "a queue that is too long for a label": ({"scheduling.queueName": "a" * 64}, "spec.scheduling.queueName", "at most 63"),
    "a GPU by the name of its quota": ({"resources.gpuResource": "requests.nvidia.com/gpu"}, "spec.resources.gpuResource", "requests."),
    "a GPU whose name is too long": ({"resources.gpuResource": f"a/{'b' * 64}"}, "spec.resources.gpuResource", "extended resource"),
    "a node's label with a space": ({"scheduling.nodeSelector": {"a b": "c"}}, "spec.scheduling.nodeSelector", "no label's"),
    "a node's label of 64 letters": ({"scheduling.nodeSelector": {"a" * 64: "c"}}, "spec.scheduling.nodeSelector", "no label's"),
    "a node's label with a space in its value": (
        {"scheduling.nodeSelector": {"a": "c d"}}, "spec.scheduling.nodeSelector.a", "letters, digits",
    ),
    "every taint, with a value": (
        {"scheduling.tolerations": [{"operator": "Exists", "value": "a"}]}, "spec.scheduling.tolerations.0.value", "Equal alone",
    ),
    "a taint without a key": ({"scheduling.tolerations": [{"value": "a"}]}, "spec.scheduling.tolerations.0.operator", "must be Exists"),
    "a taint's key with a space": ({"scheduling.tolerations": [{"key": "a b"}]}, "spec.scheduling.tolerations.0.key", "nvidia.com/gpu"),
    "seconds for a taint that evicts nobody": (
        {"scheduling.tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]},
        "spec.scheduling.tolerations.0.tolerationSeconds",
        "NoExecute alone",
    ),
    "17 prompts": ({"preview.prompts": ["a"] * 17}, "spec.preview.prompts", "at most 16"),
    "an empty prompt": ({"preview.prompts": [""]}, "spec.preview.prompts.0", "at least 1"),
}  # fmt: skip

ACCEPTED: dict[str, dict[str, Any]] = {
    "saving once, at the end": {"training.steps": 50, "training.saveEvery": 50},
    "Bucket with both sizes": {"dataset.sizing": "Bucket", "dataset.width": 512, "dataset.height": 704},
    "Same with sizes": {"dataset.width": 512, "dataset.height": 704},
    "one node without a GPU": {"resources.gpus": 0},
    "the best by held-out loss": {"output.keep": "Best", "training.loss.heldOut": 2},
    "the best of a data set that may be large enough": {"output.keep": "Best"},
    "a data set in a folder": {"dataset.uri": "file:///data/surtr/"},
    "a bucket without a prefix": {"dataset.uri": "s3://datasets"},
    "a prefix in other letters, with spaces": {"dataset.uri": "s3://datasets/史尔特尔 v2/"},
    "a base model on the hub": {"baseModel.uri": "hf://stablediffusionapi/anything-v5"},
    "a base model on the hub at a revision": {"baseModel.uri": "hf://org/repo@refs/pr/1"},
    "a base model in one file": {"baseModel.uri": "s3://models/anime.ckpt"},
    "an @ in a key": {"dataset.uri": "s3://datasets/surtr@2x/"},
    "dots in a key": {"dataset.uri": "s3://datasets/v1..2/surtr/"},
    "an endpoint with a port": {"storage.endpoint": "https://s3.example.com:9000"},
    "no Secret": {"storage.secretName": ""},
    "a word of 63 letters": {"character.name": "a" * 63},
    "a word with a hyphen": {"character.name": "Surtr-2"},
    "a slice of a GPU": {"resources.gpuResource": "nvidia.com/mig-1g.5gb"},
    "half a core": {"resources.cpu": "500m"},
    "every taint": {"scheduling.tolerations": [{"operator": "Exists"}]},
    "a taint of a vendor": {"scheduling.tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]},
    "a taint for a while": {"scheduling.tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 60}]},
    "a node's label of a vendor": {"scheduling.nodeSelector": {"nvidia.com/gpu.product": "A100-SXM4-80GB", "disk": ""}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_field_and_what_to_do(case: str) -> None:
    """A wrong value is reported at its field."""
    overrides, path, message = REFUSED[case]

    with pytest.raises(ValidationError) as caught:
        character_lora(**overrides)

    problems = {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}
    assert [path] == list(problems)
    assert message in problems[path]


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    """What is at the edge of a rule, on the right side."""
    assert isinstance(character_lora(**ACCEPTED[case]), CharacterLora)


def test_a_rule_is_silent_about_a_field_that_is_wrong_itself() -> None:
    """One mistake, one problem: steps is no number here, so nothing is said about saveEvery."""
    with pytest.raises(ValidationError) as caught:
        character_lora(training={"steps": "50", "saveEvery": 60})

    assert [("spec", "training", "steps")] == [error["loc"] for error in caught.value.errors()]


def test_a_mistake_beside_it_does_not_silence_a_rule() -> None:
    """All problems at once: the seed's has nothing to do with saveEvery's."""
    with pytest.raises(ValidationError) as caught:
        character_lora(training={"steps": 50, "saveEvery": 60, "seed": -1})

    assert {"seed", "saveEvery"} == {error["loc"][-1] for error in caught.value.errors()}
