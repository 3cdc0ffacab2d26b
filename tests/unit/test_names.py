"""What base models are called for people."""

from pathlib import Path

import pytest

from charalora_trainer.cli.resource import model_uri
from charalora_trainer.stages.facts import model_name


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://models/animefull-latest/", "animefull-latest"),
        ("s3://models/v1.5", "v1.5"),
        ("hf://org/model", "model"),
        ("s3://models/anime/full.final.safetensors", "full.final"),
        ("file:///models/anime%20full.ckpt", "anime full"),
        ("s3://models/", "models"),
    ],
)
def test_a_base_model_is_listed_by_its_last_name(uri: str, name: str) -> None:
    """A file without its ending, as webui lists it; never a path of somebody's machine."""
    assert name == model_name(uri)


@pytest.mark.parametrize(
    ("typed", "uri"),
    [
        ("s3://models/a.ckpt", "s3://models/a.ckpt"),
        ("org/model", "hf://org/model"),
        ("org/model@main", "hf://org/model@main"),
        ("models/anime.safetensors", f"{Path.cwd().as_uri()}/models/anime.safetensors"),
        ("/models/anime", "file:///models/anime"),
    ],
)
def test_a_model_file_is_never_looked_for_on_the_hub(typed: str, uri: str) -> None:
    """Even where it does not exist: the message then names the file."""
    assert uri == model_uri(typed)
