"""Background uploads."""

import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage import Store, open_store
from charalora_trainer.storage.local import LocalStore
from charalora_trainer.storage.uploads import Uploads
from services import S3, Answer, FaultyS3, ToxicS3

MEBI = 1 << 20


class Gated(LocalStore):
    """A folder store that lets no upload through before it is opened, and remembers their order."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.open = threading.Event()
        self.order: list[str] = []

    def upload(self, path: Path, key: str) -> None:
        """Copy a file once the gate is open."""
        self.open.wait()
        super().upload(path, key)
        self.order.append(key)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Gated]:
    gated = Gated(tmp_path / "store")
    yield gated
    gated.open.set()


def file_of(folder: Path, name: str, content: bytes = b"x") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def s3_store(s3: S3) -> Store:
    return open_store(s3.uri("surtr/"), s3.storage)


def test_submitted_files_arrive(s3: S3, tmp_path: Path) -> None:
    """Small and big ones; bytes are counted."""
    contents = {"a.txt": b"small", "empty": b"", "big.safetensors": random.Random(0).randbytes(20 * MEBI)}
    with Uploads(s3_store(s3)) as uploads:
        for name, content in contents.items():
            uploads.submit(file_of(tmp_path, name, content), f"ckpts/{name}")
        uploads.wait()

        assert (0, 0, sum(map(len, contents.values()))) == (uploads.pending, uploads.failures, uploads.bytes_sent)
    assert contents == {name: s3.get(f"surtr/ckpts/{name}") for name in contents}


def test_submitting_waits_for_nothing(store: Gated, tmp_path: Path) -> None:
    """However many uploads are stuck."""
    with Uploads(store) as uploads:
        began = time.monotonic()
        for number in range(200):
            uploads.submit(file_of(tmp_path, f"{number}"), f"{number}")
        took = time.monotonic() - began

        assert 200 == uploads.pending
        assert took < 1
        store.open.set()
        uploads.wait()
    assert 200 == len(store.list())


def test_the_last_file_of_a_group_follows_all_others(store: Gated, tmp_path: Path) -> None:
    """A reader that finds the manifest finds everything."""
    names = [f"part-{number}" for number in range(20)]
    with Uploads(store) as uploads:
        uploads.submit_group([(file_of(tmp_path, name), name) for name in names], last=(file_of(tmp_path, "manifest"), "manifest"))
        store.open.set()
        uploads.wait()

    assert [*names, "manifest"] == store.order


def test_a_group_follows_everything_that_was_submitted_before(store: Gated, tmp_path: Path) -> None:
    """A state in the store means that every file of the steps before it is there too."""
    with Uploads(store) as uploads:
        for number in range(10):
            uploads.submit(file_of(tmp_path, f"{number}"), f"{number}")
        uploads.submit_group([(file_of(tmp_path, "a"), "a")], last=(file_of(tmp_path, "m"), "m"))
        store.open.set()
        uploads.wait()

    assert ["a", "m"] == store.order[10:]


def test_a_group_first_sends_what_failed_before_it(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """An outage during one save leaves no hole behind the next one."""
    faulty_s3.answer(Answer(403, "AccessDenied"), times=2, method="PUT")
    with Uploads(s3_store(faulty_s3)) as uploads:
        for name in ("a", "b"):
            uploads.submit(file_of(tmp_path, name), name)
        while uploads.failures < 2:
            time.sleep(0.01)
        uploads.submit_group([], last=(file_of(tmp_path, "m"), "m"))
        while uploads.pending:
            time.sleep(0.01)

    assert ["PUT a", "PUT b", "PUT m"] == [request.replace(f" /{faulty_s3.bucket}/surtr/", " ") for request in faulty_s3.requests[-3:]]
    assert ["surtr/a", "surtr/b", "surtr/m"] == faulty_s3.keys()


def test_a_group_that_fails_half_way_has_no_last_file(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """It is sent, with the rest, when the group is tried again."""
    files = [(file_of(tmp_path, name), name) for name in ("a", "b", "c")]
    faulty_s3.pass_on("PUT")
    faulty_s3.answer(Answer(403, "AccessDenied"), times=2, method="PUT")
    with Uploads(s3_store(faulty_s3)) as uploads:
        uploads.submit_group(files[:2], last=files[2])
        with pytest.raises(TrainingError) as refused:
            uploads.wait()
        assert Outcome.STORAGE_ACCESS_DENIED is refused.value.outcome
        assert ["surtr/a"] == faulty_s3.keys()

        uploads.wait()

    assert ["surtr/a", "surtr/b", "surtr/c"] == faulty_s3.keys()


def test_what_a_group_replaces_goes_when_the_group_stands(store: Gated, tmp_path: Path) -> None:
    """Not before."""
    store.write("old", b"x")
    with Uploads(store) as uploads:
        uploads.submit_group([(file_of(tmp_path, "a"), "a")], last=(file_of(tmp_path, "m"), "m"), and_then=lambda: store.delete(["old"]))
        assert ["old"] == [entry.key for entry in store.list()]
        store.open.set()
        uploads.wait()

    assert ["a", "m"] == [entry.key for entry in store.list()]


def test_the_newest_content_of_a_key_wins(store: Gated, tmp_path: Path) -> None:
    """Uploads to one key keep their order, though several run at once."""
    with Uploads(store) as uploads:
        for number in range(40):
            uploads.submit(file_of(tmp_path, f"{number}", str(number).encode()), "log")
        store.open.set()
        uploads.wait()

    assert b"39" == store.read("log")


def test_a_failed_upload_does_not_undo_a_newer_one(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    """Only what nothing has replaced is tried again."""
    faulty_s3.answer(Answer(403, "AccessDenied"), method="PUT")
    with Uploads(s3_store(faulty_s3)) as uploads:
        uploads.submit(file_of(tmp_path, "old", b"old"), "log")
        uploads.submit(file_of(tmp_path, "new", b"new"), "log")
        uploads.wait()

        assert 1 == uploads.failures
    assert b"new" == faulty_s3.get("surtr/log")


class Mistaken(LocalStore):
    """A store with a mistake in its program."""

    tries = 0

    def upload(self, path: Path, key: str) -> None:
        """What a wrong name or type does."""
        self.tries += 1
        raise TypeError(f"{path} cannot be {key}")


def test_a_mistake_in_the_program_is_raised_as_it_is_and_not_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Trying again helps against the world, not against ourselves."""
    store = Mistaken(tmp_path / "store")
    with Uploads(store) as uploads:
        uploads.submit(file_of(tmp_path, "a"), "a")
        with pytest.raises(TypeError, match="cannot be a"):
            uploads.wait()

    assert 1 == store.tries
    assert "tried again" not in caplog.text


def test_a_passing_outage_costs_nothing(toxic_s3: ToxicS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed during it is sent by `wait`."""
    monkeypatch.setenv("CHARALORA_STORAGE_TIMEOUT", "0.3")
    toxic_s3.connected(enabled=False)
    with Uploads(s3_store(toxic_s3)) as uploads:
        for name in ("a", "b"):
            uploads.submit(file_of(tmp_path, name, name.encode()), name)
        while uploads.failures < 2:
            time.sleep(0.05)
        toxic_s3.connected(enabled=True)
        uploads.wait()

        assert (2, 2) == (uploads.failures, uploads.bytes_sent)
    assert {"surtr/a": b"a", "surtr/b": b"b"} == {key: toxic_s3.get(key) for key in ("surtr/a", "surtr/b")}


def test_an_outage_that_stays_is_raised_by_wait(toxic_s3: ToxicS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason that the storage gave."""
    monkeypatch.setenv("CHARALORA_STORAGE_TIMEOUT", "0.3")
    toxic_s3.connected(enabled=False)
    with Uploads(s3_store(toxic_s3)) as uploads:
        uploads.submit(file_of(tmp_path, "a"), "a")

        with pytest.raises(TrainingError, match="refuses the connection") as refused:
            uploads.wait()
    assert Outcome.STORAGE_UNREACHABLE is refused.value.outcome


class Silent(LocalStore):
    """A store that nobody reaches until it is mended."""

    tries = 0
    mended = False

    def upload(self, path: Path, key: str) -> None:
        """What the client raises when its patience is over."""
        self.tries += 1
        if not self.mended:
            raise TrainingError(Outcome.STORAGE_UNREACHABLE, "Nobody answers.")
        super().upload(path, key)


def test_a_silent_storage_is_not_waited_for_once_a_file(tmp_path: Path) -> None:
    """Each try takes a minute: what waits behind it fails with it, and is sent when somebody answers."""
    store = Silent(tmp_path / "store")
    with Uploads(store) as uploads:
        for number in range(40):
            uploads.submit(file_of(tmp_path, f"{number:02}"), f"{number:02}")
        with pytest.raises(TrainingError, match="Nobody answers"):
            uploads.wait()
        assert store.tries <= 5

        store.mended = True
        uploads.wait()

    assert 40 == len(list(store.list()))


def test_of_a_file_that_grows_a_whole_beginning_is_sent(s3: S3, tmp_path: Path) -> None:
    """A log is written while it is uploaded; nothing waits, nothing fails."""
    log = file_of(tmp_path, "train.log", b"")
    stop = threading.Event()

    def write_on() -> None:
        with log.open("ab", buffering=0) as file:
            for _ in range(3000):
                file.write(b"x" * 1000)
                if stop.wait(0.001):
                    break

    writer = threading.Thread(target=write_on)
    writer.start()
    with Uploads(s3_store(s3)) as uploads:
        for _ in range(5):
            uploads.submit(log, "train.log")
        uploads.wait()
        stop.set()
        writer.join()
    sent = s3.get("surtr/train.log")

    assert 0 == uploads.failures
    assert log.read_bytes().startswith(sent)
    assert sent


def test_a_group_whose_folder_is_gone_was_replaced(store: Gated, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Old states are removed while a slow storage still lags behind; the run does not fail for it."""
    with Uploads(store) as uploads:
        for step in ("1", "2"):
            folder = tmp_path / f"step-{step}"
            uploads.submit_group([(file_of(folder, "a"), f"{step}/a")], last=(file_of(folder, "m"), f"{step}/m"))
        shutil.rmtree(tmp_path / "step-1")
        store.open.set()
        uploads.wait()

    assert ["2/a", "2/m"] == [entry.key for entry in store.list()]
    assert "Upload dropped, its files were replaced" in caplog.messages


def test_a_single_file_that_is_gone_is_an_error(store: Gated, tmp_path: Path) -> None:
    """Nobody asked for it to be dropped."""
    store.open.set()
    with Uploads(store) as uploads:
        uploads.submit(tmp_path / "absent", "absent")

        with pytest.raises(FileNotFoundError):
            uploads.wait()


def test_after_an_error_nothing_new_begins(store: Gated, tmp_path: Path) -> None:
    """Leaving by an exception does not wait for the whole queue."""

    def fail_after_submitting() -> None:
        with Uploads(store) as uploads:
            for number in range(50):
                uploads.submit(file_of(tmp_path, f"{number}"), f"{number}")
            opening.start()
            raise RuntimeError

    opening = threading.Timer(0.3, store.open.set)
    with pytest.raises(RuntimeError):
        fail_after_submitting()
    opening.join()

    assert len(store.list()) < 10
