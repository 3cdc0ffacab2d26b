"""The manifest: every file with its size and digest, and what no longer agrees is named."""

import hashlib
import re
from pathlib import Path

import pytest

from charalora_spec.outcome import TrainingError
from charalora_trainer.export import manifest
from charalora_trainer.export.manifest import Manifest, ManifestFile
from charalora_trainer.storage.local import LocalStore


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two files, a draft and an older manifest."""
    (tmp_path / "ckpts").mkdir()
    (tmp_path / "ckpts" / "unet-100.safetensors").write_bytes(b"unet")
    (tmp_path / "cfg.yaml").write_bytes(b"steps: 1000\n")
    (tmp_path / "ckpts" / ".charalora-part-0").write_bytes(b"half")
    (tmp_path / "manifest.json").write_text("old")
    return tmp_path


def test_every_finished_file_is_listed_with_its_size_and_digest(output: Path) -> None:
    """Sorted by path; drafts and the manifest itself are not part of the result."""
    expected = (
        ManifestFile("cfg.yaml", 12, hashlib.sha256(b"steps: 1000\n").hexdigest()),
        ManifestFile("ckpts/unet-100.safetensors", 4, hashlib.sha256(b"unet").hexdigest()),
    )

    assert expected == manifest.of_folder(output, "digest").files


def test_what_is_read_is_what_was_written(output: Path) -> None:
    """With the digest of what was trained, and the same digest of its own."""
    written = manifest.of_folder(output, "digest")
    LocalStore(output).write(manifest.FILE, written.to_json().encode())
    found = manifest.find(LocalStore(output))

    assert written == found
    assert found is not None
    assert found.digest == hashlib.sha256((output / "manifest.json").read_bytes()).hexdigest()


def test_a_prefix_without_manifest_is_unfinished(tmp_path: Path) -> None:
    """However many files lie there."""
    assert manifest.find(LocalStore(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old", "manifest.json is no manifest of a training"),
        ('{"files": []}', "manifest.json is no manifest of a training"),
        ('{"schemaVersion": 2, "specDigest": "", "files": []}', "has schema version 2, but this program reads 1"),
    ],
)
def test_another_document_is_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    """Said with the place where it lies."""
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(TrainingError, match=re.escape(message)):
        manifest.find(LocalStore(tmp_path))


def test_an_untouched_result_is_verified(output: Path) -> None:
    """New files beside it do not matter."""
    complete = manifest.of_folder(output, "digest")
    (output / "notes.txt").write_text("mine")

    manifest.verify(complete, LocalStore(output))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "unet-100.safetensors is missing"),
        (b"unets", "unet-100.safetensors has 5 bytes, but the manifest says 4"),
        (b"UNET", "unet-100.safetensors has another content"),
    ],
)
def test_a_changed_file_is_named(output: Path, change: bytes | None, message: str) -> None:
    """Missing, of another size, or of another content."""
    complete = manifest.of_folder(output, "digest")
    file = output / "ckpts" / "unet-100.safetensors"
    file.unlink() if change is None else file.write_bytes(change)

    with pytest.raises(TrainingError, match=re.escape(message)):
        manifest.verify(complete, LocalStore(output))


def test_the_same_files_give_the_same_text() -> None:
    """Nothing but the files and the digest stands in it."""
    complete = Manifest("digest", (ManifestFile("a", 1, "00"),))

    assert complete.to_json() == Manifest.from_json(complete.to_json(), "here").to_json()
    assert {"schemaVersion", "specDigest", "files", "path", "bytes", "sha256"} == set(re.findall(r'"(\w+)":', complete.to_json()))
