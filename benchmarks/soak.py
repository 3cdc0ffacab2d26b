"""Random faults over a stream of small trainings on the development cluster: `make soak`, or `python benchmarks/soak.py --minutes 30`.

Operators, pods, Jobs, a node and the API server are killed, trainers are stopped, the storage stands still or refuses, resources are paused
and deleted, in an order that the seed decides; who meets what depends on the machine. At the end every training must have succeeded, or
have failed for a reason that one of these faults explains; every file that a status names must have its digest in the bucket; and nothing
may be left: objects, processes, folders, unfinished uploads, memory. The table goes to benchmarks/results; the exit code says whether all
of it holds.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / folder) for folder in ("tests", "devtools", "examples")]

import soak_traces as traces  # noqa: E402  they need the line above
from soak_faults import STRIKES, Done, Scene, patiently  # noqa: E402
from soak_report import Outcome, table, write  # noqa: E402
from soak_verdict import Kind, Stroke, Training, problems_of  # noqa: E402

from charalora_spec.status import Status  # noqa: E402
from cluster_runs import Place, own_place  # noqa: E402
from target import DEVCLUSTER, Target, TargetError, open_target  # noqa: E402
from tiny_model import tiny_files  # noqa: E402

SETTINGS = ("settings.stallSeconds=60", "settings.gracePeriodSeconds=15", "settings.resyncSeconds=30")
TINY: dict[str, Any] = {"training.steps": 90, "training.saveEvery": 30, "resources.cpu": "400m", "resources.memory": "1500Mi"}
AT_ONCE = 3
CALM_SECONDS = 1200.0
"""After the last fault, for what goes on to end."""
LARGEST_OPERATOR = 250e6
"""Resident bytes; 65 MB of them are Python's modules."""


@dataclass
class Soak:
    """A soak under way.

    Attributes:
        place: Namespace and bucket of its trainings.
        facts: What `cluster.py status --json` says.
        random: Decides every fault.
        say: Prints a sentence.
    """

    place: Place
    facts: dict[str, Any]
    random: random.Random
    say: Callable[[str], None]
    trainings: dict[str, Training] = field(default_factory=dict)
    strokes: list[Stroke] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    _unheard: dict[str, float] = field(default_factory=dict)
    _to_undo: list[tuple[float, Kind, Done, float]] = field(default_factory=list)

    def run(self, seconds: float, pause: tuple[float, float], kinds: tuple[Kind, ...]) -> None:
        """Start trainings and do faults for so long, then wait until everything has ended."""
        ends = time.time() + seconds
        due = time.time() + pause[1]
        while time.time() < ends:
            time.sleep(1)
            self.undo(time.time())
            if Kind.API_SERVER_KILLED in self.going_on():
                continue  # nobody answers until `undo` starts it again
            self.look()
            while len(self.unfinished()) < AT_ONCE:
                self.start()
            if time.time() >= due:
                self.strike(kinds)
                due = time.time() + self.random.uniform(*pause)
        self.say(f"The faults are over; {len(self.unfinished())} trainings go on.")
        self.undo(float("inf"))
        calm = time.time() + CALM_SECONDS
        while (self.unfinished() or self._unheard) and time.time() < calm:
            time.sleep(2)
            self.look()

    def start(self) -> None:
        """One more training."""
        name = f"t{len(self.trainings) + 1:03}"
        self.trainings[name] = Training(name, time.time())
        patiently(partial(self.place.start, name, **TINY))

    def look(self) -> None:
        """Read every status, and now and then the operators' memory."""
        listed = patiently(partial(self.place.target.get, "clora", "-n", self.place.namespace))["items"]
        now = time.time()
        for body in listed:
            if "deletionTimestamp" not in body["metadata"]:
                self.trainings[body["metadata"]["name"]].read(Status.model_validate(body.get("status", {})), now)
        self._look_at_nodes(now)
        with suppress(TargetError):
            self.memory += traces.operator_memory(self.place).values()

    def _look_at_nodes(self, now: float) -> None:
        """Note which node is not heard of: a kubelet may find out late that the API server which it talks to is another one by now."""
        for node in patiently(partial(self.place.target.get, "nodes"))["items"]:
            name = node["metadata"]["name"]
            if any(one["type"] == "Ready" and one["status"] != "True" for one in node["status"]["conditions"]):
                self._unheard.setdefault(name, now)
            elif name in self._unheard:
                self.strokes.append(Stroke(Kind.NODE_UNHEARD, self._unheard.pop(name), now, about=name))

    def unfinished(self) -> list[Training]:
        """Those of which something is still to come."""
        return [one for one in self.trainings.values() if not one.has_ended and not one.deleted]

    def going_on(self) -> set[Kind]:
        """The faults that have not been undone."""
        return {kind for _, kind, _, _ in self._to_undo}

    def strike(self, kinds: tuple[Kind, ...]) -> None:
        """Do one fault, unless the same goes on already."""
        free = [kind for kind in kinds if kind not in self.going_on()]
        kind = self.random.choices(free, [STRIKES[one][0] for one in free])[0]
        running = [one.name for one in self.unfinished() if one.status.attempt > 0]
        scene = Scene(self.place, self.facts, self.random, running)
        began = time.time()
        try:
            done = STRIKES[kind][1](scene)
        except TargetError as error:  # what it was to hit has just gone, or the API server is away
            self.say(f"{kind.value}: not done: {str(error).splitlines()[0][:120]}")
            return
        if done is None:
            return
        if kind is Kind.RESOURCE_DELETED:
            self.trainings[done.resource].deleted = True
        lasts = f" for {done.lasts:.0f} s" if done.undo else ""
        self.say(f"{kind.value}: {done.about}{lasts}")
        if done.undo is None:
            self.strokes.append(Stroke(kind, began, began, done.resource, done.about))
        else:
            self._to_undo.append((began + done.lasts, kind, done, began))

    def undo(self, now: float) -> None:
        """End the faults whose time is over; while the API server is away, that one alone can be."""
        due = [one for one in self._to_undo if one[0] <= now]
        if Kind.API_SERVER_KILLED in self.going_on() - {kind for _, kind, _, _ in due}:
            return
        for entry in sorted(due, key=lambda one: one[1] is not Kind.API_SERVER_KILLED):
            _, kind, done, began = entry
            if done.undo is not None:
                patiently(done.undo)
            self._to_undo.remove(entry)
            self.strokes.append(Stroke(kind, began, time.time(), done.resource, done.about))

    def problems(self) -> Iterator[str]:
        """Everything that is not as it should be, one sentence each."""
        for training in self.trainings.values():
            yield from (f"{training.name}: {problem}" for problem in problems_of(training, self.strokes))
            if training.end is not None and training.end.status == "True" and not training.deleted:
                yield from (f"{training.name}: {one}" for one in traces.unlike_the_status(self.place, training.name, training.status))
        gone = {name for name, training in self.trainings.items() if training.deleted}
        for what, left in (
            ("object of a deleted resource", partial(traces.objects_of, self.place, gone)),
            ("trace of a pod that is gone", partial(traces.orphans, self.place, self.facts)),
        ):
            yield from (f"A {what} is left: {one}" for one in _once_more(left))
        if self.memory and max(self.memory) > LARGEST_OPERATOR:
            yield f"An operator took {max(self.memory) / 1e6:.0f} MB."

    def outcome(self, seconds: float, seed: int) -> Outcome:
        """What came of it."""
        uploads = traces.unfinished_uploads(self.place)
        problems = [*self.problems(), *(f"An upload is unfinished: {key}" for key in uploads)]
        for training in self.trainings.values():  # the cluster forgets them now
            if any(problem.startswith(f"{training.name}: ") for problem in problems):
                self.say(f"{training.name}: {training.status.model_dump_json(by_alias=True, exclude_none=True, exclude={'artifacts'})}")
        return Outcome(seed, seconds, list(self.trainings.values()), self.strokes, max(self.memory, default=0), problems)


def _once_more(left: Callable[[], list[str]], seconds: float = 120.0) -> list[str]:
    """What is left when there was time to clear it away."""
    deadline = time.time() + seconds
    while (found := patiently(left)) and time.time() < deadline:
        time.sleep(3)
    return list(found)


def soak(target: Target, seconds: float, seed: int, pause: tuple[float, float], kinds: tuple[Kind, ...] = tuple(STRIKES)) -> Outcome:
    """Faults for so long on a cluster with the operator in it, a pause between two of them; what came of it."""
    status = subprocess.run(
        [sys.executable, DEVCLUSTER / "cluster.py", "status", "--json"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    target.install(*(part for setting in SETTINGS for part in ("--set", setting)))
    began = time.time()
    try:
        with own_place(target, tiny_files()) as place:
            run = Soak(place, json.loads(status), random.Random(seed), lambda line: _say(f"{time.time() - began:6.0f} s  {line}"))
            run.run(seconds, pause, kinds)
            return run.outcome(seconds, seed)
    finally:
        target.install()


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Soak, print the table, write it; 1 when something does not hold."""
    parser = argparse.ArgumentParser(description="Random faults over a stream of small trainings.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults happen; it then waits for the trainings")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000), help="decides the faults")
    asked = parser.parse_args()
    target = open_target()
    if not target.is_ours:
        sys.exit("A soak kills nodes and the API server, so it works on the development cluster alone: leave CLUSTER unset.")
    _say(f"Seed {asked.seed}, {asked.minutes:g} minutes.")
    outcome = soak(target, 60 * asked.minutes, asked.seed, (3.0, 12.0))
    _say(table(outcome))
    _say(f"Written to {write(outcome).relative_to(ROOT)}.")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
