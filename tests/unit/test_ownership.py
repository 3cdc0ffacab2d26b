"""One output prefix, one training."""

from pathlib import Path

import pytest

from builders import character_lora
from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Storage
from charalora_trainer.ownership import OWNER, claim, identity_of, refuse_foreign
from charalora_trainer.storage import Store, open_store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/output", Storage())


def test_a_free_prefix_is_taken(output: Store) -> None:
    """The first start is attempt 1, and it may write."""
    ours = claim(output, "surtr", "a", "d1g3st")
    assert ours.attempt == 1
    ours.verify(output)


def test_the_same_training_takes_its_own_prefix_again(output: Store) -> None:
    """A second start is the next attempt."""
    claim(output, "surtr", "a", "d1g3st")
    assert claim(output, "surtr", "a", "d1g3st").attempt == 2


def test_another_training_is_refused_by_name(output: Store) -> None:
    """The message names who owns the prefix and what to do."""
    claim(output, "surtr", "a", "d1g3st")
    with pytest.raises(TrainingError, match=r"belongs to surtr \(attempt 1 .*choose another output.uri") as refused:
        claim(output, "hoshiguma", "b", "d1g3st")
    assert refused.value.outcome is Outcome.OUTPUT_OCCUPIED


def test_an_attempt_that_was_overtaken_may_not_write(output: Store) -> None:
    """A process that everybody thought dead finds the newer one's name."""
    old = claim(output, "surtr", "a", "d1g3st")
    claim(output, "surtr", "a", "d1g3st")
    with pytest.raises(TrainingError, match=r"taken over by surtr \(attempt 2 .* this was attempt 1") as refused:
        old.verify(output)
    assert refused.value.outcome is Outcome.OUTPUT_OCCUPIED


def test_a_resume_on_other_pictures_is_refused(output: Store) -> None:
    """Half a training on one data set and half on another would be nobody's result."""
    claim(output, "surtr", "a", "d1g3st")
    with pytest.raises(TrainingError, match="The data set changed") as refused:
        claim(output, "surtr", "a", "0ther")
    assert refused.value.outcome is Outcome.DATASET_CHANGED


def test_files_without_an_owner_are_not_overwritten(output: Store) -> None:
    """Someone's earlier results are safe."""
    output.write("ckpts/lora-100.safetensors", b"precious")
    with pytest.raises(TrainingError, match="holds files of a training"):
        refuse_foreign(output, "a")


def test_unrelated_files_are_no_obstacle(output: Store) -> None:
    """A note in the prefix is nobody's training."""
    output.write("notes.txt", b"about surtr")
    assert refuse_foreign(output, "a") is None


def test_an_unreadable_owner_is_nobody_we_may_overwrite(output: Store) -> None:
    """A damaged run.json is refused, with what to do."""
    output.write(OWNER, b"{")
    with pytest.raises(TrainingError, match="delete that file"):
        claim(output, "surtr", "a", "d1g3st")


@pytest.mark.parametrize(
    "same", [{"preview__num": 3}, {"run__retries": 7}, {"storage__endpoint": "http://127.0.0.1:9000"}, {"resources__cpu": "4"}]
)
def test_what_does_not_decide_the_weights_may_change(same: dict[str, object]) -> None:
    """More pictures or another endpoint resume the same training."""
    assert identity_of(character_lora(), 4) == identity_of(character_lora(**same), 4)


@pytest.mark.parametrize(
    "other", [{"training__seed": 7}, {"dataset__flip": True}, {"character__vectors": 2}, {"baseModel__uri": "s3://models/other/"}]
)
def test_what_decides_the_weights_makes_another_training(other: dict[str, object]) -> None:
    """Another seed is another training."""
    assert identity_of(character_lora(), 4) != identity_of(character_lora(**other), 4)


def test_pictures_per_step_decide_the_weights() -> None:
    """Two processes see twice the pictures of one: not a resume of the same."""
    assert identity_of(character_lora(), 4) != identity_of(character_lora(), 8)
