"""Base models in a real bucket: looked at where they lie, by ranged reads."""

from pathlib import Path

import pytest
import torch

from basemodels import WEIGHTS, write_base
from charalora_spec.outcome import Outcome
from charalora_trainer.basemodel import inspect, locate
from services import S3


def upload(s3: S3, folder: Path, prefix: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            s3.put(f"{prefix}{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.mark.parametrize("uri", ["models/toy/", "models/toy"])
def test_a_folder_in_a_bucket(s3: S3, tmp_path: Path, uri: str) -> None:
    """With or without the slash behind its name."""
    upload(s3, write_base(tmp_path), "models/toy/")
    facts, found = inspect(locate(s3.uri(uri), s3.storage))

    assert [] == found
    assert facts is not None
    assert set(WEIGHTS.values()) < {entry.key for entry in facts.files}


def test_a_truncated_upload_in_a_bucket(s3: S3, tmp_path: Path) -> None:
    """The header promises more than is there."""
    upload(s3, write_base(tmp_path), "models/toy/")
    whole = (tmp_path / WEIGHTS["unet"]).read_bytes()
    s3.put(f"models/toy/{WEIGHTS['unet']}", whole[:-1000])
    _, (finding,) = inspect(locate(s3.uri("models/toy/"), s3.storage))

    assert Outcome.BASE_MODEL_INVALID is finding.outcome
    assert "promises" in finding.message


def test_a_ckpt_in_a_bucket(s3: S3, tmp_path: Path) -> None:
    """A zip archive is read from its end, in pieces; this one is another kind of model, which its names tell."""
    torch.save({"lora_unet_down_blocks_0.alpha": torch.zeros(1), "more": torch.zeros(1_000_000)}, tmp_path / "model.ckpt")
    s3.put("models/model.ckpt", (tmp_path / "model.ckpt").read_bytes())
    _, (finding,) = inspect(locate(s3.uri("models/model.ckpt"), s3.storage))

    assert "is a LoRA" in finding.message


def test_a_file_that_is_not_in_the_bucket(s3: S3) -> None:
    """The model is missing, not the storage."""
    _, (finding,) = inspect(locate(s3.uri("models/nothing.safetensors"), s3.storage))

    assert (Outcome.BASE_MODEL_INVALID, True) == (finding.outcome, "There is no s3://" in finding.message)
