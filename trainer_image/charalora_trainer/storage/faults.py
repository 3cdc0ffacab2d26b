"""What botocore's and the disk's errors mean for a run. The only place that reads their codes."""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage.store import KeyMissing

Fault = BotoCoreError | ClientError
FAULTS = (BotoCoreError, ClientError)
"""What a request can raise."""

_CODE = re.compile(r"[A-Za-z0-9._-]{0,64}")
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, NoAuthTokenError, TokenRetrievalError, SSOError)
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_NO_KEY = {"NoSuchKey", "404"}
_DENIED = {
    "AccessDenied": "the credentials may not do this",
    "AllAccessDisabled": "access to it is disabled",
    "AccountProblem": "there is a problem with the account",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "InvalidAccessKeyId": "the access key is unknown there",
    "InvalidToken": "the session token is not valid",
    "ExpiredToken": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "RequestTimeTooSkewed": "this machine's clock differs from the server's",
    "401": "the credentials are wrong or missing",
    "403": "the credentials are wrong, or may not do this",
}
# What services other than AWS say of a bucket, an account or disks that are full.
_FULL = {
    "InsufficientStorage",
    "InsufficientCapacity",
    "NotEnoughSpace",
    "QuotaExceeded",
    "BucketQuotaExceeded",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
    "507",
}
_OTHER_REGION = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
    "307",
}
# BadDigest: the body was damaged on its way. A conflict of conditional writes asks for another try by its own definition.
_TRANSIENT = {
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "BadDigest",
    "IncompleteBody",
    "ConditionalRequestConflict",
}
_OVERLOADED = 429

_DISK = {
    errno.ENOSPC: Outcome.DISK_FULL,
    errno.EDQUOT: Outcome.DISK_FULL,
    errno.EACCES: Outcome.STORAGE_ACCESS_DENIED,
    errno.EPERM: Outcome.STORAGE_ACCESS_DENIED,
    errno.EROFS: Outcome.STORAGE_ACCESS_DENIED,
    errno.EIO: Outcome.STORAGE_UNREACHABLE,
    errno.ESTALE: Outcome.STORAGE_UNREACHABLE,
    errno.ETIMEDOUT: Outcome.STORAGE_UNREACHABLE,
    errno.ENOTCONN: Outcome.STORAGE_UNREACHABLE,
}
_BROKEN_OFF = (BotoConnectionError, HTTPClientError, IncompleteReadError)
_BROKEN: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLError, "{place} does not speak TLS as expected; check storage.endpoint"),
    (socket.gaierror, "the name in {place} cannot be resolved; check storage.endpoint"),
    (ConnectionRefusedError, "{place} refuses the connection; check storage.endpoint and that the service runs"),
    (TimeoutError, "{place} does not answer in time; check storage.endpoint and the network"),
)
_REMEDY = {
    Outcome.DISK_FULL: "free space there or name another folder",
    Outcome.STORAGE_ACCESS_DENIED: "give this user the permission or name another folder",
    Outcome.STORAGE_UNREACHABLE: "check the disk or the network share",
}


@dataclass(frozen=True)
class Place:
    """What messages name: a bucket, its service and the region that requests are signed for."""

    bucket: str
    endpoint: str
    region: str

    def __str__(self) -> str:
        address = urlsplit(self.endpoint)
        return f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")


def code_of(error: Fault) -> str:
    """S3's code for an answer, the HTTP status where it has none; "" when there was no answer.

    Whoever answers chooses it, and it goes into messages: what is no code is called Unknown.
    """
    code = str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
    return code if _CODE.fullmatch(code) else "Unknown"


def _status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def worth_retrying(error: Fault) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, ClientError):
        if _says_full(error):
            return False  # it stays full for longer than a request can wait; whoever sends files tries again later
        status = _status_of(error)
        return status >= 500 or status == _OVERLOADED or code_of(error) in _TRANSIENT
    return isinstance(error, _BROKEN_OFF) and not isinstance(_cause(error), ssl.SSLCertVerificationError)


def _says_full(error: Fault) -> bool:
    return isinstance(error, ClientError) and (code_of(error) in _FULL or _status_of(error) == HTTPStatus.INSUFFICIENT_STORAGE)


def translated(error: Fault, doing: str, uri: str, place: Place) -> TrainingError | KeyMissing:
    """What callers get instead of `error`. `doing` and `uri` say what was tried: reading s3://bucket/key."""
    code = code_of(error)
    if code in _NO_KEY:
        return KeyMissing(uri)
    if code in _NO_BUCKET:
        return TrainingError(
            Outcome.BUCKET_NOT_FOUND,
            f"The bucket {place.bucket} does not exist at {place}; create it, or correct the uri or storage.endpoint.",
        )
    if isinstance(error, ClientError) and _says_full(error):
        return TrainingError(
            Outcome.DISK_FULL,
            f"The bucket {place.bucket} at {place} is full: {doing} {uri} is refused ({code}, HTTP {_status_of(error)}); "
            "free space there or raise its quota, then run the same command again.",
        )
    if refusal := _refusal(error, doing, uri, place):
        return TrainingError(Outcome.STORAGE_ACCESS_DENIED, refusal)
    if code in _OTHER_REGION:
        return TrainingError(
            Outcome.STORAGE_UNREACHABLE,
            f"The bucket {place.bucket} is not in region {place.region}{_region_hint(error)}; correct storage.region or storage.endpoint.",
        )
    return TrainingError(Outcome.STORAGE_UNREACHABLE, f"{doing.capitalize()} {uri} failed: {_why(error, place)}.")


def _refusal(error: Fault, doing: str, uri: str, place: Place) -> str:
    """Of missing and wrong credentials and rights; empty where they are not the cause."""
    code = code_of(error)
    if isinstance(error, _NO_CREDENTIALS):
        return f"No credentials were found for {doing} {uri}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.secretName."
    if code in _DENIED:
        return f"{place} refuses {doing} {uri}: {_DENIED[code]} ({code}); correct the credentials or their rights."
    return ""


def _region_hint(error: Fault) -> str:
    details = error.response if isinstance(error, ClientError) else {}
    headers = details.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = str(details.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region") or "")
    return f" but in {region}" if region and _CODE.fullmatch(region) else ""


def _why(error: Fault, place: Place) -> str:
    """The reason in words. Of botocore's own texts nothing is taken: they may carry whole requests."""
    if isinstance(error, ClientError):
        return f"{place} answers {code_of(error)} (HTTP {_status_of(error)}); check that service, then run the same command again"
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {place} is not trusted ({cause.verify_message}); give its CA (storage.caSecretName, or CHARALORA_CA_FILE)"
        )
    sentence = next(
        (sentence for kind, sentence in _BROKEN if isinstance(cause, kind)), "the connection to {place} broke; check the network"
    )
    return sentence.format(place=place)


def _cause(error: BaseException) -> BaseException:
    """The first error of a chain: what the socket, the resolver or TLS said."""
    seen: BaseException = error
    while following := seen.__cause__ or seen.__context__:
        seen = following
    return seen


@contextmanager
def naming_disk_faults(doing: str) -> Iterator[None]:
    """Full disks, missing permissions and broken disks become a `TrainingError` that says what was being done."""
    try:
        yield
    except OSError as error:
        outcome = _DISK.get(error.errno or 0)
        if outcome is None:
            raise
        raise TrainingError(outcome, f"{doing} failed: {error.strerror}; {_REMEDY[outcome]}.") from error
