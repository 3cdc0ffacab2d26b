"""Which step to use: does the lowest held-out loss find it? `make bench-best`, or `python benchmarks/best_step.py`.

Ten characters that the toy world's base model has never seen are taught too fast and too long. A classifier that knows drawings and no
training judges pictures of every save; the step that the trainer chooses is compared with the last one. The table goes
to benchmarks/results. The exit code is 1 where the choice is not better more often than worse. An interrupted measurement goes on where
it was: what is finished lies in $CHARALORA_CACHE/best-step.
"""

import argparse
import itertools
import os
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "examples"))

import measured_on  # noqa: E402
from best_step_cells import Setting, Taught, teach_all  # noqa: E402
from best_step_report import CHOICE, LAST, counts, markdown, write  # noqa: E402

from charalora_spec.outcome import TrainingError  # noqa: E402
from toyworld.characters import CHARACTERS  # noqa: E402


def main() -> int:
    """Teach whom was not taught yet, print the table, write the files."""
    parser = argparse.ArgumentParser(description="Compare the chosen step with the last one.")
    parser.add_argument("--characters", type=int, default=len(CHARACTERS), help="how many of the ten")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes, one thread each")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results", help="where the results go")
    asked = parser.parse_args()
    names, setting, cache = list(CHARACTERS)[: asked.characters], Setting(), measured_on.cache_folder("best-step")
    print(f"best-step: {len(names)} characters, {asked.workers} at a time; what is finished is kept in {cache}.", flush=True)
    os.environ.update(measured_on.WORKER)  # read when the worker processes start
    done = itertools.count(1)

    def on_done(taught: Taught) -> None:
        print(f"best-step: [{next(done):2}/{len(names)}] {taught.name} ({taught.seconds:.0f} s)", flush=True)

    try:
        found = teach_all(names, setting, ROOT / "examples/toyworld/base", cache, asked.workers, on_done)
    except KeyboardInterrupt:
        print("best-step: interrupted; the same command goes on where it was.", file=sys.stderr)
        return 130
    except TrainingError as error:
        print(f"best-step: {error.message}", file=sys.stderr)
        return error.outcome.exit_code or 1
    facts = {
        "machine": measured_on.described(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "peft")),
        "a character": f"{max(taught.seconds for taught in found):.0f} s at most, one thread each",
        "date and commit": f"{measured_on.today()}, {', '.join(sorted({taught.commit for taught in found}))}",
    }
    write(found, setting, facts, asked.output)
    print(f"\n{markdown(found, setting, facts)}\nbest-step: the table and the figures are in {asked.output}.")
    better = counts(found, setting)
    return 0 if better[CHOICE] > better[LAST] else 1


if __name__ == "__main__":
    sys.exit(main())
