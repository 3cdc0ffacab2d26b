"""What a soak may leave behind: files that are not what the status says, objects, processes, folders, memory."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from soak_faults import OPERATORS

from charalora_operator.names import RESOURCE
from charalora_spec.status import Status
from charalora_trainer.export.manifest import FILE, Manifest
from cluster_runs import Place
from machine import processes_by_pod, processes_of
from target import OPERATOR_NAMESPACE

_OWNED = "jobs,pods,configmaps,services"
_STATES_KEPT = 2


def unlike_the_status(place: Place, name: str, status: Status) -> Iterator[str]:
    """What in the bucket is not as a finished training says, in its status or in its manifest; every digest is computed anew."""
    prefix, root = place.uri(""), f"output/{name}/"
    told = {one.uri.removeprefix(prefix): (one.bytes, one.sha256) for one in status.artifacts}
    if not told and any("Their list is manifest.json there" in one.message for one in status.conditions):
        manifest = Manifest.from_json(_read(place, f"{root}{FILE}").decode(), name)
        told = {f"{root}{file.path}": (file.bytes, file.sha256) for file in manifest.files}
    if not told:
        yield "It succeeded, and nothing says which files it has."
    for key, (size, digest) in told.items():
        data = _read(place, key)
        if (len(data), hashlib.sha256(data).hexdigest()) != (size, digest):
            yield f"{key} is not what is said of it: {len(data)} bytes for {size}."
    states = [key for key in _keys(place, f"output/{name}/state/step-") if key.endswith("/manifest.json")]
    if len(states) > _STATES_KEPT:
        yield f"{len(states)} training states are kept: {', '.join(states)}."


def _read(place: Place, key: str) -> bytes:
    return place.target.s3().get_object(Bucket=place.namespace, Key=key)["Body"].read()


def unfinished_uploads(place: Place) -> list[str]:
    """Parts of files that somebody began to send and never finished."""
    answer = place.target.s3().list_multipart_uploads(Bucket=place.namespace)
    return [str(upload["Key"]) for upload in answer.get("Uploads", [])]


def objects_of(place: Place, names: set[str]) -> list[str]:
    """Objects in the cluster that belong to resources that are no more."""
    listed = place.target.get(_OWNED, "-n", place.namespace, "-l", RESOURCE)["items"]
    return [f"{one['kind']}/{one['metadata']['name']}" for one in listed if one["metadata"]["labels"][RESOURCE] in names]


def orphans(place: Place, facts: Mapping[str, Any]) -> list[str]:
    """Processes and folders on this machine of pods that the cluster does not know any more."""
    known = {str(pod["metadata"]["uid"]) for pod in place.target.get("pods", "--all-namespaces")["items"]}
    # Control groups of other clusters on this machine are none of ours: a pod has its folder at the node that started it.
    folders = {folder.name: folder for folder in Path(facts["logs"]).glob("node-*/kubelet/pods/*")}
    running = {uid: numbers for uid, numbers in processes_by_pod().items() if uid in folders}
    return [
        *(f"processes {numbers} of pod {uid}" for uid, numbers in running.items() if uid not in known),
        *(f"folder {folder}" for uid, folder in folders.items() if uid not in known),
    ]


def operator_memory(place: Place) -> dict[str, int]:
    """Resident bytes of each operator."""
    found = {}
    for pod in place.target.get("pods", "-n", OPERATOR_NAMESPACE, "-l", OPERATORS)["items"]:
        sizes = [_resident(process) for process in processes_of(pod)]
        if sizes:
            found[str(pod["metadata"]["name"])] = max(sizes)
    return found


def _resident(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def _keys(place: Place, prefix: str) -> list[str]:
    pages = place.target.s3().get_paginator("list_objects_v2").paginate(Bucket=place.namespace, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
