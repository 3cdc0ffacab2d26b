"""The way of one operator to the API server, on which faults happen: requests refused, held or cut, watches that err, a server away."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
from aiohttp import web

from apiserver import ApiServer, Json

_PASSED = {"Accept", "Authorization", "Content-Type"}
_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}

Meddle = Callable[[Json], list[Json]]
"""What a watch hears instead of an event."""


@dataclass
class Refusal:
    """An answer that does not come from the API server.

    Attributes:
        requests: Pattern of `VERB path?query`; what it finds is refused.
        code: Of HTTP.
        left: How often; what comes later is passed on.
        retry_after: The header of that name in seconds; 0: none.
        done: Whether the API server still does what it was asked, so that only the answer is another.
    """

    requests: str
    code: int
    left: int
    retry_after: int = 0
    done: bool = False
    met: int = 0


class Hold:
    """Answers that are kept back until they are let go.

    Attributes:
        requests: Pattern of `VERB path?query`.
        held: How many wait.
    """

    def __init__(self, requests: str, loop: asyncio.AbstractEventLoop) -> None:
        self.requests = requests
        self.held = 0
        self._loop = loop
        self._free = asyncio.Event()

    def release(self) -> None:
        """Let them go."""
        self._loop.call_soon_threadsafe(self._free.set)

    async def wait(self) -> None:
        """Until they are let go."""
        self.held += 1
        await self._free.wait()


class _CutError(Exception):
    """The connection ends without an answer."""


class Proxy:
    """The way of one operator to the API server. It counts the writes, but for those of the Lease, which belong to no training.

    Attributes:
        name: Its user agent, by which the API server's audit log knows what came this way.
        url: Where the operator finds it.
        writes: What was written, in order.
        requests: Every request, as `VERB path?query`.
        cut_at: Number of the write at which `kill` is called, from 1; 0: none.
        cut_after: Whether that write still happens, unanswered.
        cut: Whether that has happened.
        kill: Ends the operator.
        refusals: Answers of its own, the first that fits.
        holds: Answers that wait.
        meddle: What a watch hears instead of an event.
    """

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession, name: str) -> None:
        self.name = name
        self.url = ""
        self.writes: list[str] = []
        self.requests: list[str] = []
        self.cut_at = 0
        self.cut_after = False
        self.cut = False
        self.kill: Callable[[], None] = lambda: None
        self.refusals: list[Refusal] = []
        self.holds: list[Hold] = []
        self.meddle: Meddle = lambda event: [event]
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        self._heard.set()
        self._away = False
        self._transports: set[asyncio.BaseTransport] = set()
        self._watches: dict[asyncio.Queue[bytes], str] = {}
        self._server = server
        self._session = session

    async def serve(self) -> web.AppRunner:
        """Answer on a free port."""
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0])
        return runner

    def kubeconfig(self, folder: Path) -> Path:
        """The file that leads an operator here; it acts as the administrator."""
        content = json.loads(self._server.kubeconfig.read_text())
        content["clusters"][0]["cluster"] = {"server": self.url}
        file = folder / f"{self.name}.kubeconfig"
        file.write_text(json.dumps(content))
        return file

    def refuse(self, requests: str, code: int, times: int = 10**9, **more: Any) -> Refusal:
        """Answer some requests with an error from now on."""
        self.refusals.append(Refusal(requests, code, times, **more))
        return self.refusals[-1]

    def hold(self, requests: str) -> Hold:
        """Keep the answers to some requests back from now on."""
        self.holds.append(Hold(requests, self._loop))
        return self.holds[-1]

    def tell(self, event: Json, plural: str) -> int:
        """Say something to every watch of a kind that is open now; how many there are."""
        return self._tell(json.dumps(event).encode() + b"\n", plural)

    def end_watches(self, plural: str) -> int:
        """End every watch of a kind that is open now, as the API server does after some minutes; how many there were."""
        return self._tell(b"", plural)

    def _tell(self, line: bytes, plural: str) -> int:
        watches = [queue for queue, watched in self._watches.items() if watched == plural]
        for queue in watches:
            self._loop.call_soon_threadsafe(queue.put_nowait, line)
        return len(watches)

    def tell_error(self, code: int, plural: str) -> int:
        """An error in the middle of a watch, as the API server tells it."""
        return self.tell({"type": "ERROR", "object": _status(code)}, plural)

    def fall_silent(self) -> None:
        """Let nothing pass in either direction, and tell nobody so."""
        self._loop.call_soon_threadsafe(self._heard.clear)

    def go_away(self) -> None:
        """Cut every connection, and new ones as soon as they ask for something."""
        self._away = True
        for transport in list(self._transports):
            self._loop.call_soon_threadsafe(transport.close)

    def come_back(self) -> None:
        """Be there and answer as before."""
        self._away = False
        self._loop.call_soon_threadsafe(self._heard.set)

    def watches(self, plural: str) -> int:
        """How many watches of a kind were ever asked for."""
        return sum(f"/{plural}?" in request and "watch=true" in request for request in self.requests)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self._transports.add(request.transport)
        self.requests.append(f"{request.method} {request.path_qs}")
        try:
            return await self._pass_on(request, self.requests[-1])
        except _CutError:
            request.transport.close()
            return web.Response()

    async def _pass_on(self, request: web.Request, asked: str) -> web.StreamResponse:
        await self._reach()
        body = await request.read()
        is_cut = self._is_cut(request)
        if is_cut and not self.cut_after:
            self._kill()
        refusal = self._refusal_of(asked)
        if refusal is not None and not refusal.done:
            return _refused(refusal)
        headers = {name: value for name, value in request.headers.items() if name in _PASSED} | {"User-Agent": self.name}
        async with self._session.request(request.method, self._server.url + request.path_qs, data=body or None, headers=headers) as answer:
            if request.query.get("watch") == "true" and answer.status == 200:
                return await self._watch(request, answer)
            content = await answer.read()
        if is_cut:
            self._kill()
        for hold in [hold for hold in self.holds if re.search(hold.requests, asked)]:
            await hold.wait()
        await self._reach()
        if refusal is not None:
            return _refused(refusal)
        return web.Response(body=content, status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass events on, one by one, as they are meddled with, and what the test says between them."""
        response = web.StreamResponse(headers={"Content-Type": answer.headers["Content-Type"]})
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._watches[lines] = request.path.rpartition("/")[2]
        reading = asyncio.create_task(self._read(answer, lines))
        try:
            with suppress(ConnectionResetError):  # a killed operator does not wait for its answers
                await response.prepare(request)
                while line := await lines.get():
                    await self._reach()
                    await response.write(line)
        finally:
            del self._watches[lines]
            reading.cancel()
        return response

    async def _read(self, answer: aiohttp.ClientResponse, lines: asyncio.Queue[bytes]) -> None:
        async for line in _lines(answer):
            for event in self.meddle(json.loads(line)):
                lines.put_nowait(json.dumps(event).encode() + b"\n")
        lines.put_nowait(b"")

    async def _reach(self) -> None:
        await self._heard.wait()
        if self._away:
            raise _CutError

    def _refusal_of(self, asked: str) -> Refusal | None:
        for refusal in self.refusals:
            if refusal.left and re.search(refusal.requests, asked):
                refusal.left -= 1
                refusal.met += 1
                return refusal
        return None

    def _is_cut(self, request: web.Request) -> bool:
        if request.method == "GET" or "/leases" in request.path:
            return False
        self.writes.append(f"{request.method} {request.path}")
        return len(self.writes) == self.cut_at

    def _kill(self) -> None:
        """End the operator before it hears anything: nothing is awaited, this very request ends with it."""
        self.kill()
        self.cut = True
        raise _CutError


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """A watch's lines, however long they are."""
    rest = b""
    async for part in answer.content.iter_any():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line


def _status(code: int) -> Json:
    reason = _REASONS[code]
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": f"A test says {reason}."}


def _refused(refusal: Refusal) -> web.Response:
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
    return web.json_response(_status(refusal.code), status=refusal.code, headers=headers)


class Proxies:
    """Where proxies live: an event loop of their own."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxies")
        self._thread.start()
        self._session = self._do(self._open())

    @contextmanager
    def proxy(self, name: str = "proxy") -> Iterator[Proxy]:
        """One, until the block ends."""
        proxy, runner = self._do(self._serve(name))
        try:
            yield proxy
        finally:
            proxy.come_back()
            for hold in proxy.holds:
                hold.release()
            self._do(runner.cleanup())

    def close(self) -> None:
        """End them all."""
        self._do(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, name: str) -> tuple[Proxy, web.AppRunner]:
        proxy = Proxy(self._server, self._session, name)
        return proxy, await proxy.serve()

    async def _open(self) -> aiohttp.ClientSession:
        trusted = ssl.create_default_context(cafile=str(self._server.authority))
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity"},
        )

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
