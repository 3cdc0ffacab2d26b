"""What a training has saved so far, with digests: it lies in every state, so that a resumed attempt knows what must stand in the store."""

from collections.abc import Iterator
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.console import Console
from charalora_trainer.export.manifest import Manifest, ManifestFile, measured
from charalora_trainer.storage import KeyMissing, Store
from charalora_trainer.storage.keys import problem_of

FILE = "saved.json"


class Inventory:
    """Checkpoints and pictures of the save steps, measured once.

    Args:
        output: The folder that they are written to.
        identity: Digest of what is trained.
        state: The state that training goes on from; one without such a list begins a new one.
    """

    def __init__(self, output: Path, identity: str, state: Path) -> None:
        self._output = output
        self._identity = identity
        self._known = {file.path: file for file in read(state)}

    def write(self, step: int, folder: Path) -> None:
        """Put the list into a state. Pictures of this very step are left out: they are still being made."""
        for path in files_of_saves(self._output, step):
            name = path.relative_to(self._output).as_posix()
            if name not in self._known and path.parent.name != str(step):
                self._known[name] = measured(path, name)
        files = tuple(self._known[name] for name in sorted(self._known))
        (folder / FILE).write_text(Manifest(self._identity, files).to_json(), encoding="utf-8")


def read(state: Path) -> tuple[ManifestFile, ...]:
    """The list in a state; empty where an older Charalora wrote none.

    Raises:
        TrainingError: `ExportInvalid` when it is none.
    """
    try:
        return Manifest.from_json((state / FILE).read_text(encoding="utf-8"), str(state / FILE)).files
    except FileNotFoundError:
        return ()


def bring(store: Store, state: Path, output: Path, console: Console) -> None:
    """Make the files of earlier saves stand here as they were saved; what stands here already is not fetched.

    Raises:
        TrainingError: `ExportInvalid` when the store has another content under one of their names: no later step could make it again.
    """
    gone = []
    for file in read(state):
        path = output / file.path
        if problem_of(file.path) or (path.is_file() and measured(path, file.path) == file):
            continue
        try:
            store.download(file.path, path)
        except KeyMissing:
            gone.append(file.path)
            continue
        if measured(path, file.path) != file:
            path.unlink()
            raise TrainingError(
                Outcome.EXPORT_INVALID,
                f"{store.uri}{file.path} is not what an earlier attempt saved; bring it back, or delete it and do without, and run again.",
            )
    if gone:
        console.say(f"{len(gone)} files of earlier saves are not in {store.uri} any more, such as {gone[0]}; the result will lack them.")


def files_of_saves(output: Path, last: int) -> Iterator[Path]:
    """Checkpoints and previews of the save steps up to `last`, as they stand on this machine; nothing half made."""
    for file in (*(output / "ckpts").glob("*"), *(output / "previews").glob("*/*")):
        step = file.stem.rpartition("-")[2] if file.parent.name == "ckpts" else file.parent.name
        if step.isdecimal() and int(step) <= last and not file.name.startswith("."):
            yield file
