"""How many trainings one operator carries: thousands of resources on a real API server, beside a plain client that writes the same objects.

    python benchmarks/load.py                                        # 1,000 and 10,000 resources, then 200 running trainings
    python benchmarks/load.py --sizes 100 --running 20               # small
    python benchmarks/load.py --operator ../before/operator          # another state of the operator's source, to compare with

What each part measures stands in README.md here. The exit code is 1 where a resource was lost.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load_client import client_of
from load_phases import LostError, objects
from load_report import page, table
from load_trainings import trainings
from load_world import RefusedError, world
from record import RESULTS, machine, write

LIBRARIES = ("kopf", "httpx2", "aiohttp", "pydantic")


async def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each part on a control plane of its own."""
    setting = {name: getattr(asked, name) for name in ("sizes", "rate", "seconds", "plain", "running", "watched")}
    result: dict[str, Any] = {"setting": setting, "sizes": {}, "trainings": None}
    for size in asked.sizes:
        began = time.monotonic()
        with world(folder / f"objects-{size}", nodes=False, operator=asked.operator) as place:
            async with client_of(place) as client:
                result["sizes"][str(size)] = await objects(place, client, asked, size, say)
        say(f"{size} resources were measured in {time.monotonic() - began:.0f} s.")
    if asked.running:
        with world(folder / "trainings", nodes=True, operator=asked.operator) as place:
            async with client_of(place) as client:
                result["trainings"] = await trainings(place, client, asked, say)
    return result


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Measure how many trainings one operator carries.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10000], help="how many resources there are")
    parser.add_argument("--rate", type=float, default=10, help="resources a second of the steady stream")
    parser.add_argument("--seconds", type=float, default=30, help="length of the steady stream")
    parser.add_argument("--plain", type=int, default=1000, help="resources of the plain client, at most")
    parser.add_argument("--running", type=int, default=200, help="trainings on simulated nodes; 0: none")
    parser.add_argument("--watched", type=float, default=45, help="seconds for which those are watched")
    parser.add_argument("--operator", type=Path, help="folder of another state of the operator's source, to compare with")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result files")
    return parser.parse_args(given)


def say(sentence: str) -> None:
    """What happens now."""
    print(f"bench: {sentence}", flush=True)


def main(given: Sequence[str]) -> int:
    """Measure, print the tables, write the files."""
    asked = arguments(given)
    facts = machine(LIBRARIES)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = asyncio.run(measure(asked, Path(folder)))
    except (LostError, RefusedError) as error:
        print(error, file=sys.stderr)
        return 1
    result |= {"machine": facts | {"load at the end": round(os.getloadavg()[0], 1), "seconds": round(time.monotonic() - began)}}
    print(f"\n{table(result)}\n")
    written = write(result, "operator", page(result), asked.output)
    say(f"Written to {os.path.relpath(written)}.")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything ends that was started
    sys.exit(main(sys.argv[1:]))
