"""Whole trainings for tests: a tiny base model, a few pictures in a bucket, and the command line on them in processes of their own.

Importing torch and diffusers takes longer than such a training, so `start` forks from a server that has imported them already
(multiprocessing's forkserver). What runs in the fork is `charalora_trainer.__main__.main`; it can be signalled and killed like any process.
"""

import functools
import io
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from builders import character_lora_wire
from charalora_spec.outcome import Outcome
from services import S3

WORD = "surtr_arknights"
TAGS = ("1girl", "solo", "smile", "red eyes", "horns", "night", "sword", "outdoors")
SECONDS = 300.0  # nothing here takes more than twenty, but machines are shared
QUICK: dict[str, Any] = {
    "training.steps": 8,
    "training.saveEvery": 4,
    "training.batchSize": 2,
    "training.precision": "fp32",
    "training.learningRate.warmupSteps": 2,
    "training.lora.unetRank": 2,
    "training.lora.textEncoderRank": 2,
    "preview.width": 64,
    "preview.height": 64,
    "preview.inferenceSteps": 2,
}
"""Eight steps with a small model, a save every four."""
PRELOADED = ("charalora_trainer.stages.learn", "charalora_trainer.stages.publish", "charalora_trainer.stages.run", "joined_gradient")


def pictures(count: int = 6, width: int = 64, height: int = 64) -> dict[str, bytes]:
    """A data set of random pictures and captions, the same at every call."""
    drawn = random.Random(count)
    files = {}
    for number in range(count):
        files[f"{number:02}.png"] = picture(width, height, seed=number)
        files[f"{number:02}.txt"] = ", ".join(drawn.sample(TAGS, 4)).encode()
    return files


def picture(width: int = 64, height: int = 64, seed: int = 0, kind: str = "PNG") -> bytes:
    """A picture file with soft random colours."""
    small = Image.frombytes("RGB", (4, 4), random.Random(seed).randbytes(48))
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def same_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two files hold the same tensors, bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def differences(expected: Mapping[str, bytes], found: Mapping[str, bytes]) -> list[str]:
    """The files in which two finished trainings differ, as far as what was learned, drawn and measured goes; times may differ.

    TensorBoard's files are as many as there were attempts, so they are compared as one curve each.
    """
    curves, found_curves = (_curves(files) for files in (expected, found))
    plain, found_plain = ({name: files[name] for name in files if not name.startswith("tblog/")} for files in (expected, found))
    lacking = sorted(plain.keys() ^ found_plain.keys())
    differing = [
        name for name in sorted(plain.keys() & found_plain.keys()) if _content(name, plain[name]) != _content(name, found_plain[name])
    ]
    return [*lacking, *differing, *(["tblog"] if curves != found_curves else [])]


def tensors_of(name: str, data: bytes) -> dict[str, Tensor]:
    """What a LoRA or a word's file holds, by name."""
    if name.endswith(".pt"):
        return dict(torch.load(io.BytesIO(data), weights_only=True)["string_to_param"])
    return load(data)


def _content(name: str, data: bytes) -> Any:
    """What of a file must not depend on when and where it was made."""
    match name.rpartition(".")[2]:
        case "safetensors" | "pt":
            return {key: (str(tensor.dtype), tensor.numpy().tobytes()) for key, tensor in tensors_of(name, data).items()}
        case "png":
            return Image.open(io.BytesIO(data)).tobytes()
        case "log":
            return re.findall(r"Step = .*|Held-out .*", data.decode())
        case "jsonl":
            return data
    return None


def _curves(files: Mapping[str, bytes]) -> dict[str, list[tuple[int, float]]]:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            if name.startswith("tblog/"):
                Path(folder, Path(name).name).write_bytes(data)
        board = EventAccumulator(folder).Reload()
        return {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, the last line on stderr, and what it left for a container's owner."""

    code: int
    out: str
    err: str
    told: dict[str, Any]

    @property
    def outcome(self) -> Outcome:
        """What the exit code stands for."""
        return Outcome.of_exit_code(self.code)

    @property
    def line(self) -> str:
        """The last line that a person sees."""
        return self.err.rstrip().rpartition("\n")[2]


Program = Callable[[list[str], dict[str, str], Path], None]
"""From arguments, environment and folder; a function of a module."""


class Running:
    """A command line under way, in a process of its own.

    Args:
        arguments: After `charalora`.
        environment: The whole environment of the process.
        folder: For its stdout, its stderr and its termination message.
        program: What runs in the process; without one, `charalora`.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, program: Program | None = None) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        started = fork_context().Process(target=program or charalora, args=(list(arguments), dict(environment), folder))
        self._process: ForkServerProcess = started
        self._process.start()

    @property
    def err(self) -> str:
        """What stands on stderr so far."""
        file = self._folder / "err"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    def wait(self, seconds: float = SECONDS) -> Ended:
        """How it ended; a process that takes longer is killed, and the test fails."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.err}")
        told = self._folder / "told"
        return Ended(
            self._process.exitcode,
            (self._folder / "out").read_text(encoding="utf-8"),
            self.err,
            json.loads(told.read_text(encoding="utf-8")) if told.exists() else {},
        )

    def terminate(self) -> None:
        """SIGTERM, as Kubernetes asks a pod to stop."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: no chance to save anything."""
        self._send(signal.SIGKILL)
        self._process.join()

    def until(self, pattern: str, seconds: float = SECONDS) -> None:
        """Return when a line on stderr matches."""
        self.until_true(lambda: re.search(pattern, self.err) is not None, seconds)

    def until_true(self, condition: Any, seconds: float = SECONDS) -> None:
        """Return when something holds; a process that ends before, or takes too long, fails the test."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = not self.alive
            if (ended and not condition()) or time.monotonic() > deadline:
                raise AssertionError(f"ended, or waited {seconds} s in vain:\n{self.err}")
            time.sleep(0.005)

    def _send(self, number: int) -> None:
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, number)


@dataclass(frozen=True)
class TrainingJob:
    """A resource whose data set and output lie in a bucket, and the ways to run it.

    Attributes:
        s3: The bucket, as the trainer reaches it.
        folder: Of this test, for workspaces and logs.
        base: Uri of the base model.
        fields: What the resource changes, by path below `spec`.
        environment: Variables beside the credentials.
    """

    s3: S3
    folder: Path
    base: str
    fields: tuple[tuple[str, Any], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def with_fields(self, **fields: Any) -> "TrainingJob":
        """The same with other fields, as `builders.character_lora` takes them."""
        return replace(self, fields=(*self.fields, *fields.items()))

    def with_environment(self, **variables: str) -> "TrainingJob":
        """The same with other environment variables."""
        return replace(self, environment=(*self.environment, *variables.items()))

    @property
    def resource(self) -> dict[str, Any]:
        """The resource as it stands in a file."""
        fields = {
            "dataset.uri": self.s3.uri("dataset/"),
            "baseModel.uri": self.base,
            "output.uri": self.s3.uri("output/"),
            "storage.endpoint": self.s3.endpoint,
        }
        return character_lora_wire(**(QUICK | fields | dict(self.fields)))

    def upload_dataset(self, files: Mapping[str, bytes] | None = None) -> "TrainingJob":
        """Put a data set into the bucket."""
        for name, content in (pictures() if files is None else files).items():
            self.s3.put(f"dataset/{name}", content)
        return self

    def start(self, *options: str, work: str = "work", processes: int = 1) -> Running:
        """`charalora run` on the resource with a workspace of that name."""
        return self.start_command(*self.arguments(*options, work=work, processes=processes))

    def arguments(self, *options: str, work: str = "work", processes: int = 1, command: str = "run") -> list[str]:
        """What `charalora` is given; the resource is written for it."""
        file = self.folder / "surtr.json"
        file.write_text(json.dumps(self.resource), encoding="utf-8")
        return [command, str(file), "--processes", str(processes), "--work", str(self.folder / work), *options]

    def start_command(self, *arguments: str) -> Running:
        """Any command with the environment of this job."""
        started = len(list(self.folder.glob("run-*")))
        return Running(arguments, self.variables, self.folder / f"run-{started}")

    def run(self, *options: str, work: str = "work", processes: int = 1) -> Ended:
        """`charalora run`, to its end."""
        return self.start(*options, work=work, processes=processes).wait()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a command: the bucket's owner, no other AWS settings, no network but this machine."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CHARALORA_"))}
        settings = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
        local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "HF_HUB_OFFLINE": "1"}
        return plain | settings | local | self.s3.environment | dict(self.environment)

    def output(self) -> dict[str, bytes]:
        """Every file of the output prefix."""
        return {key: self.s3.get(f"output/{key}") for key in self.output_keys()}

    def local(self, path: str = "", work: str = "work") -> Path:
        """A file of the output as it stands in a workspace."""
        return self.folder / work / "output" / path

    def local_states(self, work: str = "work") -> list[int]:
        """The steps of the whole states in a workspace."""
        return sorted(int(folder.name[5:]) for folder in self.local("state", work).glob("step-*"))

    def states(self) -> list[int]:
        """The steps of the whole states in the bucket."""
        return sorted(int(key[11:17]) for key in self.output_keys() if re.fullmatch(r"state/step-\d{6}/manifest.json", key))

    def output_keys(self) -> list[str]:
        """The names of the files in the output prefix."""
        keys = self.s3.keys()
        return [key.removeprefix("output/") for key in keys if key.startswith("output/")]


@functools.cache
def fork_context() -> ForkServerContext:
    """Starts processes that have everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def charalora(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """In the fork: become the command."""
    os.environ.clear()
    os.environ.update(environment, CHARALORA_TERMINATION_LOG=str(folder / "told"))
    with ExitStack() as stack:
        for descriptor, name in ((1, "out"), (2, "err")):
            file = stack.enter_context((folder / name).open("wb"))
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1, encoding="utf-8") for number in (1, 2))

    from charalora_trainer.__main__ import main

    sys.exit(main(arguments))
