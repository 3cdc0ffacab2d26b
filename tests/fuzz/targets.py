"""What reads input from outside, each as a function of some bytes: whatever they are, it returns or fails an assertion, and nothing else.

A target takes every documented error of what it tries, so any other one is a finding. `make fuzz` looks for such bytes with atheris; those
that were found lie in corpus/ and are tried again by every `make test`.
"""

import io
import json
import random
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import torch
import yaml
from PIL import Image
from safetensors.torch import save

from builders import character_lora_wire
from charalora_operator.endings import outcome_of
from charalora_operator.model import Ending
from charalora_operator.progress import sample_of
from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Captions, Storage
from charalora_trainer import checkpoint, ownership, runfile
from charalora_trainer.basemodel import header, pickles
from charalora_trainer.data import captions, picture_file, pictures
from charalora_trainer.export.manifest import Manifest
from charalora_trainer.storage import open_store
from charalora_trainer.storage.keys import problem_of, shown
from charalora_trainer.words import embedding, emphasis

Target = Callable[[bytes, Path], None]
"""Tries some bytes; the folder is its own, to write them into."""

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def caption(data: bytes, folder: Path) -> None:
    """A caption file becomes clean tags, and those a text of one line."""
    del folder
    tags = captions.parse(data.decode(errors="replace"))
    assert all(tag and tag == " ".join(tag.split()) for tag in tags)
    text = captions.compose(tags, "surtr_arknights", "1girl", Captions(), random.Random(len(data)))
    assert len(text.splitlines()) <= 1


def prompt(data: bytes, folder: Path) -> None:
    """A prompt becomes spans with finite weights, and is the same after it was written again."""
    del folder
    try:
        spans = emphasis.parse(data.decode(errors="replace"))
    except emphasis.PromptError:
        return
    assert all(span.text and 0 <= span.weight < float("inf") for span in spans)
    assert spans == emphasis.parse(emphasis.render(spans))
    emphasis.render_webui(spans)


def key(data: bytes, folder: Path) -> None:
    """A key that is taken names a file below its folder, and any key can be said in one line."""
    name = data.decode(errors="surrogateescape")
    assert shown(name).isprintable()
    if problem_of(name) is None:
        assert (folder / name).absolute() != folder
        assert PurePosixPath(name).parts == tuple(name.split("/"))
        assert folder in (folder / name).resolve().parents


def resource(data: bytes, folder: Path) -> None:
    """A resource in YAML is read, or refused in printable lines."""
    _resource(data, folder / "a.yaml")


def resource_json(data: bytes, folder: Path) -> None:
    """Likewise in JSON."""
    _resource(data, folder / "a.json")


def _resource(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    try:
        runfile.load(file)
    except TrainingError as error:
        assert error.outcome is Outcome.SPEC_INVALID
        assert all(line.isprintable() for line in error.message.split("\n"))
        assert len(error.message) < 50_000


def embedding_pt(data: bytes, folder: Path) -> None:
    """A trigger word's file as webui has it: finite rows, or refused."""
    _embedding(data, folder / "a.pt")


def embedding_safetensors(data: bytes, folder: Path) -> None:
    """Likewise in the other format."""
    _embedding(data, folder / "a.safetensors")


def _embedding(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    try:
        with warnings.catch_warnings(action="ignore"):
            vectors = embedding.load(file).vectors
    except TrainingError as error:
        assert error.outcome is Outcome.SPEC_INVALID
    else:
        assert vectors.dim() == 2
        assert vectors.isfinite().all()
        assert vectors.numel() <= len(data)


def weights_header(data: bytes, folder: Path) -> None:
    """The header of a base model's safetensors file: tensors that fit into it, or refused."""
    (folder / "model.safetensors").write_bytes(data)
    store = open_store(folder.as_uri(), Storage())
    try:
        tensors = header.read_header(store, store.stat("model.safetensors"))
    except TrainingError as error:
        assert error.outcome is Outcome.BASE_MODEL_INVALID
        assert len(error.message) < 2000
    else:
        assert all(tensor.dtype and tensor.shape is not None for tensor in tensors.values())


def weights_pickle(data: bytes, folder: Path) -> None:
    """A base model's .ckpt: the names in it, or refused."""
    (folder / "model.ckpt").write_bytes(data)
    store = open_store(folder.as_uri(), Storage())
    try:
        pickles.read_names(store, store.stat("model.ckpt"))
    except TrainingError as error:
        assert error.outcome is Outcome.BASE_MODEL_INVALID
        assert len(error.message) < 2000


def picture_header(data: bytes, folder: Path) -> None:
    """The first bytes of a picture: its format and a bearable size, or refused."""
    del folder
    try:
        found = picture_file.read_header(data, "a.png")
    except picture_file.PictureRefused:
        return
    assert 0 < found.width * found.height <= picture_file.MAX_PIXELS


def picture(data: bytes, folder: Path) -> None:
    """A whole picture: RGB, or refused. Pictures of more than a megapixel are left out, for the time that they take."""
    del folder
    try:
        found = picture_file.read_header(data, "a.png")
        if found.width * found.height < 1_000_000:
            assert pictures.decode(data, "a.png").mode == "RGB"
    except picture_file.PictureRefused:
        return


def state_manifest(data: bytes, folder: Path) -> None:
    """What says whether a training state is whole, from a bucket that others write to as well."""
    (folder / checkpoint.MANIFEST).write_bytes(data)
    assert isinstance(checkpoint.damage(folder, "nobody's"), str)


def owner(data: bytes, folder: Path) -> None:
    """What says whose an output prefix is."""
    store = open_store(folder.as_uri(), Storage())
    store.write(ownership.OWNER, data)
    try:
        found = ownership.refuse_foreign(store, "0" * 32)
    except TrainingError as error:
        assert error.outcome is Outcome.OUTPUT_OCCUPIED
        assert error.message.isprintable()
    else:
        assert found is not None
        assert found.attempt >= 0


def finished_manifest(data: bytes, folder: Path) -> None:
    """The list of a finished training's files."""
    del folder
    try:
        found = Manifest.from_json(data.decode(errors="replace"), "manifest.json")
    except TrainingError as error:
        assert error.outcome is Outcome.EXPORT_INVALID
    else:
        assert found == Manifest.from_json(found.to_json(), "again")


def termination_message(data: bytes, folder: Path) -> None:
    """A container's last words, as the operator reads them."""
    del folder
    assert isinstance(outcome_of(Ending(1, "", data.decode(errors="replace"), _NOW)), Outcome)


def metrics_page(data: bytes, folder: Path) -> None:
    """A training's metrics, as the operator reads them."""
    del folder
    try:
        sample_of("surtr-a1", data.decode(errors="replace"), _NOW, None)
    except ValueError:
        return


TARGETS: Mapping[str, Target] = {
    target.__name__: target
    for target in (
        caption,
        prompt,
        key,
        resource,
        resource_json,
        embedding_pt,
        embedding_safetensors,
        weights_header,
        weights_pickle,
        picture_header,
        picture,
        state_manifest,
        owner,
        finished_manifest,
        termination_message,
        metrics_page,
    )
}


def seeds(target: str) -> list[bytes]:
    """Right input, for a fuzzer to begin with."""
    run = character_lora_wire(**{"preview.prompts": ["{surtr_arknights:1.2}, solo"], "scheduling.nodeSelector": {"disk": "ssd"}})
    tensors = {"emb_params": torch.zeros(2, 4), "b": torch.ones(3, dtype=torch.float16)}
    claim = ownership.unclaimed("surtr", "0" * 32, "1" * 64)
    return {
        "caption": [rb"1girl, red_eyes, surtr_\(arknights\), ^_^", "角色\N{FULLWIDTH COMMA}solo\r\n".encode()],
        "prompt": [rb"masterpiece, {surtr_arknights:1.2}, {a {b} \{c\}:.5}", b"a:b"],
        "key": ["sub/ステラ 1.png".encode(), b"../a", b"/a"],
        "resource": [yaml.safe_dump(run).encode(), b"a: &a {b: c}\nd: {<<: [*a, *a]}\n"],
        "resource_json": [json.dumps(run).encode()],
        "embedding_pt": [_torch_saved({"string_to_param": {"*": torch.zeros(2, 4)}}), _torch_saved({"a": torch.zeros(4)}, legacy=True)],
        "embedding_safetensors": [save({"emb_params": torch.zeros(2, 4)})],
        "weights_header": [save(tensors)],
        "weights_pickle": [_torch_saved(tensors)],
        "picture_header": [_picture(kind) for kind in ("PNG", "JPEG", "WEBP")],
        "picture": [_picture(kind) for kind in ("PNG", "JPEG", "WEBP")],
        "state_manifest": [json.dumps({"step": 4, "identity": "nobody's", "files": {"a": {"bytes": 1, "sha256": "0"}}}).encode()],
        "owner": [json.dumps(claim.to_json()).encode()],
        "finished_manifest": [b'{"schemaVersion": 1, "specDigest": "0", "files": [{"path": "a", "bytes": 1, "sha256": "0"}]}'],
        "termination_message": [b'{"reason": "LossDiverged", "message": "a"}'],
        "metrics_page": [b'# TYPE charalora_step gauge\ncharalora_step 4\ncharalora_stage{stage="train"} 1\n'],
    }[target]


def _torch_saved(content: object, *, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 5), "red").save(file, kind)
    return file.getvalue()
