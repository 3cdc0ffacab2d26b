"""What the operator remembers of the cluster: events and listings in any order end in the truth."""

from typing import Any

import pytest

from charalora_operator.mirror import Kind, Listing, Mirror, Target
from charalora_operator.model import Key
from faults import Fault

SURTR = Key("artists", "surtr")


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mirror(clock: Clock) -> Mirror:
    return Mirror(clock)


def job(version: int, uid: str = "job-1", owner: str = "uid-1", name: str = "surtr-a1", **status: Any) -> dict[str, Any]:
    """A Job of surtr's."""
    labels = {"charalora.dev/resource": "surtr", "charalora.dev/attempt": "1", "app.kubernetes.io/component": "training"}
    metadata = {"name": name, "namespace": "artists", "uid": uid, "resourceVersion": str(version), "labels": labels}
    owners = [{"uid": owner, "controller": True, "kind": "CharacterLora", "name": "surtr"}]
    return {"metadata": metadata | {"creationTimestamp": "2026-06-01T12:00:00Z", "ownerReferences": owners}, "spec": {}, "status": status}


def pod(version: int, uid: str = "pod-1", owner: str = "job-1", index: int = 0, **status: Any) -> dict[str, Any]:
    """A Pod of that Job."""
    body = job(version, uid, owner, f"surtr-a1-{index}")
    body["metadata"]["labels"] |= {"batch.kubernetes.io/job-name": "surtr-a1"}
    body["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": str(index)}
    return body | {"status": status}


def resource(version: int, name: str = "surtr", uid: str = "uid-1", **succeeded: str) -> dict[str, Any]:
    """A CharacterLora."""
    metadata = {"name": name, "namespace": "artists", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Succeeded", **succeeded}]} if succeeded else {}}


def replaced(mirror: Mirror, kind: Kind, bodies: tuple[dict[str, Any], ...], version: int) -> set[Key]:
    """Take a complete listing in."""
    return mirror.replace(kind, Listing(tuple(mirror.read(kind, body) for body in bodies), version))


def jobs(mirror: Mirror) -> set[str]:
    """The Jobs of surtr that the mirror shows."""
    return set(mirror.observed(SURTR, "uid-1").jobs)


@pytest.mark.fault(Fault.EVENTS_DISORDERED)
def test_an_event_is_news_once(mirror: Mirror) -> None:
    assert mirror.event(Kind.JOBS, job(5), deleted=False) == SURTR
    assert mirror.event(Kind.JOBS, job(5), deleted=False) is None
    assert mirror.event(Kind.JOBS, job(6), deleted=False) == SURTR


def test_an_old_event_does_not_overwrite_a_newer_listing(mirror: Mirror) -> None:
    replaced(mirror, Kind.JOBS, (job(9, startTime="2026-06-01T12:00:05Z"),), 10)
    assert mirror.event(Kind.JOBS, job(8), deleted=False) is None
    assert mirror.observed(SURTR, "uid-1").jobs["surtr-a1"].started is not None


@pytest.mark.fault(Fault.EVENTS_DISORDERED)
def test_an_old_event_does_not_bring_back_what_a_listing_did_not_show(mirror: Mirror) -> None:
    replaced(mirror, Kind.JOBS, (), 10)
    assert mirror.event(Kind.JOBS, job(8), deleted=False) is None
    assert jobs(mirror) == set()


@pytest.mark.fault(Fault.EVENTS_DISORDERED)
def test_a_listing_drops_what_was_deleted_unseen(mirror: Mirror) -> None:
    """A watch that had to begin anew never tells of deletions in between."""
    mirror.event(Kind.JOBS, job(5), deleted=False)
    assert replaced(mirror, Kind.JOBS, (), 10) == {SURTR}
    assert jobs(mirror) == set()


def test_a_listing_keeps_what_was_made_after_it_began(mirror: Mirror) -> None:
    mirror.event(Kind.JOBS, job(12), deleted=False)
    assert replaced(mirror, Kind.JOBS, (), 10) == set()
    assert jobs(mirror) == {"surtr-a1"}


@pytest.mark.fault(Fault.EVENTS_DISORDERED)
def test_a_listing_does_not_bring_back_what_was_deleted_after_it_began(mirror: Mirror) -> None:
    mirror.event(Kind.JOBS, job(5), deleted=False)
    assert mirror.event(Kind.JOBS, job(12), deleted=True) == SURTR
    assert replaced(mirror, Kind.JOBS, (job(5),), 10) == set()
    assert jobs(mirror) == set()


def test_a_listing_tells_what_the_watch_did_not(mirror: Mirror) -> None:
    mirror.event(Kind.JOBS, job(5), deleted=False)
    assert replaced(mirror, Kind.JOBS, (job(7),), 10) == {SURTR}
    assert replaced(mirror, Kind.JOBS, (job(7),), 11) == set()


def test_our_own_write_is_known_before_its_event_comes(mirror: Mirror) -> None:
    """Else the next visit would begin the same attempt again, or even the next one; and the event is no news then."""
    replaced(mirror, Kind.JOBS, (), 10)
    mirror.learn(Kind.JOBS, job(11))
    assert jobs(mirror) == {"surtr-a1"}
    assert mirror.event(Kind.JOBS, job(11), deleted=False) is None
    assert mirror.event(Kind.JOBS, job(12), deleted=False) == SURTR


def test_the_answer_to_a_write_may_be_older_than_an_event(mirror: Mirror) -> None:
    mirror.event(Kind.JOBS, job(12, startTime="2026-06-01T12:00:05Z"), deleted=False)
    mirror.learn(Kind.JOBS, job(11))
    assert mirror.observed(SURTR, "uid-1").jobs["surtr-a1"].started is not None
    mirror.event(Kind.JOBS, job(13), deleted=True)
    mirror.learn(Kind.JOBS, job(11))
    assert jobs(mirror) == set()


def test_what_we_wrote_is_not_what_the_watch_told(mirror: Mirror, clock: Clock) -> None:
    """A silent watch is not proven alive by our own answers."""
    mirror.learn(Kind.JOBS, job(11))
    clock.now = 100
    replaced(mirror, Kind.JOBS, (job(11),), 12)
    assert mirror.ages()["jobs"] == 100


def test_the_last_words_of_a_deleted_pod_are_known_until_a_listing_shows_that_it_is_gone(mirror: Mirror) -> None:
    """Who deletes a pod by hand leaves nothing else of it: its Job ends a moment later, and says less."""
    ended = {"state": {"terminated": {"exitCode": 75, "finishedAt": "2026-06-01T12:05:00Z", "message": "{}"}}, "name": "trainer"}
    mirror.event(Kind.JOBS, job(5), deleted=False)
    mirror.event(Kind.PODS, pod(6, phase="Running"), deleted=False)

    assert mirror.event(Kind.PODS, pod(8, phase="Failed", containerStatuses=[ended]), deleted=True) == SURTR

    assert [75] == [one.ending.exit_code for one in mirror.observed(SURTR, "uid-1").pods if one.ending]
    assert mirror.event(Kind.PODS, pod(7, phase="Running"), deleted=False) is None
    assert replaced(mirror, Kind.PODS, (), 9) == {SURTR}
    assert () == mirror.observed(SURTR, "uid-1").pods


def test_a_pod_that_goes_without_a_word_is_gone_at_once(mirror: Mirror) -> None:
    mirror.event(Kind.JOBS, job(5), deleted=False)
    mirror.event(Kind.PODS, pod(6, phase="Running"), deleted=False)

    mirror.event(Kind.PODS, pod(7, phase="Running"), deleted=True)

    assert () == mirror.observed(SURTR, "uid-1").pods


def test_a_namesake_does_not_inherit(mirror: Mirror) -> None:
    """A resource that was deleted and made again has none of the first one's Jobs and Pods."""
    mirror.event(Kind.JOBS, job(5), deleted=False)
    mirror.event(Kind.PODS, pod(6, phase="Running"), deleted=False)
    assert [found.name for found in mirror.observed(SURTR, "uid-1").pods] == ["surtr-a1-0"]
    namesake = mirror.observed(SURTR, "uid-2")
    assert (namesake.jobs, namesake.pods) == ({}, ())


def test_a_pod_of_an_unknown_job_is_nobodys(mirror: Mirror) -> None:
    """Anybody can put our label on a pod."""
    mirror.event(Kind.PODS, pod(6, owner="job-9"), deleted=False)
    assert mirror.observed(SURTR, "uid-1").pods == ()


def test_an_object_without_our_label_is_left_out(mirror: Mirror) -> None:
    foreign = job(5)
    del foreign["metadata"]["labels"]["charalora.dev/resource"]
    assert mirror.event(Kind.JOBS, foreign, deleted=False) is None


def test_it_has_caught_up_when_every_kind_was_listed(mirror: Mirror) -> None:
    """Before that, what is missing here may well exist."""
    for kind in Kind:
        assert not mirror.caught_up
        replaced(mirror, kind, (), 1)
    assert mirror.caught_up


def test_states_are_counted_and_what_is_gone_is_not(mirror: Mirror) -> None:
    mirror.event(Kind.RESOURCES, resource(1, "a", "1"), deleted=False)
    mirror.event(Kind.RESOURCES, resource(2, "b", "2", status="Unknown", reason="Running"), deleted=False)
    mirror.event(Kind.RESOURCES, resource(3, "c", "3", status="True", reason="Succeeded"), deleted=False)
    assert mirror.states() == {("artists", "Pending"): 1, ("artists", "Running"): 1, ("artists", "Succeeded"): 1}
    assert mirror.unfinished() == [Key("artists", "a"), Key("artists", "b")]
    mirror.event(Kind.RESOURCES, resource(4, "b", "2"), deleted=True)
    mirror.forget(Key("artists", "a"))
    assert mirror.states() == {("artists", "Succeeded"): 1}


def test_the_pod_with_the_figures_is_index_0_of_a_running_training(mirror: Mirror) -> None:
    mirror.event(Kind.JOBS, job(5), deleted=False)
    mirror.event(Kind.PODS, pod(6, "pod-1", index=1, phase="Running", podIP="10.0.0.2"), deleted=False)
    assert mirror.targets() == []
    mirror.event(Kind.PODS, pod(7, "pod-0", phase="Running", podIP="10.0.0.1"), deleted=False)
    assert mirror.targets() == [Target(SURTR, "surtr-a1", "10.0.0.1")]
    failed = [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-06-01T12:10:00Z"}]
    mirror.event(Kind.JOBS, job(8, conditions=failed), deleted=False)
    assert mirror.targets() == []


def test_a_quiet_cluster_makes_no_watch_old(mirror: Mirror, clock: Clock) -> None:
    """A listing that shows nothing which the watch had not told proves that it is alive."""
    mirror.event(Kind.JOBS, job(5), deleted=False)
    clock.now = 1000
    assert mirror.ages()["jobs"] == 1000
    replaced(mirror, Kind.JOBS, (job(5),), 10)
    assert mirror.ages()["jobs"] == 0


def test_a_watch_that_is_silent_while_things_happen_grows_old(mirror: Mirror, clock: Clock) -> None:
    """However often the cluster is listed meanwhile."""
    mirror.event(Kind.JOBS, job(5), deleted=False)
    for clock.now in (100.0, 200.0, 300.0):
        replaced(mirror, Kind.JOBS, (job(6),), 10)
    assert mirror.ages()["jobs"] == 300
    mirror.event(Kind.JOBS, job(6), deleted=False)
    assert mirror.ages()["jobs"] == 0
