"""The one path that everything takes: read the resource, see its world, plan, act, say what is so, tell what is new."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from charalora_operator.api import ApiError
from charalora_operator.cluster import Cluster, NotOursError
from charalora_operator.events import news_of
from charalora_operator.log import about
from charalora_operator.metrics import Metrics
from charalora_operator.mirror import Kind, Mirror
from charalora_operator.model import Action, Create, JobState, Key, Observed, Resource
from charalora_operator.names import COMPONENT, TRAINING
from charalora_operator.plan import Plan, plan_of
from charalora_operator.progress import Progress
from charalora_operator.queue import KeyQueue
from charalora_operator.settings import Settings
from charalora_spec.status import Status

logger = logging.getLogger(__name__)

_TIME_FOR_PODS = 5.0
_LONGEST_TIME_FOR_PODS = 60.0
_TIME_IN_QUEUE = 30.0


@dataclass(frozen=True)
class _View:
    """A resource, what is known of its world, and what follows from both."""

    resource: Resource
    observed: Observed
    plan: Plan
    now: datetime

    @property
    def has_work(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.plan.actions) or self.plan.status != self.resource.status


@dataclass(frozen=True)
class Reconciler:
    """Makes the cluster be as a resource asks, one visit at a time."""

    cluster: Cluster
    mirror: Mirror
    progress: Progress
    queue: KeyQueue
    metrics: Metrics
    settings: Settings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def work(self) -> None:
        """Visit what is due, until the queue is closed. Several may work at the same time."""
        while (key := await self.queue.get()) is not None:
            await self._visit(key)

    async def reconcile(self, key: Key) -> None:
        """Do for one resource what is to be done now.

        Most visits find that nothing is to be done, and for that the mirror is good enough: what it lacks is still to be told, and then
        comes another visit. Before anything is written, the resource is read as it is now.
        """
        known = self.mirror.resource(key)
        if known is not None and not (view := await self._look(known)).has_work:
            self._come_back(view)
            return
        resource = await self.cluster.get_resource(key)
        if resource is None:
            self.mirror.forget(key)
            return
        await self._carry_out(await self._look(resource))

    async def _look(self, resource: Resource) -> _View:
        observed = await self._observe(resource)
        now = self.clock()
        return _View(resource, observed, plan_of(resource, observed, self.settings, now), now)

    async def _carry_out(self, view: _View) -> None:
        """Act, say what is so, and tell what is new."""
        resource, plan, now = view.resource, view.plan, view.now
        try:
            for action in plan.actions:
                await self._perform(resource, view.observed, action, plan.status, now)
        except NotOursError as error:
            plan = plan_of(resource, replace(view.observed, in_the_way=str(error)), self.settings, now)
        if plan.status != resource.status:
            self.mirror.learn(Kind.RESOURCES, await self.cluster.write_status(resource, plan.status))
            self.metrics.told(resource, plan.status, now)
            await self._tell(resource, plan.status, now)
        self._come_back(replace(view, plan=plan))

    def _come_back(self, view: _View) -> None:
        if view.plan.requeue_after is not None:
            self.queue.add_after(view.resource.key, view.plan.requeue_after)

    async def _visit(self, key: Key) -> None:
        """Reconcile; what fails is tried again later, so that one resource never stops the others."""
        began = time.monotonic()
        self.metrics.visiting(key)
        try:
            await self.reconcile(key)
        except Exception as error:  # the edge: whatever it is, the others go on
            kind = f"api_{error.code}" if isinstance(error, ApiError) else type(error).__name__
            expected = isinstance(error, ApiError)
            delay = self.queue.failed(key)
            fields = about(key, reason=kind, error=str(error), seconds=round(delay, 1))
            logger.warning("The visit failed and is repeated", extra=fields, exc_info=None if expected else error)
            self.metrics.visited(key, time.monotonic() - began, kind)
        else:
            self.queue.done(key)
            self.metrics.visited(key, time.monotonic() - began)

    async def _observe(self, resource: Resource) -> Observed:
        """What is known of the resource's world; Kueue and the Job controller's refusals are asked only where they matter."""
        key = resource.key
        observed = replace(self.mirror.observed(key, resource.uid), sample=self.progress.sample(key))
        queued = resource.run is not None and resource.run.spec.scheduling.queue_name is not None
        refused = {}
        workload = None
        for job in observed.jobs.values():
            if queued and job.component == TRAINING and job.state in {JobState.SUSPENDED, JobState.ACTIVE}:
                workload = await self.cluster.workload_of(key.namespace, job.uid)
                if job.state is JobState.SUSPENDED:  # Workloads are not watched; a new Job gets its own within seconds
                    self.queue.add_after(key, _TIME_FOR_PODS if workload is None else _TIME_IN_QUEUE)
            if job.state is not JobState.ACTIVE or job.deleting or observed.pods_of(job.name):
                continue
            age = (self.clock() - (job.started or job.created)).total_seconds()
            if age >= _TIME_FOR_PODS:
                refused[job.name] = await self.cluster.refusal_of(key.namespace, job.name, job.uid)
            # Nothing happens that would bring us back. Thousands of Jobs that wait for a slow Job controller must not keep us busy, though.
            self.queue.add_after(key, min(_LONGEST_TIME_FOR_PODS, max(_TIME_FOR_PODS, age / 2)))
        return replace(observed, workload=workload, refused={job: why for job, why in refused.items() if why})

    async def _perform(self, resource: Resource, observed: Observed, action: Action, status: Status, now: datetime) -> None:
        standing = await self.cluster.perform(resource.key, action)
        if standing is not None and standing["kind"] == "Job":
            self.mirror.learn(Kind.JOBS, standing)
        what, which = type(action).__name__, getattr(action, "job", "")
        if isinstance(action, Create):
            what, which = f"Create {action.manifest['kind']}", action.manifest["metadata"]["name"]
            if action.manifest["kind"] == "Job":
                if not observed.jobs and not resource.status.conditions:
                    self.metrics.first_job(resource, now)
                if action.manifest["metadata"]["labels"][COMPONENT] == TRAINING:
                    self.metrics.attempted(resource, status)
        logger.info("Done", extra=about(resource.key, action=what, object=which, attempt=status.attempt))

    async def _tell(self, resource: Resource, status: Status, now: datetime) -> None:
        """Events after facts. They are a courtesy: one that is refused is logged, and nothing waits for it."""
        for event in news_of(resource, status, now):
            logger.info(
                "The state changed", extra=about(resource.key, reason=event["reason"], note=event["message"], attempt=status.attempt)
            )
            try:
                await self.cluster.write_event(event)
            except ApiError as error:
                logger.warning("An Event was refused", extra=about(resource.key, reason=event["reason"], error=str(error)))
