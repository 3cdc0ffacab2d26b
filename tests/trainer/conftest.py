"""What whole trainings in tests need: a base model of 2 MB, and a resource that trains it on pictures in a bucket."""

from pathlib import Path

import pytest

from services import S3
from tiny_model import tiny_base
from trainings import TrainingJob


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete base model folder."""
    folder = tmp_path_factory.mktemp("base")
    tiny_base(folder)
    return folder


@pytest.fixture
def job(s3: S3, base_model: Path, tmp_path: Path) -> TrainingJob:
    """Eight steps on six pictures, a save every four; the data set is in the bucket, the base model on this machine."""
    return TrainingJob(s3, tmp_path, base_model.as_uri()).upload_dataset()
