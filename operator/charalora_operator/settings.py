"""What a cluster's administrator decides: a closed model, read once from the file that the chart mounts."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from charalora_spec.parts import Part
from charalora_spec.values import ObjectName, ObjectNameOrEmpty, Quantity, Switch, Whole


class SettingsError(Exception):
    """The settings cannot be used; the message says which and why."""


class PreflightSettings(Part):
    """What a check may use."""

    cpu: Quantity = Field("1", description="CPU cores of a check.")
    memory: Quantity = Field("2Gi", description="Memory of a check; a picture of 64 megapixels takes one GiB.")


class LeaseSettings(Part):
    """Which of several operators works."""

    name: ObjectName = Field("charalora-operator", description="Name of the Lease.")
    namespace: ObjectNameOrEmpty = Field("", description="Its namespace; empty: the operator's own.")
    duration_seconds: Whole = Field(12, ge=5, le=300, description="Seconds after which a silent leader is replaced.")
    renew_seconds: Whole = Field(4, ge=1, le=100, description="Seconds between two renewals; at most a third of durationSeconds.")


class HttpSettings(Part):
    """Where metrics and probes are served."""

    port: Whole = Field(8080, ge=0, le=65535, description="Port of /metrics, /healthz and /readyz; 0: a free one.")


class LogSettings(Part):
    """How the log reads."""

    format: Literal["json", "text"] = Field("json", description="The operator's: one JSON object a line, or text for people.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level that is written.")
    trainings: Literal["json", "text"] = Field("text", description="The same for checks and trainings, whose users read along.")


class Settings(Part):
    """Everything that is not the user's to choose."""

    namespaces: tuple[ObjectName, ...] = Field((), description="Namespaces that are watched; empty: all.")
    trainer_image: str = Field(min_length=1, description="Image of the training pods.")
    preflight_image: str = Field(min_length=1, description="Image of the check's pods.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When nodes fetch those images.")
    image_pull_secrets: tuple[ObjectName, ...] = Field((), description="Secrets for those images, in the namespace of each resource.")
    train_on_cpu: Switch = Field(
        default=False, description="Train on CPUs although GPUs are claimed: for clusters whose GPUs are counted but not there."
    )
    node_cache_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._/-]+)?$")] = Field(
        "", description="Folder of each node that spec.cache.node mounts; empty: refused."
    )
    allowed_service_accounts: tuple[ObjectName, ...] = Field((), description="Service accounts that resources may name beside default.")
    runtime_class_name: ObjectNameOrEmpty = Field("", description="RuntimeClass of the training pods; empty: the cluster's default.")
    preflight: PreflightSettings = Field(PreflightSettings(), description="The check's pods.")
    grace_period_seconds: Whole = Field(120, ge=10, le=3600, description="Seconds that a training has to save when it is stopped.")
    stall_seconds: Whole = Field(1800, ge=60, le=86400, description="Seconds without a step after which a training is started again.")
    resync_seconds: Whole = Field(300, ge=10, le=86400, description="Seconds between two complete readings of the cluster.")
    scrape_seconds: Whole = Field(10, ge=1, le=300, description="Seconds between two readings of a training's progress.")
    progress_seconds: Whole = Field(30, ge=1, le=3600, description="Seconds after which progress is written though it moved less than 1 %.")
    workers: Whole = Field(8, ge=1, le=256, description="Resources that are worked on at the same time.")
    lease: LeaseSettings = Field(LeaseSettings(), description="Which of several operators works.")
    http: HttpSettings = Field(HttpSettings(), description="Metrics and probes.")
    log: LogSettings = Field(LogSettings(), description="Logs on standard error.")


def read_settings(path: Path) -> Settings:
    """The settings in a JSON file.

    Raises:
        SettingsError: It is missing, no JSON, or has fields that are wrong; each is named.
    """
    try:
        return Settings.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path} is no JSON: {error}.") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}" for detail in error.errors())
        raise SettingsError(f"{path}: {problems}.") from error


def settings_schema() -> str:
    """JSON Schema of the settings; the chart's own schema is made from it."""
    return json.dumps(Settings.model_json_schema(), indent=2)
