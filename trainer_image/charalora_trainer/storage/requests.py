"""Requests to one bucket: tried again while that can help, their errors translated."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from charalora_trainer.storage.faults import FAULTS, Fault, Place, code_of, translated, worth_retrying
from charalora_trainer.storage.patience import Patience

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, PutObjectOutputTypeDef

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHUNK = 1 << 20


class Replaced(Exception):  # noqa: N818  # a reason to start over, never an outcome
    """The object is no longer the version that was being read."""


@dataclass(frozen=True)
class Version:
    """What an answer says about the object that its bytes are of.

    Attributes:
        etag: Without quotes; "" where the service sends none.
        encrypted: Whether the ETag of a single part is something else than the MD5 of the content.
    """

    etag: str
    encrypted: bool


class Requests:
    """Sends requests to the bucket of one store.

    Args:
        client: The connection.
        bucket: Name of the bucket.
        patience: Seconds without progress after which a request is given up.
    """

    def __init__(self, client: "S3Client", bucket: str, patience: float) -> None:
        self.client = client
        self.bucket = bucket
        self._place = Place(bucket, client.meta.endpoint_url, client.meta.region_name)
        self._patience = patience

    def call(self, doing: str, key: str, request: Callable[[], T]) -> T:
        """What `request` returns. `doing` names it in messages, in the form "reading"; `key` is the whole one in the bucket.

        Raises:
            KeyMissing: The key is not there.
            TrainingError: The bucket is not there, the credentials are refused, or the service stays unreachable.
        """
        patience = Patience(self._patience)
        while True:
            try:
                return request()
            except FAULTS as error:
                self._bear(error, patience, doing, key)

    def stream(self, key: str, start: int, end: int | None, sink: Callable[[bytes], object], etag: str = "") -> Version:
        """Hand the bytes from `start` to before `end` to `sink`, in order; a body that breaks off goes on where it stopped.

        `etag` is the version that is wanted; without it the one that the first answer has.

        Raises:
            Replaced: That version is gone.
            KeyMissing, TrainingError: As `call`.
        """
        patience = Patience(self._patience)
        version = Version(etag, encrypted=False)
        position = start
        while end is None or position < end:
            began = position
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=key, **_wanted(position, end, version.etag))
                version = version_of(answer)
                for chunk in answer["Body"].iter_chunks(_CHUNK):
                    sink(chunk)
                    position += len(chunk)
            except FAULTS as error:
                if code_of(error) in {"InvalidRange", "416"}:
                    break  # the object ends before `position`
                if code_of(error) in {"PreconditionFailed", "412"}:
                    raise Replaced from error
                if position > began:
                    patience.renew()
                self._bear(error, patience, "reading", key)
            else:
                break
        return version

    def _bear(self, error: Fault, patience: Patience, doing: str, key: str) -> None:
        """Return when it is time for another attempt; raise the translated error when there is no use in one."""
        meant = translated(error, doing, f"s3://{self.bucket}/{key}", self._place)
        if not worth_retrying(error):
            raise meant from error
        logger.warning("Storage request failed", extra={"doing": doing, "key": key, "why": str(meant)})
        if not patience.pause():
            raise meant from error


def _wanted(start: int, end: int | None, etag: str) -> dict[str, Any]:
    wanted: dict[str, Any] = {"IfMatch": f'"{etag}"'} if etag else {}
    if start or end is not None:
        wanted["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    return wanted


def version_of(answer: "GetObjectOutputTypeDef | PutObjectOutputTypeDef") -> Version:
    """The version that an answer speaks of."""
    encrypted = answer.get("ServerSideEncryption", "").startswith("aws:kms") or bool(answer.get("SSECustomerAlgorithm"))
    return Version(answer.get("ETag", "").strip('"'), encrypted)
