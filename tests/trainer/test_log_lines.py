"""What a pod's log looks like where machines read it."""

import json
from pathlib import Path

import yaml

from builders import character_lora_wire
from commands import charalora
from services import free_port


def test_every_line_is_an_object_with_the_same_fields_and_none_has_a_secret(tmp_path: Path) -> None:
    """At the most talkative level, for a storage that is not there and whose address has a password."""
    file = tmp_path / "surtr.yaml"
    file.write_text(yaml.safe_dump(character_lora_wire()))
    secrets = {"AWS_SECRET_ACCESS_KEY": "hidden-secret-key", "AWS_SESSION_TOKEN": "hidden-session-token", "HF_TOKEN": "hidden-hub-token"}

    ended = charalora(
        tmp_path,
        *("--log-level", "DEBUG", "--log-json", "check", str(file)),
        **secrets,
        AWS_ACCESS_KEY_ID="surtr",
        AWS_ENDPOINT_URL=f"http://surtr:hidden-password@127.0.0.1:{free_port()}",
        CHARALORA_STORAGE_TIMEOUT="1",
        CHARALORA_LOG_FIELDS="namespace=artists name=surtr attempt=0",
    )

    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert all({"namespace": "artists", "name": "surtr", "attempt": 0}.items() <= line.items() for line in lines)
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert "StorageUnreachable" == lines[-1]["reason"]
    assert any("is tried" in line["message"] or "Storage request failed" in line["message"] for line in lines)
    assert "hidden" not in ended.err + ended.out
