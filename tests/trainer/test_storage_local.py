"""LocalStore: the same behaviour as a bucket's, on a disk."""

import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.storage import KeyMissing, Store, open_store
from charalora_trainer.storage.local import LocalStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "surtr"


@pytest.fixture
def store(folder: Path) -> Store:
    return LocalStore(folder)


@pytest.mark.parametrize("uri", ["{0}/surtr", "{0}/surtr/", "file://{0}/surtr/", "file://{0}/surt%72/"])
def test_a_folder_is_opened_by_path_and_by_uri(uri: str, tmp_path: Path) -> None:
    """All name the same store; its uri ends in a slash."""
    opened = open_store(uri.format(tmp_path), Storage())

    opened.write("a", b"x")

    assert b"x" == (tmp_path / "surtr/a").read_bytes()
    assert f"file://{tmp_path}/surtr/" == opened.uri


def test_a_relative_path_begins_where_the_program_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays that place when the working folder changes later."""
    monkeypatch.chdir(tmp_path)
    opened = open_store("surtr", Storage())
    monkeypatch.chdir("/")

    opened.write("a", b"x")

    assert (tmp_path / "surtr/a").exists()


@pytest.mark.parametrize("uri", ["http://example.com/a", "gs://bucket/a", "hf://org/model"])
def test_another_scheme_is_refused(uri: str) -> None:
    """The message says what can be opened."""
    with pytest.raises(TrainingError, match="use s3://bucket/prefix/ or file:///folder/") as refused:
        open_store(uri, Storage())
    assert Outcome.SPEC_INVALID is refused.value.outcome


def test_what_is_written_is_listed_and_read(store: Store) -> None:
    """Sorted by key, with sizes; a write replaces."""
    store.write("sub/b.txt", b"old")
    store.write("sub/b.txt", b"new!")
    store.write("a.txt", b"")

    assert [("a.txt", 0), ("sub/b.txt", 4)] == [(entry.key, entry.size) for entry in store.list()]
    assert b"new!" == store.read("sub/b.txt")


def test_a_folder_that_is_not_there_is_empty(store: Store, folder: Path) -> None:
    """As a prefix with nothing below it; looking does not make it."""
    assert [] == store.list()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(None, None, b"0123456789"), (0, 4, b"0123"), (4, None, b"456789"), (None, 3, b"012"), (8, 20, b"89"), (10, 12, b""), (5, 5, b"")],
)
def test_ranges_are_those_of_a_slice(store: Store, start: int | None, end: int | None, expected: bytes) -> None:
    """From `start` to before `end`, and less where the file ends."""
    store.write("digits", b"0123456789")

    assert expected == store.read("digits", start, end)


def test_files_make_the_way_there_and_back(store: Store, tmp_path: Path) -> None:
    """Folders are made as needed; the ETag is the listed one."""
    (tmp_path / "up").write_bytes(b"content")

    store.upload(tmp_path / "up", "sub/a")
    entry = store.download("sub/a", tmp_path / "deep/down")

    assert b"content" == (tmp_path / "deep/down").read_bytes()
    assert [entry] == store.list() == [store.stat("sub/a")]


def test_the_etag_changes_with_the_content(store: Store) -> None:
    """Also when the size stays."""
    store.write("a", b"one")
    before = store.stat("a").etag
    store.write("a", b"two")

    assert before != store.stat("a").etag


def test_a_store_knows_what_it_holds_already(store: Store, tmp_path: Path) -> None:
    """By the bytes; another content or size, or no file, is something else."""
    for name, data, same in (("a", b"one", True), ("b", b"two", False), ("c", b"longer", False)):
        store.write("key", b"one")
        (tmp_path / name).write_bytes(data)
        assert same is store.holds(tmp_path / name, store.stat("key"))
    assert not store.holds(tmp_path / "absent", store.stat("key"))


@pytest.mark.parametrize("key", ["absent", "sub", "a/below/a/file"])
def test_a_key_that_is_no_file_is_missing(store: Store, key: str, tmp_path: Path) -> None:
    """A folder is none, and there is nothing below a file."""
    store.write("a", b"x")
    store.write("sub/a", b"x")
    for ask in (store.read, store.stat, lambda wanted: store.download(wanted, tmp_path / "down")):
        with pytest.raises(KeyMissing, match=key):
            ask(key)


@pytest.mark.parametrize("key", ["../outside", "/tmp/outside", "a/../../outside", "a\\b", "a\x00b", ""])  # noqa: S108
def test_no_key_leads_out_of_the_folder(store: Store, key: str, tmp_path: Path) -> None:
    """Whatever is asked."""
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "file").write_bytes(b"x")
    for ask in (
        partial(store.read, key),
        partial(store.write, key, b"x"),
        partial(store.upload, tmp_path / "file", key),
        partial(store.delete, [key]),
    ):
        with pytest.raises(TrainingError) as refused:
            ask()
        assert Outcome.DATASET_INVALID is refused.value.outcome
    assert b"secret" == (tmp_path / "outside").read_bytes()


def test_a_reader_sees_the_old_file_or_the_new_one_and_nothing_between(store: Store, folder: Path) -> None:
    """Writing is by another name, and renaming."""
    versions = [bytes([letter]) * 300_000 for letter in (65, 66)]
    store.write("a", versions[0])
    done = threading.Event()

    def rewrite() -> None:
        for turn in range(60):
            store.write("a", versions[turn % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(rewrite)
        seen = set()
        while not done.is_set() and not writing.done():
            seen.add(store.read("a"))
        writing.result()

    assert seen <= set(versions)
    assert [folder / "a"] == list(folder.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond `size` bytes, as a disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_breaks_off_leaves_what_was_there(store: Store, folder: Path, tmp_path: Path) -> None:
    """Neither a half file nor a temporary one."""
    store.write("a", b"old")
    (tmp_path / "big").write_bytes(bytes(200_000))
    for ask in (
        partial(store.write, "a", bytes(200_000)),
        partial(store.upload, tmp_path / "big", "a"),
        partial(store.create, "b", bytes(200_000)),
    ):
        with files_of_at_most(100_000), pytest.raises(OSError, match="File too large"):
            ask()

    assert b"old" == store.read("a")
    assert [folder / "a"] == list(folder.iterdir())


def test_what_a_killed_writer_left_is_not_listed(store: Store, folder: Path) -> None:
    """Its temporary name is no key."""
    store.write("a", b"x")
    (folder / ".charalora-part-0123456789abcdef").write_bytes(b"half")

    assert ["a"] == [entry.key for entry in store.list()]


def test_links_to_files_are_files(store: Store, folder: Path, tmp_path: Path) -> None:
    """Data sets are often put together with links; a link to nothing is nothing."""
    (tmp_path / "elsewhere.png").write_bytes(b"picture")
    folder.mkdir()
    (folder / "a.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "broken.png").symlink_to(tmp_path / "absent.png")

    assert [("a.png", 7)] == [(entry.key, entry.size) for entry in store.list()]
    assert b"picture" == store.read("a.png")


def test_of_writers_at_the_same_time_one_creates(store: Store, folder: Path) -> None:
    """The file is whole at once, and nothing else is left."""
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.create("owner", str(number).encode()), range(8)))

    assert 1 == won.count(True)
    assert str(won.index(True)).encode() == store.read("owner")
    assert [folder / "owner"] == list(folder.iterdir())


def test_deleted_files_are_gone_with_the_folders_that_they_leave_empty(store: Store, folder: Path) -> None:
    """As in a bucket, which has no folders; an absent key is no error."""
    for key in ("state/1/a", "state/1/b", "state/2/a"):
        store.write(key, b"x")

    store.delete(["state/1/a", "state/1/b", "absent/key"])

    assert ["state/2/a"] == [entry.key for entry in store.list()]
    assert [folder / "state/2"] == list((folder / "state").iterdir())


def test_a_place_that_may_not_be_written_is_access_denied() -> None:
    """Nobody makes folders in /sys; the message names the file."""
    with pytest.raises(TrainingError, match="Writing file:///sys/charalora/a failed") as refused:
        LocalStore(Path("/sys/charalora")).write("a", b"x")
    assert Outcome.STORAGE_ACCESS_DENIED is refused.value.outcome
