"""Everything that can be known before a GPU is claimed: data set, captions, trigger word, base model, prompts. Needs no torch."""

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLora, CharacterLoraSpec, Keep, Storage, effective_preview_prompts
from charalora_trainer import basemodel
from charalora_trainer.basemodel import BaseModelFacts, Source
from charalora_trainer.data import captions
from charalora_trainer.data.batches import order
from charalora_trainer.data.dataset import DatasetPlan, read_dataset
from charalora_trainer.data.held_out import SMALLEST_DATASET, held_out_count
from charalora_trainer.finding import Finding
from charalora_trainer.stages.check_summary import Sample, summary_lines
from charalora_trainer.words.emphasis import PromptError, parse
from charalora_trainer.words.prompt import PromptTokenizer
from charalora_trainer.words.tokenizer import load_tokenizer, vocabulary_size, word_problem

SAMPLES = 5
_MOST_TELLING = (Outcome.WORD_TAKEN, Outcome.BASE_MODEL_INVALID, Outcome.SPEC_INVALID, Outcome.DATASET_INVALID)


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        findings: Everything wrong, and everything worth knowing, errors first.
        plan: What training will see; None where a finding about the data set stops the run.
        base_model: None where it cannot be trained, or was not looked at.
        samples: The first texts that training will see, token by token.
        summary: The same for people, a line each.
    """

    findings: tuple[Finding, ...]
    plan: DatasetPlan | None
    base_model: BaseModelFacts | None
    samples: tuple[Sample, ...]
    summary: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """`SUCCEEDED`, or the most telling reason why training must not start."""
        reasons = {finding.outcome for finding in self.findings if finding.stops}
        return next((outcome for outcome in (*_MOST_TELLING, *reasons) if outcome in reasons), Outcome.SUCCEEDED)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object; the pictures themselves are left out."""
        plan = self.plan
        dataset = plan and {
            "images": len(plan.pairs),
            "buckets": [{"width": bucket.width, "height": bucket.height, "images": len(bucket.members)} for bucket in plan.buckets],
            "tokens": plan.tokens,
            "chunks": plan.chunks,
            "digest": plan.digest,
        }
        return {
            "reason": self.outcome.reason,
            "findings": [finding.to_json() for finding in self.findings],
            "dataset": dataset,
            "baseModel": self.base_model and self.base_model.to_json(),
            "samples": [sample.to_json() for sample in self.samples],
        }

    def text(self) -> str:
        """The report for people: what was found, then warnings, then errors."""
        warnings = [f"Warning: {finding.text}" for finding in self.findings if not finding.stops]
        errors = [f"Error: {finding.text}" for finding in self.findings if finding.stops]
        return "\n".join([*self.summary, *warnings, *errors])


def check(
    run: CharacterLora, dataset: Path, base: Source | Path | None, preview_base: Source | Path | None = None, processes: int | None = None
) -> CheckReport:
    """Find everything that would keep this training from succeeding.

    Args:
        run: The resource.
        dataset: The folder with pictures and captions.
        base: The base model where it lies, looked at by its headers alone; None where that is left to the training (hf://).
        preview_base: Likewise for the pictures, if they are made with another one.
        processes: How many train together; None: as many as the resource has GPUs.

    Raises:
        TrainingError: A store cannot be read.
    """
    spec = run.spec
    source = _source(base)
    facts, base_findings = basemodel.inspect(source) if source else (None, [])
    tokenizer, tokenizer_findings = _tokenizer(source)
    plan, dataset_findings = read_dataset(dataset, spec.dataset, spec.character, tokenizer)
    found = [
        *_word_findings(tokenizer, spec.character.name),
        *base_findings,
        *tokenizer_findings,
        *_fitting_findings(spec, facts, tokenizer),
        *_preview_base_findings(_source(preview_base), facts),
        *_prompt_findings(spec),
        *dataset_findings,
        *_held_out_findings(spec, plan),
    ]
    found.sort(key=lambda finding: not finding.stops)
    samples = _samples(spec, plan, tokenizer) if plan else ()
    world = processes or max(1, spec.resources.gpus * spec.resources.nodes)
    return CheckReport(tuple(found), plan, facts, samples, summary_lines(spec, plan, facts, samples, world))


def raise_for_findings(report: CheckReport) -> DatasetPlan:
    """The plan of a data set that training may start on.

    Raises:
        TrainingError: The most telling reason not to start; of several, each in a line of its own below their number.
    """
    messages = [finding.text for finding in report.findings if finding.stops]
    if messages or report.plan is None:
        told = messages if len(messages) == 1 else [f"{len(messages)} problems keep this training from starting:", *messages]
        raise TrainingError(report.outcome, "\n  ".join(told))
    return report.plan


def _source(base: Source | Path | None) -> Source | None:
    return basemodel.locate(str(base), Storage()) if isinstance(base, Path) else base


def _tokenizer(source: Source | None) -> tuple[Tokenizer, list[Finding]]:
    """The base model's own tokenizer; that of Stable Diffusion 1.x where it has none, so that all else can be checked."""
    if source is None or source.file is not None:
        return load_tokenizer(None), []
    sizes = {entry.key: entry.size for entry in source.store.list()}
    with tempfile.TemporaryDirectory() as folder:
        for name in basemodel.TOKENIZER_FILES:
            if sizes.get(f"tokenizer/{name}", 0) in range(1, basemodel.MAX_TOKENIZER_BYTES):
                Path(folder, name).write_bytes(source.store.read(f"tokenizer/{name}"))
        if not any(Path(folder).iterdir()):
            return load_tokenizer(None), []  # the base model's own findings say that it is missing
        try:
            return load_tokenizer(Path(folder)), []
        except TrainingError as error:
            message = error.message.replace(folder, f"{source.where}tokenizer")
            return load_tokenizer(None), [Finding(error.outcome, message)]


def _word_findings(tokenizer: Tokenizer, word: str) -> list[Finding]:
    problem = word_problem(tokenizer, word)
    return [Finding(Outcome.WORD_TAKEN, problem)] if problem else []


def _fitting_findings(spec: CharacterLoraSpec, facts: BaseModelFacts | None, tokenizer: Tokenizer) -> list[Finding]:
    """Whether the base model's parts fit the tokenizer and what the resource says of it."""
    if facts is None:
        return []
    found = []
    if vocabulary_size(tokenizer) > facts.vocabulary:
        message = (
            f"The tokenizer of {facts.uri} has {vocabulary_size(tokenizer)} tokens and its text encoder rows for {facts.vocabulary}; "
            "give a base model whose parts belong together."
        )
        found.append(Finding(Outcome.BASE_MODEL_INVALID, message))
    asked = spec.base_model.prediction.value
    if facts.prediction not in {None, asked}:
        message = (
            f"The scheduler of {facts.uri} says {facts.prediction}, the resource {asked}; set baseModel.prediction: {facts.prediction} "
            "unless you know better."
        )
        found.append(Finding(Outcome.BASE_MODEL_INVALID, message, stops=False))
    return found


def _preview_base_findings(source: Source | None, training: BaseModelFacts | None) -> list[Finding]:
    if source is None:
        return []
    facts, found = basemodel.inspect(source)
    if facts and training and facts.text_width != training.text_width:
        message = (
            f"preview.baseModel {facts.uri} takes words of {facts.text_width} numbers, the trained one of {training.text_width}; "
            "give a base model of the same family."
        )
        return [Finding(Outcome.BASE_MODEL_INVALID, message)]
    return found


def _prompt_findings(spec: CharacterLoraSpec) -> list[Finding]:
    """Prompts of the pictures that cannot be read, before hours of training end in them."""
    prompts = effective_preview_prompts(spec)
    named = [(f"preview.prompts[{number}]", prompt) for number, prompt in enumerate(prompts)]
    found = []
    for field, prompt in [*named, ("preview.negativePrompt", spec.preview.negative_prompt)]:
        try:
            parse(prompt)
        except PromptError as error:
            found.append(Finding(Outcome.SPEC_INVALID, f"spec.{field}: {error}."))
    if not any(spec.character.name in prompt for prompt in prompts):
        message = f"No prompt of spec.preview.prompts has the trigger word; write {{{spec.character.name}:1.2}} to see the character."
        found.append(Finding(Outcome.SPEC_INVALID, message, stops=False))
    return found


def _held_out_findings(spec: CharacterLoraSpec, plan: DatasetPlan | None) -> list[Finding]:
    if plan is None:
        return []
    held_out = held_out_count(spec.training.loss.held_out, len(plan.pairs))
    if spec.output.keep is Keep.BEST and not held_out:
        message = (
            f"spec.output.keep: Best needs held-out pictures, and of fewer than {SMALLEST_DATASET} none are held out unasked; "
            "set training.loss.heldOut to 1 or more, or keep All."
        )
        return [Finding(Outcome.SPEC_INVALID, message)]
    if held_out < len(plan.pairs):
        return []
    message = (
        f"spec.training.loss.heldOut: {held_out} of {len(plan.pairs)} pictures would leave none to train on; lower it, or add pictures."
    )
    return [Finding(Outcome.SPEC_INVALID, message)]


def _samples(spec: CharacterLoraSpec, plan: DatasetPlan, tokenizer: Tokenizer) -> tuple[Sample, ...]:
    """Texts as training composes and encodes them, of the first pictures that it sees."""
    character, encoder = spec.character, PromptTokenizer(tokenizer, {spec.character.name: spec.character.vectors})
    items = order(spec.training.seed, 0, plan.buckets, SAMPLES).items
    samples = []
    for item in items:
        pair = plan.pairs[item.pair]
        text = captions.compose(
            captions.parse(pair.caption), character.name, character.class_, spec.dataset.captions, random.Random(item.rng_seed)
        )
        ids = [token for chunk in encoder.encode_caption(text, plan.chunks).ids for token in chunk]
        samples.append(Sample(pair.picture, text, _pieces(ids, tokenizer, character.name)))
    return tuple(samples)


def _pieces(ids: list[int], tokenizer: Tokenizer, word: str) -> tuple[str, ...]:
    """Tokens as they are spelled, `red</w>`; the word's rows as `surtr_arknights[0]` and so on. Beginnings and ends are left out."""
    size = vocabulary_size(tokenizer)
    return tuple(
        f"{word}[{token - size}]" if token >= size else str(tokenizer.id_to_token(token))
        for token in ids
        if token not in {size - 2, size - 1}
    )
