"""An operator that starts in a cluster with much to do. benchmarks/load.py measures what this only makes sure of."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apiserver import api_server, path_of, until
from faults import Fault
from lives import resource
from operators import operator, settings_of
from proxies import Proxies

MANY = 200


@pytest.mark.fault(Fault.COLD_START)
def test_hundreds_of_resources_are_met_by_an_operator_that_starts(tmp_path: Path) -> None:
    """Each has its check's Job; none is asked for twice, but where a busy API server's answer was late."""
    with api_server(tmp_path / "control-plane") as server:
        server.namespace("hundreds")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: server.create(resource("hundreds", f"surtr-{number}")), range(MANY)))
        proxies = Proxies(server)
        settings = settings_of("hundreds", lease={"namespace": "hundreds", "durationSeconds": 60, "renewSeconds": 2})
        with proxies.proxy() as way, operator(tmp_path, way.kubeconfig(tmp_path), settings) as running:
            began = time.monotonic()
            until("all checks", lambda: len(server.all_of("jobs", "hundreds")) == MANY, seconds=600, pause=0.5)
            print(f"{MANY} resources had their checks {time.monotonic() - began:.1f} s after the operator was started.")
            until("all states", lambda: all("status" in one for one in server.all_of("characterloras", "hundreds")), 600, 0.5)
            running.stop()
            assert MANY <= way.writes.count(f"POST {path_of('jobs', 'hundreds')}") <= MANY + MANY // 10
        proxies.close()
