"""The API server of these tests, and how many examples they try."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from apiserver import ApiServer, api_server

TIMES = int(os.environ.get("CHARALORA_EXAMPLES_TIMES") or 1)
"""So many times the usual number of examples, and then other ones each time."""

settings.register_profile(
    "charalora",
    derandomize=TIMES == 1,
    database=None,
    deadline=None,  # an API server has its own pace
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("charalora")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One for this folder, with our CRD and the namespace `artists`."""
    with api_server(tmp_path_factory.mktemp("control-plane")) as server:
        server.namespace("artists")
        yield server
