import errno
import random
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
)

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import AddressingStyle
from charalora_trainer.storage.client import addressing, patience_seconds
from charalora_trainer.storage.faults import Place, naming_disk_faults, translated, worth_retrying
from charalora_trainer.storage.patience import Patience
from charalora_trainer.storage.store import KeyMissing

PLACE = Place("loras", "https://user:hunter2@s3.example.com:9000/", "us-east-1")


def answered(status: int, code: str, **details: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, **details}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # type: ignore[typeddict-item]


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds since the start."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.mark.parametrize(
    ("style", "endpoint", "expected"),
    [
        (AddressingStyle.AUTO, "", "auto"),
        (AddressingStyle.AUTO, "https://s3.eu-west-1.amazonaws.com", "auto"),
        (AddressingStyle.AUTO, "https://s3.cn-north-1.amazonaws.com.cn", "auto"),
        (AddressingStyle.AUTO, "http://127.0.0.1:8333", "path"),
        (AddressingStyle.AUTO, "http://localhost:8333", "path"),
        (AddressingStyle.AUTO, "http://[::1]:8333", "path"),
        (AddressingStyle.AUTO, "https://minio.example.com", "path"),
        (AddressingStyle.AUTO, "https://amazonaws.com.example.com", "path"),
        (AddressingStyle.PATH, "", "path"),
        (AddressingStyle.VIRTUAL, "http://127.0.0.1:8333", "virtual"),
    ],
)
def test_the_bucket_stands_in_the_path_unless_the_service_is_aws(style: AddressingStyle, endpoint: str, expected: str) -> None:
    """`auto` does what works with the service; `path` and `virtual` do as they say."""
    assert expected == addressing(style, endpoint)


def test_an_hour_of_patience_is_read_from_the_environment() -> None:
    """CHARALORA_STORAGE_TIMEOUT is in seconds; without it a minute."""
    assert (3600.0, 60.0, 60.0) == tuple(
        patience_seconds(e) for e in ({"CHARALORA_STORAGE_TIMEOUT": "3600"}, {}, {"CHARALORA_STORAGE_TIMEOUT": ""})
    )


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf"])
def test_a_patience_that_is_no_time_is_refused(text: str) -> None:
    """The message names the variable."""
    with pytest.raises(TrainingError, match="CHARALORA_STORAGE_TIMEOUT") as refused:
        patience_seconds({"CHARALORA_STORAGE_TIMEOUT": text})

    assert Outcome.SPEC_INVALID is refused.value.outcome


def test_patience_ends_within_its_time() -> None:
    """A service that fails at once is given up after the budget, not before three quarters of it."""
    random.seed(0)
    clock = Clock()
    patience = Patience(60, clock, clock.sleep)

    while patience.pause():
        pass

    assert 45 <= clock.now <= 60


def test_patience_waits_longer_each_time() -> None:
    """Pauses double up to ten seconds, each shortened by chance to no less than its half."""
    random.seed(0)
    clock = Clock()
    patience = Patience(1000, clock, clock.sleep)
    pauses = []
    for _ in range(9):
        before = clock.now
        patience.pause()
        pauses.append(clock.now - before)

    limits = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))


def test_an_attempt_that_alone_takes_longer_than_the_patience_is_still_tried_three_times() -> None:
    """A slow upload that breaks off at its end would otherwise never get a second chance."""
    clock = Clock()
    patience = Patience(1, clock, clock.sleep)
    tried = []
    for _ in range(3):
        clock.now += 100
        tried.append(patience.pause())

    assert [True, True, False] == tried


def test_progress_renews_patience() -> None:
    """A body that breaks off again and again, but goes on each time, arrives."""
    clock = Clock()
    patience = Patience(1, clock, clock.sleep)
    for _ in range(10):
        clock.now += 100
        patience.renew()
        assert patience.pause()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (answered(404, "NoSuchBucket"), Outcome.BUCKET_NOT_FOUND),
        (answered(400, "InvalidBucketName"), Outcome.BUCKET_NOT_FOUND),
        (answered(403, "AccessDenied"), Outcome.STORAGE_ACCESS_DENIED),
        (answered(403, "SignatureDoesNotMatch"), Outcome.STORAGE_ACCESS_DENIED),
        (answered(403, "InvalidAccessKeyId"), Outcome.STORAGE_ACCESS_DENIED),
        (answered(400, "ExpiredToken"), Outcome.STORAGE_ACCESS_DENIED),
        (answered(403, "RequestTimeTooSkewed"), Outcome.STORAGE_ACCESS_DENIED),
        (answered(403, "403"), Outcome.STORAGE_ACCESS_DENIED),
        (NoCredentialsError(), Outcome.STORAGE_ACCESS_DENIED),
        (answered(507, "InsufficientStorage"), Outcome.DISK_FULL),
        (answered(507, "507"), Outcome.DISK_FULL),
        (answered(403, "QuotaExceeded"), Outcome.DISK_FULL),
        (answered(400, "XMinioAdminBucketQuotaExceeded"), Outcome.DISK_FULL),
        (answered(301, "PermanentRedirect"), Outcome.STORAGE_UNREACHABLE),
        (answered(400, "two\nlines\x85 of hunter2"), Outcome.STORAGE_UNREACHABLE),
        (answered(400, "AuthorizationHeaderMalformed"), Outcome.STORAGE_UNREACHABLE),
        (answered(503, "SlowDown"), Outcome.STORAGE_UNREACHABLE),
        (answered(500, "InternalError"), Outcome.STORAGE_UNREACHABLE),
        (answered(400, "SomethingNew"), Outcome.STORAGE_UNREACHABLE),
        (EndpointConnectionError(endpoint_url="https://s3.example.com"), Outcome.STORAGE_UNREACHABLE),
        (ConnectTimeoutError(endpoint_url="https://s3.example.com"), Outcome.STORAGE_UNREACHABLE),
    ],
)
def test_each_error_of_a_service_has_its_reason(error: Any, outcome: Outcome) -> None:
    """Design §8: bucket missing, access denied, unreachable. No message holds a credential, each is one line."""
    meant = translated(error, "reading", "s3://loras/surtr/a.png", PLACE)

    assert isinstance(meant, TrainingError)
    assert outcome is meant.outcome
    assert "hunter2" not in meant.message
    assert "\n" not in meant.message


def test_a_wrong_region_says_the_right_one() -> None:
    """Services name the bucket's region; the message passes it on."""
    meant = translated(answered(400, "AuthorizationHeaderMalformed", Region="eu-central-1"), "reading", "s3://loras/a", PLACE)

    assert "The bucket loras is not in region us-east-1 but in eu-central-1; correct storage.region or storage.endpoint." == str(meant)


def test_a_missing_key_is_its_own_error() -> None:
    """What an absent key means is the caller's to say."""
    meant = translated(answered(404, "NoSuchKey"), "reading", "s3://loras/a", PLACE)

    assert isinstance(meant, KeyMissing)
    assert "s3://loras/a does not exist." == str(meant)


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (502, "502"), (429, "429"), (400, "RequestTimeout"), (400, "BadDigest")]
)
def test_a_passing_fault_is_worth_another_try(status: int, code: str) -> None:
    """Overload, failure inside the service, damage on the way."""
    assert worth_retrying(answered(status, code))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (507, "InsufficientStorage"),
        (403, "AccessDenied"),
        (404, "NoSuchKey"),
        (404, "NoSuchBucket"),
        (400, "InvalidArgument"),
        (301, "PermanentRedirect"),
    ],
)
def test_a_refusal_is_not_worth_another_try(status: int, code: str) -> None:
    """The same request would be refused again."""
    assert not worth_retrying(answered(status, code))


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.ENOSPC, Outcome.DISK_FULL),
        (errno.EDQUOT, Outcome.DISK_FULL),
        (errno.EACCES, Outcome.STORAGE_ACCESS_DENIED),
        (errno.EIO, Outcome.STORAGE_UNREACHABLE),
    ],
)
def test_each_fault_of_a_disk_has_its_reason(number: int, outcome: Outcome) -> None:
    """The message says what was being done."""
    with pytest.raises(TrainingError, match="Writing /work/a failed") as raised, naming_disk_faults("Writing /work/a"):
        raise OSError(number, "as told")

    assert outcome is raised.value.outcome


def test_a_fault_that_no_disk_has_is_passed_on() -> None:
    """A mistake in the program is not dressed up as a fault of the storage."""
    with pytest.raises(IsADirectoryError), naming_disk_faults("Writing"):
        raise IsADirectoryError(errno.EISDIR, "as told")
