"""Training states: whole or absent, on this disk and in the output store.

A state is a folder with its files and, written last, a `manifest.json` with their digests. On disk it is written beside and renamed;
in a store, which has no rename, a state without its manifest does not exist for any reader.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from charalora_trainer.storage import Store
from charalora_trainer.storage.uploads import Uploads
from charalora_trainer.storage.wholefile import sha256_of, to_disk

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
KEPT = 2
_FOLDER = re.compile(r"step-(\d{6})")


@dataclass(frozen=True)
class State:
    """One whole training state on this disk."""

    step: int
    folder: Path


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
        keys = [entry.key for entry in store.list() if entry.key.startswith("state/step-")]
        for step in sorted({_step_of(key) for key in keys if key.endswith(f"/{MANIFEST}")}, reverse=True):
            if here is not None and here.step >= step:
                return here
            state = self._fetch(store, step, [key for key in keys if _step_of(key) == step])
            if state is not None:
                return state
        return here

    def _fetch(self, store: Store, step: int, keys: Iterable[str]) -> State | None:
        draft = self._root / f".draft-{step:06d}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for key in keys:
            store.download(key, draft / key.rsplit("/", 1)[1])
        problem = damage(draft, self._identity)
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
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return "its manifest is missing or unreadable"
    if manifest.get("identity") != identity:
        return "it belongs to another training"
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"] or sha256_of(file) != expected["sha256"]:
            return f"{name} is not what was saved"
    return None


def _key(step: int, name: str) -> str:
    return f"state/step-{step:06d}/{name}"


def _step_of(key: str) -> int:
    match = _FOLDER.search(key)
    return int(match[1]) if match else -1
