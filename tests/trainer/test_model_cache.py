"""A folder of base models that runs share: what is fetched, by whom, and what happens where it cannot be written."""

import errno
import os
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.console import LogConsole
from charalora_trainer.job import Workspace
from charalora_trainer.stages import fetch
from charalora_trainer.storage import Entry
from charalora_trainer.storage.s3 import S3Store
from charalora_trainer.storage.staging import INDEX
from services import S3, Answer, FaultyS3, ToxicS3
from trainings import Running, TrainingJob

MODEL = "models/anime latest/"
LISTINGS = 2
"""Requests of a fetch before it asks for the first object."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that runs of this test are told of."""
    monkeypatch.setenv("CHARALORA_MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def objects(s3: S3, base_model: Path) -> dict[str, bytes]:
    """A base model in the bucket: its files by key."""
    files = held(base_model)
    for key, data in files.items():
        s3.put(f"{MODEL}{key}", data)
    return files


Fetch = Callable[[str], Path]


@pytest.fixture
def fetched(faulty_s3: FaultyS3, objects: dict[str, bytes], tmp_path: Path) -> Fetch:  # noqa: ARG001 - they must be there
    """Fetches the base model as the run with a name does, and gives the folder."""
    return lambda run: fetch.fetch_base_model(faulty_s3.uri(MODEL), faulty_s3.storage, Workspace(tmp_path / run), LogConsole())


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != INDEX}


def whole_folders(cache: Path) -> list[Path]:
    """What stands under a name that a run would read."""
    return sorted(path for path in (cache / "models").iterdir() if not path.name.startswith("."))


def gets(s3: FaultyS3) -> list[str]:
    """The objects that were asked for, without the listings."""
    return sorted(request.rpartition(MODEL.replace(" ", "%20"))[2] for request in s3.requests if "%20latest" in request)


def test_a_second_run_fetches_nothing(
    cache: Path, objects: dict[str, bytes], fetched: Fetch, faulty_s3: FaultyS3, capsys: pytest.CaptureFixture[str]
) -> None:
    """It lists the bucket, and finds the same folder, which a person can tell by its name."""
    first = fetched("first")
    assert sorted(objects) == gets(faulty_s3)
    faulty_s3.requests.clear()
    capsys.readouterr()

    second = fetched("second")

    assert first == second
    assert [first] == whole_folders(cache)
    assert first.name.startswith("anime-latest-")
    assert objects == held(first)
    assert [] == gets(faulty_s3)
    assert f"The base model is in the cache: {first}.\n" == capsys.readouterr().err


def test_another_content_is_another_folder(cache: Path, objects: dict[str, bytes], fetched: Fetch, faulty_s3: FaultyS3) -> None:
    """What runs may be reading stays as it is; the new one is fetched whole."""
    first = fetched("first")
    changed = objects | {"unet/config.json": objects["unet/config.json"] + b"\n"}
    faulty_s3.put(f"{MODEL}unet/config.json", changed["unet/config.json"])

    second = fetched("second")

    assert {first, second} == set(whole_folders(cache))
    assert (objects, changed) == (held(first), held(second))


def test_of_several_runs_at_once_one_fetches_and_the_others_wait(
    cache: Path, objects: dict[str, bytes], fetched: Fetch, faulty_s3: FaultyS3, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every object goes over the line once."""
    together = threading.Barrier(4)

    def run(number: int) -> Path:
        together.wait()
        return fetched(f"run-{number}")

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(run, range(4)))

    assert [*folders] == whole_folders(cache)
    assert objects == held(*folders)
    assert sorted(objects) == gets(faulty_s3)
    told = capsys.readouterr().err
    assert (1, 3) == (told.count("fetch base model "), told.count("The base model is in the cache: "))


def test_a_fetch_that_fails_leaves_nothing_to_read_and_the_next_one_goes_on(
    cache: Path, objects: dict[str, bytes], fetched: Fetch, faulty_s3: FaultyS3
) -> None:
    """What the service refuses is said as it is; the cache is not to blame."""
    for _ in range(LISTINGS + len(objects) - 1):
        faulty_s3.pass_on("GET")
    faulty_s3.answer(Answer(403, "AccessDenied"), times=20)
    with pytest.raises(TrainingError) as refused:
        fetched("first")
    assert Outcome.STORAGE_ACCESS_DENIED is refused.value.outcome
    assert [] == whole_folders(cache)
    [draft] = cache.glob("models/.*.draft")
    kept = held(draft)
    faulty_s3.faults.clear()
    faulty_s3.requests.clear()

    folder = fetched("second")

    assert 1 <= len(kept) < len(objects)
    assert objects == held(folder)
    assert sorted(objects.keys() - kept.keys()) == gets(faulty_s3)
    assert [folder] == whole_folders(cache)


def test_a_damaged_folder_is_mended(cache: Path, objects: dict[str, bytes], fetched: Fetch, faulty_s3: FaultyS3) -> None:
    """A file that somebody removed or cut; only that one is fetched."""
    folder = fetched("first")
    (folder / "unet/config.json").unlink()
    (folder / "vae/config.json").write_bytes(b"")
    faulty_s3.requests.clear()

    assert folder == fetched("second")

    assert objects == held(folder)
    assert ["unet/config.json", "vae/config.json"] == gets(faulty_s3)
    assert [folder] == whole_folders(cache)


def test_a_model_that_is_replaced_while_it_is_fetched_is_not_kept(
    cache: Path, objects: dict[str, bytes], fetched: Fetch, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder would promise what was listed and hold something else."""
    download = S3Store.download

    def replaced_first(store: S3Store, key: str, *arguments: Any) -> Entry:
        if key == "unet/config.json":
            faulty_s3.put(f"{MODEL}{key}", objects[key] + b"\n")
        return download(store, key, *arguments)

    monkeypatch.setattr(S3Store, "download", replaced_first)
    with pytest.raises(TrainingError, match=r"unet/config\.json was replaced while it was fetched") as refused:
        fetched("first")
    assert Outcome.BASE_MODEL_INVALID is refused.value.outcome
    assert [] == whole_folders(cache)
    assert [] == list(cache.glob("models/.*.draft"))


def test_a_cache_that_cannot_be_written_costs_a_fetch_and_a_warning(
    tmp_path: Path, objects: dict[str, bytes], fetched: Fetch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel lets nobody make folders in /sys, not even root."""
    monkeypatch.setenv("CHARALORA_MODEL_CACHE", "/sys/charalora")

    folder = fetched("first")

    assert folder.is_relative_to(tmp_path / "first")
    assert objects == held(folder)
    told = capsys.readouterr().err
    assert 1 == told.count("Warning: the cache /sys/charalora cannot take s3://")
    assert "so this run fetches it for itself.\n" in told


def test_a_full_cache_costs_a_fetch_and_a_warning(
    cache: Path, objects: dict[str, bytes], fetched: Fetch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was brought in vain goes, so that it does not fill the cache."""
    download = S3Store.download

    def full(store: S3Store, key: str, path: Path, *more: Any) -> Entry:
        if key.startswith("vae/") and path.is_relative_to(cache):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return download(store, key, path, *more)

    monkeypatch.setattr(S3Store, "download", full)

    folder = fetched("first")

    assert objects == held(folder)
    assert not folder.is_relative_to(cache)
    assert 1 == capsys.readouterr().err.count("(No space left on device)")
    assert [] == whole_folders(cache)
    assert [] == list(cache.glob("models/.*.draft"))


def test_a_whole_model_is_read_from_a_cache_that_can_only_be_read(cache: Path, fetched: Fetch, faulty_s3: FaultyS3) -> None:
    """A volume that many mount read-only: no lock is asked for, nothing is touched."""
    folder = fetched("first")
    for lock in cache.glob("models/.*.lock"):
        lock.unlink()
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    faulty_s3.requests.clear()

    assert folder == fetched("second")

    assert before == {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert [] == gets(faulty_s3)


def test_models_of_the_hub_are_kept_by_its_own_client(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own layout below `huggingface`, where it looks before it asks the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    kept = cache / "huggingface/hub/models--org--anime"
    for name, content in ((f"snapshots/{commit}/model_index.json", "{}"), ("refs/main", commit)):
        (kept / name).parent.mkdir(parents=True)
        (kept / name).write_text(content)

    found = fetch.fetch_base_model("hf://org/anime", Storage(), Workspace(tmp_path / "work"), LogConsole())

    assert kept / "snapshots" / commit == found


def test_a_cache_that_cannot_be_written_does_not_stop_the_hub_s_client(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked again, for its usual place."""
    asked = []

    def snapshot_download(*_: object, cache_dir: Path | None, **__: object) -> str:
        asked.append(cache_dir)
        if cache_dir:
            raise OSError(errno.EROFS, "Read-only file system")
        return str(tmp_path / "usual")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)

    found = fetch.fetch_base_model("hf://org/anime", Storage(), Workspace(tmp_path / "work"), LogConsole())

    assert tmp_path / "usual" == found
    assert [cache / "huggingface/hub", None] == asked
    assert 1 == capsys.readouterr().err.count("cannot take hf://org/anime (Read-only file system)")


def test_a_killed_run_leaves_no_half_model_and_no_lock(toxic_s3: ToxicS3, objects: dict[str, bytes], tmp_path: Path) -> None:
    """SIGKILL in the middle of a slow fetch; the next run, which waited for it, has the whole."""
    cache = tmp_path / "cache"
    job = TrainingJob(toxic_s3, tmp_path, "").with_environment(
        CHARALORA_MODEL_CACHE=str(cache), AWS_ENDPOINT_URL=toxic_s3.endpoint, CHARALORA_CACHE=str(tmp_path / "own")
    )
    command = ["embed", toxic_s3.uri(MODEL), "surtr_arknights", "4"]

    def start(place: str) -> Running:
        return job.start_command(*command, "--root", str(tmp_path / place))

    toxic_s3.poison("bandwidth", rate=200)
    killed = start("killed")
    killed.until_true(lambda: any(cache.glob("models/.*.draft/**/*config.json")))
    os.kill(killed.pid, signal.SIGSTOP)  # so that it is in the middle however busy this machine is
    waiting = start("waiting")
    waiting.until_true(lambda: re.search(rf"-> FLOCK .* {waiting.pid} ", Path("/proc/locks").read_text()))
    killed.kill()
    assert [] == whole_folders(cache)

    ended = waiting.wait()

    assert 0 == ended.code, ended.err
    [folder] = whole_folders(cache)
    assert objects == held(folder)


def test_trainings_share_a_base_model(job: TrainingJob, objects: dict[str, bytes], tmp_path: Path) -> None:
    """The second one begins with what the first one fetched."""
    job = replace(job, base=job.s3.uri(MODEL)).with_environment(CHARALORA_MODEL_CACHE=str(tmp_path / "cache"))
    first = job.run(work="first")
    second = job.with_fields(**{"output.uri": job.s3.uri("second/")}).run(work="second")

    assert (0, 0) == (first.code, second.code), first.err + second.err
    assert "fetch base model " in first.err
    assert "fetch base model " not in second.err
    [folder] = whole_folders(tmp_path / "cache")
    assert f"The base model is in the cache: {folder}." in second.err
    assert objects == held(folder)
    assert not any((tmp_path / work / "models").exists() for work in ("first", "second"))
