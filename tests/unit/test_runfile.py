import json
from pathlib import Path

import pytest
import yaml

from builders import character_lora, character_lora_wire
from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer import runfile

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def refused(path: Path) -> str:
    """What is said about a file that is refused."""
    with pytest.raises(TrainingError) as caught:
        runfile.load(path)
    assert caught.value.outcome is Outcome.SPEC_INVALID
    return str(caught.value)


def written(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def resource(spec: str) -> str:
    """A resource whose spec is the lines given."""
    return f"apiVersion: charalora.dev/v1alpha1\nkind: CharacterLora\nmetadata: {{name: surtr}}\nspec:\n{spec}"


GOOD_SPEC = """
  character: {name: surtr_arknights}
  dataset: {uri: s3://datasets/surtr_arknights/}
  baseModel: {uri: s3://models/toy/}
  output: {uri: s3://loras/surtr/}
"""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(example: Path) -> None:
    """What newcomers copy works."""
    assert runfile.load(example).spec.character.name


def test_no_two_examples_write_to_the_same_place() -> None:
    """Applied together, they do not fight."""
    loaded = [runfile.load(example) for example in EXAMPLES]

    assert len(loaded) == len({run.spec.output.uri for run in loaded}) == len({run.metadata.name for run in loaded})


def test_yaml_is_read(tmp_path: Path) -> None:
    """What a user writes."""
    assert character_lora() == runfile.load(written(tmp_path, yaml.safe_dump(character_lora_wire())))


def test_json_is_read(tmp_path: Path) -> None:
    """What the operator mounts."""
    assert character_lora() == runfile.load(written(tmp_path, character_lora().model_dump_json(by_alias=True), "run.json"))


def test_all_problems_are_told_at_once_each_with_its_field(tmp_path: Path) -> None:
    """One round of corrections instead of many."""
    spec = """
  character: {name: "surtr,x"}
  dataset: {uri: s3://datasets/a/, sizing: bucket}
  baseModel: {uri: s3://models/toy/}
  training: {steps: 50, saveEvery: 60, seed: "4"}
"""
    path = written(tmp_path, resource(spec))

    told = refused(path).splitlines()

    assert told[0] == f"{path} has 5 problems:"
    assert [line.split(":")[0].strip() for line in told[1:]] == [
        "spec.character.name",
        "spec.dataset.sizing",
        "spec.training.saveEvery",
        "spec.training.seed",
        "spec.output",
    ]


def test_a_single_problem_is_one_line(tmp_path: Path) -> None:
    """Path of the file, path of the field, what to do."""
    path = written(tmp_path, resource(GOOD_SPEC + "  preview: {seed: -1}\n"))

    assert f"{path}: spec.preview.seed: is -1 but must be at least 0" == refused(path)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("training: {stepz: 5}", "spec.training.stepz: is not a field; did you mean steps?"),
        ("training: {save_every: 5}", "spec.training.save_every: is not a field; did you mean saveEvery?"),
        ("batchSize: 5", "spec.batchSize: is not a field; did you mean spec.training.batchSize?"),
        ("trainning: {}", "spec.trainning: is not a field; did you mean training?"),
        ("cache: {qqqq: 1}", "spec.cache.qqqq: is not a field; the fields here are claimName, node"),
        ("training: {learningRate: {unet: 1e-4}}", 'spec.training.learningRate.unet: must be a number in quotes, such as "0.1" or "1e-4"'),
        ("training: {learningRate: {unet: 0.1}}", 'spec.training.learningRate.unet: must be a number in quotes, such as "0.1" or "1e-4"'),
        ("resources: {cpu: 8}", "spec.resources.cpu: must be text; write it in quotes"),
        ("resources: {gpus: '2'}", "spec.resources.gpus: must be a whole number; write it without quotes and without a point"),
        ("output: null", "spec.output: is missing; add it: Where the files go."),
        ("run: {suspend: 'no'}", "spec.run.suspend: must be true or false; write it without quotes"),
        ("preview: {prompts: a girl}", "spec.preview.prompts: must be a list; write [a, b] or one '- ' line for each entry"),
        ("preview: {prompts: [a, 3]}", "spec.preview.prompts[1]: must be text; write it in quotes"),
        ("preview: {prompts: ['']}", "spec.preview.prompts[0]: must not be empty; write something"),
        ("preview: 3", "spec.preview: must have fields of its own; write {name: value, …} or indented lines"),
        ("scheduling: {nodeSelector: 3}", "spec.scheduling.nodeSelector: must be a mapping; write {name: value, …}"),
        ("training: {precision: BF16}", "spec.training.precision: must be bf16, fp16 or fp32; did you mean bf16?"),
        ("training: {precision: int8}", "spec.training.precision: must be bf16, fp16 or fp32"),
        ("run: {retries: 101}", "spec.run.retries: is 101 but must be at most 100"),
        ("storage: {region: " + "a" * 64 + "}", "spec.storage.region: is 64 characters long; shorten it to at most 63"),
        ("training: {steps: 50}", "spec.training.saveEvery: must not be greater than steps (left out, it is 100)"),
    ],
)
def test_a_problem_says_what_to_do(tmp_path: Path, line: str, advice: str) -> None:
    """The usual mistakes, and what is said about each."""
    name = line.split(":", maxsplit=1)[0]
    others = "\n".join(other for other in GOOD_SPEC.splitlines() if not other.startswith(f"  {name}:"))
    assert advice in refused(written(tmp_path, resource(f"{others}\n  {line}\n")))


def test_a_missing_field_is_described(tmp_path: Path) -> None:
    """Whoever left it out learns what it is."""
    spec = GOOD_SPEC.replace("output: {uri: s3://loras/surtr/}", "output: {}")

    assert "spec.output.uri: is missing; add it: Where the files are written" in refused(written(tmp_path, resource(spec)))


def test_another_kind_is_refused(tmp_path: Path) -> None:
    """A Job is not trained."""
    text = resource(GOOD_SPEC).replace("kind: CharacterLora", "kind: Job")

    assert "kind: must be CharacterLora" in refused(written(tmp_path, text))


def test_another_version_is_refused(tmp_path: Path) -> None:
    """A file for a later version is not half understood."""
    text = resource(GOOD_SPEC).replace("v1alpha1", "v2")

    assert "apiVersion: must be charalora.dev/v1alpha1" in refused(written(tmp_path, text))


def test_a_credential_in_a_uri_is_not_repeated(tmp_path: Path) -> None:
    """The message may end in a log."""
    spec = GOOD_SPEC.replace("s3://models", "s3://key:hunter2@models")

    assert "hunter2" not in refused(written(tmp_path, resource(spec)))


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A field name can hold an escape sequence."""
    told = refused(written(tmp_path, resource(GOOD_SPEC + '  "\\e[31m": 1\n')))

    assert "\x1b" not in told


def test_a_field_given_twice_is_refused(tmp_path: Path) -> None:
    """YAML readers keep the last one silently."""
    told = refused(written(tmp_path, resource(GOOD_SPEC + "  character: {name: other}\n")))

    assert "line 10: the field character stands there twice" in told


def test_a_field_given_twice_in_json_is_refused(tmp_path: Path) -> None:
    """So do JSON readers."""
    path = written(tmp_path, '{"kind": "CharacterLora", "kind": "CharacterLora"}', "run.json")

    assert f"{path} has the field kind twice in one place; keep one of them" == refused(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no resource"),
        ("- a\n- b\n", "holds no resource"),
        ("a: [b\n", "is no valid YAML: line 2"),
        ("a: \x07\n", "is no valid YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "is no valid YAML: line 1"),
        ("a: 2026-13-45\n", "has a value that cannot be read"),
        ("a: 1\n---\nb: 2\n", "holds 2 documents"),
        ("[" * 20_000, "is nested too deeply"),
        ("? [a, b]\n: 1\n", "is no valid YAML"),
        ("a: &a [*a]\n", "has "),
        ("#" * 1_048_577, "is larger than 1048576 bytes"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_no_resource_is_refused(tmp_path: Path, text: str, what: str) -> None:
    """Whatever the file holds, the answer is a sentence."""
    assert what in refused(written(tmp_path, text))


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    """The operator's own file would be whole; a hand-written one may not be."""
    assert "is no valid JSON: line 2" in refused(written(tmp_path, '{\n"a" 1}', "run.json"))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """A picture, for one."""
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\x89PNG\r\n")

    assert "is no UTF-8 text at byte 0" in refused(path)


@pytest.mark.parametrize(("name", "why"), [("missing.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    """The wrong path is the usual reason."""
    assert why in refused(tmp_path / name)


def test_a_mark_of_windows_editors_is_ignored(tmp_path: Path) -> None:
    """A byte-order mark is no character of the file."""
    path = tmp_path / "run.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(character_lora_wire()).encode())

    assert character_lora() == runfile.load(path)


def test_an_empty_document_beside_the_resource_does_not_matter(tmp_path: Path) -> None:
    """Templates often end in a separator."""
    assert "surtr" == runfile.load(written(tmp_path, f"---\n{resource(GOOD_SPEC)}---\n")).metadata.name
