"""Every call that the operator makes to the API server. permissions.py has a line for each, and a reason."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from charalora_operator.api import APPLY, MERGE, Api, ApiError, Json
from charalora_operator.model import Create, DeleteJob, DeleteResource, EndJob, Key, Manifest, Resource, Workload
from charalora_operator.names import ENDED, MANAGER, OURS
from charalora_operator.parse import controller_of, resource_of, workload_of
from charalora_spec.spec import API_VERSION, GROUP, KIND, PLURAL, VERSION
from charalora_spec.status import Status

_CHUNK = 100
_NOT_FOUND = 404
_CONFLICT = 409
_GONE = 410
_SECONDS_OF_REFUSALS = 5.0
KUEUE_MISSING = "QueueControllerMissing"
"""Reason of the Workload that stands for: this cluster has no Kueue."""


@dataclass(frozen=True)
class Collection:
    """Objects of one kind, and which of them are meant."""

    group: str
    version: str
    plural: str
    selector: str = ""

    def path(self, namespace: str = "", name: str = "") -> str:
        """Below the server's address; without a namespace, all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return "/".join([root, *(["namespaces", namespace] if namespace else []), self.plural, *([name] if name else [])])


RESOURCES = Collection(GROUP, VERSION, PLURAL)
JOBS = Collection("batch", "v1", "jobs", OURS)
PODS = Collection("", "v1", "pods", OURS)
_EVENTS = Collection("", "v1", "events")
_LEASES = Collection("coordination.k8s.io", "v1", "leases")
_WORKLOADS = Collection("kueue.x-k8s.io", "v1beta1", "workloads")
_CREATED = {"Job": JOBS, "ConfigMap": Collection("", "v1", "configmaps"), "Service": Collection("", "v1", "services")}


_Read = TypeVar("_Read")


class NotOursError(Exception):
    """A name that we need is taken by somebody else's object; the message says which and what to do."""


class Cluster:
    """The cluster, as far as the operator needs it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._refusals: dict[str, tuple[float, asyncio.Task[list[Json]]]] = {}

    async def get_resource(self, key: Key) -> Resource | None:
        """A CharacterLora as it is now; None when it is gone."""
        try:
            return resource_of(await self._api.request("GET", RESOURCES.path(key.namespace, key.name)))
        except ApiError as error:
            if error.code == _NOT_FOUND:
                return None
            raise

    async def list_all(
        self, collection: Collection, read: Callable[[Json], _Read], namespaces: Sequence[str] = ()
    ) -> tuple[tuple[_Read, ...], int]:
        """Every object of a collection, in these namespaces or in all, and the oldest version of the cluster that this shows.

        Of each object remains what `read` makes of it: ten thousand of them as they come are more than this process may hold.
        """
        answers = await asyncio.gather(*(self._list(collection, read, namespace) for namespace in namespaces or [""]))
        return tuple(item for items, _ in answers for item in items), min(version for _, version in answers)

    async def perform(self, key: Key, action: Create | EndJob | DeleteJob | DeleteResource) -> Json | None:
        """Do what was planned for a resource; the object as it stands then, None where it is gone. Doing it twice changes nothing.

        Raises:
            ApiError: It was refused.
            NotOursError: Something else has the name.
        """
        match action:
            case Create(manifest):
                return await self._create(key.namespace, manifest)
            case EndJob(job, outcome):
                body = {"metadata": {"annotations": {ENDED: outcome.reason}}, "spec": {"activeDeadlineSeconds": 1}}
                query = {"fieldManager": MANAGER}
                return await self._api.request("PATCH", JOBS.path(key.namespace, job), body, content_type=MERGE, query=query)
            case DeleteJob(job):
                await self._delete(JOBS.path(key.namespace, job), {"propagationPolicy": "Background"})
            case DeleteResource(uid):
                await self._delete(RESOURCES.path(key.namespace, key.name), {"preconditions": {"uid": uid}})
        return None

    async def write_status(self, resource: Resource, status: Status) -> Json:
        """Say what was observed, of this state of this resource: a newer state, or a later resource of its name, is looked at first.

        Returns:
            The resource as it stands then.

        Raises:
            ApiError: It was refused; a conflict when the resource has changed since it was read.
        """
        key = resource.key
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": key.name, "namespace": key.namespace, "resourceVersion": resource.version},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._api.request("PATCH", f"{RESOURCES.path(key.namespace, key.name)}/status", body, content_type=APPLY, query=query)

    async def write_event(self, event: Json) -> None:
        """Tell a fact once: one of that name is that fact."""
        try:
            await self._api.request("POST", _EVENTS.path(event["metadata"]["namespace"]), event)
        except ApiError as error:
            if error.code != _CONFLICT:
                raise

    async def refusal_of(self, namespace: str, job: str, uid: str) -> str:
        """Why the Job controller cannot make a Job's pods, in its own words, a few seconds old; empty when it did not say."""
        at, reading = self._refusals.get(namespace, (-math.inf, None))
        if reading is None or time.monotonic() - at > _SECONDS_OF_REFUSALS:
            reading = asyncio.create_task(self._refusals_in(namespace))
            self._refusals[namespace] = time.monotonic(), reading
        about = [event for event in await asyncio.shield(reading) if event["involvedObject"]["name"] == job]
        told = [event for event in about if event["involvedObject"].get("uid") in {uid, None}]
        newest: Json = max(told, key=lambda event: int(event["metadata"]["resourceVersion"]), default={})
        return str(newest.get("message", ""))

    async def _refusals_in(self, namespace: str) -> list[Json]:
        """Those of a namespace at once: the API server looks at each of its Events for every question, and thousands of Jobs may wait."""
        fields = "involvedObject.kind=Job,reason=FailedCreate"
        items, _ = await self._list(_EVENTS, dict, namespace, {"fieldSelector": fields})
        return items

    async def workload_of(self, namespace: str, job_uid: str) -> Workload | None:
        """What Kueue has for a Job; None before it has anything. Without Kueue, one that says so."""
        query = {"labelSelector": f"kueue.x-k8s.io/job-uid={job_uid}"}
        try:
            answer = await self._api.request("GET", _WORKLOADS.path(namespace), query=query)
        except ApiError as error:
            if error.code != _NOT_FOUND:
                raise
            return Workload("", active=True, admitted=False, reason=KUEUE_MISSING, message="Kueue is not installed in this cluster.")
        return next((workload_of(item) for item in answer["items"]), None)

    async def get_lease(self, namespace: str, name: str) -> Json | None:
        """A Lease; None when it does not exist."""
        try:
            return await self._api.request("GET", _LEASES.path(namespace, name), tries=1)
        except ApiError as error:
            if error.code == _NOT_FOUND:
                return None
            raise

    async def create_lease(self, lease: Json) -> Json:
        """Make a Lease; a conflict when somebody was faster."""
        return await self._api.request("POST", _LEASES.path(lease["metadata"]["namespace"]), lease, tries=1)

    async def replace_lease(self, lease: Json) -> Json:
        """Write a Lease; a conflict when it has changed since it was read."""
        return await self._api.request("PUT", _LEASES.path(lease["metadata"]["namespace"], lease["metadata"]["name"]), lease, tries=1)

    async def _list(
        self, collection: Collection, read: Callable[[Json], _Read], namespace: str, only: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[list[_Read], int]:
        """A listing in chunks; one that took so long that its version is gone begins anew."""
        query = {"limit": str(_CHUNK), **only} | ({"labelSelector": collection.selector} if collection.selector else {})
        items: list[_Read] = []
        proceed = ""
        while True:
            try:
                page = await self._api.request("GET", collection.path(namespace), query=query | ({"continue": proceed} if proceed else {}))
            except ApiError as error:
                if error.code != _GONE or not proceed:
                    raise
                items, proceed = [], ""
                continue
            items += [read(item) for item in page["items"]]
            proceed = page["metadata"].get("continue", "")
            if not proceed:
                return items, int(page["metadata"]["resourceVersion"])

    async def _create(self, namespace: str, manifest: Manifest) -> Json:
        collection, name = _CREATED[manifest["kind"]], manifest["metadata"]["name"]
        try:
            return await self._api.request("POST", collection.path(namespace), manifest, query={"fieldManager": MANAGER})
        except ApiError as error:
            if error.code != _CONFLICT or error.reason != "AlreadyExists":
                raise
            standing = await self._api.request("GET", collection.path(namespace, name))
            if controller_of(standing) != controller_of(manifest):
                kind = manifest["kind"]
                raise NotOursError(
                    f"{kind} {namespace}/{name} exists and belongs to something else; delete it, or give the resource another name."
                ) from error
            return standing

    async def _delete(self, path: str, options: Json) -> None:
        """Delete what may be gone already."""
        try:
            await self._api.request("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})
        except ApiError as error:
            if error.code != _NOT_FOUND:
                raise
