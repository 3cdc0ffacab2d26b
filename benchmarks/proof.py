"""The proof that training learns: `make proof`, or `python benchmarks/proof.py`.

The demo's character is taught to the toy world's base model with the settings of `examples/surtr.yaml`: the word alone, the LoRA alone,
both together, and both at the guide's rates, with several seeds each. What was learned is measured by the loss on pictures that no training
saw, and by a classifier, trained on drawings alone, that says what generated pictures show. Training and pictures run the code that users
run; the files are loaded by diffusers too.

Tables, figures and pictures go to benchmarks/results. The exit code is 1 where the proof does not hold. An interrupted proof goes on where
it was: what is finished lies in $CHARALORA_CACHE/proof, under a digest of all that decides it, the trainer's source included.
"""

import argparse
import itertools
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "examples"))

import measured_on  # noqa: E402
from proof_cells import Cell, Measured, compute_all, digest_of  # noqa: E402
from proof_report import Proof, markdown, shortcomings, write  # noqa: E402
from proof_training import BOTH, GUIDE, LORA, WORD, Inputs, resource_of  # noqa: E402

from charalora_spec.outcome import TrainingError  # noqa: E402
from charalora_trainer.rates import effective_rates  # noqa: E402
from toyworld.characters import CHARACTERS  # noqa: E402


def main() -> int:
    """Compute what is not computed yet, print the tables, write the files."""
    asked = _arguments()
    if not asked.base.is_dir():
        print(f"proof: there is no base model in {asked.base}; `python -m toyworld.pretrain export` writes it.", file=sys.stderr)
        return 1
    began = time.monotonic()
    inputs = Inputs(asked.resource, asked.base, asked.dataset)
    courses = (BOTH, GUIDE, LORA, WORD)  # the longest first
    cells = [Cell(inputs, course, seed, asked.pictures) for course in courses for seed in range(asked.seeds)]
    cells.append(Cell(inputs, None, 0, asked.pictures))
    cache = measured_on.cache_folder("proof")
    print(f"proof: {len(cells)} cells, {asked.workers} at a time; what is finished is kept in {cache}.", flush=True)
    os.environ.update(measured_on.WORKER)  # read when the worker processes start
    done = itertools.count(1)

    def on_done(cell: Cell, result: Measured) -> None:
        print(f"proof: [{next(done):2}/{len(cells)}] {_line(cell, result)}", flush=True)

    try:
        measured = compute_all(cells, cache, asked.workers, on_done)
    except KeyboardInterrupt:
        print("proof: interrupted; the same command goes on where it was.", file=sys.stderr)
        return 130
    except TrainingError as error:
        print(f"proof: {error.message}", file=sys.stderr)
        return error.outcome.exit_code or 1
    proof = Proof(measured, _facts(inputs, measured, asked.workers))
    write(proof, CHARACTERS[resource_of(inputs, BOTH, 0, ROOT).spec.character.name], asked.output)
    print(f"\n{markdown(proof)}\nproof: {(time.monotonic() - began) / 60:.1f} minutes; tables, figures and pictures are in {asked.output}.")
    return 1 if shortcomings(proof) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prove that training learns a character.")
    parser.add_argument("--resource", type=Path, default=ROOT / "examples/surtr.yaml", help="whose settings are proven")
    parser.add_argument("--base", type=Path, default=ROOT / "examples/toyworld/base", help="the base model")
    parser.add_argument("--dataset", type=Path, default=ROOT / "examples/toyworld/surtr_arknights", help="the captioned pictures")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--pictures", type=int, default=64, help="generated for each row, a multiple of 16")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes, one thread each")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results", help="where the results go")
    return parser.parse_args()


def _line(cell: Cell, measured: Measured) -> str:
    first = measured.rows[0]
    return f"{cell.title}: held-out loss {first.held_out_loss:.4f}, recognised in {first.recognition:.2f} ({measured.seconds:.0f} s)"


def _facts(inputs: Inputs, measured: list[Measured], workers: int) -> dict[str, str]:
    """What the figures depend on."""
    training = resource_of(inputs, BOTH, 0, ROOT).spec.training
    rates, schedule = effective_rates(training, 1), training.learning_rate.schedule.value
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "peft"))
    return {
        "training": f"{training.steps} steps of {training.batch_size} pictures, clip skip {training.clip_skip}, {training.precision.value}",
        "rates": f"UNet {rates.unet:g}, text encoder {rates.text_encoder:g}, word {rates.embedding:g}, {schedule}",
        "base model": digest_of(inputs.base.rglob("*"))[:12],
        "a training": f"{max(cell.training_seconds for cell in measured):.0f} s at most, {workers} at a time, one thread each",
        "machine": measured_on.described(),
        "libraries": libraries,
        "date and commit": f"{measured_on.today()}, {measured_on.commit()}",
    }


if __name__ == "__main__":
    sys.exit(main())
