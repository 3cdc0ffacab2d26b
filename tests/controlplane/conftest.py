"""The API server that a file of these tests has to itself, unless it makes one of its own kind."""

from collections.abc import Iterator

import pytest

from apiserver import ApiServer, api_server
from proxies import Proxies


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With our CRD, and nothing else."""
    with api_server(tmp_path_factory.mktemp("control-plane")) as server:
        yield server


@pytest.fixture(scope="module")
def proxies(server: ApiServer) -> Iterator[Proxies]:
    """For the operators of the file."""
    proxies = Proxies(server)
    yield proxies
    proxies.close()
