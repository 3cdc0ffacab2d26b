"""Everything from outside onto this disk: the data set, the base models."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLoraSpec, Storage
from charalora_trainer import basemodel
from charalora_trainer.console import Console
from charalora_trainer.job import Workspace
from charalora_trainer.progress import Unit
from charalora_trainer.storage import Entry, Store, open_store
from charalora_trainer.storage.keys import problem_of, refuse_hostile_keys
from charalora_trainer.storage.shared import SharedFolder, SharedFolderUnusableError, naming_unusable
from charalora_trainer.storage.staging import OnProgress, stage

# What a diffusers folder on the hub has that training needs; the rest (safety checker, Flax and ONNX weights) stays there.
HUB_PATTERNS = ["model_index.json", *(f"{part}/*" for part in ("unet", "text_encoder", "vae", "tokenizer", "scheduler"))]
HUB_UNWANTED = ["*.msgpack", "*.onnx", "*.non_ema.*", "*.ema.*"]
MODEL_CACHE = "CHARALORA_MODEL_CACHE"
"""Environment variable: a folder of base models that runs share, of several machines too; without it each run fetches its own."""


def fetch_dataset(spec: CharacterLoraSpec, workspace: Workspace, console: Console) -> Path:
    """Pictures and captions; the folder they lie in. A folder of this machine is used where it stands."""
    store = open_store(spec.dataset.uri, spec.storage)
    listed = store.list()
    entries = [entry for entry in listed if "/" not in entry.key]
    deeper = [entry.key for entry in listed if "/" in entry.key]
    refuse_hostile_keys(key for key in deeper if problem_of(key))
    if deeper:
        console.say(f"{len(deeper)} files in subfolders of {store.uri} are no part of the data set, such as {deeper[0]}.")
    return _staged(store, entries, workspace.dataset, console, "fetch data set")


def fetch_base_model(uri: str, storage: Storage, workspace: Workspace, console: Console) -> Path:
    """A base model's folder or file, here: staged from a store, from the hub's cache, or where it stands on this machine.

    What is in the folder that `MODEL_CACHE` names is not fetched again. Where that is full or cannot be written, a warning is said and the
    model is fetched for this run alone.

    Raises:
        TrainingError: `BaseModelInvalid` when there is none, or when it changes meanwhile; the store or the hub cannot be read.
    """
    cache = os.environ.get(MODEL_CACHE)
    if cache and uri.startswith(("s3://", "hf://")):
        try:
            with naming_unusable():
                return _fetched(uri, storage, workspace, Path(cache), console)
        except SharedFolderUnusableError as error:
            console.say(f"Warning: the cache {cache} cannot take {uri} ({error}), so this run fetches it for itself.")
    return _fetched(uri, storage, workspace, None, console)


def _fetched(uri: str, storage: Storage, workspace: Workspace, cache: Path | None, console: Console) -> Path:
    if uri.startswith("hf://"):
        return _from_hub(uri, cache and cache / "huggingface" / "hub", console)
    source = basemodel.locate(uri, storage)
    wanted = {source.file} if source.file else set(basemodel.files_to_fetch(source.store))
    entries = tuple(entry for entry in source.store.list() if entry.key in wanted)
    if not entries:
        raise TrainingError(Outcome.BASE_MODEL_INVALID, f"There is no base model at {source.where}; give the uri of one.")
    try:
        if cache:
            folder = _shared(SharedFolder(cache / "models", source.where, source.store, entries), console)
        else:
            folder = _staged(source.store, entries, workspace.models / _short(uri), console, "fetch base model")
    except TrainingError as error:
        if error.outcome is Outcome.DATASET_CHANGED:  # what staging calls every set of objects that does not stand still
            raise TrainingError(Outcome.BASE_MODEL_INVALID, error.message) from error
        raise
    return folder / source.file if source.file else folder


def fetch_training(store: Store, entries: list[Entry], workspace: Workspace, console: Console) -> Path:
    """Files of an earlier training's output prefix; the folder they lie in."""
    return _staged(store, entries, workspace.trainings / _short(store.uri), console, "fetch training")


def _staged(store: Store, entries: Sequence[Entry], folder: Path, console: Console, name: str) -> Path:
    """The entries in `folder`, or the store's own folder where it is one of this machine."""
    if store.uri.startswith("file://"):
        return Path(store.uri.removeprefix("file://"))
    with _shown(entries, console, name) as on_progress:
        stage(store, entries, folder, on_progress)
    return folder


def _shared(folder: SharedFolder, console: Console) -> Path:
    """The base model in the cache: it is there, another run is about to have it there, or it is staged now."""
    if not folder.is_whole:
        with folder.alone(waiting=lambda: console.stage("wait for another run that fetches this base model")):
            if not folder.is_whole:
                with _shown(folder.entries, console, "fetch base model") as on_progress:
                    folder.stage(on_progress)
                return folder.path
    console.say(f"The base model is in the cache: {folder.path}.")
    return folder.path


@contextmanager
def _shown(entries: Sequence[Entry], console: Console, name: str) -> Iterator[OnProgress]:
    """A stage whose progress is the bytes that are here."""
    with console.stage(name, total=sum(entry.size for entry in entries), unit=Unit.BYTES) as progress:
        done = 0

        def advance(bytes_done: int, _: int) -> None:
            nonlocal done
            progress.advance(bytes_done - done)
            done = bytes_done

        yield advance


def _short(uri: str) -> str:
    """A folder's name for what lies at a uri."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def _from_hub(uri: str, cache: Path | None, console: Console) -> Path:
    """`hf://org/repo[@revision]` by the hub's own client and cache; HF_HOME, unless `cache` is given, and HF_HUB_OFFLINE are honoured.

    Raises:
        TrainingError: `BaseModelInvalid` when the hub knows no such model, `StorageUnreachable` when it does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    repository, _, revision = uri.removeprefix("hf://").partition("@")
    console.say(f"Fetching {repository} from the Hugging Face hub, or from its cache on this machine.")
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, cache_dir=cache, allow_patterns=HUB_PATTERNS, ignore_patterns=HUB_UNWANTED
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise TrainingError(
            Outcome.BASE_MODEL_INVALID,
            f"The hub has no model {uri.removeprefix('hf://')}, or not for this token; correct baseModel.uri or set HF_TOKEN.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise TrainingError(
            Outcome.STORAGE_UNREACHABLE,
            f"The hub did not answer for {repository} ({type(error).__name__}) and its cache here is not complete.",
        ) from error
