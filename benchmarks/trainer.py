"""Images a second and peak memory of our training against the plain diffusers + peft + accelerate loop, side by side.

    python benchmarks/trainer.py --model toy --precision fp32
    python benchmarks/trainer.py --model sd15 --precision bf16 --size 512x704 --batch 1 --steps 2 --rounds 3

Each side is a process of its own. They take turns, a round of steps each, so that whatever else the machine does meets all of them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

from record import RESULTS, ROOT, listed, machine, write

OURS = "ours"
SIDES = {
    OURS: "Charalora",
    "compiled": "Charalora with torch.compile",
    "cached": "plain loop, latents cached beforehand",
    "documented": "plain loop as documented",
}
SIZES = {"toy": "128x128", "sd15": "512x704"}
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")

Setting = Mapping[str, str | int]


class SideFailedError(Exception):
    """A side ended before it was done."""


class Side:
    """A process that trains round by round, and what its rounds took."""

    def __init__(self, name: str, setting: Setting, folder: Path) -> None:
        self.name = name
        self.rounds: list[dict[str, float]] = []
        self._log = folder / f"{name}.log"
        command = [sys.executable, str(ROOT / "benchmarks" / "trainer_side.py"), name, json.dumps(setting), str(folder)]
        paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])
        pipe = subprocess.PIPE
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=os.environ | {"PYTHONPATH": paths}
            )
        self._said: IO[str] = cast("IO[str]", self._process.stdout)
        self._told: IO[str] = cast("IO[str]", self._process.stdin)

    def answer(self) -> dict[str, Any]:
        """The next line that it says.

        Raises:
            SideFailedError: It ended instead.
        """
        line = self._said.readline()
        if not line:
            raise SideFailedError(f"{self.name} ended with exit code {self._process.wait()}:\n{self._log.read_text()[-4000:]}")
        return dict(json.loads(line))

    def train_round(self) -> None:
        """Let it train for one round, and keep what that took."""
        print(file=self._told, flush=True)
        self.rounds.append(self.answer())

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(name: str, setting: Setting, folder: Path) -> Iterator[Side]:
    """A side for a while."""
    side = Side(name, setting, folder)
    try:
        yield side
    finally:
        side.end()


def measure(setting: Setting, names: Sequence[str]) -> dict[str, Any]:
    """Compare losses and gradients once, then let the sides take turns."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        with running("agreement", setting, Path(folder)) as both:
            agreement = both.answer()
        say(f"Loss and gradients of both sides: {agreement_text(agreement)}.")
        sides = []
        for name in names:
            sides.append(stack.enter_context(running(name, setting, Path(folder))))
            sides[-1].answer()  # the first round warms up
            say(f"{SIDES[name]}: ready.")
        for number in range(int(setting["rounds"])):
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                side.train_round()
            say(
                f"Round {number + 1} of {setting['rounds']}: " + ", ".join(f"{side.name} {side.rounds[-1]['wall']:.2f} s" for side in sides)
            )
        return {"setting": dict(setting), "agreement": agreement, "sides": {side.name: side.rounds for side in sides}}


def summary(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Each side's figures; its ratios are of ours to it, above 1 where ours is faster. A round is compared with the same round."""
    images = result["setting"]["batch"] * result["setting"]["steps"]
    ours = result["sides"][OURS]
    rows = {}
    for name, rounds in result["sides"].items():
        speeds = [images / each["wall"] for each in rounds]
        rows[name] = {
            "images_per_second": median(speeds),
            "slowest": min(speeds),
            "fastest": max(speeds),
            "processor_seconds_per_image": median(each["processor"] / images for each in rounds),
            "ratio": median(their["wall"] / our["wall"] for their, our in zip(rounds, ours, strict=True)),
            "processor_ratio": median(their["processor"] / our["processor"] for their, our in zip(rounds, ours, strict=True)),
            "peak_mib": max(each["peak_mib"] for each in rounds),
        }
    return rows


def table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    memory = "CUDA memory" if result["setting"]["device"] == "cuda" else "resident memory"
    lines = [
        f"| side | images/s, median [slowest … fastest round] | CPU s/image | Charalora is faster by | by CPU time | peak {memory} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in summary(result).items():
        speed = f"{row['images_per_second']:.3g} [{row['slowest']:.3g} … {row['fastest']:.3g}]"
        ratios = "| |" if name == OURS else f"{row['ratio']:.2f} × | {row['processor_ratio']:.2f} × |"
        lines.append(f"| {SIDES[name]} | {speed} | {row['processor_seconds_per_image']:.3g} | {ratios} {row['peak_mib']:.0f} MiB |")
    return "\n".join(lines)


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """How equal both sides are, in words."""
    ours, theirs = agreement["loss"]
    return (
        f"loss {ours:.6f} and {theirs:.6f} ({agreement['loss_apart']:.1e} apart), gradients of {agreement['matrices']} matrices "
        f"{agreement['gradients_apart']:.1e} apart (the worst matrix {agreement['worst_matrix_apart']:.1e})"
    )


def machine_of(device: str) -> dict[str, Any]:
    """Where this was measured."""
    facts = machine(LIBRARIES)
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        facts["gpu"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return facts


def document(result: Mapping[str, Any]) -> str:
    """The result as a page."""
    setting, facts = result["setting"], result["machine"]
    parts = [
        f"# {setting['model']}, {setting['precision']}, {setting['width']} × {setting['height']}, batch {setting['batch']}",
        table(result),
        f"{setting['rounds']} rounds of {setting['steps']} steps each, the sides in turns.",
        f"On the same batch: {agreement_text(result['agreement'])}.",
        listed(facts),
    ]
    return "\n\n".join(parts) + "\n"


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Compare our training with the plain diffusers + peft + accelerate loop.")
    parser.add_argument("--model", choices=SIZES, default="toy", help="toy, or sd15: the real shapes with random weights")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--size", help="width x height of the pictures; 128x128 for toy, 512x704 for sd15")
    parser.add_argument("--batch", type=int, default=1, help="pictures a step")
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--against", choices=[name for name in SIDES if name != OURS], nargs="+", default=["cached", "documented"])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result files")
    return parser.parse_args(given)


def say(sentence: str) -> None:
    """What happens now."""
    print(f"bench: {sentence}", flush=True)


def main(given: Sequence[str]) -> int:
    """Measure, print the table, write the files."""
    asked = arguments(given)
    width, height = map(int, (asked.size or SIZES[asked.model]).split("x"))
    setting = {"model": asked.model, "precision": asked.precision, "width": width, "height": height}
    setting |= {"batch": asked.batch, "steps": asked.steps, "rounds": asked.rounds, "device": asked.device}
    facts = machine_of(asked.device)
    try:
        result = measure(setting, [OURS, *asked.against]) | {"machine": facts}
    except SideFailedError as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"\n{table(result)}\n")
    page = write(result, f"{asked.model}-{asked.precision}", document(result), asked.output)
    say(f"Written to {os.path.relpath(page)}.")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the sides end too
    sys.exit(main(sys.argv[1:]))
