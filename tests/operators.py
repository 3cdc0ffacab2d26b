"""The operator as a process of its own, and a proxy on its way to the API server that ends it at a chosen write.

Processes are forked from one that has imported everything, so that a test can afford hundreds; each is killed like any other.
"""

import asyncio
import json
import multiprocessing
import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import aiohttp
from aiohttp import web

from apiserver import ApiServer

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["charalora_operator.__main__"])
# Whoever starts a process also asks all others how they ended, and an answer can be read once.
_ONE_AT_A_TIME = Lock()
_PASSED = {"Accept", "Authorization", "Content-Type", "User-Agent"}


def settings_of(*namespaces: str, **more: Any) -> dict[str, Any]:
    """Settings with which a test does not wait longer than it must."""
    return {
        "namespaces": namespaces,
        "trainerImage": "charalora/trainer:1",
        "preflightImage": "charalora/preflight:1",
        "resyncSeconds": 10,
        "scrapeSeconds": 1,
        "lease": {"durationSeconds": 5, "renewSeconds": 1},
        "http": {"port": 0},
        "log": {"format": "text"},
        **more,
    }


def _main(settings: str, kubeconfig: str, log: str) -> None:
    """What the process does: `charalora-operator`, its output in a file."""
    from charalora_operator.__main__ import main

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["charalora-operator", "--settings", settings, "--kubeconfig", kubeconfig]
    main()


class Operator:
    """A running operator."""

    def __init__(self, folder: Path, kubeconfig: Path, settings: Mapping[str, Any], name: str = "operator") -> None:
        self.log = folder / f"{name}.log"
        file = folder / f"{name}.json"
        file.write_text(json.dumps(settings))
        self._process = _FORKS.Process(target=_main, args=(str(file), str(kubeconfig), str(self.log)), daemon=True)
        with _ONE_AT_A_TIME:
            self._process.start()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        with _ONE_AT_A_TIME:
            return self._process.is_alive()

    def kill(self) -> None:
        """At once, without a word."""
        with _ONE_AT_A_TIME:
            self._process.kill()
        self._ended(30)

    def stop(self) -> None:
        """As Kubernetes asks for it."""
        with _ONE_AT_A_TIME:
            self._process.terminate()
        code = self._ended(30)
        assert code == 0, f"The operator ended with {code}: {self.log.read_text()[-3000:]}"

    def _ended(self, seconds: float) -> int | None:
        """The exit code, once there is one."""
        wait([self._process.sentinel], seconds)
        with _ONE_AT_A_TIME:
            return self._process.exitcode


class Proxy:
    """The way of one operator to the API server. It counts the writes, but for those of the Lease, which belong to no training.

    Attributes:
        url: Where the operator finds it.
        writes: What was written, in order.
        cut_at: Number of the write at which the operator is killed, from 1; 0: none.
        cut_after: Whether that write still happens, unanswered.
        cut: Whether that has happened.
    """

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self.url = ""
        self.writes: list[str] = []
        self.cut_at = 0
        self.cut_after = False
        self.cut = False
        self.operator: Operator | None = None
        self._server = server
        self._session = session

    async def serve(self) -> web.AppRunner:
        """Answer on a free port."""
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0])
        return runner

    def kubeconfig(self, folder: Path) -> Path:
        """The file that leads an operator here; it acts as the administrator."""
        content = json.loads(self._server.kubeconfig.read_text())
        content["clusters"][0]["cluster"] = {"server": self.url}
        file = folder / "proxy.kubeconfig"
        file.write_text(json.dumps(content))
        return file

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        is_cut = False
        if request.method != "GET" and "/leases" not in request.path:
            self.writes.append(f"{request.method} {request.path}")
            is_cut = len(self.writes) == self.cut_at
        if is_cut and not self.cut_after:
            return self._cut(request)
        headers = {name: value for name, value in request.headers.items() if name in _PASSED}
        async with self._session.request(request.method, self._server.url + request.path_qs, data=body or None, headers=headers) as answer:
            if is_cut:
                await answer.read()
                return self._cut(request)
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
            with suppress(ConnectionResetError):  # a killed operator does not wait for its answers
                await response.prepare(request)
                async for part in answer.content.iter_any():
                    await response.write(part)
            return response

    def _cut(self, request: web.Request) -> web.Response:
        """Kill the operator before it hears anything."""
        assert self.operator is not None
        self.operator.kill()  # nothing is awaited: this very request ends with the operator
        self.cut = True
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


class Proxies:
    """Where proxies live: an event loop of their own."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxies")
        self._thread.start()
        self._session = self._do(self._open())

    @contextmanager
    def proxy(self) -> Iterator[Proxy]:
        """One, until the block ends."""
        proxy = Proxy(self._server, self._session)
        runner = self._do(proxy.serve())
        yield proxy
        self._do(runner.cleanup())

    def close(self) -> None:
        """End them all."""
        self._do(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> aiohttp.ClientSession:
        trusted = ssl.create_default_context(cafile=str(self._server.authority))
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity"},
        )

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
