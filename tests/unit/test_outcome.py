import json
import pickle

import pytest

from charalora_spec.outcome import TERMINATION_MESSAGE_BYTES, Outcome, Retry, TrainingError, termination_message

PROMISED_REASONS = {
    "DatasetInvalid", "WordTaken", "BucketNotFound", "StorageAccessDenied", "StorageUnreachable", "DatasetChanged", "BaseModelInvalid",
    "LossDiverged", "CudaOutOfMemory", "HostOutOfMemory", "GpuMismatch", "ImagePullFailed", "Unschedulable", "QuotaExceeded",
    "SecretMissing",
}  # fmt: skip


def test_no_two_outcomes_share_an_exit_code() -> None:
    """An exit code names one outcome, so that the operator can read it back."""
    codes = [outcome.exit_code for outcome in Outcome if outcome.exit_code is not None]

    assert sorted(set(codes)) == sorted(codes)


def test_no_two_outcomes_share_a_reason() -> None:
    """A reason names one outcome; two enum members of one value would be one member."""
    assert len(Outcome) == len({outcome.reason for outcome in Outcome}) == len(Outcome.__members__)


def test_failures_exit_with_a_code_of_their_own() -> None:
    """126 and above belong to the shell and to signals, 0 to success, 2 to a wrong command line."""
    codes = {outcome.exit_code for outcome in Outcome if outcome is not Outcome.SUCCEEDED} - {None}

    assert codes <= set(range(1, 126)) - {2}


def test_every_promised_reason_exists() -> None:
    """The reasons that bad input is promised to get."""
    assert {outcome.reason for outcome in Outcome} >= PROMISED_REASONS


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_says_in_one_sentence_what_it_means(outcome: Outcome) -> None:
    """A meaning is a sentence for people."""
    assert outcome.meaning.endswith(".")
    assert outcome.meaning.count(". ") == 0


@pytest.mark.parametrize(
    ("verdict", "outcomes"),
    [
        (Retry.RETRY, {Outcome.INTERNAL_ERROR, Outcome.STORAGE_UNREACHABLE, Outcome.DISK_FULL}),
        (Retry.RESUME, {Outcome.INTERRUPTED}),
    ],
)
def test_only_these_exits_are_worth_another_attempt(verdict: Retry, outcomes: set[Outcome]) -> None:
    """Trying again must not burn GPU hours on what will fail again."""
    assert outcomes == {outcome for outcome in Outcome if outcome.exit_code is not None and outcome.retry is verdict}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_exit_code_leads_back_to_its_outcome(outcome: Outcome) -> None:
    """The operator reads what the trainer returned."""
    assert outcome.exit_code is None or outcome is Outcome.of_exit_code(outcome.exit_code)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(143, Outcome.INTERRUPTED), (137, Outcome.INTERNAL_ERROR), (2, Outcome.INTERNAL_ERROR), (-9, Outcome.INTERNAL_ERROR)],
)
def test_an_unknown_exit_code_is_an_internal_error_unless_sigterm_ended_the_process(code: int, outcome: Outcome) -> None:
    """SIGTERM before the trainer could answer leaves an earlier state to resume from."""
    assert outcome is Outcome.of_exit_code(code)


def test_an_error_survives_the_way_between_processes() -> None:
    """Worker processes hand errors to their parent as pickles."""
    error = pickle.loads(pickle.dumps(TrainingError(Outcome.DISK_FULL, "The disk is full; free some space.")))  # noqa: S301 - our own bytes

    assert (Outcome.DISK_FULL, "The disk is full; free some space.") == (error.outcome, str(error))


def test_a_termination_message_is_json_with_reason_message_and_details() -> None:
    """What the operator copies into the condition."""
    text = termination_message(Outcome.SUCCEEDED, "Done.", {"manifest": "s3://loras/surtr/manifest.json"})

    assert {"reason": "Succeeded", "message": "Done.", "manifest": "s3://loras/surtr/manifest.json"} == json.loads(text)


def test_a_termination_message_drops_its_largest_details_first() -> None:
    """The message itself matters more than what goes with it."""
    told = json.loads(termination_message(Outcome.SUCCEEDED, "Done.", {"small": 1, "large": ["x" * 100] * 100}))

    assert {"reason": "Succeeded", "message": "Done.", "small": 1, "omitted": ["large"]} == told


@pytest.mark.parametrize("message", ["a" * 10_000, "史" * 10_000, "😀" * 10_000, '"\\\x00' * 10_000, "\n" * 4_096])
def test_a_long_termination_message_is_cut_to_what_kubernetes_keeps(message: str) -> None:
    """4096 bytes at most, still JSON, and no more lost than needed."""
    text = termination_message(Outcome.INTERNAL_ERROR, message)

    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    assert len(text.encode()) > TERMINATION_MESSAGE_BYTES - 16
    assert message.startswith(json.loads(text)["message"].removesuffix("…"))
