"""What the files of a training tell about its base model."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from builders import character_lora
from charalora_trainer.data.dataset import DatasetPlan
from charalora_trainer.job import Job
from charalora_trainer.ownership import unclaimed
from charalora_trainer.stages.facts import training_facts


def job(base_model: Path) -> Job:
    plan = DatasetPlan(pairs=(), buckets=(), digest="digest", chunks=1, tokens=10)
    run = character_lora(base_model__uri=base_model.as_uri())
    return Job(run, plan, base_model.parent, base_model, None, (), unclaimed("surtr", "identity", "digest"), processes=1)


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_base_model_of_one_file_is_told_by_its_digest(tmp_path: Path, ending: str) -> None:
    """By which sites know it, and by its name."""
    file = tmp_path / f"anime full.{ending}"
    file.write_bytes(b"weights" * 100_000)

    told = training_facts(job(file), 100, datetime.now(UTC)).base_model

    assert hashlib.sha256(b"weights" * 100_000).hexdigest() == told.sha256
    assert f"anime full.{ending}" == told.name


def test_a_base_model_of_several_files_has_no_digest_of_its_own(tmp_path: Path) -> None:
    """No site knows a folder."""
    folder = tmp_path / "anime"
    folder.mkdir()

    assert training_facts(job(folder), 100, datetime.now(UTC)).base_model.sha256 is None
