"""Reads what the running trainings say of themselves: the metrics that Prometheus reads too."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from charalora_operator.desired import METRICS_PORT
from charalora_operator.mirror import Mirror, Target
from charalora_operator.model import Key, Sample
from charalora_operator.queue import KeyQueue
from charalora_operator.settings import Settings

logger = logging.getLogger(__name__)

_SECONDS = 5
_AT_ONCE = 32
_LARGEST = 2**20
_STEP, _STEPS, _CHECKPOINT, _STAGE = "charalora_step", "charalora_steps", "charalora_last_checkpoint_step", "charalora_stage"
_BESIDE = "upload"  # goes on beside the others


class Progress:
    """The newest figures of every running training."""

    def __init__(
        self,
        mirror: Mirror,
        queue: KeyQueue,
        settings: Settings,
        port: int = METRICS_PORT,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._mirror = mirror
        self._queue = queue
        self._settings = settings
        self._port = port
        self._clock = clock
        self._samples: dict[Key, Sample] = {}
        self._told: dict[Key, Sample] = {}
        self._heard: dict[str, datetime] = {}  # by namespace, as rules of the network are

    def sample(self, key: Key) -> Sample | None:
        """The newest figures of a resource's running attempt; without figures while it does not answer, None before it was asked."""
        found = self._samples.get(key)
        return found and replace(found, heard_nearby=self._heard.get(key.namespace))

    async def run(self) -> None:
        """Read them all, again and again."""
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        connector = aiohttp.TCPConnector(limit=_AT_ONCE, force_close=True)  # pods come and go
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                await self.round(session)
                await asyncio.sleep(self._settings.scrape_seconds)

    async def round(self, session: aiohttp.ClientSession) -> None:
        """Read every running training once, and queue those that have something to tell."""
        targets = {target.key: target for target in self._mirror.targets()}
        for gone in self._samples.keys() - targets.keys():
            del self._samples[gone]
            self._told.pop(gone, None)
        gate = asyncio.Semaphore(_AT_ONCE)  # a training that waits for its turn has not begun its five seconds
        texts = await asyncio.gather(*(self._read(session, gate, target) for target in targets.values()))
        for target, text in zip(targets.values(), texts, strict=True):
            self._take(target, text)

    def _take(self, target: Target, text: str) -> None:
        before, now = self._samples.get(target.key), self._clock()
        try:
            sample = sample_of(target.job, text, now, before) if text else None
        except ValueError as error:
            logger.debug("A training's metrics are not readable", extra={"job": target.job, "error": str(error)})
            sample = None
        if sample is None and before is not None and before.job == target.job:
            return
        self._samples[target.key] = sample or Sample(target.job, now, now, {})  # since then it is silent
        if sample is None:
            return
        self._heard[target.key.namespace] = now
        if is_news(self._told.get(target.key), sample, self._settings.progress_seconds):
            self._told[target.key] = sample
            self._queue.add(target.key)

    async def _read(self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, target: Target) -> str:
        host = f"[{target.ip}]" if ":" in target.ip else target.ip
        try:
            async with gate, session.get(f"http://{host}:{self._port}/metrics", allow_redirects=False) as answer:
                answer.raise_for_status()
                page = b""
                async for part in answer.content.iter_any():
                    page += part
                    if len(page) > _LARGEST:
                        raise aiohttp.ClientPayloadError(f"The page has more than {_LARGEST} bytes.")
                return page.decode()
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            logger.debug("A training's metrics cannot be read", extra={"job": target.job, "error": str(error) or type(error).__name__})
            return ""


def sample_of(job: str, text: str, now: datetime, before: Sample | None) -> Sample:
    """What a metrics page says.

    Raises:
        ValueError: It is no metrics page.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    figures = {sample.name: sample.value for sample in samples if not sample.labels and math.isfinite(sample.value)}
    stages = [sample.labels.get("stage", "") for sample in samples if sample.name == _STAGE and sample.value == 1]
    new = Sample(job, now, now, figures, _foremost(stages))
    if before is not None and before.job == job and (before.figures.get(_STEP), before.stage) == (figures.get(_STEP), new.stage):
        return replace(new, moved=before.moved)
    return new


def is_news(told: Sample | None, new: Sample, seconds: float) -> bool:
    """Whether a resource's status should say it: another attempt, a per cent more, a newer checkpoint, or some time has passed."""
    if told is None or told.job != new.job:
        return True
    if new.figures.get(_CHECKPOINT) != told.figures.get(_CHECKPOINT):
        return True
    return _percent(new.figures) != _percent(told.figures) or (new.at - told.at).total_seconds() >= seconds


def _percent(figures: Mapping[str, float]) -> int:
    steps = figures.get(_STEPS, 0.0)
    return int(min(100.0, 100 * figures.get(_STEP, 0.0) / steps)) if steps > 0 else 0


def _foremost(stages: Iterable[str]) -> str:
    """Of the stages that run, the one that people wait for."""
    return min(stages, key=lambda stage: stage == _BESIDE, default="")
