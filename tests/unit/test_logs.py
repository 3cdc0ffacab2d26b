"""Log lines of the trainer and of the operator: a constant sentence and its fields, the same in both, and no secret."""

import json
import logging
from datetime import datetime
from pathlib import Path

import pytest

from charalora_operator.log import about, start_log
from charalora_operator.model import Key
from charalora_operator.settings import LogSettings
from charalora_trainer import logs
from charalora_trainer.console import LogConsole


@pytest.fixture(autouse=True)
def _logging_as_before() -> object:
    """Each test configures the process's logging; put it back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in logs.OURS}
    yield
    root.handlers[:], root.level = before[0], before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)


def record(message: str, **fields: object) -> logging.LogRecord:
    """A record as `logger.info(message, extra=fields)` makes it."""
    return logging.makeLogRecord(
        {"name": "charalora_trainer.x", "levelname": "INFO", "levelno": 20, "msg": message, "created": 0.0} | fields
    )


def test_a_readable_line_ends_with_the_fields() -> None:
    """Time, level, sentence, fields."""
    line = logs.ReadableFormatter().format(record("Training blocked", reason="DatasetInvalid", step=20))

    assert line.endswith(" INFO Training blocked reason=DatasetInvalid step=20")


def test_a_value_cannot_make_a_second_line() -> None:
    """File names are input: a line break in one must not look like a log line of ours."""
    line = logs.ReadableFormatter().format(record("Picture refused", file="a\n2026-01-01 00:00:00 ERROR b.png"))

    assert 1 == len(line.splitlines())
    assert r'file="a\n2026-01-01 00:00:00 ERROR b.png"' in line


def test_a_json_line_is_one_object_with_the_fields_beside_the_sentence() -> None:
    """What log collectors read."""
    line = logs.JsonFormatter().format(record("Step finished", step=20, loss=0.0812))

    assert {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "logger": "charalora_trainer.x",
        "message": "Step finished",
        "step": 20,
        "loss": 0.0812,
    } == json.loads(line)


def test_a_field_does_not_replace_the_level() -> None:
    """The four fixed keys are ours."""
    assert "info" == json.loads(logs.JsonFormatter().format(record("Sentence", level="spoofed")))["level"]


def test_other_libraries_stay_at_warning_when_we_debug(capsys: pytest.CaptureFixture[str]) -> None:
    """An S3 client's debug lines hold request headers."""
    logs.configure("DEBUG")

    logging.getLogger("botocore.auth").debug("Authorization: AWS4-HMAC")
    logging.getLogger("charalora_trainer.storage").debug("Listing")

    assert "Listing" in (shown := capsys.readouterr().err)
    assert "Authorization" not in shown


def test_the_log_file_has_our_decisions_while_stderr_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file keeps INFO, whatever stderr shows."""
    logs.configure("WARNING")
    handler = logs.keep_in(tmp_path / "train.log")

    logging.getLogger("charalora_trainer.stages").info("Stage finished", extra={"stage": "fetch"})
    logs.leave_off(handler)

    assert "INFO Stage finished stage=fetch" in (tmp_path / "train.log").read_text()
    assert not capsys.readouterr().err


def test_a_worker_logs_as_the_command_line_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The environment carries level and form to other processes."""
    logs.configure_from({logs.ENV_LEVEL: "INFO", logs.ENV_JSON: "1"})

    logging.getLogger("charalora_trainer.worker").info("Worker started")

    assert "Worker started" == json.loads(capsys.readouterr().err)["message"]


def test_the_operators_pods_say_in_every_line_whose_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Namespace, name and attempt, as the operator's own lines have them."""
    monkeypatch.setenv(logs.ENV_FIELDS, "namespace=artists name=surtr attempt=2")
    logs.configure("INFO", as_json=True)
    logging.getLogger("charalora_trainer.x").info("Step finished", extra={"step": 20})
    logs.configure("INFO")
    logging.getLogger("charalora_trainer.x").info("Step finished", extra={"step": 20})

    machine, person = capsys.readouterr().err.splitlines()
    assert {"namespace": "artists", "name": "surtr", "attempt": 2, "step": 20}.items() <= json.loads(machine).items()
    assert person.endswith(" INFO Step finished namespace=artists name=surtr attempt=2 step=20")


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_reaches_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """In a sentence, a field or a traceback, as a library may quote it; the rest of the line stays."""
    for number, name in enumerate(("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        monkeypatch.setenv(name, f"hidden-{number}")
    logs.configure("INFO", as_json=as_json)
    error = ValueError('Could not connect to "https://surtr:hidden-9@s3.example.com/loras" with hidden-0')
    logging.getLogger("charalora_trainer.x").error("Signed with hidden-1", extra={"why": "hidden-2"}, exc_info=error)
    LogConsole(as_json=as_json).say("Fetching with hidden-3")

    told = capsys.readouterr().err
    assert "hidden" not in told
    assert "https://…@s3.example.com/loras" in told
    assert "Fetching with …" in told


def test_the_operators_lines_have_the_same_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """In both forms; a traceback stands below its line."""
    fields = about(Key("artists", "surtr"), attempt=2, reason="Running", note="Attempt 2 runs.")
    for form in ("json", "text"):
        start_log(LogSettings.model_validate({"format": form}))
        logging.getLogger("charalora_operator.x").info("The state changed", extra=fields)
        error = ValueError("unforeseen")
        logging.getLogger("charalora_operator.x").warning("The visit failed", extra=about(Key("artists", "surtr")), exc_info=error)

    changed, failed, *text = capsys.readouterr().err.splitlines()
    whose = {"namespace": "artists", "name": "surtr", "attempt": 2, "reason": "Running", "note": "Attempt 2 runs."}
    assert {"level": "info", "logger": "charalora_operator.x", "message": "The state changed"} | whose == {
        name: value for name, value in json.loads(changed).items() if name != "time"
    }
    assert datetime.fromisoformat(json.loads(changed)["time"]).tzinfo
    assert "ValueError: unforeseen" in json.loads(failed)["traceback"]
    assert text[0].endswith(' INFO The state changed namespace=artists name=surtr attempt=2 reason=Running note="Attempt 2 runs."')
    assert text[1].endswith(" WARNING The visit failed namespace=artists name=surtr")
    assert "ValueError: unforeseen" == text[-1]
