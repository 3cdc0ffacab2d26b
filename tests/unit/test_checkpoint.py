"""Training states: whole or absent, verified, the newest two kept, none of another training taken."""

import json
import logging
from pathlib import Path

import pytest

from charalora_spec.spec import Storage
from charalora_trainer.checkpoint import MANIFEST, Checkpoints
from charalora_trainer.storage import Store, open_store
from charalora_trainer.storage.uploads import Uploads


def states(folder: Path, identity: str = "ours") -> Checkpoints:
    return Checkpoints(folder / "state", identity)


def save(checkpoints: Checkpoints, step: int) -> Path:
    def write(folder: Path) -> None:
        (folder / "training.safetensors").write_text(f"weights of {step}")

    return checkpoints.save(step, write).folder


def store(folder: Path) -> Store:
    return open_store(f"file://{folder}", Storage())


def uploaded(checkpoints: Checkpoints, step: int, remote: Store) -> None:
    uploads = Uploads(remote)
    state = checkpoints.newest()
    assert state is not None
    assert state.step == step
    checkpoints.upload(state, uploads)
    uploads.wait()


def test_the_newest_state_is_the_last_saved(tmp_path: Path) -> None:
    """A saved state is found again with its step and files."""
    checkpoints = states(tmp_path)
    save(checkpoints, 100)
    save(checkpoints, 200)

    newest = checkpoints.newest()

    assert newest is not None
    assert newest.step == 200
    assert (newest.folder / "training.safetensors").read_text() == "weights of 200"


def test_only_two_states_are_kept(tmp_path: Path) -> None:
    """The disk does not fill with states."""
    checkpoints = states(tmp_path)
    for step in (100, 200, 300, 400):
        save(checkpoints, step)
    assert sorted(folder.name for folder in (tmp_path / "state").iterdir()) == ["step-000300", "step-000400"]


def test_a_writer_that_dies_leaves_no_state(tmp_path: Path) -> None:
    """What was begun is no state, and the next look sweeps it away."""
    checkpoints = states(tmp_path)
    save(checkpoints, 100)

    def dies(folder: Path) -> None:
        (folder / "training.safetensors").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(200, dies)

    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 100
    assert sorted(folder.name for folder in (tmp_path / "state").iterdir()) == ["step-000100"]


@pytest.mark.parametrize("spoil", ["bytes", "digest", "missing", "manifest"])
def test_a_damaged_state_is_passed_over_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: str) -> None:
    """The one before is taken, and the log says why."""
    checkpoints = states(tmp_path)
    save(checkpoints, 100)
    folder = save(checkpoints, 200)
    file = folder / "training.safetensors"
    match spoil:
        case "bytes":
            file.write_text("longer than what was saved")
        case "digest":
            file.write_text("wrights of 200")
        case "missing":
            file.unlink()
        case "manifest":
            (folder / MANIFEST).write_text("{")

    with caplog.at_level(logging.WARNING):
        newest = checkpoints.newest()

    assert newest is not None
    assert newest.step == 100
    assert [record.message for record in caplog.records] == ["Training state passed over"]


def test_a_state_of_another_training_is_not_taken(tmp_path: Path) -> None:
    """Resuming from foreign weights would be a silent failure."""
    save(states(tmp_path, "theirs"), 100)
    assert states(tmp_path, "ours").newest() is None


def test_a_state_travels_through_the_store(tmp_path: Path) -> None:
    """Another machine gets the same bytes."""
    here, remote = states(tmp_path / "here"), store(tmp_path / "bucket")
    save(here, 100)
    uploaded(here, 100, remote)

    fetched = states(tmp_path / "there").fetch_newest(remote)

    assert fetched is not None
    assert fetched.step == 100
    assert (fetched.folder / "training.safetensors").read_text() == "weights of 100"


def test_a_state_without_its_manifest_does_not_exist_in_the_store(tmp_path: Path) -> None:
    """An upload that was cut off is never resumed from."""
    here, remote = states(tmp_path / "here"), store(tmp_path / "bucket")
    save(here, 100)
    uploaded(here, 100, remote)
    save(here, 200)
    uploaded(here, 200, remote)
    remote.delete([f"state/step-000200/{MANIFEST}"])

    fetched = states(tmp_path / "there").fetch_newest(remote)

    assert fetched is not None
    assert fetched.step == 100


def test_a_state_that_was_changed_in_the_store_is_passed_over(tmp_path: Path) -> None:
    """Its digest tells."""
    here, remote = states(tmp_path / "here"), store(tmp_path / "bucket")
    for step in (100, 200):
        save(here, step)
        uploaded(here, step, remote)
    remote.write("state/step-000200/training.safetensors", b"weights of 20!")

    fetched = states(tmp_path / "there").fetch_newest(remote)

    assert fetched is not None
    assert fetched.step == 100


def test_a_newer_state_here_wins_over_the_stores(tmp_path: Path) -> None:
    """What was saved and not yet uploaded is not thrown away."""
    here, remote = states(tmp_path / "here"), store(tmp_path / "bucket")
    save(here, 100)
    uploaded(here, 100, remote)
    save(here, 200)

    newest = here.fetch_newest(remote)

    assert newest is not None
    assert newest.step == 200


def test_the_store_keeps_two_states_as_well(tmp_path: Path) -> None:
    """Pruning leaves the newest two, each whole."""
    here, remote = states(tmp_path / "here"), store(tmp_path / "bucket")
    for step in (100, 200, 300):
        save(here, step)
        uploaded(here, step, remote)

    here.prune_remote(remote)

    assert {entry.key.split("/")[1] for entry in remote.list()} == {"step-000200", "step-000300"}


def test_what_uploads_that_were_cut_off_left_is_swept_in_the_store(tmp_path: Path) -> None:
    """Of states before the newest whole one; a newer one is on its way."""
    here, remote = states(tmp_path / "here"), store(tmp_path / "store")
    for step in (100, 200, 300, 400):
        save(here, step)
        uploaded(here, step, remote)
    remote.write("state/step-000150/training.safetensors", b"half")
    remote.write("state/step-000350/training.safetensors", b"half")
    remote.write("state/step-000500/training.safetensors", b"on its way")

    here.prune_remote(remote)

    assert {entry.key.split("/")[1] for entry in remote.list()} == {"step-000300", "step-000400", "step-000500"}


def test_the_manifest_lists_bytes_and_digest(tmp_path: Path) -> None:
    """Anyone can verify a state with sha256sum."""
    folder = save(states(tmp_path), 100)
    listed = json.loads((folder / MANIFEST).read_text())["files"]["training.safetensors"]
    assert listed["bytes"] == len("weights of 100")
    assert len(listed["sha256"]) == 64
