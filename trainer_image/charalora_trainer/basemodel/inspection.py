"""The way in: a base model wherever and however it lies."""

from urllib.parse import unquote

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.basemodel.facts import BaseModelFacts, Source, invalid
from charalora_trainer.basemodel.folder import inspect_folder
from charalora_trainer.basemodel.single_file import inspect_file
from charalora_trainer.finding import Finding
from charalora_trainer.storage import KeyMissing, open_store

FILE_ENDINGS = (".safetensors", ".ckpt")


def locate(uri: str, storage: Storage) -> Source:
    """The base model at an s3:// or file:// uri or a plain path. Reads nothing yet.

    Raises:
        TrainingError: `SpecInvalid` for another scheme.
    """
    if not uri.endswith(FILE_ENDINGS):
        return Source(open_store(uri, storage))
    folder, slash, name = uri.rpartition("/")
    key = unquote(name) if uri.startswith("file://") else name
    return Source(open_store(f"{folder}/" if slash else ".", storage), key)


def inspect(source: Source) -> tuple[BaseModelFacts | None, list[Finding]]:
    """What the base model is, by reading its configs and the headers of its weights, or everything that is wrong with it.

    Raises:
        TrainingError: The store cannot be read.
    """
    try:
        return inspect_file(source, source.file) if source.file else inspect_folder(source)
    except KeyMissing as missing:
        return None, [invalid(f"The base model changes while it is looked at: {missing}")]
    except TrainingError as error:
        if error.outcome is not Outcome.BASE_MODEL_INVALID:
            raise
        return None, [invalid(error.message)]
