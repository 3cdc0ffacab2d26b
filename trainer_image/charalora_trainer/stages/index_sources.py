"""What the index shows, read from the files below a prefix: cfg.yaml, report.json, history.jsonl and a picture of each training."""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLora
from charalora_trainer import cfg, history, runfile
from charalora_trainer.data.pictures import decode
from charalora_trainer.export import manifest
from charalora_trainer.ownership import OWNER, Claim
from charalora_trainer.stages import index, report
from charalora_trainer.stages.index import Character, Index, Unreadable
from charalora_trainer.stages.report_sources import FACTS_FILE, data_uri, read_facts, saves_among
from charalora_trainer.stages.verdict import verdict
from charalora_trainer.storage import KeyMissing, Store

T = TypeVar("T")

PICTURE_PIXELS = 512
_STATES = "state"  # of a training: its parts have manifests of their own
_HISTORY = re.compile(rf"({_STATES}/step-\d+/)?{re.escape(history.FILE)}")
_PREVIEW = re.compile(r"previews/(?P<step>\d+)/0-\d+-.*\.png")
_DAMAGE = {Outcome.SPEC_INVALID, Outcome.EXPORT_INVALID, Outcome.DATASET_INVALID}  # what reading such files meets; others are the store's


def write_index(store: Store) -> str:
    """Make index.html of what stands below a prefix, and say where it is; make it again whenever more stands there."""
    store.write(index.FILE, index.render(gather_index(store)).encode())
    return f"{store.uri}{index.FILE}"


def gather_index(store: Store) -> Index:
    """Every training below the prefix; one that cannot be read is named with the reason.

    Raises:
        TrainingError: What the store met.
    """
    keys = [entry.key for entry in store.list()]
    characters: list[Character] = []
    unreadable: list[Unreadable] = []
    for folder in training_folders(keys):
        try:
            characters.append(_character(_Files(store, folder, _below(keys, folder))))
        except _DamagedError as error:
            unreadable.append(Unreadable(folder or ".", str(error)))
    characters.sort(key=lambda character: (character.started, character.folder), reverse=True)
    return Index(store.uri, tuple(characters), tuple(unreadable))


def training_folders(keys: Iterable[str]) -> list[str]:
    """The folders that hold a training: those with a manifest, finished, and those with the settings alone. States are parts of them."""
    paths = (PurePosixPath(key) for key in keys)
    folders = {path.parent for path in paths if path.name in {manifest.FILE, cfg.FILE} and _STATES not in path.parts[:-1]}
    return sorted("" if folder == PurePosixPath() else folder.as_posix() for folder in folders)


class _DamagedError(Exception):
    """A training whose files do not say what its card needs, in a sentence."""


def _below(keys: Sequence[str], folder: str) -> frozenset[str]:
    prefix = f"{folder}/" if folder else ""
    return frozenset(key.removeprefix(prefix) for key in keys if key.startswith(prefix))


@dataclass(frozen=True)
class _Files:
    """The files of one training, by their names below its folder."""

    store: Store
    folder: str
    names: frozenset[str]

    def key(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    def read(self, name: str, understand: Callable[[bytes], T]) -> T:
        """What a file says.

        Raises:
            _DamagedError: It is missing or says something else.
            TrainingError: What the store met.
        """
        try:
            return understand(self.store.read(self.key(name)))
        except KeyMissing:
            raise _DamagedError(f"{name} is missing.") from None
        except (ValueError, LookupError, TypeError) as error:
            raise _DamagedError(f"{name} is damaged ({type(error).__name__}).") from error
        except TrainingError as error:
            if error.outcome not in _DAMAGE:
                raise
            raise _DamagedError(error.message) from error


def _character(files: _Files) -> Character:
    """The card of a training; of one that has not finished, as far as its newest state knows.

    Raises:
        _DamagedError: A file of it is missing or cannot be read.
    """
    finished = manifest.FILE in files.names
    if finished:
        files.read(manifest.FILE, lambda data: manifest.Manifest.from_json(data.decode(), manifest.FILE))
    run = files.read(cfg.FILE, _resource)
    losses = _losses(files)
    saves = saves_among(files.names)
    chosen = verdict(losses, saves, run.spec.output.keep)
    step, picture = _picture(files, chosen.step if chosen else 0)
    return Character(
        folder=files.folder,
        word=run.spec.character.name,
        saved=run.spec.training.steps if finished else max(saves, default=0),
        steps=run.spec.training.steps,
        finished=finished,
        best=losses.best,
        started=_started(files),
        picture=picture,
        picture_step=step,
        report=index.link_to(files.key(report.FILE)) if report.FILE in files.names else "",
    )


def _losses(files: _Files) -> history.History:
    """Of the whole training, else of its newest state, else none."""
    noted = [name for name in files.names if _HISTORY.fullmatch(name)]
    newest = max(noted, key=lambda name: (name == history.FILE, name), default=None)
    return files.read(newest, lambda data: history.parse(data.decode())) if newest else history.History()


def _started(files: _Files) -> str:
    if FACTS_FILE in files.names:
        return files.read(FACTS_FILE, read_facts).started
    if OWNER in files.names:
        return files.read(OWNER, lambda data: Claim.from_json(json.loads(data))).since
    return ""


def _resource(data: bytes) -> CharacterLora:
    """The resource in a cfg.yaml; what is wrong with it is told without the place where it is read here."""
    with tempfile.TemporaryDirectory(prefix="charalora-") as place:
        path = Path(place, cfg.FILE)
        path.write_bytes(data)
        try:
            return runfile.load(path)
        except TrainingError as error:
            raise TrainingError(error.outcome, error.message.replace(str(path), cfg.FILE)) from error


def _picture(files: _Files, chosen: int) -> tuple[int, str]:
    """The first preview of the chosen step, or of the nearest before it that has one, with its step; "" for none."""
    made = [(int(match["step"]), name) for name in files.names if (match := _PREVIEW.fullmatch(name))]
    if not made:
        return 0, ""
    step, name = max((picture for picture in made if picture[0] <= chosen), default=min(made))
    return step, files.read(name, lambda data: data_uri(decode(data, name), PICTURE_PIXELS))
