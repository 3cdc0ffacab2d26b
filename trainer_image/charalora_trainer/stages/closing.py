"""The end of a training: what is published, the proof in another program, the report, and the manifest last."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import platform, python_version

import torch
import yaml

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Keep
from charalora_trainer.best import Choice
from charalora_trainer.export import civitai, hcp, manifest, peft, proof, webui
from charalora_trainer.export.diffusers_proof import prove_in_diffusers
from charalora_trainer.export.model_card import Sample
from charalora_trainer.job import Job
from charalora_trainer.rates import effective_rates
from charalora_trainer.stages.facts import training_facts
from charalora_trainer.stages.report import EffectiveRates, RunFacts
from charalora_trainer.stages.report_sources import dataset_summary, write_facts
from charalora_trainer.storage import Store
from charalora_trainer.storage.uploads import Uploads
from charalora_trainer.weights import Adapter, Word
from charalora_trainer.words import embedding

LIBRARIES = ("charalora", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


def publish(job: Job, output: Path, choice: Choice) -> None:
    """Write what a user takes away, the civitai pair and the diffusers folder, and prove both; the pair in diffusers' own loader.

    Raises:
        TrainingError: `ExportInvalid` when a file is not what was trained.
    """
    adapter, word = read_step(output, job.run.spec.character.name, choice.step)
    samples = tuple(_samples(output / "previews" / str(choice.step)))
    facts = training_facts(job, choice.step, datetime.now(UTC))
    negative, why = job.run.spec.preview.negative_prompt, choice.sentence(facts.steps)
    civitai.write(civitai.Bundle(adapter, word, facts, samples, negative, why), output / "civitai")
    lora, words = output / "civitai" / f"{word.name}.safetensors", output / "civitai" / f"{word.name}.pt"
    proof.prove_peft(peft.write(adapter, output / "diffusers"), adapter)
    prove_in_diffusers(job.base_model, lora, adapter, {words: word}, webui.precision(lora))


def _samples(folder: Path) -> Iterator[Sample]:
    """The previews of a step with what the file beside each says, in the order they were made."""
    numbered = sorted((int(path.name.split("-")[0]), path) for path in folder.glob("*.png"))
    for _, path in numbered:
        info = yaml.safe_load(path.with_name("-".join(path.name.split("-")[:2]) + "-info.yaml").read_text(encoding="utf-8"))
        yield Sample(path, info["preview"]["prompts"][0], info["seed"])


def read_step(output: Path, name: str, step: int) -> tuple[Adapter, Word]:
    """LoRA and word of a save step, from the files that a user would take."""
    folder = output / "ckpts"
    return hcp.read_step(folder, step), Word(name, embedding.load(folder / f"{name}-{step}.pt").vectors)


def drop_unwanted(job: Job, output: Path, store: Store, uploads: Uploads, step: int) -> None:
    """Remove the checkpoints that `output.keep` does not want, here and in the store.

    Raises:
        TrainingError: What an upload met: none may be under way, as it would lose its file here or bring it back there.
    """
    if job.run.spec.output.keep is Keep.ALL:
        return
    uploads.wait()
    unwanted = [path for path in (output / "ckpts").iterdir() if path.stem.rpartition("-")[2] != str(step)]
    store.delete(path.relative_to(output).as_posix() for path in unwanted)
    for path in unwanted:
        path.unlink()


def note_facts(job: Job, output: Path, began: float) -> None:
    """Keep what the report tells and no other file says; `began` is the monotonic time of this attempt's start."""
    training = job.run.spec.training
    rates = effective_rates(training, job.processes)
    write_facts(
        output,
        RunFacts(
            dataset=dataset_summary(job.plan, job.dataset, job.warnings),
            rates=EffectiveRates(rates.unet, rates.text_encoder, rates.embedding),
            images_per_step=training.batch_size * job.processes * training.gradient_accumulation,
            started=job.claim.since,
            seconds=time.monotonic() - began,
            provenance=_provenance(job),
        ),
    )


def upload(job: Job, output: Path, store: Store, uploads: Uploads) -> manifest.Manifest:
    """Send what is not in the store yet, make sure that everything is, and write the manifest.

    Raises:
        TrainingError: What an upload met, or `OutputOccupied` when another start has taken the prefix.
    """
    complete = manifest.of_folder(output, job.claim.identity)
    uploads.wait()
    for file in manifest.strays(complete, output, store):
        uploads.submit(output / file.path, file.path)
    uploads.wait()
    if strays := manifest.strays(complete, output, store):
        raise TrainingError(
            Outcome.EXPORT_INVALID,
            f"{len(strays)} files are not in {store.uri} as they were sent, the first is {strays[0].path}; "
            "make sure that nothing else writes or deletes there, and run again.",
        )
    job.claim.verify(store)
    store.write(manifest.FILE, complete.to_json().encode())
    return complete


def _provenance(job: Job) -> tuple[tuple[str, str], ...]:
    spec = job.run.spec
    libraries = tuple((name, version(name)) for name in LIBRARIES)
    return (
        ("base model", spec.base_model.uri),
        ("data set", spec.dataset.uri),
        ("data set digest", job.plan.digest),
        ("training digest", job.claim.identity),
        ("attempt", str(job.claim.attempt)),
        ("processes", str(job.processes)),
        ("device", torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"),
        ("platform", f"{platform(terse=True)}, Python {python_version()}"),
        *libraries,
    )
