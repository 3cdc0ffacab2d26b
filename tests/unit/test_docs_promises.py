"""What docs/troubleshooting.md and the pages of the reasons promise about trying again, asked of the plan."""

from dataclasses import replace

from builders import character_lora
from charalora_operator import names
from charalora_operator.model import JobState
from charalora_spec.outcome import Outcome
from charalora_spec.status import Condition
from operator_world import World, told


def state(world: World) -> tuple[str, str]:
    """Status and reason of the condition Succeeded."""
    found = next(one for one in world.status.conditions if one.type == Condition.SUCCEEDED.value)
    return found.status, found.reason


def fail(world: World, job: str, outcome: Outcome) -> None:
    """Let the attempt end with a reason of the program's."""
    assert outcome.exit_code is not None
    world.end_pod(job, told(outcome), outcome.exit_code)
    world.end_job(job)
    world.look()


def given_up() -> World:
    """A training whose only attempt failed."""
    world = World(run=character_lora(resources__gpus=2, run__retries=0))
    fail(world, world.train(), Outcome.STORAGE_UNREACHABLE)
    assert state(world) == ("False", "StorageUnreachable")
    return world


def ask_again(world: World, value: str) -> None:
    """Set the annotation, and let the check that follows pass."""
    assert world.run is not None
    metadata = world.run.metadata.model_copy(update={"annotations": {names.RETRY: value}})
    world.run = world.run.model_copy(update={"metadata": metadata})
    world.pass_check()


def test_a_resource_that_has_given_up_goes_on_when_its_retries_are_raised() -> None:
    """Both numbers can be raised at any time, for a resource that has given up too."""
    world = given_up()

    world.change(run__retries=1)
    world.wait(60)
    world.look()

    assert "surtr-a2" in world.jobs


def test_another_try_has_all_of_its_retries_again() -> None:
    """It has all of `run.retries` again: none here, so one attempt."""
    world = given_up()

    ask_again(world, "monday")
    fail(world, world.train(2), Outcome.STORAGE_UNREACHABLE)
    world.wait(3600)
    world.look()

    assert state(world) == ("False", "StorageUnreachable")
    assert "surtr-a3" not in world.jobs


def test_a_raised_deadline_waits_for_the_annotation() -> None:
    """No: a limit that repeats itself would be none. Raise it, then ask for another try."""
    world = World(run=character_lora(resources__gpus=2, run__deadlineSeconds=600))
    job = world.train()
    world.wait(700)
    world.look()
    world.jobs[job] = replace(world.jobs[job], ended_because=Outcome.DEADLINE_EXCEEDED.reason)
    world.end_job(job, why=("DeadlineExceeded", ""))
    world.look()
    ended = state(world)

    world.change(run__deadlineSeconds=7200)
    world.look()
    raised = state(world)
    ask_again(world, "monday")

    assert (ended, raised) == (("False", "DeadlineExceeded"), ("False", "DeadlineExceeded"))
    assert state(world) == ("Unknown", "Pending")


def test_a_check_that_waits_too_long_ends_with_the_deadline() -> None:
    """A check that finds no place for an hour ends with DeadlineExceeded."""
    world = World()
    world.look()
    world.pod(world.check, phase="Pending", node="", scheduled=None, running_since=None, unschedulable="0/2 nodes are available")
    world.look()
    waiting = state(world)

    world.pods.clear()
    world.end_job(world.check, why=("DeadlineExceeded", "Job was active longer than specified deadline"))
    world.look()

    assert waiting == ("Unknown", "Unschedulable")
    assert state(world) == ("False", "DeadlineExceeded")
    assert world.status.attempt == 0


def test_another_storage_is_checked_by_itself() -> None:
    """Editing `storage` starts it anew by itself."""
    world = World()
    world.look()
    first = world.check
    fail(world, first, Outcome.STORAGE_ACCESS_DENIED)

    world.change(storage__secretName="other")
    world.look()

    assert world.check != first
    assert state(world) == ("Unknown", "Checking")


def test_another_scheduling_leaves_the_check_as_it_is() -> None:
    """For the check's pod ask for another try instead."""
    world = World()
    world.look()
    first = world.check

    world.change(scheduling__nodeSelector={"pool": "cpu"})
    edited = world.check
    ask_again(world, "monday")

    assert edited == first
    assert world.check != first


def test_pausing_while_pods_wait_makes_them_anew_with_what_was_edited() -> None:
    """After editing `scheduling`, pause and resume, so that the pods are made anew."""
    world = World()
    world.pass_check()
    world.change(run__suspend=True)
    world.look()
    world.jobs["surtr-a1"] = replace(world.jobs["surtr-a1"], ended_because=Outcome.SUSPENDED.reason, state=JobState.ENDING)
    world.end_job("surtr-a1", why=("DeadlineExceeded", ""))
    world.look()

    world.change(run__suspend=False, scheduling__nodeSelector={"pool": "gpu"})
    world.look()

    assert world.made["Job/surtr-a2"]["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "gpu"}


def test_what_is_asked_for_while_an_attempt_runs_waits_for_its_end() -> None:
    """While an attempt runs the annotation waits for its end."""
    world = World()
    world.train()
    assert world.run is not None
    world.run = world.run.model_copy(update={"metadata": world.run.metadata.model_copy(update={"annotations": {names.RETRY: "monday"}})})

    assert world.plan().actions == ()
