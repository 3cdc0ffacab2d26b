"""The operator as a process of its own, and one that is started again whenever it ends, as Kubernetes does it.

Processes are forked from one that has imported everything, so that a test can afford hundreds; each is killed like any other.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["charalora_operator.__main__"])
# Whoever starts a process also asks all others how they ended, and an answer can be read once.
_ONE_AT_A_TIME = Lock()


def settings_of(*namespaces: str, **more: Any) -> dict[str, Any]:
    """Settings with which a test does not wait longer than it must."""
    return {
        "namespaces": namespaces,
        "trainerImage": "charalora/trainer:1",
        "preflightImage": "charalora/preflight:1",
        "resyncSeconds": 10,
        "scrapeSeconds": 1,
        "lease": {"durationSeconds": 5, "renewSeconds": 1},
        "http": {"port": 0},
        "log": {"format": "text"},
        **more,
    }


def _main(settings: str, kubeconfig: str, log: str, environment: Mapping[str, str]) -> None:
    """What the process does: `charalora-operator`, its output in a file. Another environment takes a program of its own."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    arguments = ["--settings", settings, "--kubeconfig", kubeconfig]
    if environment:
        os.execve(sys.executable, [sys.executable, "-m", "charalora_operator", *arguments], {**os.environ, **environment})  # noqa: S606
    from charalora_operator.__main__ import main

    sys.argv = ["charalora-operator", *arguments]
    main()


class Operator:
    """A running operator."""

    def __init__(
        self,
        folder: Path,
        kubeconfig: Path,
        settings: Mapping[str, Any],
        name: str = "operator",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = folder / f"{name}.log"
        file = folder / f"{name}.json"
        file.write_text(json.dumps(settings))
        self._process = _FORKS.Process(target=_main, args=(str(file), str(kubeconfig), str(self.log), environment or {}), daemon=True)
        with _ONE_AT_A_TIME:
            self._process.start()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        with _ONE_AT_A_TIME:
            return self._process.is_alive()

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
        os.kill(self._pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on as if nothing had been."""
        os.kill(self._pid, signal.SIGCONT)

    def says(self, words: str) -> bool:
        """Whether its log has these words."""
        return self.log.exists() and words in self.log.read_text()

    def ended(self, seconds: float) -> int | None:
        """The exit code, once there is one; None when that takes longer."""
        return self._ended(seconds)

    def kill(self) -> None:
        """At once, without a word."""
        with _ONE_AT_A_TIME:
            self._process.kill()
        self._ended(30)

    def stop(self) -> None:
        """As Kubernetes asks for it."""
        with _ONE_AT_A_TIME:
            self._process.terminate()
        code = self._ended(30)
        assert code == 0, f"The operator ended with {code}: {self.log.read_text()[-3000:]}"

    @property
    def _pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def _ended(self, seconds: float) -> int | None:
        """The exit code, once there is one."""
        wait([self._process.sentinel], seconds)
        with _ONE_AT_A_TIME:
            return self._process.exitcode


class Kept:
    """An operator that is started again whenever it ends.

    Attributes:
        started: The processes so far, the running one last.
    """

    def __init__(self, start: Callable[[int], Operator]) -> None:
        self.started: list[Operator] = []
        self._start = start
        self._over = Event()
        self._thread = Thread(target=self._keep, name="kept operator")

    @property
    def ends(self) -> int:
        """How often it ended by itself."""
        return len(self.started) - 1

    def begin(self) -> None:
        """Start it."""
        self.started.append(self._start(0))
        self._thread.start()

    def end(self) -> None:
        """End it, for good."""
        self._over.set()
        self._thread.join()
        self.started[-1].kill()

    def _keep(self) -> None:
        while not self._over.wait(0.2):
            if not self.started[-1].runs:
                self.started.append(self._start(len(self.started)))


@contextmanager
def operator(
    folder: Path, kubeconfig: Path, settings: Mapping[str, Any], name: str = "operator", environment: Mapping[str, str] | None = None
) -> Iterator[Operator]:
    """One, until the block ends."""
    running = Operator(folder, kubeconfig, settings, name, environment)
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def kept_operator(folder: Path, kubeconfig: Path, settings: Mapping[str, Any], name: str = "operator") -> Iterator[Kept]:
    """One that is started again whenever it ends, until the block does."""
    kept = Kept(lambda number: Operator(folder, kubeconfig, settings, f"{name}-{number}"))
    kept.begin()
    try:
        yield kept
    finally:
        kept.end()
