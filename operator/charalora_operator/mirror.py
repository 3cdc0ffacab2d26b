"""What the cluster holds of ours, kept up to date by watch events and made right by complete listings.

A watch may lose a deletion, repeat itself, or fall silent; a listing is always true. Versions decide between the two, so that an old event
never overwrites a newer listing.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from charalora_operator.model import JobFacts, JobState, Key, Observed, PodFacts, Resource
from charalora_operator.names import TRAINING
from charalora_operator.parse import Body, Place, State, job_of, place_of_owned, place_of_resource, pod_of, state_of, unpacked


class Kind(Enum):
    """What is mirrored, by its plural; how its place and its facts are read."""

    RESOURCES = ("characterloras", place_of_resource, state_of)
    JOBS = ("jobs", place_of_owned, job_of)
    PODS = ("pods", place_of_owned, pod_of)

    def __init__(self, plural: str, place: Callable[[Body], Place | None], facts: Callable[[Body], Any]) -> None:
        self.plural = plural
        self.place = place
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of an object."""

    place: Place
    facts: Any


@dataclass(frozen=True)
class Listing:
    """A complete listing of one kind, and the version of the cluster that it shows."""

    entries: tuple[Entry | None, ...]
    version: int


class _Shelf:
    """The newest entry of each object of one kind."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._by_key: dict[Key, set[str]] = {}
        self._watched: dict[str, int] = {}  # the version that a watch event told last
        self._deleted: dict[str, int] = {}  # since the last listing began
        self._listed = -1
        self.proven = clock()

    @property
    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def find(self, uid: str) -> Entry | None:
        return self._entries.get(uid)

    def of(self, key: Key) -> list[Entry]:
        return [self._entries[uid] for uid in self._by_key.get(key, ())]

    def event(self, entry: Entry, *, deleted: bool) -> bool:
        """Take a watch event in; whether it told anything new."""
        self.proven = self._clock()
        place, known = entry.place, self._entries.get(entry.place.uid)
        if deleted:
            self._deleted[place.uid] = place.version
            self._watched.pop(place.uid, None)
            if isinstance(entry.facts, PodFacts) and entry.facts.ending is not None:
                self._put(entry)  # its last words outlive it until the next listing, because its Job's end comes later
                return True
            return self._drop(place.uid)
        self._watched[place.uid] = place.version
        if known is None and place.version <= self._listed:
            return False
        return self.learn(entry)

    def learn(self, entry: Entry) -> bool:
        """Take the answer to a write in, or an event; whether it is newer than what is known."""
        place, known = entry.place, self._entries.get(entry.place.uid)
        if place.uid in self._deleted or (known is not None and place.version <= known.place.version):
            return False
        self._put(entry)
        return True

    def replace(self, entries: Mapping[str, Entry], version: int) -> set[Key]:
        """Take a complete listing in; the keys for which it told anything new."""
        unseen = [uid for uid, entry in entries.items() if self._watched.get(uid, -1) < entry.place.version]
        if not unseen:
            self.proven = self._clock()  # the watch had told all of it
        gone = [uid for uid, entry in self._entries.items() if uid not in entries and entry.place.version <= version]
        changed = {self._entries[uid].place.key for uid in gone}
        for uid in gone:
            self._drop(uid)
        changed |= {entry.place.key for entry in entries.values() if self.learn(entry)}
        self._watched = {uid: told for uid, told in self._watched.items() if uid in self._entries}
        self._deleted.clear()
        self._listed = version
        return changed

    def forget(self, key: Key) -> None:
        for uid in list(self._by_key.get(key, ())):
            self._drop(uid)

    def _put(self, entry: Entry) -> None:
        self._entries[entry.place.uid] = entry
        self._by_key.setdefault(entry.place.key, set()).add(entry.place.uid)

    def _drop(self, uid: str) -> bool:
        entry = self._entries.pop(uid, None)
        if entry is None:
            return False
        uids = self._by_key[entry.place.key]
        uids.discard(uid)
        if not uids:
            del self._by_key[entry.place.key]
        return True


@dataclass(frozen=True)
class Target:
    """A running training whose progress can be read."""

    key: Key
    job: str
    ip: str


class Mirror:
    """Every CharacterLora's state, and the facts of every Job and Pod of ours."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shelves = {kind: _Shelf(clock) for kind in Kind}
        self._complete: set[Kind] = set()

    @property
    def caught_up(self) -> bool:
        """Whether every kind was listed once: before that, what is missing here may well exist."""
        return len(self._complete) == len(Kind)

    def read(self, kind: Kind, body: Body) -> Entry | None:
        """What is to be kept of an object; of one that has not changed, what is kept already."""
        place = kind.place(body)
        if place is None:
            return None
        known = self._shelves[kind].find(place.uid)
        return known if known is not None and known.place == place else Entry(place, kind.facts(body))

    def event(self, kind: Kind, body: Body, *, deleted: bool) -> Key | None:
        """Take a watch event in; the key that it told something new about."""
        entry = self.read(kind, body)
        return entry.place.key if entry is not None and self._shelves[kind].event(entry, deleted=deleted) else None

    def learn(self, kind: Kind, body: Body) -> None:
        """Take the API server's answer to a write of ours in: the next visit must not miss it because its event is still on its way."""
        place = kind.place(body)
        if place is not None:
            self._shelves[kind].learn(Entry(place, kind.facts(body)))

    def replace(self, kind: Kind, listing: Listing) -> set[Key]:
        """Take a complete listing in; the keys that it told something new about."""
        entries = {entry.place.uid: entry for entry in listing.entries if entry is not None}
        self._complete.add(kind)
        return self._shelves[kind].replace(entries, listing.version)

    def resource(self, key: Key) -> Resource | None:
        """A CharacterLora as it was when it was last told of; None when nothing is known of it."""
        entry = max(self._shelves[Kind.RESOURCES].of(key), key=lambda one: one.place.version, default=None)
        return unpacked(entry.facts) if entry is not None else None

    def observed(self, key: Key, uid: str) -> Observed:
        """The Jobs and Pods of one resource; an earlier one of the same name has none here."""
        jobs = [entry for entry in self._shelves[Kind.JOBS].of(key) if entry.place.owner == uid]
        owners = {entry.place.uid for entry in jobs}
        pods = [entry.facts for entry in self._shelves[Kind.PODS].of(key) if entry.place.owner in owners]
        return Observed(jobs={entry.facts.name: entry.facts for entry in jobs}, pods=tuple(pods))

    def forget(self, key: Key) -> None:
        """The resource is gone. What it owned is on its way out, and is told no more."""
        self._shelves[Kind.RESOURCES].forget(key)

    def unfinished(self) -> list[Key]:
        """The resources to which something may still happen."""
        return [entry.place.key for entry in self._shelves[Kind.RESOURCES].entries if not entry.facts.finished]

    def states(self) -> Counter[tuple[str, str]]:
        """How many resources there are by namespace and state."""
        states: Counter[tuple[str, str]] = Counter()
        for entry in self._shelves[Kind.RESOURCES].entries:
            state: State = entry.facts
            states[entry.place.key.namespace, state.reason] += 1
        return states

    def targets(self) -> list[Target]:
        """The trainings that run, by the pod that has the training's figures."""
        jobs: dict[str, JobFacts] = {entry.place.uid: entry.facts for entry in self._shelves[Kind.JOBS].entries}
        running = {uid for uid, job in jobs.items() if job.component == TRAINING and job.state is JobState.ACTIVE and not job.deleting}
        targets = []
        for entry in self._shelves[Kind.PODS].entries:
            pod: PodFacts = entry.facts
            if entry.place.owner in running and pod.index == 0 and pod.phase == "Running" and pod.ip and pod.deleted is None:
                targets.append(Target(entry.place.key, pod.job, pod.ip))
        return targets

    def ages(self) -> dict[str, float]:
        """Seconds since each kind's watch last told something, or a listing showed that it had told everything."""
        return {kind.plural: self._clock() - shelf.proven for kind, shelf in self._shelves.items()}
