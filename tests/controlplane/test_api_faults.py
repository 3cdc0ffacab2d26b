"""An API server that errs, stalls and goes away: a training's life ends as it does on a good day.

Each fault has a life of its own, with its own operator behind its own proxy; all go on at the same time, since most of a life is waiting.
An operator that ends is started again, as Kubernetes does it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from apiserver import ApiServer, Json, api_server, until
from faults import Fault
from lives import PreemptedOnce, conditions_of, finished, remains, resource
from operators import Kept, kept_operator, settings_of
from paper_node import paper_node
from proxies import Proxies, Proxy

KINDS = ("characterloras", "jobs", "pods")
WATCH_SECONDS = 70
"""After which the operator takes a silent watch for dead: bookmarks come once a minute."""
PATIENCE = 400.0


@dataclass(frozen=True)
class Scene:
    """A namespace, its operator, and the way between operator and API server.

    Attributes:
        name: Of the namespace.
    """

    server: ApiServer
    name: str
    proxy: Proxy
    kept: Kept

    def create(self, name: str = "surtr") -> None:
        """A resource."""
        self.server.create(resource(self.name, name))

    def reaches(self, attempt: int, name: str = "surtr") -> None:
        """Wait until an attempt has been started."""

        def reached() -> bool:
            body = self.server.get("characterloras", self.name, name)
            return int(body.get("status", {}).get("attempt", 0)) >= attempt

        until(f"attempt {attempt} of {self.name}", reached, seconds=PATIENCE, pause=0.3)

    def watched(self, kind: str) -> None:
        """Wait until there is a watch."""
        until(f"{self.name} to watch {kind}", partial(self.proxy.tell, {"type": "BOOKMARK", "object": {}}, kind), seconds=PATIENCE)


@contextmanager
def scene(server: ApiServer, proxies: Proxies, folder: Path, name: str) -> Iterator[Scene]:
    """One, with an operator at work."""
    server.namespace(name)
    home = folder / name
    home.mkdir()
    settings = settings_of(name, lease={"name": "operator", "namespace": name, "durationSeconds": 30, "renewSeconds": 2})
    with proxies.proxy(name) as proxy, kept_operator(home, proxy.kubeconfig(home), settings) as kept:
        yield Scene(server, name, proxy, kept)


def nothing(scene: Scene) -> None:
    """A good day."""
    scene.create()


def errors_in_watches(scene: Scene) -> None:
    """Each error of a watch's stream, for each kind; all but 410 end the operator."""
    for number, code in enumerate((429, 500, 504)):
        scene.watched(KINDS[number])
        ends = scene.kept.ends
        scene.proxy.tell_error(code, KINDS[number])
        until(f"the operator of {scene.name} to end by {code}", partial(_more_than, scene.kept, ends), seconds=PATIENCE)
        if number == 0:
            scene.create()


def error_beside_a_broken_watch(scene: Scene) -> None:
    """A watch's error ends the operator while another watch is just beginning anew."""
    for kind in KINDS:
        scene.watched(kind)
    again = scene.proxy.refuse(r"/jobs\?watch=true", 503)
    scene.proxy.end_watches("jobs")
    until(f"the Jobs of {scene.name} to be watched anew", lambda: again.met, seconds=PATIENCE)
    scene.proxy.tell_error(500, "characterloras")
    until(f"the operator of {scene.name} to end", lambda: scene.kept.ends, seconds=PATIENCE)
    again.left = 0
    scene.create()


def expired_watches(scene: Scene) -> None:
    """A watch that is too old, for each kind: read anew, and no reason to end."""
    scene.create()
    for kind in KINDS:
        scene.watched(kind)
        before = scene.proxy.watches(kind)
        scene.proxy.tell_error(410, kind)
        until(f"{kind} to be watched anew", partial(_watched_more_than, scene.proxy, kind, before), seconds=PATIENCE)
    assert 0 == scene.kept.ends


def refused_requests(scene: Scene) -> None:
    """Too many requests, with a time to wait, and errors of the server's own, for reading and writing."""
    for kind in KINDS:
        scene.watched(kind)
    scene.proxy.refuse(r"^GET .*/characterloras/surtr", 429, times=3, retry_after=1)
    for number, path in enumerate(("configmaps", "services", "jobs", "status", "events")):
        scene.proxy.refuse(rf"^(POST|PATCH) .*/{path}\b", (500, 503, 504, 429)[number % 4], times=3)
    scene.create()


def done_and_not_said(scene: Scene) -> None:
    """The API server does what it is asked, and the answer is an error: asked again, it says that this stands already."""
    for number, path in enumerate(("configmaps", "services", "jobs", "status", "events")):
        scene.proxy.refuse(rf"^(POST|PATCH) .*/{path}\b", (500, 504)[number % 2], times=3, done=True)
    scene.create()


def away_for_a_while(scene: Scene) -> None:
    """Longer than the Lease holds, in the middle of an attempt: the operator ends, is started again, and waits for an answer."""
    scene.create()
    scene.reaches(1)
    scene.proxy.go_away()
    until(f"the operator of {scene.name} to end", lambda: scene.kept.ends, seconds=PATIENCE)
    until("the next one to ask in vain", lambda: scene.kept.started[-1].says("The Lease cannot be reached"), seconds=PATIENCE)
    scene.proxy.come_back()


def silent_watches(scene: Scene) -> None:
    """Open, and no word comes: the complete listings tell everything, and the watch is given up for a new one."""
    scene.proxy.meddle = lambda _: []
    for kind in KINDS:
        until(f"{kind} to be watched", partial(_watched_more_than, scene.proxy, kind, 0), seconds=PATIENCE)
    began = time.monotonic()
    before = {kind: scene.proxy.watches(kind) for kind in KINDS}
    scene.create()
    for kind in KINDS:
        until(f"{kind} to be watched anew", partial(_watched_more_than, scene.proxy, kind, before[kind]), seconds=PATIENCE)
    print(f"Silent watches were given up within {time.monotonic() - began:.0f} s.")


def events_in_disorder(scene: Scene) -> None:
    """Each twice, an old one after each new one, some never, deletions never."""
    seen: list[Json] = []

    def meddle(event: Json) -> list[Json]:
        if event["type"] == "BOOKMARK":
            return [event]
        seen.append(event)
        if event["type"] == "DELETED" or len(seen) % 3 == 0:
            return []
        return [event, event, seen[len(seen) // 2], event]

    scene.proxy.meddle = meddle
    scene.create()
    finished(scene.server, scene.name, seconds=PATIENCE)
    scene.server.delete("characterloras", scene.name, "surtr")
    left = partial(scene.server.all_of, "jobs", scene.name)
    until(f"the Jobs of {scene.name} to go", lambda: not left(), seconds=PATIENCE)
    scene.create()


def changed_while_it_was_looked_at(scene: Scene) -> None:
    """What was read is old when the status is written: the write is refused, and the resource looked at anew."""
    hold = scene.proxy.hold(r"^GET .*/characterloras/surtr")
    scene.create()
    until(f"the operator of {scene.name} to look", lambda: hold.held, seconds=PATIENCE)
    scene.server.change("characterloras", scene.name, "surtr", {"metadata": {"annotations": {"changed": "meanwhile"}}})
    hold.release()
    until(f"the refusal in {scene.name}", lambda: any("reason=api_409" in one.log.read_text() for one in scene.kept.started), PATIENCE)


def _more_than(kept: Kept, ends: int) -> bool:
    return kept.ends > ends


def _watched_more_than(proxy: Proxy, kind: str, watches: int) -> bool:
    return proxy.watches(kind) > watches


SCENES: Mapping[str, Callable[[Scene], None]] = {
    "good-day": nothing,
    "watch-errors": errors_in_watches,
    "watch-broken": error_beside_a_broken_watch,
    "watch-expired": expired_watches,
    "refused": refused_requests,
    "done-unsaid": done_and_not_said,
    "away": away_for_a_while,
    "silent": silent_watches,
    "disorder": events_in_disorder,
    "changed": changed_while_it_was_looked_at,
}


@dataclass(frozen=True)
class Life:
    """What became of a training.

    Attributes:
        remains: What it left.
        ends: How often its operator ended.
        writes: What was written.
    """

    remains: Json
    ends: int
    writes: list[str]


def live(server: ApiServer, proxies: Proxies, folder: Path, name: str) -> Life:
    """A life with its fault."""
    with scene(server, proxies, folder, name) as here:
        SCENES[name](here)
        body = finished(server, name, seconds=PATIENCE)
        until("the last word", lambda: conditions_of(server.get("characterloras", name, "surtr"))["Succeeded"]["status"] == "True")
        return Life(remains(server, body), here.kept.ends, here.proxy.writes)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Life]]]:
    """All of them, each on its way."""
    folder = tmp_path_factory.mktemp("lives")
    with api_server(tmp_path_factory.mktemp("control-plane")) as server, paper_node(server, PreemptedOnce(server)):
        proxies = Proxies(server)
        try:
            with ThreadPoolExecutor(len(SCENES)) as threads:
                yield {name: threads.submit(live, server, proxies, folder, name) for name in SCENES}
        finally:
            proxies.close()


@pytest.fixture
def usual(lives: Mapping[str, Future[Life]]) -> Json:
    """What a life leaves on a good day."""
    usual = lives["good-day"].result().remains
    assert ("True", "Succeeded") == usual["conditions"]["Succeeded"][:2]
    assert [(1, "Preempted"), (2, "Succeeded")] == [attempt[:2] for attempt in usual["attempts"]]
    return usual


@pytest.mark.fault(Fault.WATCH_ERROR)
def test_errors_in_the_middle_of_a_watch_end_the_operator_and_nothing_else(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    life = lives["watch-errors"].result()

    assert usual == life.remains
    assert 3 == life.ends


@pytest.mark.fault(Fault.WATCH_ERROR)
def test_an_error_ends_the_operator_also_while_another_watch_begins_anew(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    life = lives["watch-broken"].result()

    assert usual == life.remains
    assert 1 == life.ends


@pytest.mark.fault(Fault.WATCH_EXPIRED)
def test_a_watch_that_has_expired_is_begun_anew(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    life = lives["watch-expired"].result()

    assert usual == life.remains
    assert 0 == life.ends


@pytest.mark.fault(Fault.OVERLOADED)
def test_requests_that_are_turned_away_are_made_again(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    life = lives["refused"].result()

    assert usual == life.remains
    assert 0 == life.ends


@pytest.mark.fault(Fault.CONFLICT)
def test_what_was_done_and_not_said_is_not_done_twice(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    assert usual == lives["done-unsaid"].result().remains


@pytest.mark.fault(Fault.AWAY)
def test_an_api_server_that_goes_away_is_waited_for(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    life = lives["away"].result()

    assert usual == life.remains
    assert 1 <= life.ends


@pytest.mark.fault(Fault.WATCH_SILENT)
def test_a_watch_that_falls_silent_is_noticed_and_made_up_for(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    life = lives["silent"].result()

    assert usual == life.remains
    assert 0 == life.ends


@pytest.mark.fault(Fault.EVENTS_DISORDERED)
def test_events_that_repeat_themselves_come_late_or_never(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    life = lives["disorder"].result()

    assert usual == life.remains
    assert 0 == life.ends


@pytest.mark.fault(Fault.CONFLICT)
def test_what_changed_while_it_was_looked_at_is_looked_at_again(lives: Mapping[str, Future[Life]], usual: Json) -> None:
    assert usual == lives["changed"].result().remains
