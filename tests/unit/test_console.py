"""Progress: what a person reads, on a terminal and in a log."""

import io
import re

import pytest

from charalora_trainer.console import LogConsole, SilentConsole, TerminalConsole
from charalora_trainer.progress import Progress, Unit, amount, closing_line, duration, line_is_due, running_line


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [("0.4s", 0.44), ("9.9s", 9.9), ("37s", 37.9), ("1m20s", 80), ("59m59s", 3599.9), ("1h00m", 3600), ("2h05m", 7530)],
)
def test_a_duration_is_as_exact_as_a_person_cares_for(expected: str, seconds: float) -> None:
    """Tenths below ten seconds, seconds below an hour, then minutes."""
    assert expected == duration(seconds)


@pytest.mark.parametrize(
    ("expected", "number"), [("0 B", 0), ("1023 B", 1023), ("1.0 KiB", 1024), ("47.7 MiB", 50_000_000), ("5120.0 GiB", 5 << 40)]
)
def test_bytes_are_told_in_the_unit_that_gives_a_short_number(expected: str, number: int) -> None:
    """Binary units, one decimal."""
    assert expected == amount(number, Unit.BYTES)


def test_a_running_line_tells_stage_place_loss_speed_and_what_remains() -> None:
    """Everything that is known, in one order."""
    progress = Progress("train", done=120, total=1000, seconds=10.9, loss=0.0812, images_per_second=11.4)

    assert "train 120/1000 12% loss 0.0812 11.4 img/s eta 1m19s" == running_line(progress)


def test_a_running_line_leaves_out_what_is_not_known() -> None:
    """A stage without a total has no share and no end."""
    assert "check 12" == running_line(Progress("check", done=12, seconds=3.0))


def test_what_remains_is_reckoned_from_this_attempt_alone() -> None:
    """Steps of an earlier attempt cost this one nothing."""
    progress = Progress("train", start=500, done=600, total=1000, seconds=10.0)

    assert 40.0 == progress.eta


def test_nothing_is_said_of_what_remains_before_the_first_unit() -> None:
    """There is no speed yet."""
    assert Progress("train", start=500, done=500, total=1000, seconds=10.0).eta is None


def test_a_finished_stage_says_how_long_it_took() -> None:
    """The closing line."""
    assert "fetch 2.0 KiB/2.0 KiB 100% took 3.0s" == closing_line(Progress("fetch", 2048, 2048, seconds=3, unit=Unit.BYTES), whole=True)


def test_a_stage_that_an_error_ended_does_not_say_it_finished() -> None:
    """`took` would be a lie."""
    assert "fetch 1/2 50% eta 3.0s stopped after 3.0s" == closing_line(Progress("fetch", 1, 2, seconds=3), whole=False)


@pytest.mark.parametrize(
    ("expected", "done", "seconds"),
    [(False, 11, 9.9), (True, 11, 10.0), (True, 15, 5.0), (False, 90, 4.9), (False, 14, 5.0)],
)
def test_a_log_gets_a_line_every_ten_seconds_or_five_percent(expected: bool, done: int, seconds: float) -> None:  # noqa: FBT001
    """But never two within five seconds."""
    last = Progress("train", done=10, total=100, seconds=100.0)

    assert expected is line_is_due(Progress("train", done=done, total=100, seconds=100.0 + seconds), last)


def test_a_short_stage_leaves_one_line_in_a_log() -> None:
    """The closing one."""
    stream = io.StringIO()

    with LogConsole(stream).stage("check", 3) as stage:
        for _ in range(3):
            stage.advance()

    assert "check 3/3 100% took 0.0s\n" == stream.getvalue()


def test_a_log_holds_no_control_characters() -> None:
    """Nothing but text and line ends, nested stages included."""
    stream = io.StringIO()
    console = LogConsole(stream)

    with console.stage("train", 2) as train, console.stage("preview", 1) as preview:
        preview.advance()
        train.advance(2, loss=0.5)

    assert ["preview 1/1 100% took 0.0s", "train 2/2 100% loss 0.5000 took 0.0s"] == stream.getvalue().splitlines()


def test_an_error_passes_through_a_stage() -> None:
    """A stage reports, it does not handle."""
    stream = io.StringIO()

    with pytest.raises(KeyError), LogConsole(stream).stage("save"):
        raise KeyError

    assert "save stopped after 0.0s\n" == stream.getvalue()


def test_a_terminal_shows_markup_as_it_is_written() -> None:
    """A file called [red] is a name and no colour."""
    stream = io.StringIO()
    console = TerminalConsole(stream)

    with console.stage("fetch", 1) as stage:
        console.say("kept [red]a.png[/red]")
        stage.advance()

    assert "kept [red]a.png[/red]" in stream.getvalue()
    assert re.search(r"✓ fetch 1/1 100% took 0\.\ds", stream.getvalue())


def test_a_terminal_can_show_a_second_stage_after_the_first() -> None:
    """The bars are opened and closed again by each outermost stage."""
    stream = io.StringIO()
    console = TerminalConsole(stream)

    for name in ("fetch", "check"):
        with console.stage(name, 1) as stage:
            stage.advance()

    assert "✓ check 1/1" in stream.getvalue()


def test_the_other_processes_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Four processes print one line, not four."""
    console = SilentConsole()

    with console.stage("train", 1) as stage:
        stage.advance()
        console.say("hello")

    assert ("", "") == tuple(capfd.readouterr())
