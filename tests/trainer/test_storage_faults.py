"""S3Store on a bad network and before a failing service: data arrives whole, or the reason is said in the time given."""

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage import KeyMissing, Store, open_store
from faults import Fault
from services import S3, Answer, FaultyS3, ToxicS3

MEBI = 1 << 20
CONTENT = random.Random(0).randbytes(MEBI)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARALORA_STORAGE_TIMEOUT", "2")


def store_of(s3: S3) -> Store:
    return open_store(s3.uri(), s3.storage)


def unreachable(ask: Callable[[], object]) -> str:
    with pytest.raises(TrainingError) as refused:
        ask()
    assert Outcome.STORAGE_UNREACHABLE is refused.value.outcome
    return refused.value.message


def test_a_slow_answer_is_waited_for(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """300 ms each way is a server on the other side of the world."""
    toxic_s3.put("a", CONTENT)
    toxic_s3.poison("latency", latency=300)

    store_of(toxic_s3).download("a", tmp_path / "a")

    assert CONTENT == (tmp_path / "a").read_bytes()


def test_a_slow_line_is_no_fault(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """A transfer may take longer than the patience, as long as bytes come."""
    toxic_s3.put("a", CONTENT)
    toxic_s3.poison("bandwidth", rate=300)
    began = time.monotonic()

    store_of(toxic_s3).download("a", tmp_path / "a")

    assert time.monotonic() - began > 2.5
    assert CONTENT == (tmp_path / "a").read_bytes()


def test_a_body_that_is_cut_off_goes_on_where_it_stopped(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """Each connection brings 300 kB at most: four of them bring a megabyte."""
    toxic_s3.put("a", CONTENT)
    toxic_s3.poison("limit_data", bytes=300_000)
    seen: list[int] = []

    store_of(toxic_s3).download("a", tmp_path / "a", on_bytes=seen.append)

    assert CONTENT == (tmp_path / "a").read_bytes()
    assert MEBI == sum(seen)


def test_a_big_download_survives_cuts_in_every_part(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """20 MB in parallel ranges, each connection cut after 3 MB."""
    content = random.Random(1).randbytes(20 * MEBI)
    toxic_s3.put("big", content)
    toxic_s3.poison("limit_data", bytes=3_000_000)

    store_of(toxic_s3).download("big", tmp_path / "big")

    assert content == (tmp_path / "big").read_bytes()


def test_a_small_read_survives_a_cut(toxic_s3: ToxicS3) -> None:
    """`read` goes on too."""
    toxic_s3.put("a", CONTENT)
    toxic_s3.poison("limit_data", bytes=400_000)

    assert CONTENT == store_of(toxic_s3).read("a")
    assert CONTENT[10:900_000] == store_of(toxic_s3).read("a", 10, 900_000)


def test_an_object_that_is_replaced_between_two_cuts_comes_in_one_version(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """What goes on after a cut must not be another version's second half."""
    other = bytes(reversed(CONTENT))
    toxic_s3.put("a", CONTENT)
    toxic_s3.poison("limit_data", bytes=300_000)
    replaced = threading.Event()

    def replace_once(_: int) -> None:
        if not replaced.is_set():
            replaced.set()
            toxic_s3.put("a", other)

    store_of(toxic_s3).download("a", tmp_path / "a", on_bytes=replace_once)

    assert other == (tmp_path / "a").read_bytes()


def test_an_upload_whose_connection_breaks_is_sent_again(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """A connection carries one part and a half; every part arrives."""
    content = random.Random(2).randbytes(20 * MEBI)
    (tmp_path / "big").write_bytes(content)
    toxic_s3.poison("limit_data", stream="upstream", bytes=13_000_000)

    store_of(toxic_s3).upload(tmp_path / "big", "big")

    assert content == toxic_s3.get("big")


def test_an_upload_that_never_gets_through_is_unreachable_and_leaves_nothing(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """No half object; the parts that did arrive are taken back once the network allows it."""
    (tmp_path / "a").write_bytes(CONTENT)
    toxic_s3.poison("limit_data", stream="upstream", bytes=100_000)

    assert "the connection to" in unreachable(lambda: store_of(toxic_s3).upload(tmp_path / "a", "a"))
    assert [] == toxic_s3.keys()


def test_a_failed_upload_in_parts_takes_its_parts_back(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """Parts of an upload that nobody completes cost money, unseen."""
    (tmp_path / "big").write_bytes(bytes(9 * MEBI))
    store = store_of(faulty_s3)
    faulty_s3.answer(Answer(403, "AccessDenied"), method="PUT")

    with pytest.raises(TrainingError):
        store.upload(tmp_path / "big", "big")

    assert [] == faulty_s3.client.list_multipart_uploads(Bucket=faulty_s3.bucket).get("Uploads", [])


def test_connections_that_are_reset_are_unreachable(toxic_s3: ToxicS3) -> None:
    """The message names the endpoint; the time given is kept."""
    toxic_s3.poison("reset_peer", timeout=0)
    began = time.monotonic()

    message = unreachable(store_of(toxic_s3).list)

    assert f"the connection to {toxic_s3.endpoint} broke; check the network" in message
    assert time.monotonic() - began < 6


def test_a_service_that_says_nothing_is_unreachable(toxic_s3: ToxicS3) -> None:
    """A connection that stands, and no answer."""
    toxic_s3.poison("timeout", timeout=0)

    assert f"{toxic_s3.endpoint} does not answer in time" in unreachable(store_of(toxic_s3).list)


def test_a_download_that_stalls_is_unreachable_and_leaves_nothing(toxic_s3: ToxicS3, tmp_path: Path) -> None:
    """Half a file is no file."""
    toxic_s3.put("a", CONTENT)
    toxic_s3.poison("bandwidth", rate=0)

    unreachable(lambda: store_of(toxic_s3).download("a", tmp_path / "a"))

    assert [] == list(tmp_path.iterdir())


def test_a_service_that_comes_back_in_time_is_as_if_it_had_never_been_away(toxic_s3: ToxicS3) -> None:
    """One second of refused connections within two of patience."""
    toxic_s3.put("a", CONTENT)
    store = store_of(toxic_s3)
    toxic_s3.connected(enabled=False)
    back = threading.Timer(1, toxic_s3.connected, kwargs={"enabled": True})
    back.start()

    assert CONTENT == store.read("a")
    back.join()


def test_a_passing_failure_of_the_service_is_tried_again(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """Whatever was asked: the third attempt has its way."""
    faulty_s3.put("a", CONTENT)
    (tmp_path / "up").write_bytes(CONTENT)
    store = store_of(faulty_s3)
    for ask in (
        store.list,
        partial(store.read, "a"),
        partial(store.stat, "a"),
        partial(store.download, "a", tmp_path / "down"),
        partial(store.upload, tmp_path / "up", "b"),
        partial(store.create, "c", b"x"),
        partial(store.delete, ["a"]),
    ):
        faulty_s3.answer(Answer(503, "SlowDown"), times=2)
        ask()
        assert [] == faulty_s3.faults

    assert CONTENT == (tmp_path / "down").read_bytes() == faulty_s3.get("b")
    assert ["b", "c"] == faulty_s3.keys()


@pytest.mark.parametrize("answer", [Answer(500, "InternalError"), Answer(502), Answer(503), Answer(429, "TooManyRequests")])
def test_every_kind_of_passing_failure_is_tried_again(faulty_s3: FaultyS3, answer: Answer) -> None:
    """Also those of a gateway, which have no S3 code."""
    faulty_s3.put("a", CONTENT)
    faulty_s3.answer(answer)

    assert CONTENT == store_of(faulty_s3).read("a")


def test_a_failure_that_stays_is_unreachable_and_says_what_the_service_answers(faulty_s3: FaultyS3) -> None:
    """The code is what an administrator searches for."""
    faulty_s3.answer(Answer(503, "SlowDown"), times=100)

    assert f"{faulty_s3.endpoint} answers SlowDown (HTTP 503)" in unreachable(store_of(faulty_s3).list)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(301, "PermanentRedirect", (("x-amz-bucket-region", "eu-central-1"),)),
        Answer(400, "AuthorizationHeaderMalformed", (("x-amz-bucket-region", "eu-central-1"),)),
    ],
)
def test_a_wrong_region_is_said_at_once(faulty_s3: FaultyS3, answer: Answer) -> None:
    """And which one is right, where the service tells."""
    faulty_s3.answer(answer, times=3)

    message = unreachable(store_of(faulty_s3).list)

    assert f"The bucket {faulty_s3.bucket} is not in region us-east-1 but in eu-central-1" in message


def test_a_refusal_is_not_asked_for_twice(faulty_s3: FaultyS3) -> None:
    """An administrator's log does not fill up."""
    faulty_s3.answer(Answer(403, "AccessDenied"))

    with pytest.raises(TrainingError, match="the credentials may not do this"):
        store_of(faulty_s3).list()

    assert [f"GET /{faulty_s3.bucket}"] == faulty_s3.requests


def test_a_creation_whose_answer_is_lost_is_known_to_be_ours(faulty_s3: FaultyS3) -> None:
    """The second attempt finds what the first one wrote."""
    faulty_s3.lose_answer(Answer(500, "InternalError"), "PUT")

    assert store_of(faulty_s3).create("owner", b"this run")
    assert b"this run" == faulty_s3.get("owner")


def test_a_completion_whose_answer_is_lost_is_known_to_be_done(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """A service may forget an upload that it has completed; the object tells."""
    content = random.Random(3).randbytes(9 * MEBI)
    (tmp_path / "big").write_bytes(content)
    store = store_of(faulty_s3)
    faulty_s3.pass_on("POST")
    faulty_s3.lose_answer(Answer(500, "InternalError"), "POST")
    faulty_s3.answer(Answer(404, "NoSuchUpload"), method="POST")

    store.upload(tmp_path / "big", "big")

    assert content == faulty_s3.get("big")


def test_a_lost_key_is_not_mistaken_for_a_lost_bucket(faulty_s3: FaultyS3) -> None:
    """The answer to a question for size has no body; a second question tells them apart."""
    with pytest.raises(KeyMissing):
        store_of(faulty_s3).stat("absent")

    assert [f"HEAD /{faulty_s3.bucket}/absent", f"GET /{faulty_s3.bucket}"] == faulty_s3.requests


def test_damage_on_the_way_is_noticed_and_mended(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """A body of the right length with a wrong byte has another MD5 than the ETag says."""
    faulty_s3.put("a", CONTENT)
    faulty_s3.damage(times=1)

    store_of(faulty_s3).download("a", tmp_path / "a")

    assert CONTENT == (tmp_path / "a").read_bytes()


def test_damage_that_stays_is_unreachable_and_leaves_nothing(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """A wrong file is worse than none."""
    faulty_s3.put("a", CONTENT)
    faulty_s3.damage(times=20)

    assert "never arrived as one whole version" in unreachable(lambda: store_of(faulty_s3).download("a", tmp_path / "a"))
    assert [] == list(tmp_path.iterdir())


def test_a_write_that_is_acknowledged_with_another_digest_is_sent_again(faulty_s3: FaultyS3) -> None:
    """The ETag of the answer is the MD5 of what the service holds."""
    other = Answer(200, headers=(("ETag", f'"{"0" * 32}"'),))
    faulty_s3.answer(other, method="PUT")

    store_of(faulty_s3).write("a", b"x")

    assert b"x" == faulty_s3.get("a")
    faulty_s3.answer(other, times=3, method="PUT")
    assert "never arrived as one whole version" in unreachable(lambda: store_of(faulty_s3).write("b", b"x"))


@pytest.mark.fault(Fault.HOSTILE_TEXT)
def test_what_is_no_listing_of_s3_is_said_to_be_none(faulty_s3: FaultyS3) -> None:
    """Whatever address a user wrote as the endpoint: another program's answer ends in a sentence and shows nothing of it."""
    faulty_s3.put("a", b"x")
    faulty_s3.forge(b"Size>", b"Hint>", times=1)

    assert "is no S3 service" in unreachable(store_of(faulty_s3).list)
