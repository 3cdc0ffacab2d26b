"""When the operator says that it is ill or not ready."""

from dataclasses import replace

import pytest

from charalora_operator.probes import Vitals, illness, unreadiness

LEADER = Vitals(lambda: True, lambda: True, lambda: 10.0, 720.0, lambda: 0.5, lambda: 2.0)
STANDBY = replace(LEADER, leads=lambda: False, caught_up=lambda: False, watch_age=lambda: 9999.0)


@pytest.mark.parametrize("vitals", [LEADER, STANDBY], ids=["leader", "standby"])
def test_one_that_works_and_one_that_stands_by_are_well(vitals: Vitals) -> None:
    assert (illness(vitals, 0.1), unreadiness(vitals, 0.1)) == ("", "")


def test_a_leader_that_reads_the_cluster_is_alive_but_not_ready() -> None:
    reading = replace(LEADER, caught_up=lambda: False, watch_age=lambda: 9999.0)
    assert (illness(reading, 0.1), unreadiness(reading, 0.1)) == ("", "The cluster is still being read.")


ILL = {
    "A watch has been behind the cluster for 721 s.": replace(LEADER, watch_age=lambda: 721.0),
    "A resource has been due for 601 s and is not done.": replace(LEADER, oldest=lambda: 601.0),
    "The API server has not answered for 121 s.": replace(STANDBY, silence=lambda: 121.0),
}


@pytest.mark.parametrize(("sentence", "vitals"), ILL.items())
def test_one_that_does_not_work_says_why(sentence: str, vitals: Vitals) -> None:
    assert illness(vitals, 0.1) == unreadiness(vitals, 0.1) == sentence


def test_a_blocked_process_is_ill() -> None:
    assert illness(LEADER, 6.2) == "The process was blocked for 6.2 s."
