"""What the operator does, from the first visit to the end: each test drives one small world."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from charalora_operator import names
from charalora_operator.model import Create, DeleteJob, DeleteResource, EndJob, JobState, Sample, Workload
from charalora_operator.plan import plan_of
from charalora_operator.waiting import waiting_for
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.status import Condition
from faults import Fault
from operator_world import CHECKED, DIGEST, NOON, SETTINGS, World, after, told

ALL = [condition.value for condition in Condition]


def created(world: World) -> list[str]:
    """What the next look would make."""
    return [action.manifest["kind"] for action in world.plan().actions if isinstance(action, Create)]


def test_the_first_visit_starts_the_check_and_says_so_in_every_condition() -> None:
    world = World()

    assert ["ConfigMap", "Job"] == created(world)
    world.look()
    assert ALL == [condition.type for condition in world.status.conditions]
    assert "Checking" == world.state
    assert all(condition.reason and condition.message for condition in world.status.conditions)
    assert 1 == world.status.observed_generation


def test_a_check_that_runs_is_waited_for() -> None:
    world = World()
    world.look()
    world.pod(world.check)

    assert () == world.plan().actions
    assert "Checking" == world.state


def test_no_gpu_is_asked_for_when_the_check_finds_the_data_set_wanting() -> None:
    world = World()
    world.look()
    world.wait(9)
    world.fail(world.check, Outcome.DATASET_INVALID, "3 pictures have no caption: 01.png, 02.png, 03.png.")

    assert "DatasetInvalid" == world.state
    assert "False" == world.condition(Condition.SUCCEEDED).status
    assert "3 pictures have no caption" in world.condition(Condition.DATASET_READY).message
    assert [world.check] == list(world.jobs)
    assert 0 == world.status.usage.gpu_seconds if world.status.usage else True
    assert after(9) == world.status.completion_time
    assert () == world.plan().actions


def test_the_attempt_begins_with_the_digest_that_was_checked() -> None:
    world = World()
    world.pass_check()

    arguments = world.made["Job/surtr-a1"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert DIGEST == arguments[arguments.index("--expect-dataset") + 1]
    assert "True" == world.condition(Condition.DATASET_READY).status
    assert world.status.dataset is not None
    assert (24, 128) == (world.status.dataset.images, world.status.dataset.width)


def test_a_running_training_shows_how_far_it_is() -> None:
    world = World()
    job = world.train()
    world.wait(60)
    world.report(
        job,
        120,
        loss=0.08125,
        images_per_second=11.44,
        eta_seconds=80.4,
        last_checkpoint_step=100,
        last_checkpoint_timestamp_seconds=after(50).timestamp(),
    )
    world.look()

    progress = world.status.progress
    assert progress is not None
    assert (120, 1000, "12%", "0.0813", "11.4", 80) == (
        progress.step,
        progress.steps,
        progress.percent,
        progress.loss and progress.loss.text,
        progress.images_per_second and progress.images_per_second.text,
        progress.eta_seconds,
    )
    assert "Running" == world.state
    assert world.status.checkpoint is not None
    assert ("s3://loras/surtr/state/step-000100/", after(50)) == (world.status.checkpoint.uri, world.status.checkpoint.time)
    assert "2 GPUs on node-a" in world.condition(Condition.ADMITTED).message


def test_progress_that_hardly_moved_is_not_written() -> None:
    world = World()
    job = world.train()
    world.report(job, 100)
    world.look()
    world.wait(20)
    world.report(job, 104)

    assert world.status == world.plan().status
    world.wait(10)
    world.report(job, 106)
    assert world.status != world.plan().status


def test_a_finished_training_lists_its_files_and_is_never_touched_again() -> None:
    world = World()
    job = world.train()
    world.wait(100)
    artifact = {"kind": "webui", "uri": "s3://loras/surtr/ckpts/lora-1000.safetensors", "bytes": 123, "sha256": "a" * 64}
    world.succeed(job, artifacts=[artifact], best={"step": 800, "heldOutLoss": "0.0554"}, savedStep=1000)

    assert "Succeeded" == world.state
    assert "True" == world.condition(Condition.ARTIFACTS_UPLOADED).status
    assert [123] == [one.bytes for one in world.status.artifacts]
    assert world.status.best is not None
    assert 800 == world.status.best.step
    assert world.status.progress is not None
    assert "100%" == world.status.progress.percent
    assert world.status.usage is not None
    assert (200, 0) == (world.status.usage.gpu_seconds, world.status.usage.wasted_gpu_seconds)

    world.jobs.clear()
    world.pods.clear()
    assert () == world.plan().actions
    assert world.status == world.plan().status


def test_a_failure_that_another_attempt_can_help_is_tried_again_after_a_pause() -> None:
    world = World()
    job = world.train()
    world.fail(job, Outcome.STORAGE_UNREACHABLE, "s3.example:443 did not answer.")

    assert () == world.plan().actions
    assert 10 == world.plan().requeue_after
    assert "StorageUnreachable" == world.state
    assert "Unknown" == world.condition(Condition.SUCCEEDED).status
    world.wait(10)
    assert ["ConfigMap", "Job"] == created(world)
    world.look()
    assert "surtr-a2" in world.jobs
    assert 2 == world.plan().status.attempt


def test_pauses_between_failures_double() -> None:
    world = World()
    pauses = []
    job = world.train()
    for attempt in (2, 3, 4):
        world.fail(job, Outcome.STORAGE_UNREACHABLE)
        pauses.append(world.plan().requeue_after)
        world.wait(pauses[-1] or 0)
        world.look()
        job = world.train(attempt)

    assert [10, 20, 40] == pauses


def test_retries_are_spent() -> None:
    world = World()
    world.change(run__retries=1)
    job = world.train()
    world.fail(job, Outcome.STORAGE_UNREACHABLE)
    world.wait(10)
    world.look()
    world.fail(world.train(2), Outcome.STORAGE_UNREACHABLE, "s3.example:443 did not answer.")

    assert "False" == world.condition(Condition.SUCCEEDED).status
    assert "s3.example:443 did not answer." in world.condition(Condition.SUCCEEDED).message
    assert "run.retries allows 1" in world.condition(Condition.SUCCEEDED).message
    assert () == world.plan().actions


@pytest.mark.parametrize("outcome", [one for one in Outcome if one.exit_code and one.retry is Retry.NEVER])
def test_a_failure_for_good_is_not_tried_again(outcome: Outcome) -> None:
    world = World()
    world.fail(world.train(), outcome)

    assert (outcome.reason, "False") == (world.state, world.condition(Condition.SUCCEEDED).status)
    assert () == world.plan().actions


def test_a_preemption_costs_no_retry_and_no_pause() -> None:
    world = World()
    world.change(run__retries=0)
    job = world.train()
    world.wait(60)
    world.pods[f"{job}-0"] = replace(
        world.pods[f"{job}-0"], disruption=("PreemptionByScheduler", "preempted to accommodate a higher priority pod")
    )
    world.end_pod(job, told(Outcome.INTERRUPTED, savedStep=70, step=70), exit_code=75)
    world.end_job(job, why=("PodFailurePolicy", "Pod artists/surtr-a1-0 has condition DisruptionTarget matching FailJob rule at index 0"))
    world.look()

    assert "surtr-a2" in world.jobs
    assert 1 == world.status.preemptions
    assert world.status.checkpoint is not None
    assert 70 == world.status.checkpoint.step
    assert ["Preempted"] == [one.reason for one in world.status.attempts]
    assert world.status.usage is not None
    assert (120, 0) == (world.status.usage.gpu_seconds, world.status.usage.wasted_gpu_seconds)


def test_preemptions_have_a_budget_of_their_own() -> None:
    world = World()
    world.change(run__preemption_retries=1)
    job = world.train()
    for attempt in (2, 3):
        world.pods[f"{job}-0"] = replace(world.pods[f"{job}-0"], disruption=("EvictionByEvictionAPI", "evicted"))
        world.end_job(job)
        world.look()
        if attempt == 2:
            job = world.train(attempt)

    assert ("Preempted", "False") == (world.state, world.condition(Condition.SUCCEEDED).status)
    assert "(EvictionByEvictionAPI): evicted. It was taken away 2 times;" in world.condition(Condition.SUCCEEDED).message
    assert 2 == world.status.preemptions


def test_what_was_done_since_the_last_state_is_wasted_by_a_failure() -> None:
    world = World()
    job = world.train()
    world.wait(100)
    world.report(job, 500, last_checkpoint_step=400, last_checkpoint_timestamp_seconds=after(70).timestamp())
    world.look()
    world.fail(job, Outcome.INTERNAL_ERROR)

    assert world.status.usage is not None
    assert (200, 60) == (world.status.usage.gpu_seconds, world.status.usage.wasted_gpu_seconds)


@pytest.mark.parametrize(("step", "wasted"), [(450, 60), (400, 0)])
def test_a_state_that_only_the_last_words_tell_of_was_saved_when_they_say(step: int, wasted: int) -> None:
    """No reading of its progress came between the save and the end. Where the last step was saved nothing is lost by the way out."""
    world = World()
    job = world.train()
    world.wait(100)
    world.fail(job, Outcome.INTERRUPTED, step=step, savedStep=400, savedAt=int(after(70).timestamp()))

    assert world.status.checkpoint is not None
    assert (400, after(70)) == (world.status.checkpoint.step, world.status.checkpoint.time)
    assert [(200, wasted)] == [(one.gpu_seconds, one.wasted_gpu_seconds) for one in world.status.attempts]


def test_gpu_seconds_are_kept_when_the_pods_are_gone() -> None:
    world = World()
    job = world.train()
    world.wait(100)
    world.fail(job, Outcome.INTERNAL_ERROR)
    world.pods.clear()
    world.wait(10)
    world.look()

    assert world.status.usage is not None
    assert 200 == world.status.usage.gpu_seconds


@pytest.mark.fault(Fault.STATUS_LARGE)
def test_gpu_seconds_of_attempts_that_are_not_listed_any_more_are_counted_once() -> None:
    """Their Jobs are still there, and their accounts are closed."""
    world = World()
    world.change(run__preemptionRetries=100)
    for number in range(1, 24):
        job = world.train(number)
        world.wait(10)
        world.fail(job, Outcome.INTERRUPTED, savedStep=number)
    world.look()

    assert list(range(5, 25)) == [one.attempt for one in world.status.attempts]
    assert world.status.usage is not None
    assert 23 * 2 * 10 == world.status.usage.gpu_seconds
    assert 23 == world.status.preemptions


def test_pausing_ends_the_attempt_and_going_on_starts_the_next() -> None:
    world = World()
    job = world.train()
    world.change(run__suspend=True)

    assert (EndJob(job, Outcome.SUSPENDED),) == world.plan().actions
    world.look()
    assert "Suspended" == world.state
    world.jobs[job] = replace(world.jobs[job], ended_because="Suspended")
    world.end_pod(job, told(Outcome.INTERRUPTED, savedStep=40), exit_code=75)
    world.end_job(job, why=("DeadlineExceeded", ""))
    world.look()
    assert "Suspended" == world.state
    assert () == world.plan().actions
    assert 0 == world.status.preemptions

    world.change(run__suspend=False)
    world.look()
    assert "surtr-a2" in world.jobs


@pytest.mark.parametrize(("outcome", "exit_code"), [(Outcome.LOSS_DIVERGED, Outcome.LOSS_DIVERGED.exit_code), (Outcome.SUCCEEDED, 0)])
def test_a_pause_that_comes_after_the_pods_end_is_not_its_cause(outcome: Outcome, exit_code: int) -> None:
    """The Job controller may take a minute to say that a Job has ended, after the API server was away."""
    world = World()
    job = world.train()
    world.end_pod(job, told(outcome), exit_code)
    world.change(run__suspend=True)

    assert () == world.look().actions
    world.end_job(job, JobState.FAILED if exit_code else JobState.SUCCEEDED)
    world.look()

    assert outcome.reason == world.state


def test_a_training_whose_time_is_over_after_its_pods_end_has_succeeded() -> None:
    world = World()
    world.change(run__deadline_seconds=600)
    job = world.train()
    world.wait(599)
    world.end_pod(job, told(Outcome.SUCCEEDED))
    world.wait(2)

    assert () == world.look().actions
    world.end_job(job, JobState.SUCCEEDED)
    world.look()

    assert "Succeeded" == world.state


def test_a_resource_that_is_born_paused_is_checked_and_not_trained() -> None:
    world = World()
    world.change(run__suspend=True)
    world.pass_check()

    assert "Suspended" == world.state
    assert "True" == world.condition(Condition.DATASET_READY).status
    assert [world.check] == list(world.jobs)


def test_a_queued_job_is_taken_back_when_paused() -> None:
    world = World()
    world.change(scheduling__queue_name="training")
    world.pass_check()
    assert "Queued" == world.plan().status.conditions[-1].reason
    world.change(scheduling__queue_name="training", run__suspend=True)

    assert (DeleteJob("surtr-a1"),) == world.plan().actions


def test_what_kueue_takes_back_is_in_its_queue_again_though_its_pods_have_ended() -> None:
    world = World()
    world.change(scheduling__queue_name="training")
    job = world.train()
    world.end_pod(job, told(Outcome.INTERRUPTED, savedStep=40), exit_code=75)
    world.jobs[job] = replace(world.jobs[job], state=JobState.SUSPENDED)
    world.look()

    assert "Queued" == world.state
    world.change(scheduling__queue_name="training", run__suspend=True)
    assert (DeleteJob(job),) == world.plan().actions


def test_a_queue_says_why_it_holds_a_training() -> None:
    world = World()
    world.change(scheduling__queue_name="training")
    world.pass_check()
    world.workload = Workload(
        "job-surtr-a1", active=True, admitted=False, reason="Pending", message="insufficient unused quota for nvidia.com/gpu"
    )
    world.look()

    assert "Queued" == world.state
    assert ("False", "Queued") == (world.condition(Condition.ADMITTED).status, world.condition(Condition.ADMITTED).reason)
    assert "insufficient unused quota" in world.condition(Condition.ADMITTED).message


def test_all_attempts_together_keep_the_deadline() -> None:
    world = World()
    world.change(run__deadline_seconds=100)
    job = world.train()
    assert 100 == world.made["Job/surtr-a1"]["spec"]["activeDeadlineSeconds"]
    world.wait(60)
    world.fail(job, Outcome.INTERNAL_ERROR)
    world.wait(10)
    world.look()

    assert 40 == world.made["Job/surtr-a2"]["spec"]["activeDeadlineSeconds"]
    world.end_job("surtr-a2", why=("DeadlineExceeded", "Job was active longer than specified deadline"))
    world.look()
    assert "DeadlineExceeded" == world.state


def test_an_end_stays_what_it_was_when_the_pods_that_told_it_are_gone() -> None:
    """Deleted pods save, say so and vanish; were that judged anew, it would look like failures."""
    world = World()
    world.change(run__preemption_retries=1, run__retries=0)
    for attempt in (1, 2):
        job = world.train(attempt)
        world.fail(job, Outcome.INTERRUPTED, "State saved.")
        world.pods.clear()
        world.look()

    assert "Interrupted" == world.state
    assert world.condition(Condition.SUCCEEDED).message.startswith("State saved. It was taken away 2 times")
    assert "surtr-a3" not in world.jobs


def test_what_a_check_found_stays_when_its_pods_are_gone() -> None:
    """That the storage did not answer is not in the Job, and what was found is not either."""
    world = World()
    world.look()
    world.fail(world.check, Outcome.STORAGE_UNREACHABLE, "Nobody answers.")
    world.pods.clear()
    world.look()

    assert "StorageUnreachable" == world.state
    assert "Nobody answers." == world.condition(Condition.SUCCEEDED).message

    paused = World()
    paused.change(run__suspend=True)
    paused.pass_check()
    found = paused.condition(Condition.DATASET_READY).message
    paused.pods.clear()
    paused.look()
    assert found.startswith("24 pictures")
    assert ("True", found) == (paused.condition(Condition.DATASET_READY).status, paused.condition(Condition.DATASET_READY).message)


def test_a_training_that_stands_still_is_started_again() -> None:
    world = World()
    job = world.train()
    world.report(job, 120)
    assert 1800 == world.plan().requeue_after
    world.wait(1800)
    world.report(job, 120, moved=NOON)

    assert (EndJob(job, Outcome.STALLED),) == world.plan().actions
    world.look()
    assert "Pending" == world.state
    world.jobs[job] = replace(world.jobs[job], ended_because="Stalled")
    world.end_pod(job, told(Outcome.INTERRUPTED), exit_code=75)
    world.end_job(job, why=("DeadlineExceeded", ""))
    world.look()
    assert "Stalled" == world.state
    assert ["Stalled"] == [one.reason for one in world.status.attempts]


def test_a_training_that_answers_nobody_any_more_is_started_again() -> None:
    """Also by an operator that never heard it: the status says that it has been heard."""
    world = World()
    job = world.train()
    world.report(job, 120)
    world.look()
    world.wait(600)
    world.sample = Sample(job, world.now, world.now, {})  # a new operator asks, and nothing answers

    assert 1800 == world.plan().requeue_after
    world.wait(1800)
    assert (EndJob(job, Outcome.STALLED),) == world.plan().actions


def test_a_training_that_hangs_before_its_first_word_is_started_again_where_others_are_heard() -> None:
    world = World()
    job = world.train()
    world.sample = Sample(job, world.now, world.now, {}, heard_nearby=after(30))

    assert 1800 == world.plan().requeue_after
    world.wait(1800)
    assert (EndJob(job, Outcome.STALLED),) == world.plan().actions


def test_a_training_that_was_never_heard_is_left_alone_where_none_is() -> None:
    """Rules of the network may keep the operator from its metrics, and may be newer than those that it heard before."""
    world = World()
    world.wait(100)
    job = world.train()
    world.sample = Sample(job, world.now, world.now, {}, heard_nearby=after(99))
    world.wait(100_000)

    assert () == world.plan().actions


def test_a_pod_on_a_lost_node_does_not_hold_the_training_for_ever() -> None:
    """Its Job waits for it, so it is given up when its time and a little more are over; the next attempt begins without it."""
    world = World()
    job = world.train()
    world.wait(100)
    world.report(job, 500, last_checkpoint_step=400, last_checkpoint_timestamp_seconds=after(70).timestamp())
    world.look()
    why = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
    world.pods[f"{job}-0"] = replace(world.pods[f"{job}-0"], deleted=after(220), disruption=why)
    world.look()

    assert () == world.plan().actions
    assert 150 == world.plan().requeue_after
    assert ("Pending", True) == (world.state, "node-a (DeletionByTaintManager)" in world.condition(Condition.TRAINING).message)
    world.wait(151)
    assert (EndJob(job, Outcome.PREEMPTED),) == world.plan().actions
    world.jobs[job] = replace(world.jobs[job], ended_because="Preempted", state=JobState.ENDING)
    world.look()
    world.look()

    assert "surtr-a2" in world.jobs
    [first, _] = world.status.attempts
    assert ("Preempted", 2 * 220, 2 * 150) == (first.reason, first.gpu_seconds, first.wasted_gpu_seconds)
    assert 1 == world.status.preemptions


def test_a_late_pod_of_an_attempt_that_was_given_up_changes_no_account() -> None:
    """Its node comes back: the pod says that the prefix is another attempt's, and that it ran much longer."""
    world = World()
    job = world.train()
    world.pods[f"{job}-0"] = replace(world.pods[f"{job}-0"], deleted=after(120))
    world.wait(151)
    world.jobs[job] = replace(world.jobs[job], ended_because="Preempted", state=JobState.ENDING)
    world.look()
    before = world.status
    world.wait(1000)
    world.end_pod(job, told(Outcome.OUTPUT_OCCUPIED), exit_code=73)
    world.end_job(job)
    world.look()

    assert before.attempts[0] == world.status.attempts[0]
    assert (before.usage, 2, "Pending") == (world.status.usage, world.status.attempt, world.state)


def test_a_job_that_somebody_deleted_is_followed_by_the_next_attempt() -> None:
    world = World()
    job = world.train()
    del world.jobs[job]
    world.pods.clear()
    world.look()

    assert "surtr-a2" in world.jobs


def test_a_pod_that_is_forced_away_while_it_ends_was_interrupted() -> None:
    """Who deletes it without a grace period costs the training no retry."""
    world = World()
    job = world.train()
    world.end_pod(job, told(Outcome.INTERRUPTED, "Stopped on request after step 53 of 60, state saved."), 137)
    world.end_job(job)

    world.look()

    assert ["Interrupted"] == [one.reason for one in world.status.attempts]


def test_a_pod_that_was_deleted_and_had_to_be_killed_was_interrupted() -> None:
    """It hung, or had only just begun: no word, and SIGKILL."""
    world = World()
    job = world.train()
    world.end_pod(job, "", 137)
    world.pods[f"{job}-0"] = replace(world.pods[f"{job}-0"], deleted=world.now)
    world.end_job(job)

    world.look()

    assert ["Interrupted"] == [one.reason for one in world.status.attempts]
    assert "had to be killed: it did not end in the time that it was given" in world.condition(Condition.TRAINING).message


def test_a_container_that_is_killed_where_nobody_deleted_its_pod_failed() -> None:
    world = World()
    job = world.train()
    world.end_pod(job, "", 137)
    world.end_job(job)

    world.look()

    assert ["InternalError"] == [one.reason for one in world.status.attempts]


@pytest.mark.parametrize(("exit_code", "word"), [(255, "Unknown"), (137, "ContainerStatusUnknown")])
def test_a_pod_whose_node_was_restarted_was_preempted(exit_code: int, word: str) -> None:
    """What containerd and the kubelet say of a container that ended while they were not there."""
    world = World()
    job = world.train()
    world.end_pod(job, "", exit_code, cluster_reason=word)
    world.end_job(job)

    world.look()

    assert (["Preempted"], 1) == ([one.reason for one in world.status.attempts], world.status.preemptions)
    assert f"Node node-a was restarted under its pod {job}-0." in world.condition(Condition.TRAINING).message


def test_a_deleted_pod_whose_node_was_restarted_was_interrupted() -> None:
    world = World()
    job = world.train()
    world.end_pod(job, "", 255, cluster_reason="Unknown")
    world.pods[f"{job}-0"] = replace(world.pods[f"{job}-0"], deleted=world.now)
    world.end_job(job)

    world.look()

    assert ["Interrupted"] == [one.reason for one in world.status.attempts]


def test_a_partner_that_fails_with_a_restarted_node_does_not_hide_it() -> None:
    world = World()
    world.change(resources__nodes=2)
    job = world.train()
    world.end_pod(job, "", 255, index=1, cluster_reason="Unknown")
    world.end_pod(job, told(Outcome.INTERNAL_ERROR, "Connection reset by peer."), 1)
    world.end_job(job)

    world.look()

    assert ["Preempted"] == [one.reason for one in world.status.attempts]
    assert "Node node-b was restarted" in world.condition(Condition.TRAINING).message


def test_a_check_whose_node_was_restarted_as_often_as_it_was_tried_is_not_preempted() -> None:
    world = World()
    world.look()
    world.end_pod(world.check, "", 255, cluster_reason="Unknown")
    world.end_job(world.check)

    world.look()

    assert "InternalError" == world.state


def test_an_attempt_whose_pods_were_deleted_while_no_operator_looked_was_interrupted() -> None:
    """A pod that failed by itself would still be there."""
    world = World()
    job = world.train()
    world.pods.clear()
    world.end_job(job, why=("BackoffLimitExceeded", "Job has reached the specified backoff limit"))

    world.look()

    assert ["Interrupted"] == [one.reason for one in world.status.attempts]
    assert "its pods are gone" in world.condition(Condition.TRAINING).message


def test_success_whose_words_are_gone_with_the_pod_says_where_the_files_are_listed() -> None:
    world = World()
    job = world.train()
    world.pods.clear()
    world.end_job(job, JobState.SUCCEEDED)

    world.look()

    assert ("True", "Succeeded") == (world.condition(Condition.SUCCEEDED).status, world.state)
    assert "Their list is manifest.json there" in world.condition(Condition.SUCCEEDED).message


def test_the_account_of_an_attempt_whose_job_somebody_deleted_is_closed() -> None:
    world = World()
    job = world.train()
    del world.jobs[job]
    world.pods = {name: pod for name, pod in world.pods.items() if pod.job != job}

    world.look()
    world.train(2)

    assert [(1, "Interrupted", True), (2, "Running", False)] == [
        (one.attempt, one.reason, bool(one.end_time)) for one in world.status.attempts
    ]
    assert 1 == world.status.preemptions


def test_an_attempt_whose_job_somebody_deleted_cost_its_gpus_until_then_and_lost_what_was_not_saved() -> None:
    world = World()
    job = world.train()
    world.wait(70)
    world.report(job, 400, last_checkpoint_step=400, last_checkpoint_timestamp_seconds=after(60).timestamp())
    world.look()
    world.wait(30)
    del world.jobs[job]
    world.pods.clear()

    world.look()

    (gone,) = world.status.attempts
    assert (200, 80) == (gone.gpu_seconds, gone.wasted_gpu_seconds)
    assert world.status.usage is not None
    assert (200, 80) == (world.status.usage.gpu_seconds, world.status.usage.wasted_gpu_seconds)


def test_an_attempt_that_ended_and_whose_pods_went_while_no_operator_looked_cost_its_gpus_until_its_end() -> None:
    """A checkpoint of an earlier look tells what of it was kept."""
    world = World()
    world.change(resources__nodes=2)
    job = world.train()
    world.wait(70)
    world.report(job, 400, last_checkpoint_step=400, last_checkpoint_timestamp_seconds=after(60).timestamp())
    world.look()
    world.wait(30)
    world.pods.clear()
    world.end_job(job)

    world.look()

    assert [(400, 160)] == [(one.gpu_seconds, one.wasted_gpu_seconds) for one in world.status.attempts]


@pytest.mark.parametrize(("ran", "expected"), [(True, (400, 160)), (False, (200, 80))])
def test_one_pod_of_an_attempt_that_went_while_no_operator_looked_cost_its_gpus_too(*, ran: bool, expected: tuple[int, int]) -> None:
    """The Job controller deletes what still runs beside a pod that failed. A pod that never had a node cost nothing."""
    world = World()
    world.change(resources__nodes=2)
    job = world.train()
    second = world.pods.pop(f"{job}-1")
    if ran:
        world.pods[f"{job}-1"] = second
    world.wait(70)
    world.report(job, 400, last_checkpoint_step=400, last_checkpoint_timestamp_seconds=after(60).timestamp())
    world.look()
    world.wait(30)
    world.pods.pop(f"{job}-1", None)
    world.end_pod(job, told(Outcome.INTERNAL_ERROR), exit_code=1)
    world.end_job(job)

    world.look()

    assert [expected] == [(one.gpu_seconds, one.wasted_gpu_seconds) for one in world.status.attempts]


def test_a_new_attempt_waits_until_the_last_pods_are_gone() -> None:
    world = World()
    world.change(resources__nodes=2, resources__gpus=1)
    job = world.train()
    world.end_pod(job, told(Outcome.INTERNAL_ERROR), exit_code=1, index=1)
    world.end_job(job, JobState.ENDING)
    world.pods[f"{job}-0"] = replace(world.pods[f"{job}-0"], deleted=after(120))

    assert () == world.plan().actions
    assert 150 == world.plan().requeue_after
    world.wait(151)
    world.look()
    assert "surtr-a2" in world.jobs, "a pod on a node that nobody hears of does not hold the training for ever"
    assert ["Preempted"] == [one.reason for one in world.status.attempts], "its partner ended because it was gone, which is no failure"


def test_a_gang_runs_when_the_pods_of_all_its_nodes_do() -> None:
    """They are made one after the other: the first may run before there is a second."""
    world = World()
    world.change(resources__nodes=2, resources__gpus=1)
    world.pass_check()
    world.pod("surtr-a1", 0)
    world.look()

    assert "Pending" == world.state

    world.pod("surtr-a1", 1, node="node-b")
    world.look()

    assert "Running" == world.state


def test_a_success_is_told_when_the_end_of_each_pod_is_known() -> None:
    """News of the Job may come before those of its pods, and what a pod cost is read from its end."""
    world = World()
    world.change(resources__nodes=2, resources__gpus=1)
    job = world.train()
    world.wait(100)
    world.end_pod(job, told(Outcome.SUCCEEDED))
    second = world.pods[f"{job}-1"]
    world.end_pod(job, told(Outcome.SUCCEEDED), index=1)
    ended = world.pods[second.name]
    world.pods[second.name] = second
    world.wait(30)
    world.jobs[job] = replace(world.jobs[job], state=JobState.SUCCEEDED, ended=world.now)
    world.look()

    assert "Running" == world.state

    world.pods[second.name] = ended
    world.look()

    assert "Succeeded" == world.state
    assert [(200, 0)] == [(one.gpu_seconds, one.wasted_gpu_seconds) for one in world.status.attempts]


def test_another_content_lifts_an_old_verdict() -> None:
    """A wrong region is corrected: the same resource goes on."""
    world = World()
    world.look()
    world.fail(world.check, Outcome.STORAGE_ACCESS_DENIED)
    assert "StorageAccessDenied" == world.state
    world.change(storage__region="eu-west-1")

    assert ["ConfigMap", "Job"] == created(world)
    world.look()
    assert "Checking" == world.state
    assert world.status.completion_time is None


def test_a_retry_annotation_lifts_an_old_verdict() -> None:
    world = World()
    world.fail(world.train(), Outcome.LOSS_DIVERGED)
    assert () == world.plan().actions
    world.change(**{"metadata.annotations": {names.RETRY: "1"}})

    assert ["ConfigMap", "Job"] == created(world)


def test_what_the_pods_do_not_read_needs_no_new_check() -> None:
    world = World()
    job = world.train()
    check = world.check
    world.change(run__retries=7, scheduling__node_selector={"pool": "gpu"})

    assert check == world.check
    world.fail(job, Outcome.LOSS_DIVERGED)
    assert "LossDiverged" == world.state


def test_a_finished_resource_goes_when_its_time_has_passed() -> None:
    world = World()
    world.change(run__ttl_seconds_after_finished=600)
    world.fail(world.train(), Outcome.LOSS_DIVERGED)

    assert 600 == world.plan().requeue_after
    world.wait(600)
    assert (DeleteResource("uid-1"),) == world.plan().actions


def test_how_a_training_ended_is_told_before_it_goes() -> None:
    """With a time of 0 as well: its Events and the operator's metrics come from that status."""
    world = World()
    world.change(run__ttl_seconds_after_finished=0)
    job = world.train()
    world.end_pod(job, told(Outcome.LOSS_DIVERGED), Outcome.LOSS_DIVERGED.exit_code or 1)
    world.end_job(job)

    first = world.look()
    assert ((), 0) == (first.actions, first.requeue_after)
    assert (DeleteResource("uid-1"),) == world.plan().actions


def test_nothing_is_done_for_a_resource_on_its_way_out() -> None:
    world = World(deleting=True)

    assert () == world.plan().actions


def test_a_spec_that_cannot_be_read_is_said_and_nothing_is_made() -> None:
    world = World(run=None, problem="spec.training.steps: must be at least 1")
    world.look()

    assert ("SpecInvalid", "False") == (world.state, world.condition(Condition.SUCCEEDED).status)
    assert "spec.training.steps" in world.condition(Condition.SUCCEEDED).message
    assert {} == world.made


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"scheduling__service_account_name": "admin"}, "scheduling.serviceAccountName: admin is not allowed"),
        ({"cache__node": True}, "cache.node"),
        ({"dataset__uri": "file:///etc/"}, "dataset.uri"),
        ({"base_model__uri": "file:///etc/model/"}, "baseModel.uri"),
        ({"base_model__uri": "file:///cache/model/"}, "cache.claimName"),
    ],
)
def test_what_the_cluster_does_not_allow_is_refused_before_anything_is_made(overrides: dict[str, object], words: str) -> None:
    world = World()
    world.change(**overrides)
    world.look()

    assert "SpecInvalid" == world.state
    assert words in world.condition(Condition.SUCCEEDED).message
    assert {} == world.made


def test_a_condition_keeps_its_time_while_only_its_words_change() -> None:
    world = World()
    world.look()
    first = world.condition(Condition.SUCCEEDED).last_transition_time
    world.wait(60)
    world.pass_check()
    world.train()

    assert "Running" == world.state
    assert first == world.condition(Condition.SUCCEEDED).last_transition_time


@pytest.mark.parametrize(
    ("facts", "outcome", "words"),
    [
        (
            {"unschedulable": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."},
            Outcome.UNSCHEDULABLE,
            "Insufficient nvidia.com/gpu",
        ),
        ({"waiting": ("ImagePullBackOff", "Back-off pulling image")}, Outcome.IMAGE_PULL_FAILED, "Back-off pulling image"),
        ({"waiting": ("CreateContainerConfigError", 'secret "s3-credentials" not found')}, Outcome.SECRET_MISSING, "s3-credentials"),
        ({"waiting": ("CreateContainerError", "no such runtime")}, Outcome.PODS_REFUSED, "no such runtime"),
    ],
)
def test_a_pod_that_cannot_start_says_why_in_the_clusters_words(facts: dict[str, Any], outcome: Outcome, words: str) -> None:
    world = World()
    world.pass_check()
    world.pod("surtr-a1", **{"phase": "Pending", "scheduled": None, "running_since": None, **facts})
    world.look()

    assert outcome.reason == world.state
    assert words in world.condition(Condition.SUCCEEDED).message
    assert "Unknown" == world.condition(Condition.SUCCEEDED).status
    assert () == world.plan().actions


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ('pods "surtr-a1-0" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=2', Outcome.QUOTA_EXCEEDED),
        ('pods "surtr-a1-0" is forbidden: violates PodSecurity "restricted:latest"', Outcome.PODS_REFUSED),
    ],
)
def test_a_job_whose_pods_are_refused_says_why(words: str, outcome: Outcome) -> None:
    world = World()
    world.pass_check()
    world.refused["surtr-a1"] = words
    world.look()

    assert outcome.reason == world.state
    assert words in world.condition(Condition.ADMITTED).message


def test_a_pod_on_its_way_out_is_waited_for_by_nobody() -> None:
    world = World()
    job = world.train()
    pod = replace(world.pods[f"{job}-0"], phase="Pending", unschedulable="no node", deleted=after(1))

    assert waiting_for([pod], "") is None


def test_a_killed_operator_makes_nothing_twice() -> None:
    """Killed after its writes and before the status: the next look sees the objects and goes on from them."""
    world = World()
    world.look()
    world.end_pod(world.check, told(Outcome.SUCCEEDED, **CHECKED))
    world.end_job(world.check, JobState.SUCCEEDED)
    forgotten = world.status
    world.look()
    world.status = forgotten

    assert () == world.plan().actions
    assert 1 == world.plan().status.attempt


def test_a_status_that_was_lost_is_made_again_from_what_is_there() -> None:
    world = World()
    job = world.train()
    world.wait(50)
    world.succeed(job, artifacts=[])
    kept = world.status
    world.status = type(kept)()
    world.look()

    assert "Succeeded" == world.state
    assert (kept.attempt, kept.job_name, kept.usage) == (world.status.attempt, world.status.job_name, world.status.usage)
    assert kept.completion_time == world.status.completion_time


def test_time_moves_nothing_by_itself() -> None:
    """Looking again at an unchanged world changes nothing: no write, no object."""
    world = World()
    world.train()
    before = world.status
    for _ in range(3):
        world.now += timedelta(seconds=7)
        plan = world.look()
        assert () == plan.actions
    assert before == world.status


def test_what_was_checked_stands_in_the_condition_with_its_warnings() -> None:
    world = World()
    world.look()
    world.end_pod(world.check, told(Outcome.SUCCEEDED, **CHECKED, warnings=["07.png is smaller than 512 pixels."]))
    world.end_job(world.check, JobState.SUCCEEDED)
    world.look()

    ready = world.condition(Condition.DATASET_READY).message
    assert "24 pictures of 128 × 128, captions of at most 31 tokens. Warning: 07.png is smaller than 512 pixels." == ready


def test_what_is_in_the_way_of_a_name_is_told_and_looked_at_again() -> None:
    world = World()
    world.train()
    plan = plan_of(
        world.resource, replace(world.observed, in_the_way="Job artists/surtr-a1 exists and belongs to something else."), SETTINGS, NOON
    )

    assert () == plan.actions
    assert 30 == plan.requeue_after
    assert ("PodsRefused", "Unknown") == (plan.status.conditions[-1].reason, plan.status.conditions[-1].status)
    assert "belongs to something else" in plan.status.conditions[-1].message
