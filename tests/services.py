"""Real services for tests: an S3 service, and bad networks before it. A pytest plugin, loaded by conftest.py.

`s3` is a SeaweedFS of the test session with a fresh bucket; its credentials stand in the test's environment. `toxic_s3` is the same bucket
behind toxiproxy, `faulty_s3` behind a proxy that answers what a test tells it to.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from charalora_spec.spec import Storage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class S3:
    """A bucket of a real S3 service.

    Attributes:
        endpoint: Where it answers.
        tls_endpoint: Where it answers by https, with a certificate that `ca_file` signs.
        access_key: The owner's, who may do everything.
        reader_access_key: Of someone who may read and list.
        client: The owner's boto3 client, straight to the service.
    """

    endpoint: str
    tls_endpoint: str
    ca_file: Path
    access_key: str
    secret_key: str
    reader_access_key: str
    reader_secret_key: str
    bucket: str
    client: "S3Client" = field(repr=False)

    @property
    def storage(self) -> Storage:
        """The resource's `storage` for this endpoint."""
        return Storage(endpoint=self.endpoint)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to be the owner."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def uri(self, prefix: str = "") -> str:
        """A uri in this bucket."""
        return f"s3://{self.bucket}/{prefix}"

    def put(self, key: str, data: bytes) -> None:
        """Put an object, past every proxy."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        """Content of an object, past every proxy."""
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def keys(self) -> list[str]:
        """Every key of the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3]:
    """A SeaweedFS on free ports with its data in `folder`, and no bucket yet (`bucket` is empty)."""
    ca_file, certificate, key = make_certificates(folder / "tls")
    command: list[str | Path] = [sys.executable, ROOT / "devtools/seaweedfs.py", folder / "seaweedfs", "--tls", certificate, key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        with process.stdin:  # its end is the service's end
            service = json.loads(process.stdout.readline() or "null")
            assert service, f"SeaweedFS did not start: {(folder / 'seaweedfs/weed.log').read_text()[-2000:]}"
            del service["pid"]
            yield S3(**service, ca_file=ca_file, bucket="", client=_client(service))


def _client(service: dict[str, str]) -> "S3Client":
    return boto3.session.Session().client(
        "s3",
        endpoint_url=service["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=service["access_key"],
        aws_secret_access_key=service["secret_key"],
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", max_pool_connections=16),
    )


def make_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority of our own, and a certificate for this machine that it signed: the files of both and of the certificate's key."""
    folder.mkdir(parents=True)
    ca, ca_key, certificate, key, request = (folder / name for name in ("ca.crt", "ca.key", "server.crt", "server.key", "server.csr"))
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    steps: list[list[str | Path]] = [
        ["req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=Charalora test authority"],
        ["req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost"],
        [
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            ca,
            "-CAkey",
            ca_key,
            "-CAcreateserial",
            "-out",
            certificate,
            "-days",
            "2",
            "-extfile",
            names,
        ],
    ]
    for arguments in steps:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    return ca, certificate, key


@dataclass(frozen=True)
class ToxicS3(S3):
    """A bucket behind toxiproxy: `endpoint` is the proxy's, `client` goes past it.

    Attributes:
        proxy: Address of the proxy in toxiproxy's own interface.
    """

    proxy: str = ""

    def poison(self, kind: str, stream: str = "downstream", **attributes: int) -> None:
        """Add a toxic: `latency`, `bandwidth` (KB/s), `limit_data` (bytes of a connection), `reset_peer`, `timeout`, and so on."""
        _ask(f"{self.proxy}/toxics", {"type": kind, "stream": stream, "name": f"{kind}_{stream}", "attributes": attributes})

    def cure(self) -> None:
        """Take all toxics out."""
        for toxic in _ask(f"{self.proxy}/toxics"):
            _ask(f"{self.proxy}/toxics/{toxic['name']}", method="DELETE")

    def connected(self, *, enabled: bool) -> None:
        """Take the proxy down, so that it refuses connections, or up again."""
        _ask(self.proxy, {"enabled": enabled})


@contextmanager
def toxiproxy() -> Iterator[str]:
    """A running toxiproxy: the address of its interface. Built from source on a machine that has none yet."""
    server = subprocess.run([ROOT / "devtools/toxiproxy.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    port = free_port()
    # Where setpriv is at hand (all of Debian), the proxy ends with this process, however that ends.
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [*guard, server, "-host", "127.0.0.1", "-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _ask(url: str, content: dict[str, Any] | None = None, method: str | None = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read() or "null")


def free_port() -> int:
    """A port that nothing listens on."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _await_port(port: int) -> None:
    for _ in range(200):
        with closing(socket.socket()) as one:
            one.settimeout(0.05)
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.05)
    raise AssertionError(f"nothing answers on port {port}")


@dataclass(frozen=True)
class Answer:
    """What is answered instead of the service's own answer.

    Attributes:
        status: Of HTTP.
        code: Of S3; "" for an answer without a body.
        headers: More headers.
    """

    status: int
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    Attributes:
        method: Which requests it waits for; "" for any.
        answer: What is answered; None for the service's own answer.
        forwarded: Whether the service gets the request even so.
        damaged: Whether a byte of the service's answer is changed.
        forged: What is replaced in the service's answer, by as many bytes.
    """

    method: str = ""
    answer: Answer | None = None
    forwarded: bool = True
    damaged: bool = False
    forged: tuple[bytes, bytes] | None = None


@dataclass(frozen=True)
class FaultyS3(S3):
    """A bucket behind a proxy that does what it is told: `endpoint` is the proxy's, `client` goes past it.

    Attributes:
        faults: What is still to happen, in this order for each method.
        requests: What was asked so far: `GET /bucket/key`.
        unlisted: How keys begin that listings do not show yet.
        spoilt: Keys whose content becomes another one, of the same size, as soon as it is written; each entry counts once.
    """

    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    spoilt: list[str] = field(default_factory=list)

    def after(self, request: str, body: bytes) -> None:
        """What happens to an object once it is written."""
        method, _, key = request.replace(f"/{self.bucket}/", "", 1).partition(" ")
        if method == "PUT" and key in self.spoilt:
            self.spoilt.remove(key)
            self.put(key, bytes(byte ^ 1 for byte in body))

    def shown(self, listing: bytes) -> bytes:
        """A listing as a service gives it whose listings lag behind."""
        objects = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
        hidden = [f"<Key>{start}".encode() for start in self.unlisted]
        return objects.sub(lambda found: b"" if any(start in found[0] for start in hidden) else found[0], listing)

    def answer(self, answer: Answer, times: int = 1, method: str = "") -> None:
        """Give this answer to the next requests, which the service does not get."""
        self.faults.extend([Fault(method, answer, forwarded=False)] * times)

    def lose_answer(self, answer: Answer, method: str) -> None:
        """Give this answer to the next request although the service did as it was asked."""
        self.faults.append(Fault(method, answer))

    def pass_on(self, method: str) -> None:
        """Leave the next request alone."""
        self.faults.append(Fault(method))

    def forge(self, true: bytes, false: bytes, times: int) -> None:
        """Replace bytes in the next answers to GET: for names that this service does not take, but others do."""
        assert len(true) == len(false)
        self.faults.extend([Fault("GET", forged=(true, false))] * times)

    def damage(self, times: int) -> None:
        """Change a byte in the next bodies that are fetched."""
        self.faults.extend([Fault("GET", damaged=True)] * times)


_Reply = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body of an answer."""


def _resized(answer: _Reply, body: bytes) -> _Reply:
    status, headers, _ = answer
    return (
        status,
        [*((name, value) for name, value in headers if name.lower() != "content-length"), ("Content-Length", str(len(body)))],
        body,
    )


class _Faulty(BaseHTTPRequestHandler):
    """Forwards to `upstream` as `service` allows."""

    protocol_version = "HTTP/1.1"
    upstream: str
    service: FaultyS3
    turn = threading.Lock()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.turn:
            request = f"{self.command} {urlsplit(self.path).path}"
            self.service.requests.append(request)
            fault = next((fault for fault in self.service.faults if fault.method in {"", self.command}), Fault())
            if fault in self.service.faults:
                self.service.faults.remove(fault)
        answer = self._forward(body) if fault.forwarded else None
        if fault.forwarded:
            self.service.after(request, body)
        if fault.answer:
            text = f"<Error><Code>{fault.answer.code}</Code><Message>as told</Message></Error>".encode() if fault.answer.code else b""
            headers = [*fault.answer.headers, ("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            answer = (fault.answer.status, headers, text)
        assert answer
        if "list-type=" in self.path:
            answer = _resized(answer, self.service.shown(answer[2]))
        if fault.forged:
            answer = (*answer[:2], answer[2].replace(*fault.forged))
        if fault.damaged:
            answer = (*answer[:2], answer[2][:-1] + bytes([answer[2][-1] ^ 1]))
        self._reply(*answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _forward(self, body: bytes) -> _Reply:
        with closing(HTTPConnection(self.upstream, timeout=30)) as connection:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in {"connection", "transfer-encoding"}]
            data = answer.read()
            if not answer.headers["Content-Length"]:
                headers.append(("Content-Length", str(len(data))))
            return answer.status, headers, data

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


@contextmanager
def fresh_bucket(service: S3) -> Iterator[S3]:
    """A new bucket of a service, which goes with everything in it when the block ends."""
    with_bucket = replace(service, bucket=f"test-{uuid.uuid4().hex[:16]}")
    service.client.create_bucket(Bucket=with_bucket.bucket)
    yield with_bucket
    service.client.delete_bucket(Bucket=with_bucket.bucket)


@contextmanager
def faulty(s3: S3) -> Iterator[FaultyS3]:
    """A bucket behind a service that can be made to answer wrongly, and that notes what it is asked."""
    wrong = FaultyS3(**vars(s3))
    handler = type("Handler", (_Faulty,), {"upstream": urlsplit(s3.endpoint).netloc, "service": wrong})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield replace(wrong, endpoint=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def _seaweedfs() -> Iterator[S3]:
    # pytest keeps its own temporary folders for three sessions; a service's data are worth no disk afterwards.
    with tempfile.TemporaryDirectory(prefix="charalora-s3-") as folder, seaweedfs(Path(folder)) as service:
        yield service


@pytest.fixture(scope="session")
def _toxiproxy() -> Iterator[str]:
    with toxiproxy() as interface:
        yield interface


@pytest.fixture
def s3(_seaweedfs: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A fresh bucket of a real S3 service; the owner's credentials are in the environment, and no other AWS settings."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    settings = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    for name, value in {**settings, **_seaweedfs.environment, **local}.items():
        monkeypatch.setenv(name, value)
    with fresh_bucket(_seaweedfs) as bucket:
        yield bucket


@pytest.fixture
def toxic_s3(s3: S3, _toxiproxy: str) -> Iterator[ToxicS3]:
    """The bucket of `s3` behind a network that a test can spoil."""
    name = f"s3-{uuid.uuid4().hex[:12]}"
    proxy = _ask(f"{_toxiproxy}/proxies", {"name": name, "listen": "127.0.0.1:0", "upstream": urlsplit(s3.endpoint).netloc})
    yield ToxicS3(**{**vars(s3), "endpoint": f"http://{proxy['listen']}"}, proxy=f"{_toxiproxy}/proxies/{name}")
    _ask(f"{_toxiproxy}/proxies/{name}", method="DELETE")


@pytest.fixture
def faulty_s3(s3: S3) -> Iterator[FaultyS3]:
    """The bucket of `s3` behind a service that a test can make answer wrongly."""
    with faulty(s3) as wrong:
        yield wrong
