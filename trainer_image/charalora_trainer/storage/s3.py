"""A bucket's prefix as a store, on any service that speaks S3."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage import etags
from charalora_trainer.storage.client import PARALLEL
from charalora_trainer.storage.contenttype import content_type
from charalora_trainer.storage.etags import PART
from charalora_trainer.storage.faults import code_of, naming_disk_faults
from charalora_trainer.storage.keys import refuse_hostile
from charalora_trainer.storage.requests import Replaced, Requests, Version, version_of
from charalora_trainer.storage.store import BytesSeen, Entries, Entry, KeyMissing
from charalora_trainer.storage.wholefile import whole_file

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, ObjectTypeDef

T = TypeVar("T")
U = TypeVar("U")

_FRESH_STARTS = 3


class S3Store:
    """Objects below a prefix of a bucket.

    Args:
        client: The connection.
        bucket: Name of the bucket.
        prefix: What every key begins with; a `/` at its end is added where it lacks one.
        patience: Seconds without progress after which a request is given up.
    """

    def __init__(self, client: "S3Client", bucket: str, prefix: str, patience: float) -> None:
        self._requests = Requests(client, bucket, patience)
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._workers = ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3-part")

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix/`."""
        return f"s3://{self._bucket}/{self._prefix}"

    def list(self) -> Entries:
        """All objects below the prefix."""
        entries: Entries = []
        try:
            for found in self._listed():
                if not (found["Key"].endswith("/") and found["Size"] == 0):  # consoles mark folders with such objects
                    entries.append(Entry(found["Key"].removeprefix(self._prefix), found["Size"], found["ETag"].strip('"')))
        except (KeyError, ValueError) as error:  # another program's XML
            raise TrainingError(
                Outcome.STORAGE_UNREACHABLE,
                f"What answers for {self.uri} is no S3 service: its listing has no objects; check storage.endpoint.",
            ) from error
        return sorted(entries, key=lambda entry: entry.key)

    def stat(self, key: str) -> Entry:
        """Size and ETag of one object."""
        try:
            head = self._call("reading", key, lambda: self._client.head_object(**self._at(key)))
        except KeyMissing:
            # The answer to HEAD has no body that could tell a missing bucket from a missing key; a listing's has.
            self._call("reading", key, lambda: self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + key, MaxKeys=1))
            raise
        return Entry(key, head["ContentLength"], head["ETag"].strip('"'))

    def holds(self, path: Path, entry: Entry) -> bool:
        """By size and ETag; False for an object whose ETag is another digest, as with some kinds of encryption."""
        return path.is_file() and path.stat().st_size == entry.size and etags.of_file(path) == entry.etag

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes from `start` to before `end`, all of one version of the object."""

        def whole() -> bytes:
            data = bytearray()
            version = self._requests.stream(self._prefix + key, start or 0, end, data.extend)
            if start is None and end is None:
                _compare(version, etags.md5(data))
            return bytes(data)

        return self._untorn(key, whole)

    def download(self, key: str, path: Path, known: Entry | None = None, on_bytes: BytesSeen | None = None) -> Entry:
        """Bring an object to `path`, a big one by several requests at once, and compare size and MD5."""
        hints = [known] if known else []

        def whole() -> Entry:
            entry = hints.pop() if hints else self.stat(key)
            with naming_disk_faults(f"Writing {path}"), whole_file(path) as draft:
                self._fill(draft, entry, on_bytes)
            return entry

        return self._untorn(key, whole)

    def upload(self, path: Path, key: str) -> None:
        """Send a file, a big one in parts, and make sure that what stands there is what was sent."""
        with naming_disk_faults(f"Reading {path}"), path.open("rb") as file:
            size = path.stat().st_size
            small = file.read(size) if size <= PART else b""
        if size <= PART:
            self.write(key, small)
            return
        self._send_parts(path, key, size)
        found = self.stat(key)
        if found.size != size:
            raise TrainingError(
                Outcome.STORAGE_UNREACHABLE,
                f"{self.uri}{key} has {found.size} bytes after {size} were sent; see whether another run writes there.",
            )

    def write(self, key: str, data: bytes) -> None:
        """Put small data, with its MD5 for the service to check, and compare the ETag that it answers."""
        refuse_hostile(key)

        def put() -> None:
            answer = self._client.put_object(**self._new(key), Body=data, ContentMD5=etags.content_md5(data))
            _compare(version_of(answer), etags.md5(data))

        self._untorn(key, partial(self._call, "writing", key, put))

    def create(self, key: str, data: bytes) -> bool:
        """Put small data unless something is there; the service decides, by `If-None-Match: *`."""
        refuse_hostile(key)
        attempts = []

        def put() -> bool:
            attempts.append(key)
            try:
                self._client.put_object(**self._new(key), Body=data, ContentMD5=etags.content_md5(data), IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) not in {"PreconditionFailed", "412"}:
                    raise
                return False
            return True

        # What stands in the way of a second attempt may be what the first one wrote before its answer was lost.
        return self._call("writing", key, put) or (len(attempts) > 1 and self.read(key) == data)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, one request each: the request for many is told differently by service and version."""
        self._each(lambda key: self._call("deleting", key, lambda: self._client.delete_object(**self._at(key))), list(keys))

    def _listed(self) -> Iterator["ObjectTypeDef"]:
        """Everything below the prefix, page by page of a thousand."""
        page: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix}
        while page:
            answer = self._call("listing", "", partial(self._client.list_objects_v2, **page))
            yield from answer.get("Contents", [])
            page = page | {"ContinuationToken": answer["NextContinuationToken"]} if answer.get("IsTruncated") else {}

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _new(self, key: str) -> dict[str, Any]:
        """Where an object is to be, and what browsers shall take it for."""
        return {**self._at(key), "ContentType": content_type(key)}

    def _call(self, doing: str, key: str, request: Callable[[], T]) -> T:
        return self._requests.call(doing, self._prefix + key, request)

    def _untorn(self, key: str, whole: Callable[[], T]) -> T:
        """What `whole` returns, once more from the start when the object was replaced meanwhile or arrived damaged."""
        for _ in range(_FRESH_STARTS):
            with suppress(Replaced):
                return whole()
        raise TrainingError(
            Outcome.STORAGE_UNREACHABLE,
            f"{self.uri}{key} never arrived as one whole version in {_FRESH_STARTS} attempts; see whether something keeps writing it.",
        )

    def _fill(self, draft: Path, entry: Entry, on_bytes: BytesSeen | None) -> None:
        draft.touch()

        def fetch(bounds: tuple[int, int]) -> Version:
            with draft.open("r+b") as file:
                file.seek(bounds[0])

                def sink(chunk: bytes) -> None:
                    file.write(chunk)
                    if on_bytes:
                        on_bytes(len(chunk))

                return self._requests.stream(self._prefix + entry.key, *bounds, sink, entry.etag)

        versions = self._each(fetch, etags.bounds(entry.size, PART))
        if draft.stat().st_size != entry.size:
            raise Replaced
        if versions and etags.is_md5(entry.etag):
            with draft.open("rb") as file:
                _compare(versions[0], hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest())

    def _send_parts(self, path: Path, key: str, size: int) -> None:
        refuse_hostile(key)
        at = self._at(key)
        upload = self._call("writing", key, lambda: self._client.create_multipart_upload(**self._new(key)))["UploadId"]

        def send(numbered: tuple[int, tuple[int, int]]) -> "CompletedPartTypeDef":
            number, (start, end) = numbered
            with naming_disk_faults(f"Reading {path}"), path.open("rb") as file:
                file.seek(start)
                data = file.read(end - start)
            part: dict[str, Any] = {"UploadId": upload, "PartNumber": number, "Body": data, "ContentMD5": etags.content_md5(data)}
            answer = self._call("writing", key, lambda: self._client.upload_part(**at, **part))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        with ExitStack() as undo:
            undo.callback(self._abort, key, upload)
            sent = self._each(send, list(enumerate(etags.bounds(size, etags.part_of(size)), 1)))
            self._call("writing", key, lambda: self._complete(at, upload, sent))
            undo.pop_all()

    def _complete(self, at: dict[str, Any], upload: str, sent: Sequence["CompletedPartTypeDef"]) -> None:
        try:
            self._client.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": sent})
        except ClientError as error:
            # An earlier attempt may have gone through and only its answer was lost: then the object has this very ETag.
            expected = etags.joined([part["ETag"].strip('"') for part in sent])
            if code_of(error) != "NoSuchUpload" or self._client.head_object(**at)["ETag"].strip('"') != expected:
                raise

    def _abort(self, key: str, upload: str) -> None:
        with suppress(TrainingError, KeyMissing):  # what went wrong before is what counts; a bucket's life-cycle rule sweeps the rest
            self._call("writing", key, lambda: self._client.abort_multipart_upload(**self._at(key), UploadId=upload))

    def _each(self, work: Callable[[T], U], items: Sequence[T]) -> Sequence[U]:
        """The results of `work`, several at once; after a failure nothing of it is still running."""
        if len(items) == 1:
            return [work(items[0])]
        futures = [self._workers.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)


def _compare(version: Version, digest: str) -> None:
    """The ETag of an object that was sent in one part is its MD5, unless it is encrypted with a key of its own."""
    if etags.is_md5(version.etag) and not version.encrypted and version.etag != digest:
        raise Replaced
