"""`manifest.json`: every file of a finished training with its size and digest. It is written last, so where it lies everything else does.

No torch here: whoever only wants to know what lies in a prefix can read it.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage import KeyMissing, Store

FILE = "manifest.json"
SCHEMA = 1
_CHUNK = 8 << 20
_THREADS = 8


@dataclass(frozen=True)
class ManifestFile:
    """One file: its path below the prefix with `/`, its size, and its SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All files of a finished training, sorted by path.

    Attributes:
        spec_digest: Of what was trained, so that another training is not taken for this one.
        files: Everything but the manifest itself and the states that training resumes from.
    """

    spec_digest: str
    files: tuple[ManifestFile, ...]

    def to_json(self) -> str:
        """As it is written."""
        document = {"schemaVersion": SCHEMA, "specDigest": self.spec_digest, "files": [asdict(file) for file in self.files]}
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """As it was written.

        Raises:
            TrainingError: `ExportInvalid` when it is none, or one of a version that is not known here.
        """
        try:
            document = json.loads(text)
            version, digest = document["schemaVersion"], document["specDigest"]
            files = tuple(ManifestFile(file["path"], file["bytes"], file["sha256"]) for file in document["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise _invalid(f"{where} is no manifest of a training; remove it or give another output prefix.") from error
        if version != SCHEMA:
            raise _invalid(f"{where} has schema version {version}, but this program reads {SCHEMA}; use a newer Charalora.")
        return cls(digest, files)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as it is written: names the result as a whole."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def of_folder(folder: Path, spec_digest: str) -> Manifest:
    """Measure every file below a folder; hidden ones (unfinished drafts), training states and an older manifest are left out."""
    paths = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
    return Manifest(spec_digest, tuple(measured(folder / path, path) for path in paths if path != FILE))


def find(store: Store) -> Manifest | None:
    """The manifest of a prefix; none when no training has finished there."""
    try:
        text = store.read(FILE).decode(errors="replace")
    except KeyMissing:
        return None
    return Manifest.from_json(text, f"{store.uri}{FILE}")


def strays(manifest: Manifest, folder: Path, store: Store) -> list[ManifestFile]:
    """The files that do not stand in the store as they do in `folder`; each is asked for by name, because a listing may lag behind.

    Where the store's own digest does not tell, as with some kinds of encryption, the content is read again.
    """

    def stands(file: ManifestFile) -> bool:
        try:
            entry = store.stat(file.path)
            return entry.size == file.bytes and (store.holds(folder / file.path, entry) or _digest(file, store) == file.sha256)
        except KeyMissing:
            return False

    with ThreadPoolExecutor(_THREADS) as pool:
        return [file for file, there in zip(manifest.files, pool.map(stands, manifest.files), strict=True) if not there]


def verify(manifest: Manifest, store: Store) -> None:
    """Read every file again, in pieces of 8 MiB, and compare.

    Raises:
        TrainingError: `ExportInvalid`, naming the first file that is missing, of another size or of another content.
    """
    remedy = f"bring it back, or delete it and {FILE} and run again"
    for file in manifest.files:
        try:
            size = store.stat(file.path).size
            digest = _digest(file, store) if size == file.bytes else ""
        except KeyMissing:
            raise _invalid(f"{store.uri}{file.path} is missing, though the manifest lists it; {remedy}.") from None
        if size != file.bytes:
            raise _invalid(f"{store.uri}{file.path} has {size} bytes, but the manifest says {file.bytes}; {remedy}.")
        if digest != file.sha256:
            raise _invalid(f"{store.uri}{file.path} has another content than the manifest says; {remedy}.")


def _digest(file: ManifestFile, store: Store) -> str:
    digest = hashlib.sha256()
    for start in range(0, file.bytes, _CHUNK):
        digest.update(store.read(file.path, start, start + _CHUNK))
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and not hidden and parts[0] != "state":
            yield path


def measured(path: Path, name: str) -> ManifestFile:
    """A file of this machine, as a manifest lists it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ManifestFile(name, file.tell(), digest)


def _invalid(message: str) -> TrainingError:
    return TrainingError(Outcome.EXPORT_INVALID, message)
