"""Hypothesis strategies for CharacterLoras as a user might write them, made from the CRD itself: within every bound, on it, and beyond it.

A document is the smallest one with a few fields set. A field is a path below `spec`; what it may take is read from its node in the schema.
"""

import string
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from builders import character_lora_wire
from charalora_spec.crd import custom_resource_definition

Document = dict[str, Any]
Schema = Mapping[str, Any]

SPEC: Schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

_LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=63)
_NAME = st.one_of(_LABEL, st.lists(_LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: len(name) <= 63))
_KEY = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="@?&"), max_size=40).filter(lambda key: ".." not in key)
_URI = st.one_of(
    st.builds("s3://{}/{}/".format, st.sampled_from(["abc", "a.b-c", "1" * 63]), _KEY),
    st.sampled_from(["s3://datasets", "file:///data/史尔特尔 v2/", "s3://datasets/surtr@2x/", "s3://b-1/v1..2/"]),
)
_MODEL = st.one_of(_URI, st.sampled_from(["hf://org/repo", "hf://org/repo@refs/pr/1", "file:///cache/model", "s3://models/anime.ckpt"]))
_QUANTITY = st.sampled_from(["1", "0", "8", "500m", "0.5", "32Gi", "1.5Gi", "2M", "1k", "1000000000000000000", "7Ti"])


def _toleration() -> st.SearchStrategy[Document]:
    key = st.sampled_from(["nvidia.com/gpu", "dedicated"])
    equal = st.fixed_dictionaries({"key": key}, optional={"operator": st.just("Equal"), "value": st.sampled_from(["", "training"])})
    exists = st.fixed_dictionaries({"operator": st.just("Exists")}, optional={"key": key})
    until = st.fixed_dictionaries(
        {"operator": st.just("Exists"), "effect": st.just("NoExecute"), "tolerationSeconds": st.integers(0, 3600)}
    )
    return st.one_of(equal, exists, until)


_WRITTEN: Mapping[str, st.SearchStrategy[Any]] = {
    "character.name": st.sampled_from(["a", "Surtr-2", "surtr_arknights", "a" * 63]),
    "dataset.uri": _URI,
    "dataset.captions.extension": st.sampled_from(["txt", "caption", "A1", "a" * 16]),
    "baseModel.uri": _MODEL,
    "preview.baseModel": _MODEL,
    "output.uri": _URI,
    "storage.endpoint": st.sampled_from(["", "http://localhost:8333", "https://s3.example.com/", "https://[::1]:9000"]),
    "storage.region": st.sampled_from(["us-east-1", "auto", "A", "eu_west-1", "a" * 63]),
    "storage.secretName": st.one_of(st.just(""), _NAME),
    "storage.caSecretName": st.one_of(st.just(""), _NAME),
    "resources.gpuResource": st.sampled_from(["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb", "a/b"]),
    "resources.cpu": st.sampled_from(["8", "500m", "0.5", "1", "2k"]),
    "resources.memory": _QUANTITY,
    "resources.sharedMemory": _QUANTITY,
    "cache.claimName": _NAME,
    "scheduling.queueName": _NAME,
    "scheduling.priorityClassName": _NAME,
    "scheduling.serviceAccountName": _NAME,
    "scheduling.tolerations": st.lists(_toleration(), max_size=3),
    "scheduling.nodeSelector": st.dictionaries(
        st.sampled_from(["disk", "nvidia.com/gpu.product", "a" * 63, "topology.kubernetes.io/zone"]),
        st.sampled_from(["", "ssd", "A100-80GB", "a" * 63]),
    ),
}
"""What a person writes where a rule and no type says what is right."""

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
_ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer()),  # see the test of 8.0
    st.sampled_from(
        [
            "",
            " ",
            "true",
            "1",
            "1.0",
            "-1",
            "1e999",
            "nan",
            "0x1",
            "1\n",
            "史尔特尔",
            "a/b",
            "../..",
            "a" * 64,
            "a" * 254,
            "é" * 1025,
            "\x00",
        ]
    ),
    st.sampled_from(
        [
            "s3://user:pass@bucket/a",
            "s3://bucket/a?X-Amz-Signature=1",
            "s3://Bucket/a",
            "s3://b/a",
            "s3://bucket/../a",
            "http://example.com/a",
            "file://a",
            "hf://a",
            "https://me@host",
            "https://host/path",
            "localhost:8333",
        ]
    ),
    _TEXT,
    st.lists(st.one_of(st.none(), st.integers(0, 3), st.text(max_size=3)), max_size=20),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.one_of(st.integers(), st.text(max_size=70)), max_size=3
    ),
)


def leaves(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field below a node that has no fields of its own, with its path."""
    for name, child in node.get("properties", {}).items():
        at = f"{path}.{name}".removeprefix(".")
        if "properties" in child:
            yield from leaves(child, at)
        else:
            yield at, child


def parts(node: Schema, path: str = "") -> Iterator[str]:
    """Every field below a node that has fields of its own."""
    for name, child in node.get("properties", {}).items():
        if "properties" in child:
            yield f"{path}.{name}".removeprefix(".")
            yield from parts(child, f"{path}.{name}")


LEAVES = dict(leaves(SPEC))
PARTS = list(parts(SPEC))


def right(path: str, node: Schema) -> st.SearchStrategy[Any]:
    """Values that a field takes, its bounds among them."""
    if path in _WRITTEN:
        return _WRITTEN[path]
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node["type"] == "boolean":
        return st.booleans()
    if node["type"] == "integer":
        return _whole(node)
    if node["type"] == "array":
        return st.lists(right("", node["items"]), max_size=3)
    return _number(node) if node.get("pattern", "").startswith("^[0-9]") else _text(node)


def _text(node: Schema) -> st.SearchStrategy[str]:
    letters = st.characters(exclude_categories=["Cs"])
    return st.text(letters, min_size=node.get("minLength", 0), max_size=node["maxLength"])


def _whole(node: Schema) -> st.SearchStrategy[int]:
    low, high = node.get("minimum", 0), node.get("maximum", 2**31)
    step = 8 if any("% 8" in rule["rule"] for rule in node.get("x-kubernetes-validations", [])) else 1
    return st.one_of(st.sampled_from([low, high]), st.integers(low // step, high // step).map(lambda number: number * step))


def _number(node: Schema) -> st.SearchStrategy[str]:
    rule = node["x-kubernetes-validations"][0]["rule"]
    low, high = (float(rule.rpartition(sign)[2].split(" ")[0]) for sign in (">= ", "<= "))
    near = st.floats(low, high).map(lambda number: f"{number:.12f}").filter(lambda text: low <= float(text) <= high)
    return st.one_of(
        st.sampled_from([f"{low:g}", f"{high:g}", f"{high:.1f}", f"{high:.0e}".replace("+", "")]).filter(
            lambda text: low <= float(text) <= high
        ),
        near,
    )


_NEAR: Mapping[str, list[Any]] = {
    "scheduling.nodeSelector": [
        {"a b": "c"},
        {"a" * 64: ""},
        {"a": "b c"},
        {"a/b/c": "d"},
        {"": ""},
        {"é": ""},
        {"a": "b" * 64},
    ],
    "scheduling.tolerations": [
        [{}],
        [{"operator": "Exists", "value": "a"}],
        [{"key": "a b"}],
        [{"key": "a", "tolerationSeconds": 1}],
        [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 2**63}],
        [{"key": "a", "efect": "NoExecute"}],
        [None],
        [{"operator": "Exists"}] * 17,
    ],
    "resources.gpuResource": ["requests.nvidia.com/gpu", "gpu", "a/" + "b" * 64, "a" * 244 + "/bb", "nvidia.com/"],
    "resources.cpu": ["1e3", "1.", "-1", "1 Gi", "1gi", "0.0001", "1" * 21],
}


def wrong(path: str, node: Schema) -> st.SearchStrategy[Any]:
    """Values at which something may be wrong: just beyond a bound, of another type, of another spelling, null, or anything."""
    beyond = [bound + step for bound, step in ((node.get("minimum"), -1), (node.get("maximum"), 1)) if bound is not None]
    longest = node.get("maxLength")
    long = ["a" * (longest + 1), "é" * longest, "\N{SMILING FACE WITH OPEN MOUTH}" * longest] if longest else []
    spelt = [value.swapcase() for value in node.get("enum", [])]
    many = [["a"] * (node["maxItems"] + 1)] if "maxItems" in node else []
    numbers = (
        ["1.0000000000001", "0" * 13, "1e100", "1E-4", "+1", ".5", "5.", "\N{ARABIC-INDIC DIGIT ONE}", " 1", "1e", 0.5]
        if "pattern" in node
        else []
    )
    typed = [1.5, True, 0, 2**63, -(2**63) - 1] if node.get("type") in {"integer", "boolean"} else []
    near = [*beyond, *long, *spelt, *many, *numbers, *typed, *_NEAR.get(path, [])]
    return st.one_of(st.sampled_from(near), _ANYTHING) if near else _ANYTHING


@st.composite
def right_documents(draw: st.DrawFn) -> Document:
    """Documents of which no field and no rule between fields is broken."""
    paths = draw(st.lists(st.sampled_from(sorted(LEAVES)), max_size=8, unique=True))
    document = character_lora_wire(**{path: draw(right(path, LEAVES[path])) for path in paths})
    return _in_agreement(document)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Documents of which one to three fields may be anything, or do not exist."""
    document = draw(right_documents())
    for path in draw(st.lists(st.sampled_from([*sorted(LEAVES), *PARTS]), min_size=1, max_size=2)):
        node = LEAVES.get(path, {})
        values = right(path, node) if node else st.just({})
        _put(document["spec"], path, draw(values if draw(st.booleans()) else wrong(path, node)))
    if draw(st.integers(0, 9)) == 0:
        _put(document["spec"], draw(st.sampled_from([f"{part}.stpes" for part in PARTS] + ["trainings", "Training"])), 1)
    return document


def _in_agreement(document: Document) -> Document:
    """The same with the rules between fields kept."""
    spec = document["spec"]
    training, dataset, resources = spec.setdefault("training", {}), spec["dataset"], spec.setdefault("resources", {})
    training["saveEvery"] = min(training.get("saveEvery", 100), training.get("steps", 1000))
    if dataset.get("sizing", "Same") != "Same":
        dataset.setdefault("width", 512)
        dataset.setdefault("height", 512)
    if resources.get("nodes", 1) > 1:
        resources["gpus"] = max(1, resources.get("gpus", 2))
    if spec["output"].get("keep") == "Best":
        loss = training.get("loss", {})
        loss |= {"heldOut": max(1, held_out)} if (held_out := loss.get("heldOut")) is not None else {}
    return document


def _put(part: Document, path: str, value: Any) -> None:
    """Set a field; where its parent is no part by now, nothing is there to set."""
    *parents, field = path.split(".")
    for name in parents:
        part = part.setdefault(name, {})
        if not isinstance(part, dict):
            return
    part[field] = value
