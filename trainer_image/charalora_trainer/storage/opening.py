"""From a uri to its store."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.storage.local import LocalStore
from charalora_trainer.storage.store import Store


def open_store(uri: str, storage: Storage) -> Store:
    """The store of `s3://bucket/prefix/`, of `file:///folder/` or of a plain path. Asks nothing of any server yet.

    `storage` says how S3 is reached; for folders it is not read.

    Raises:
        TrainingError: `SpecInvalid` for another scheme, or when the settings from the environment are wrong.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalStore(Path(uri))
    if scheme == "file":
        return LocalStore(Path(unquote(urlsplit(uri).path)))
    if scheme == "s3":
        from charalora_trainer.storage.client import patience_seconds, s3_client  # boto3 takes as long to import as all the rest
        from charalora_trainer.storage.s3 import S3Store

        bucket, _, prefix = rest.partition("/")
        return S3Store(s3_client(storage, os.environ), bucket, prefix, patience_seconds(os.environ))
    raise TrainingError(Outcome.SPEC_INVALID, f"{uri} is no store that can be opened; use s3://bucket/prefix/ or file:///folder/.")
