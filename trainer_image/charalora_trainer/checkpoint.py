"""Training states: whole or absent, on this disk and in the output store.

A state is a folder with its files and, written last, a `manifest.json` with their digests. On disk it is written beside and renamed;
in a store, which has no rename, a state without its manifest does not exist for any reader.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from charalora_trainer.storage import KeyMissing, Store
from charalora_trainer.storage.keys import problem_of
from charalora_trainer.storage.uploads import Uploads
from charalora_trainer.storage.wholefile import sha256_of, to_disk

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
NEWEST = "state/newest.json"
KEPT = 2
_FOLDER = re.compile(r"step-(\d{6})")


@dataclass(frozen=True)
class State:
    """One whole training state on this disk."""

    step: int
    folder: Path


@dataclass(frozen=True)
class _File:
    """A file of a state, as its manifest has it."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """What says that a state is whole: everything in it, and of which training."""

    step: int
    identity: str
    files: dict[str, _File]


_MANIFEST = TypeAdapter(_Manifest)
_NEWEST = TypeAdapter(dict[Literal["step"], Annotated[int, Field(ge=0, le=999_999)]])
_NONE = _Manifest(0, "", {})


class Checkpoints:
    """The training states of one run.

    Args:
        root: Folder of the states on this disk.
        identity: Digest of what is trained; a state of something else is not taken for ours.
    """

    def __init__(self, root: Path, identity: str) -> None:
        self._root = root
        self._identity = identity

    def save(self, step: int, write: Callable[[Path], None]) -> State:
        """Write a state beside, verify nothing is missing, rename, and drop all but the newest two."""
        draft = self._root / f".draft-{step:06d}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write(draft)
        files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps({"step": step, "identity": self._identity, "files": files}, indent=1))
        for file in draft.iterdir():
            to_disk(file)
        folder = self._root / f"step-{step:06d}"
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
        to_disk(self._root)
        for state in self._states()[:-KEPT]:
            shutil.rmtree(state.folder, ignore_errors=True)
        return State(step, folder)

    def newest(self) -> State | None:
        """The newest state whose files have their digests; a damaged one is reported and passed over."""
        for draft in self._root.glob(".draft-*"):
            shutil.rmtree(draft, ignore_errors=True)
        for state in reversed(self._states()):
            problem = damage(state.folder, self._identity)
            if problem is None:
                return state
            logger.warning("Training state passed over", extra={"step": state.step, "why": problem})
        return None

    def upload(self, state: State, uploads: Uploads, and_then: Callable[[], None] | None = None) -> None:
        """Send a state in the background, its manifest after everything else; then call `and_then`."""
        files = sorted(file for file in state.folder.iterdir() if file.name != MANIFEST)
        uploads.submit_group(
            [(file, _key(state.step, file.name)) for file in files], (state.folder / MANIFEST, _key(state.step, MANIFEST)), and_then
        )

    def announce(self, state: State, store: Store) -> None:
        """Say which state is the newest under a name that is known beforehand: a listing may lag behind what was written."""
        store.write(NEWEST, json.dumps({"step": state.step}).encode())

    def prune_remote(self, store: Store) -> None:
        """Drop all but the newest two whole states of the store, and what uploads that were cut off left of others before them.

        Manifests go first, so that no half state looks whole.
        """
        keys = [entry.key for entry in store.list() if entry.key.startswith("state/step-")]
        whole = sorted({_step_of(key) for key in keys if key.endswith(f"/{MANIFEST}")})
        kept = whole[-KEPT:]
        for step in sorted({_step_of(key) for key in keys} - set(kept)):
            if kept and step < kept[-1]:
                store.delete([_key(step, MANIFEST)])
                store.delete([key for key in keys if _step_of(key) == step])

    def fetch_newest(self, store: Store) -> State | None:
        """Bring the newest whole state of the store here, unless this disk has one as new."""
        here = self.newest()
        listed = [entry.key for entry in store.list() if entry.key.startswith("state/step-")]
        steps = {_step_of(key) for key in listed if key.endswith(f"/{MANIFEST}")} | _announced(store)
        for step in sorted(steps, reverse=True):
            if here is not None and here.step >= step:
                return here
            state = self._fetch(store, step)
            if state is not None:
                return state
        return here

    def _fetch(self, store: Store, step: int) -> State | None:
        """The files that a state's manifest names; whatever else lies beside them stays there."""
        draft = self._root / f".draft-{step:06d}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            store.download(_key(step, MANIFEST), draft / MANIFEST)
            for name in (_manifest(draft) or _NONE).files:
                store.download(_key(step, name), draft / name)
            problem = damage(draft, self._identity)
        except KeyMissing as missing:
            problem = str(missing)
        if problem is not None:
            logger.warning("Training state in the store passed over", extra={"step": step, "why": problem})
            shutil.rmtree(draft)
            return None
        folder = self._root / f"step-{step:06d}"
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
        return State(step, folder)

    def _states(self) -> list[State]:
        found = ((_FOLDER.fullmatch(folder.name), folder) for folder in self._root.glob("step-*"))
        return sorted((State(int(match[1]), folder) for match, folder in found if match), key=lambda state: state.step)


def damage(folder: Path, identity: str) -> str | None:
    """Why the state in `folder` cannot be used, or None: its manifest, its owner, its files' sizes and digests."""
    manifest = _manifest(folder)
    if manifest is None:
        return "its manifest is missing or unreadable"
    if manifest.identity != identity:
        return "it belongs to another training"
    if not manifest.files:
        return "its manifest names no files"
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected.bytes or sha256_of(file) != expected.sha256:
            return f"{name} is not what was saved"
    return None


def _manifest(folder: Path) -> _Manifest | None:
    """What is said of a state; None where it cannot be believed: others may write to the store as well."""
    try:
        found: _Manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes(), strict=True)
    except (OSError, ValueError):
        return None
    return None if any("/" in name or problem_of(name) for name in found.files) else found


def _announced(store: Store) -> set[int]:
    try:
        return {_NEWEST.validate_json(store.read(NEWEST))["step"]}
    except (KeyMissing, ValueError):
        return set()


def _key(step: int, name: str) -> str:
    return f"state/step-{step:06d}/{name}"


def _step_of(key: str) -> int:
    match = _FOLDER.search(key)
    return int(match[1]) if match else -1
