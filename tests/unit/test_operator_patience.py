"""How the operator asks the API server: with patience, and politely."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from charalora_operator.api import Api, ApiError, connect


class Server:
    """Says that it has too much to do, so often, and then answers.

    Attributes:
        refusals: How many requests are still refused.
        arrived: When each request arrived.
    """

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.arrived: list[float] = []

    async def answer(self, _: web.Request) -> web.Response:
        """One request."""
        self.arrived.append(time.monotonic())
        if self.refusals:
            self.refusals -= 1
            return web.json_response({"reason": "TooManyRequests"}, status=429, headers={"Retry-After": "1"})
        return web.json_response({})


@asynccontextmanager
async def api_of(server: Server, folder: Path) -> AsyncIterator[Api]:
    """The operator's way to it."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    file = folder / "kubeconfig"
    named = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
    user = {"name": "me", "user": {"token": "secret"}}
    file.write_text(json.dumps({"current-context": "here", "clusters": [cluster], "users": [user], "contexts": [named]}))
    api = connect(file, lambda *_: None)
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()


def test_a_server_with_too_much_to_do_is_left_alone_by_every_request_for_as_long_as_it_asks(tmp_path: Path) -> None:
    """One was refused: those that come meanwhile wait as well."""

    async def ask() -> list[float]:
        server = Server(refusals=1)
        async with api_of(server, tmp_path) as api:
            first = asyncio.create_task(api.request("GET", "/first"))
            while server.refusals:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # for the answer to arrive
            await asyncio.gather(first, *(api.request("POST", f"/{number}", {}) for number in range(5)))
        return server.arrived

    refused, *others = asyncio.run(ask())

    assert 6 == len(others)
    assert 1 <= min(others) - refused


def test_a_request_of_the_lease_is_tried_once_and_waits_for_nobody(tmp_path: Path) -> None:
    """Who waits politely for its Lease, loses it."""

    async def ask() -> list[float]:
        server = Server(refusals=1)
        async with api_of(server, tmp_path) as api:
            api._pause_until = time.monotonic() + 3600
            with pytest.raises(ApiError, match="/lease"):
                await api.request("GET", "/lease", tries=1)
            await api.request("GET", "/lease", tries=1)
        return server.arrived

    assert 2 == len(asyncio.run(ask()))
