"""The connection to an S3 service, made for services other than AWS too."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import AddressingStyle, Storage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CA_FILE = "CHARALORA_CA_FILE"
"""Environment variable: file with the certificates that sign the endpoint's; without it botocore's AWS_CA_BUNDLE counts."""

PATIENCE = "CHARALORA_STORAGE_TIMEOUT"
"""Environment variable: seconds after which a storage that does not answer is given up."""

PARALLEL = 8
"""Requests that one store keeps in flight for the parts of big objects."""

_DEFAULT_PATIENCE = 60.0
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 20.0


def patience_seconds(environ: Mapping[str, str]) -> float:
    """How long a storage may fail before it is given up, in seconds.

    Raises:
        TrainingError: `SpecInvalid` when the variable is no positive number.
    """
    text = environ.get(PATIENCE, "")
    try:
        seconds = float(text or _DEFAULT_PATIENCE)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise TrainingError(Outcome.SPEC_INVALID, f"{PATIENCE} is {text!r}; set it to a number of seconds, such as 60.")
    return seconds


def addressing(style: AddressingStyle, endpoint: str) -> Literal["path", "virtual", "auto"]:
    """Where the bucket's name stands: with `auto` in the path, unless the endpoint is AWS's own.

    Most other services know no names like bucket.host, and an address like 10.0.0.1 cannot have them.
    """
    if style is AddressingStyle.PATH:
        return "path"
    if style is AddressingStyle.VIRTUAL:
        return "virtual"
    host = urlsplit(endpoint).hostname or ""
    return "path" if endpoint and not host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "auto"


@cache
def _service_models() -> Loader:
    """Botocore's descriptions of services: reading them is most of what a client costs, so it happens once a process."""
    return create_loader()


def s3_client(storage: Storage, environ: Mapping[str, str]) -> "S3Client":
    """A client for `storage`, with the credentials that botocore finds: environment, files, service account, instance.

    It tries nothing again by itself: `Patience` decides that, for bodies too, which botocore does not cover.

    Raises:
        TrainingError: `SpecInvalid` when the endpoint is no address; `StorageUnreachable` when the named CA file is not there;
            `StorageAccessDenied` when the environment names a profile that does not exist.
    """
    endpoint = storage.endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    ca_file = environ.get(CA_FILE) or environ.get("AWS_CA_BUNDLE") or ""
    if ca_file and not Path(ca_file).exists():
        variable = CA_FILE if environ.get(CA_FILE) else "AWS_CA_BUNDLE"
        raise TrainingError(
            Outcome.STORAGE_UNREACHABLE, f"{variable} names {ca_file}, which does not exist; give the CA's file, or unset it."
        )
    patience = patience_seconds(environ)
    config = Config(
        connect_timeout=min(_CONNECT_SECONDS, patience),
        read_timeout=min(_READ_SECONDS, patience),
        retries={"total_max_attempts": 1},
        max_pool_connections=2 * PARALLEL,
        tcp_keepalive=True,
        s3={"addressing_style": addressing(storage.addressing_style, endpoint)},
        # Newer checksums than MD5 are unknown to many services other than AWS; we send and compare MD5 ourselves.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="charalora",
    )
    session = botocore.session.Session()  # boto3's shared one keeps the first credentials that it found
    session.register_component("data_loader", _service_models())
    try:
        return boto3.session.Session(botocore_session=session).client(
            "s3", endpoint_url=endpoint or None, region_name=storage.region, verify=ca_file or None, config=config
        )
    except ValueError as error:
        raise TrainingError(
            Outcome.SPEC_INVALID,
            "The endpoint in spec.storage.endpoint, or in AWS_ENDPOINT_URL, is no address; write it as https://host:port.",
        ) from error
    except BotoCoreError as error:
        raise TrainingError(Outcome.STORAGE_ACCESS_DENIED, f"The AWS settings of this environment cannot be used: {error}.") from error
