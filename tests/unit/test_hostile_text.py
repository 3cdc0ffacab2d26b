"""Texts of users on terminals: they move no cursor, turn no letters round and make no second line of a log."""

import logging
from collections.abc import Iterator

import pytest

from charalora_operator.log import start_log
from charalora_operator.settings import LogSettings
from charalora_spec.outcome import Outcome
from charalora_spec.status import Condition
from faults import Fault
from operator_world import World

TEXT = "a\x1b[2J\x07\u202eb\u2028角色\n  c"


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """The log of the tests is as before afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.fault(Fault.HOSTILE_TEXT)
def test_a_message_has_letters_and_line_breaks_alone() -> None:
    """Conditions are printed by kubectl; the trainer's own words come from a container that read a user's files."""
    world = World()
    world.look()
    world.fail(world.check, Outcome.DATASET_INVALID, TEXT)

    said = world.condition(Condition.SUCCEEDED).message

    assert "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}角色\n  c" == said


@pytest.mark.fault(Fault.FLOOD)
def test_a_message_is_cut() -> None:
    """A status holds what people read, and no more."""
    world = World()
    world.look()
    world.fail(world.check, Outcome.DATASET_INVALID, "a" * 20_000)

    assert 4002 == len(world.condition(Condition.SUCCEEDED).message)
    assert sum(len(condition.message) for condition in world.status.conditions) < 20_000


@pytest.mark.fault(Fault.HOSTILE_TEXT)
@pytest.mark.usefixtures("log_as_before")
def test_a_record_of_the_operators_log_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for machines."""
    for kind in ("text", "json"):
        start_log(LogSettings.model_validate({"format": kind}))
        logging.getLogger("charalora_operator.test").warning("The state changed", extra={"note": TEXT})

    lines = capsys.readouterr().err.splitlines()

    assert 2 == len(lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.fault(Fault.MORE_THAN_ALLOWED)
def test_of_a_certificates_secret_nothing_but_the_certificate_is_mounted() -> None:
    """An account's token lies beside its ca.crt."""
    world = World()
    world.change(storage__ca_secret_name="token")  # noqa: S106 - a name
    world.look()
    (check,) = [made for name, made in world.made.items() if name.startswith("Job/")]
    volumes = check["spec"]["template"]["spec"]["volumes"]

    assert [[{"key": "ca.crt", "path": "ca.crt"}]] == [volume["secret"]["items"] for volume in volumes if "secret" in volume]
