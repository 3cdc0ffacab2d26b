import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from charalora_operator.api import Api, connect
from faults import Fault

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class NotNowError(Exception):
    """The right to write is lost."""


class Server:
    """Something that answers like an API server, and keeps what arrived.

    Attributes:
        arrived: The bytes of each connection.
        connected: Called for each connection, before anything of it is read.
    """

    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self.connected: Callable[[], None] = lambda: None
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connected()
        number = len(self.arrived)
        self.arrived.append(b"")
        while part := await reader.read(65536):
            self.arrived[number] += part
            writer.write(_ANSWER)
        writer.close()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Server, Api]]:
    """A server, and the way to it."""
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        url = "http://{}:{}".format(*listening.sockets[0].getsockname())
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "it", "cluster": {"server": url}}],
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
                    "users": [{"name": "me", "user": {"token": "x"}}],
                    "current-context": "it",
                }
            )
        )
        api = connect(kubeconfig, lambda *_: None)
        try:
            yield server, api
        finally:
            await api.close()


def run(folder: Path, work: Callable[[Server, Api], Coroutine[Any, Any, None]]) -> None:
    """Let a test talk to the server."""

    async def talk() -> None:
        async with serving(folder) as (server, api):
            await asyncio.wait_for(work(server, api), 30)

    asyncio.run(talk())


def test_who_has_lost_the_right_to_write_reads_on(tmp_path: Path) -> None:
    async def work(server: Server, api: Api) -> None:
        fenced = api.fenced(_refuse)
        await fenced.request("GET", "/api")
        for verb in ("POST", "PUT", "PATCH", "DELETE"):
            with pytest.raises(NotNowError):
                await fenced.request(verb, "/api", {})

        assert [b"GET"] == [arrived[:3] for arrived in server.arrived if arrived]

    run(tmp_path, work)


@pytest.mark.fault(Fault.LEADER_FROZEN)
def test_the_right_is_asked_for_when_the_bytes_leave(tmp_path: Path) -> None:
    """It was there when the write was begun, and is lost while a connection is made for it."""

    async def work(server: Server, api: Api) -> None:
        lost = False

        def lose() -> None:
            nonlocal lost
            lost = True

        def may_write() -> None:
            if lost:
                raise NotNowError

        server.connected = lose
        with pytest.raises(NotNowError):
            await api.fenced(may_write).request("POST", "/api", {})

        assert [b""] == server.arrived

    run(tmp_path, work)


def test_the_fence_is_that_of_one_and_not_of_the_others(tmp_path: Path) -> None:
    """The Lease itself is written without."""

    async def work(server: Server, api: Api) -> None:
        api.fenced(_refuse)
        await api.request("PUT", "/lease", {})

        assert [b"PUT"] == [arrived[:3] for arrived in server.arrived]

    run(tmp_path, work)


def _refuse() -> None:
    raise NotNowError
