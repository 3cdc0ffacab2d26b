"""One request to the API server, with patience: the address and credentials are lightkube's, objects are plain values.

The only file that imports an HTTP client for Kubernetes; cluster.py says what is asked.
"""

import asyncio
import base64
import copy
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from charalora_operator.clock import ClusterClock

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
_TRIES = 5
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 15.0
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_LEAVING = {"http11.send_request_headers.started", "http11.send_request_body.started"}
"""What the HTTP client says before it hands bytes to the network; nothing is waited for between the two."""


class ApiError(Exception):
    """The API server did not do what it was asked.

    Attributes:
        code: Of HTTP; 0 when there was no answer.
        reason: One word of the API server's, such as AlreadyExists; the error's type when there was no answer.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class NoClusterError(Exception):
    """There is no cluster to talk to; the message says why and what to do."""


@dataclass(frozen=True)
class Credentials:
    """How another client reaches the same API server.

    Attributes:
        server: Its address.
        ca_file: File with its authority; empty for the machine's own.
        ca_data: The same in PEM.
        token: Bearer token.
        certificate_file: File with a client certificate.
        certificate_data: The same in PEM.
        key_file: File with its key.
        key_data: The same in PEM.
        insecure: Whether the server's certificate is not checked.
    """

    server: str
    ca_file: str = ""
    ca_data: str = ""
    token: str = ""
    certificate_file: str = ""
    certificate_data: str = ""
    key_file: str = ""
    key_data: str = ""
    insecure: bool = False


class Api:
    """The API server.

    Attributes:
        clock: What its clock shows.
        may_write: See `fenced`.
    """

    def __init__(self, config: SingleConfig, seconds: float, count: Callable[[str, str], None]) -> None:
        self._config = config
        self._client = AsyncClient(config, ConnectionParams(timeout=httpx2.Timeout(seconds), trust_env=False))
        self._count = count
        self._pause_until = 0.0
        self.may_write: Callable[[], None] | None = None
        self.clock = ClusterClock()

    def fenced(self, may_write: Callable[[], None]) -> "Api":
        """The same API server for one who can lose the right to write.

        Args:
            may_write: Called just before any part of a write leaves, however long ago that was begun; what it raises stops the write.
        """
        fenced = copy.copy(self)
        fenced.may_write = may_write
        return fenced

    @property
    def namespace(self) -> str:
        """The operator's own."""
        return self._config.namespace

    def credentials(self) -> Credentials:
        """As they are now: a token of a service account is changed from time to time."""
        cluster, user = self._config.cluster, self._config.user
        if user is None:
            return Credentials(cluster.server, insecure=cluster.insecure)
        return Credentials(
            server=cluster.server,
            ca_file=self._file(cluster.certificate_auth),
            ca_data=_decoded(cluster.certificate_auth_data),
            token=Path(user.token_file).read_text(encoding="utf-8").strip() if user.token_file else user.token or "",
            certificate_file=self._file(user.client_cert),
            certificate_data=_decoded(user.client_cert_data),
            key_file=self._file(user.client_key),
            key_data=_decoded(user.client_key_data),
            insecure=cluster.insecure,
        )

    async def request(
        self,
        verb: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        tries: int = _TRIES,
    ) -> Json:
        """Ask, and ask again where that can help: no answer, too many requests, an error of the server's own.

        Args:
            verb: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
            path: Below the server's address.
            body: An object.
            content_type: What kind of patch the body is.
            query: Parameters.
            tries: How often at most.

        Raises:
            ApiError: It stays like this.
        """
        for left in reversed(range(tries)):
            if tries > 1:  # a request that is tried once, of the Lease, cannot wait
                await self._wait_with_the_others()
            try:
                return await self._once(verb, path, body, content_type, query)
            except _RetryableError as error:
                if left == 0:
                    raise error.error from error.__cause__
                self._pause_until = max(self._pause_until, time.monotonic() + min(_LONGEST_DELAY, error.seconds))
                delay = _FIRST_DELAY * 2 ** (tries - left) * random.uniform(0.5, 1)
                await asyncio.sleep(min(_LONGEST_DELAY, max(delay, error.seconds)))
        raise ValueError("A request is tried at least once.")

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def _wait_with_the_others(self) -> None:
        """A server that asks one request to come back later means all of them; and then not in the same instant."""
        if (seconds := self._pause_until - time.monotonic()) > 0:
            await asyncio.sleep(seconds * random.uniform(1, 1.2))

    async def _once(self, verb: str, path: str, body: Json | None, content_type: str, query: Mapping[str, str] | None) -> Json:
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": content_type})
        extensions = {} if verb == "GET" else {"trace": self._guard}
        asked = self.clock.asked()
        try:
            answer = await self._client.request(verb, path, json=body, headers=headers, params=dict(query or {}), extensions=extensions)
        except httpx2.TransportError as error:
            self._count(verb, "none")
            told = ApiError(0, type(error).__name__, f"{verb} {path}: no answer ({str(error) or type(error).__name__}).")
            raise _RetryableError(told, 0.0) from error
        self._count(verb, str(answer.status_code))
        self.clock.hear(answer.headers.get("Date", ""), asked)
        if answer.is_success:
            content: Json = answer.json()
            return content
        refused = _refusal(verb, path, answer)
        if answer.status_code == _TOO_MANY_REQUESTS or answer.status_code >= _SERVER_ERROR:
            after = answer.headers.get("Retry-After", "")
            raise _RetryableError(refused, float(after) if after.isdigit() else 0.0)
        raise refused

    async def _guard(self, event: str, _: Any) -> None:
        if self.may_write is not None and event in _LEAVING:
            self.may_write()

    def _file(self, name: str | None) -> str:
        return str(self._config.abs_file(name)) if name else ""


class _RetryableError(Exception):
    def __init__(self, error: ApiError, seconds: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.seconds = seconds


def connect(kubeconfig: Path | None, count: Callable[[str, str], None], seconds: float = 10.0) -> Api:
    """The API server of a kubeconfig file, or of the cluster that this pod runs in.

    Raises:
        NoClusterError: The file or the pod's service account cannot be used.
    """
    try:
        config = KubeConfig.from_file(kubeconfig).get() if kubeconfig else KubeConfig.from_service_account().get()
    except (ConfigError, KeyError, OSError) as error:
        hint = "" if kubeconfig else " Outside of a cluster, name a file with --kubeconfig."
        raise NoClusterError(f"There is no way to a cluster: {error}.{hint}") from error
    if config is None or (config.user is not None and config.user.exec is not None):
        raise NoClusterError(f"{kubeconfig} gets its credentials from a program; use one with a token or a client certificate.")
    return Api(config, seconds, count)


def _refusal(verb: str, path: str, answer: httpx2.Response) -> ApiError:
    """What the API server says; something before it, such as a proxy, need not answer in its form."""
    try:
        status = answer.json()
        return ApiError(answer.status_code, str(status.get("reason", "")), f"{verb} {path}: {status.get('message', '')}")
    except (ValueError, AttributeError):
        return ApiError(answer.status_code, answer.reason_phrase, f"{verb} {path}: {answer.status_code} {answer.reason_phrase}.")


def _decoded(data: str | None) -> str:
    return base64.b64decode(data).decode() if data else ""
