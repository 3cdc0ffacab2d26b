"""S3Store against a real S3 service, on a network that works."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.storage import Entry, KeyMissing, Store, open_store
from charalora_trainer.storage.client import s3_client
from services import S3, free_port

MEBI = 1 << 20


@pytest.fixture
def store(s3: S3) -> Store:
    return open_store(s3.uri("surtr/"), s3.storage)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def content(size: int) -> bytes:
    return random.Random(0).randbytes(size)


def refusal(store: Store) -> TrainingError:
    with pytest.raises(TrainingError) as refused:
        store.list()
    return refused.value


def test_what_is_written_is_read(store: Store) -> None:
    """A write replaces what was there."""
    store.write("sub/ステラ 1.txt", b"first")
    store.write("sub/ステラ 1.txt", b"second")

    assert b"second" == store.read("sub/ステラ 1.txt")


def test_a_listing_has_keys_below_the_prefix_with_size_and_etag(store: Store, s3: S3) -> None:
    """Sorted, relative to the prefix; objects elsewhere and the marks of folders are not in it."""
    s3.put("surtr2/other.txt", b"x")
    for key in ("surtr/", "surtr/sub/"):
        s3.put(key, b"")
    store.write("b.txt", b"bb")
    store.write("sub/a.txt", b"")

    assert [Entry("b.txt", 2, md5(b"bb")), Entry("sub/a.txt", 0, md5(b""))] == store.list()


def test_a_prefix_with_nothing_below_it_is_empty_not_wrong(s3: S3) -> None:
    """The output prefix of a first run is such a one."""
    assert [] == open_store(s3.uri("nobody/was/here"), s3.storage).list()


def test_more_than_a_page_is_listed_whole(store: Store, s3: S3) -> None:
    """The service gives a thousand keys at a time."""
    keys = [f"{number:04}.txt" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put(f"surtr/{key}", b"1"), keys))

    assert keys == [entry.key for entry in store.list()]


def test_a_prefix_needs_no_slash_at_its_end_and_the_uri_has_one(s3: S3) -> None:
    """`store.uri + key` names an object; `surtr` does not reach into `surtr2`."""
    s3.put("surtr2/a", b"x")
    uris = [open_store(s3.uri(prefix), s3.storage).uri for prefix in ("surtr", "surtr/", "")]

    assert [s3.uri("surtr/"), s3.uri("surtr/"), s3.uri()] == uris
    assert [] == open_store(s3.uri("surtr"), s3.storage).list()
    assert ["surtr2/a"] == [entry.key for entry in open_store(s3.uri(), s3.storage).list()]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, b"0123456789"),
        (0, 4, b"0123"),
        (4, None, b"456789"),
        (None, 3, b"012"),
        (8, 20, b"89"),
        (10, 12, b""),
        (20, 30, b""),
        (5, 5, b""),
    ],
)
def test_ranges_are_those_of_a_slice(store: Store, start: int | None, end: int | None, expected: bytes) -> None:
    """From `start` to before `end`, and less where the object ends."""
    store.write("digits", b"0123456789")

    assert expected == store.read("digits", start, end)


def test_an_empty_object_is_read_and_downloaded(store: Store, tmp_path: Path) -> None:
    """No range of it can be asked for."""
    store.write("empty", b"")

    assert b"" == store.read("empty")
    assert 0 == store.download("empty", tmp_path / "empty").size
    assert b"" == (tmp_path / "empty").read_bytes()


def test_a_big_file_makes_the_way_there_and_back_in_parts(store: Store, tmp_path: Path) -> None:
    """20 MB: three parts up, three ranges down, equal bytes, and progress that adds up."""
    (tmp_path / "up").write_bytes(content(20 * MEBI))
    seen: list[int] = []

    store.upload(tmp_path / "up", "weights/big.safetensors")
    entry = store.download("weights/big.safetensors", tmp_path / "down/big", on_bytes=seen.append)

    assert store.stat("weights/big.safetensors") == entry
    assert entry.etag.endswith("-3")
    assert 20 * MEBI == sum(seen)
    assert (tmp_path / "up").read_bytes() == (tmp_path / "down/big").read_bytes()
    assert [tmp_path / "down/big"] == list((tmp_path / "down").iterdir())


def test_a_small_file_makes_the_way_there_and_back(store: Store, tmp_path: Path) -> None:
    """Its ETag is its MD5, by which it is compared."""
    (tmp_path / "up").write_bytes(content(3 * MEBI))

    store.upload(tmp_path / "up", "small")

    assert Entry("small", 3 * MEBI, md5(content(3 * MEBI))) == store.download("small", tmp_path / "down")
    assert content(3 * MEBI) == (tmp_path / "down").read_bytes()


def test_a_store_knows_what_it_holds_already(store: Store, tmp_path: Path) -> None:
    """By ETag, of small files and of those sent in parts; another content or size, or no file, is something else."""
    for name, size in (("small", 1000), ("big", 9 * MEBI)):
        (tmp_path / name).write_bytes(content(size))
        store.upload(tmp_path / name, name)
        entry = store.stat(name)
        assert store.holds(tmp_path / name, entry)

        (tmp_path / name).write_bytes(bytes(size))
        assert not store.holds(tmp_path / name, entry)
        (tmp_path / name).write_bytes(content(size)[1:])
        assert not store.holds(tmp_path / name, entry)
        assert not store.holds(tmp_path / "absent", entry)


def test_of_an_object_that_changed_since_it_was_listed_the_present_version_comes(store: Store, tmp_path: Path) -> None:
    """Never a mixture; the answer says which version it is."""
    store.write("a", content(9 * MEBI))
    listed = store.list()[0]
    store.write("a", b"new")

    entry = store.download("a", tmp_path / "a", listed)

    assert store.list() == [entry]
    assert b"new" == (tmp_path / "a").read_bytes()


def test_a_missing_key_is_missing_whatever_is_asked_of_it(store: Store, tmp_path: Path) -> None:
    """Its name is in the message; nothing is left on the disk."""
    for ask in (store.read, store.stat, lambda key: store.read(key, 2, 4), lambda key: store.download(key, tmp_path / "a")):
        with pytest.raises(KeyMissing, match=f"{store.uri}absent does not exist"):
            ask("absent")

    assert [] == list(tmp_path.iterdir())


def test_a_key_is_created_once(store: Store) -> None:
    """The second writer hears that it came too late, and changes nothing."""
    assert [True, False] == [store.create("owner", b"first"), store.create("owner", b"second")]
    assert b"first" == store.read("owner")


def test_of_writers_at_the_same_time_one_creates(s3: S3) -> None:
    """The service decides between them."""
    stores = [open_store(s3.uri("race/"), s3.storage) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: stores[number].create("owner", str(number).encode()), range(8)))

    assert 1 == won.count(True)
    assert str(won.index(True)).encode() == stores[0].read("owner")


def test_deleted_objects_are_gone_and_absent_ones_no_error(store: Store) -> None:
    """Deleting twice is deleting once."""
    for key in ("a", "b", "c"):
        store.write(key, b"x")

    store.delete(["a", "b", "absent"])
    store.delete([])

    assert ["c"] == [entry.key for entry in store.list()]


def test_a_bucket_that_is_not_there_is_named(s3: S3, tmp_path: Path) -> None:
    """Bucket and endpoint are in the message, whatever was asked; nothing is made."""
    store = open_store("s3://no-such-bucket/surtr/", s3.storage)
    (tmp_path / "file").write_bytes(b"x")
    for ask in (
        store.list,
        lambda: store.read("a"),
        lambda: store.stat("a"),
        lambda: store.write("a", b""),
        lambda: store.upload(tmp_path / "file", "a"),
    ):
        with pytest.raises(TrainingError, match=f"no-such-bucket does not exist at {s3.endpoint}") as refused:
            ask()

        assert Outcome.BUCKET_NOT_FOUND is refused.value.outcome


def test_a_wrong_secret_key_is_access_denied(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what is wrong and holds neither key."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-key")

    refused = refusal(open_store(s3.uri(), s3.storage))

    assert Outcome.STORAGE_ACCESS_DENIED is refused.outcome
    assert "the secret key does not fit the access key" in refused.message
    assert not any(secret in refused.message for secret in ("wrong-secret-key", s3.secret_key, s3.access_key))


def test_an_unknown_access_key_is_access_denied(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the answer has no body, as to a question for size."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODYSKEY")
    store = open_store(s3.uri(), s3.storage)

    assert "the access key is unknown there" in refusal(store).message
    with pytest.raises(TrainingError) as refused:
        store.stat("a")
    assert Outcome.STORAGE_ACCESS_DENIED is refused.value.outcome
    assert "NOBODYSKEY" not in refused.value.message


def test_no_credentials_at_all_says_which_variables_to_set(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the service."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    refused = refusal(open_store(s3.uri(), s3.storage))

    assert Outcome.STORAGE_ACCESS_DENIED is refused.outcome
    assert "set AWS_ACCESS_KEY_ID" in refused.message


def test_a_read_only_key_reads_and_may_not_write(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way of writing says so at once."""
    s3.put("a", b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.reader_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.reader_secret_key)
    store = open_store(s3.uri(), s3.storage)
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "big").write_bytes(bytes(9 * MEBI))

    assert b"x" == store.read("a")
    for ask in (
        lambda: store.write("b", b""),
        lambda: store.create("b", b""),
        lambda: store.delete(["a"]),
        lambda: store.upload(tmp_path / "small", "b"),
        lambda: store.upload(tmp_path / "big", "b"),
    ):
        with pytest.raises(TrainingError, match="the credentials may not do this") as refused:
            ask()
        assert Outcome.STORAGE_ACCESS_DENIED is refused.value.outcome
    assert ["a"] == s3.keys()


def test_an_endpoint_where_nothing_listens_is_unreachable_in_the_time_given(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it and says what to look at."""
    monkeypatch.setenv("CHARALORA_STORAGE_TIMEOUT", "1")
    endpoint = f"http://127.0.0.1:{free_port()}"

    refused = refusal(open_store(s3.uri(), Storage(endpoint=endpoint)))

    assert Outcome.STORAGE_UNREACHABLE is refused.outcome
    assert f"{endpoint} refuses the connection; check storage.endpoint and that the service runs" in refused.message


def test_a_host_that_has_no_address_is_unreachable(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.invalid` is reserved for that."""
    monkeypatch.setenv("CHARALORA_STORAGE_TIMEOUT", "0.5")

    refused = refusal(open_store(s3.uri(), Storage(endpoint="http://s3.invalid")))

    assert Outcome.STORAGE_UNREACHABLE is refused.outcome
    assert "http://s3.invalid cannot be resolved" in refused.message


def test_a_certificate_of_our_own_authority_is_trusted_with_its_file(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator mounts storage.caSecretName and names the file so."""
    s3.put("a", b"x")
    monkeypatch.setenv("CHARALORA_CA_FILE", str(s3.ca_file))

    assert b"x" == open_store(s3.uri(), Storage(endpoint=s3.tls_endpoint)).read("a")


def test_a_certificate_of_our_own_authority_is_trusted_with_the_aws_variable(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other S3 tools read counts here too."""
    s3.put("a", b"x")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(s3.ca_file))

    assert b"x" == open_store(s3.uri(), Storage(endpoint=s3.tls_endpoint)).read("a")


def test_an_unknown_certificate_is_refused_at_once(s3: S3) -> None:
    """Trying again would not help, and the message says what does."""
    refused = refusal(open_store(s3.uri(), Storage(endpoint=s3.tls_endpoint)))

    assert Outcome.STORAGE_UNREACHABLE is refused.outcome
    assert f"the certificate of {s3.tls_endpoint} is not trusted" in refused.message
    assert "storage.caSecretName" in refused.message


def test_https_where_http_is_spoken_is_unreachable(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frequent slip in an endpoint."""
    monkeypatch.setenv("CHARALORA_STORAGE_TIMEOUT", "0.5")

    refused = refusal(open_store(s3.uri(), Storage(endpoint=s3.endpoint.replace("http:", "https:"))))

    assert Outcome.STORAGE_UNREACHABLE is refused.outcome
    assert "does not speak TLS as expected" in refused.message


def test_a_ca_file_that_is_not_there_is_named(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked of the service."""
    monkeypatch.setenv("CHARALORA_CA_FILE", "/no/such/authority")

    with pytest.raises(TrainingError, match="CHARALORA_CA_FILE names /no/such/authority") as refused:
        open_store(s3.uri(), s3.storage)
    assert Outcome.STORAGE_UNREACHABLE is refused.value.outcome


@pytest.mark.parametrize(("style", "expected"), [("auto", "http://s3.test/loras/a"), ("virtual", "http://loras.s3.test/a")])
def test_the_bucket_stands_where_the_addressing_style_says(style: str, expected: str, s3: S3) -> None:  # noqa: ARG001  # s3 for its credentials
    """In the path of a service that is not AWS, unless the host is asked for."""
    storage = Storage.model_validate({"endpoint": "http://s3.test", "addressingStyle": style})
    client = s3_client(storage, {})

    assert expected == client.generate_presigned_url("get_object", {"Bucket": "loras", "Key": "a"}).partition("?")[0]


def test_a_hostile_key_is_never_written(store: Store, tmp_path: Path) -> None:
    """A store refuses to make what it would refuse to stage."""
    (tmp_path / "file").write_bytes(b"x")
    for ask in (lambda: store.write("../a", b""), lambda: store.create("a//b", b""), lambda: store.upload(tmp_path / "file", "/a")):
        with pytest.raises(TrainingError) as refused:
            ask()
        assert Outcome.DATASET_INVALID is refused.value.outcome
