"""Staging a prefix into a folder."""

import os
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage import Entry, Store, open_store
from charalora_trainer.storage.local import LocalStore
from charalora_trainer.storage.staging import INDEX, PARALLEL, stage
from services import S3, Answer, FaultyS3, ToxicS3

FILES = {"01.png": b"picture one", "01.txt": b"1girl", "sub/02.png": b"", "sub/ステラ.txt": b"solo"}
MANY = 2 * PARALLEL


class Watched(LocalStore):
    """A folder store that remembers what was downloaded."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.downloaded: list[str] = []

    def download(self, key: str, *arguments: object) -> Entry:
        """Copy a file, and remember it."""
        self.downloaded.append(key)
        return super().download(key, *arguments)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Watched:
    store = Watched(tmp_path / "source")
    for key, data in FILES.items():
        store.write(key, data)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "staged"


def held(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, without the index."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != INDEX]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def all_of(store: Store, folder: Path) -> None:
    stage(store, store.list(), folder)


def test_a_bucket_is_staged_whole(s3: S3, folder: Path) -> None:
    """Every object under its key, also empty ones and those of other alphabets."""
    for key, data in FILES.items():
        s3.put(f"surtr/{key}", data)

    all_of(open_store(s3.uri("surtr/"), s3.storage), folder)

    assert FILES == held(folder)


def test_what_stands_in_a_bucket_is_not_fetched_again(faulty_s3: FaultyS3, folder: Path) -> None:
    """A second staging lists, and fetches only the object whose ETag changed."""
    for key, data in FILES.items():
        faulty_s3.put(f"surtr/{key}", data)
    store = open_store(faulty_s3.uri("surtr/"), faulty_s3.storage)
    all_of(store, folder)
    faulty_s3.requests.clear()
    faulty_s3.put("surtr/01.txt", b"2girl")

    all_of(store, folder)

    assert FILES | {"01.txt": b"2girl"} == held(folder)
    assert [f"GET /{faulty_s3.bucket}", f"GET /{faulty_s3.bucket}/surtr/01.txt"] == faulty_s3.requests


def test_an_object_that_is_gone_is_removed_here(source: Watched, folder: Path) -> None:
    """With the folder that it leaves empty: the folder is a mirror."""
    all_of(source, folder)
    source.delete(["01.png", "sub/02.png", "sub/ステラ.txt"])

    all_of(source, folder)

    assert {"01.txt": FILES["01.txt"]} == held(folder)
    assert not (folder / "sub").exists()


@pytest.mark.parametrize("content", [None, b"tampered!!!", b""])
def test_a_local_file_that_is_not_as_it_was_staged_is_fetched_again(source: Watched, folder: Path, content: bytes | None) -> None:
    """Missing, changed at equal size, or cut."""
    all_of(source, folder)
    source.downloaded.clear()
    if content is None:
        (folder / "01.png").unlink()
    else:
        (folder / "01.png").write_bytes(content)

    all_of(source, folder)

    assert ["01.png"] == source.downloaded
    assert FILES == held(folder)


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(source: Watched, folder: Path, tmp_path: Path) -> None:
    """Nothing outside the folder is written or read."""
    (tmp_path / "outside").write_bytes(FILES["01.png"])
    all_of(source, folder)
    (folder / "01.png").unlink()
    (folder / "01.png").symlink_to(tmp_path / "outside")
    source.write("01.png", b"picture new")

    all_of(source, folder)

    assert FILES["01.png"] == (tmp_path / "outside").read_bytes()
    assert not (folder / "01.png").is_symlink()
    assert b"picture new" == (folder / "01.png").read_bytes()


def test_files_that_nobody_staged_are_not_touched(source: Watched, folder: Path) -> None:
    """A mistyped folder is refused before anything of it is removed."""
    folder.mkdir()
    (folder / "thesis.odt").write_bytes(b"years of work")

    with pytest.raises(TrainingError, match="name an empty folder") as refused:
        all_of(source, folder)
    assert Outcome.SPEC_INVALID is refused.value.outcome
    assert {"thesis.odt": b"years of work"} == held(folder)


def test_what_a_killed_staging_left_half_done_goes(source: Watched, folder: Path) -> None:
    """Unfinished files, and finished ones that the index does not know and the bucket no longer has."""
    all_of(source, folder)
    (folder / ".charalora-part-0123456789abcdef").write_bytes(b"half")
    (folder / "sub/vanished.png").write_bytes(b"x")

    all_of(source, folder)

    assert FILES == held(folder)


@pytest.mark.parametrize("content", ["", "[1", '{"01.png": 7}'])
def test_a_damaged_index_costs_a_second_fetch_and_nothing_else(source: Watched, folder: Path, content: str) -> None:
    """It is a memory, not a source of truth."""
    all_of(source, folder)
    source.downloaded.clear()
    (folder / INDEX).write_text(content)

    all_of(source, folder)

    assert sorted(FILES) == sorted(source.downloaded)
    assert FILES == held(folder)


def test_progress_begins_at_what_stands_and_ends_at_everything(source: Watched, folder: Path) -> None:
    """It only grows, and counts bytes."""
    total = sum(map(len, FILES.values()))
    all_of(source, folder)
    source.write("01.txt", b"2girl")
    seen: list[tuple[int, int]] = []

    stage(source, source.list(), folder, lambda done, of: seen.append((done, of)))

    assert (total - 5, total) == seen[0]
    assert (total, total) == seen[-1]
    assert seen == sorted(seen)


def test_a_staging_that_fails_keeps_what_it_has(faulty_s3: FaultyS3, folder: Path) -> None:
    """The next one fetches only the rest."""
    for number in range(MANY):
        faulty_s3.put(f"surtr/{number:02}.txt", b"tag")
    store = open_store(faulty_s3.uri("surtr/"), faulty_s3.storage)
    entries = store.list()
    for _ in range(PARALLEL + 1):  # a thread begins its second file when its first one is here
        faulty_s3.pass_on("GET")
    faulty_s3.answer(Answer(403, "AccessDenied"), times=MANY)
    with pytest.raises(TrainingError) as refused:
        stage(store, entries, folder)
    assert Outcome.STORAGE_ACCESS_DENIED is refused.value.outcome
    kept = held(folder)
    assert 1 <= len(kept) < MANY
    faulty_s3.faults.clear()
    faulty_s3.requests.clear()

    stage(store, entries, folder)

    assert MANY == len(held(folder))
    assert MANY - len(kept) == len(faulty_s3.requests)


def test_an_object_that_vanishes_between_listing_and_fetching_is_said(source: Watched, folder: Path) -> None:
    """The data set changed under our hands."""
    entries = source.list()
    source.delete(["01.txt"])

    with pytest.raises(TrainingError, match="was listed and then deleted") as refused:
        stage(source, entries, folder)
    assert Outcome.DATASET_CHANGED is refused.value.outcome


@pytest.mark.parametrize("key", ["../outside.png", "/outside.png", "a/../../outside.png", "a\\b.png", "a\nb.png", "a//b.png", ""])
def test_a_hostile_key_is_refused_before_anything_is_written(source: Watched, folder: Path, key: str, tmp_path: Path) -> None:
    """Not one file is fetched, and none lies outside."""
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(TrainingError) as refused:
        stage(source, [*source.list(), Entry(key, 1, "x")], folder)

    assert Outcome.DATASET_INVALID is refused.value.outcome
    assert [] == source.downloaded
    assert before == sorted(tmp_path.rglob("*"))


def test_a_hostile_key_of_a_real_bucket_is_refused(s3: S3, folder: Path) -> None:
    """A service takes keys that no disk should."""
    s3.put("surtr/ok.png", b"x")
    s3.put("surtr/bad\nname.png", b"x")
    store = open_store(s3.uri("surtr/"), s3.storage)

    with pytest.raises(TrainingError, match=r"'bad\\nname.png' has a control character") as refused:
        all_of(store, folder)
    assert Outcome.DATASET_INVALID is refused.value.outcome


def test_a_staged_folder_can_be_staged_in_turn(source: Watched, folder: Path, tmp_path: Path) -> None:
    """Its index is no part of it."""
    all_of(source, folder)

    all_of(LocalStore(folder), tmp_path / "second")

    assert FILES == held(tmp_path / "second")


def test_many_files_arrive_over_a_bad_line(toxic_s3: ToxicS3, folder: Path) -> None:
    """Forty files of 30 kB, eight at a time, each connection cut after 100 kB."""
    files = {f"{number:02}.png": os.urandom(30_000) for number in range(40)}
    for key, data in files.items():
        toxic_s3.put(key, data)
    toxic_s3.poison("limit_data", bytes=100_000)

    all_of(open_store(toxic_s3.uri(), toxic_s3.storage), folder)

    assert files == held(folder)


def test_a_file_where_a_folder_was_and_a_folder_where_a_file_was(source: Watched, folder: Path) -> None:
    """A data set may be rearranged between two stagings."""
    all_of(source, folder)
    source.delete(["sub/02.png", "sub/ステラ.txt", "01.txt"])
    source.write("sub", b"now a file")
    source.write("01.txt/a", b"now a folder")

    all_of(source, folder)

    assert {"01.png": FILES["01.png"], "sub": b"now a file", "01.txt/a": b"now a folder"} == held(folder)
