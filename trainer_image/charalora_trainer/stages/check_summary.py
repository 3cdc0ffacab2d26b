"""What a check says to people: figures of the data set, the base model and the training to come, a line each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from charalora_spec.spec import CharacterLoraSpec
from charalora_trainer.basemodel import BaseModelFacts
from charalora_trainer.data.dataset import CHUNK, DatasetPlan
from charalora_trainer.data.held_out import held_out_count
from charalora_trainer.progress import Unit, amount
from charalora_trainer.rates import effective_rates
from charalora_trainer.words.tokenizer import END_OF_WORD


@dataclass(frozen=True)
class Sample:
    """A text of the training to come.

    Attributes:
        picture: The file it belongs to.
        text: As composed.
        tokens: As encoded.
    """

    picture: str
    text: str
    tokens: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The sample as a JSON object."""
        return asdict(self)


def summary_lines(
    spec: CharacterLoraSpec, plan: DatasetPlan | None, facts: BaseModelFacts | None, samples: Sequence[Sample], processes: int
) -> tuple[str, ...]:
    """All that is known, in the order in which a person asks."""
    lines = [*_dataset_lines(plan), *_steps_lines(spec, plan, processes)] if plan else []
    if facts:
        kind = " ".join(part for part in (facts.layout, facts.dtype, facts.prediction) if part)
        lines.append(f"Base model: {kind}, {amount(facts.bytes, Unit.BYTES)} in {len(facts.files)} files")
    lines += [f"Sample: {sample.picture} -> {_spelled(sample.tokens) or '(no text)'}" for sample in samples]
    return tuple(lines)


def _dataset_lines(plan: DatasetPlan) -> list[str]:
    sizes = ", ".join(f"{bucket.width}x{bucket.height} ({len(bucket.members)})" for bucket in plan.buckets)
    return [
        f"Data set: {len(plan.pairs)} pictures in sizes {sizes}; digest {plan.digest[:12]}",
        f"Texts: {plan.tokens} of {CHUNK * plan.chunks} tokens at most",
    ]


def _steps_lines(spec: CharacterLoraSpec, plan: DatasetPlan, processes: int) -> list[str]:
    """How often pictures are seen, and the learning rates as they are multiplied (the guide's recipe: by the pictures of a step)."""
    training = spec.training
    pictures = training.batch_size * training.gradient_accumulation * processes
    held_out = held_out_count(training.loss.held_out, len(plan.pairs))
    shown = len(plan.pairs) - held_out
    seen = training.steps * pictures / max(1, shown)
    rates = effective_rates(training, processes)
    effective = f"UNet {rates.unet:.2g}, text encoder {rates.text_encoder:.2g}, embedding {rates.embedding:.2g}"
    factor = pictures if training.learning_rate.scale_with_batch else 1
    product = f"{training.batch_size} x {training.gradient_accumulation} x {processes} processes"
    return [
        f"Steps: {training.steps} of {pictures} pictures ({product}) show each picture {seen:.0f} times"
        + (f", but for {held_out} that are held out to measure it" if held_out else ""),
        f"Learning rates: {effective}" + (f", which is {factor} times those of the resource" if factor != 1 else ""),
    ]


def _spelled(tokens: Sequence[str]) -> str:
    """Tokens as a text, with a bar where a word is of several: `red hor|ns`."""
    ends = (END_OF_WORD, "]")  # of a word of the vocabulary, of a row of the trigger word
    return "".join(token.removesuffix(END_OF_WORD) + (" " if token.endswith(ends) else "|") for token in tokens).strip()
