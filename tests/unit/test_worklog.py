"""train.log, tblog/ and history.jsonl, as a training writes them."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from charalora_trainer import history
from charalora_trainer.worklog import Rates, TrainingLog, step_line

RATES = Rates(model=4e-4, word=1.2e-2)


def step_lines(folder: Path) -> list[str]:
    """The step lines of train.log, without their time."""
    return [line.split(" INFO ")[1] for line in (folder / "train.log").read_text().splitlines() if "Step = " in line]


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows under a tag."""
    events = EventAccumulator(str(folder / "tblog"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_step_line_looks_as_the_guides_users_know_it() -> None:
    """Step 20 of a data set with 25 batches."""
    expected = "Step = [20/1000], Epoch = [1/40]<20/25>, LR_model = 4.00e-04, LR_word = 1.20e-02, Loss = 0.12345"

    assert expected == step_line(20, 1000, 25, RATES, 0.123451)


def test_an_epoch_begins_after_the_last_batch_of_the_one_before() -> None:
    """Step 25 ends epoch 1, step 26 begins epoch 2."""
    assert "Epoch = [1/40]<25/25>" in step_line(25, 1000, 25, RATES, 0.1)
    assert "Epoch = [2/40]<1/25>" in step_line(26, 1000, 25, RATES, 0.1)


def test_the_log_has_a_line_every_twenty_steps_with_the_true_mean(tmp_path: Path) -> None:
    """No smoothing that starts at 1.0: the mean of the steps since the line before."""
    log = TrainingLog(tmp_path, steps=50, steps_per_epoch=10)
    for step in range(1, 51):
        log.step(step, step / 100, RATES)
    log.close()

    assert ["Loss = 0.10500", "Loss = 0.30500", "Loss = 0.45500"] == [line.split(", ")[-1] for line in step_lines(tmp_path)]


def test_tensorboard_gets_the_guides_tags_every_five_steps(tmp_path: Path) -> None:
    """LR_model, LR_word and Loss; the held-out loss when it is measured."""
    log = TrainingLog(tmp_path, steps=10, steps_per_epoch=10)
    for step in range(1, 11):
        log.step(step, step / 8, RATES)
    log.held_out(10, [0.25, 1.0])
    log.close()

    assert [(5, 0.375), (10, 1.0)] == scalars(tmp_path, "Loss")
    assert [4e-4, 4e-4] == pytest.approx([value for _, value in scalars(tmp_path, "LR_model")])
    assert [1.2e-2, 1.2e-2] == pytest.approx([value for _, value in scalars(tmp_path, "LR_word")])
    assert [(10, 0.5)] == scalars(tmp_path, "HeldOutLoss")


def test_a_resumed_training_continues_its_history(tmp_path: Path) -> None:
    """Steps after the saved state run again, so their first entries are dropped; train.log keeps both."""
    first = TrainingLog(tmp_path, steps=40, steps_per_epoch=10)
    for step in range(1, 31):
        first.step(step, 1.0, RATES)
    first.close()

    second = TrainingLog(tmp_path, steps=40, steps_per_epoch=10, resumed_after=20)
    for step in range(21, 41):
        second.step(step, 0.5, RATES)
    second.close()

    assert [(step, 1.0 if step <= 20 else 0.5) for step in range(1, 41)] == list(history.read(tmp_path).losses)
    assert [20, 40] == [int(line.removeprefix("Step = [")[:2]) for line in step_lines(tmp_path)]
    assert [(step, 1.0 if step <= 20 else 0.5) for step in range(5, 41, 5)] == scalars(tmp_path, "Loss")


def test_a_fresh_training_in_a_used_folder_starts_its_history_anew(tmp_path: Path) -> None:
    """No entry of the other training stays."""
    (tmp_path / history.FILE).write_text(history.line(7, loss=9.0))

    TrainingLog(tmp_path, steps=10, steps_per_epoch=10).close()

    assert () == history.read(tmp_path).losses
