"""The report: one page that an artist opens in a browser, without a network. See the pictures, choose a step, use the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charalora_spec.spec import CharacterLora
from charalora_trainer import cfg
from charalora_trainer.data.held_out import held_out_count
from charalora_trainer.history import History
from charalora_trainer.stages.chart import loss_chart
from charalora_trainer.stages.page import page
from charalora_trainer.stages.verdict import verdict
from charalora_trainer.storage.wholefile import whole_file

FILE = "report.html"


@dataclass(frozen=True)
class Thumbnail:
    """A picture of the data set, small.

    Attributes:
        name: Its file name.
        caption: The caption beside it.
        image: A data URI.
    """

    name: str
    caption: str
    image: str


@dataclass(frozen=True)
class DatasetSummary:
    """What was trained on.

    Attributes:
        images: How many pictures.
        sizes: Pictures of each size: ("128x128", 24).
        tokens: Tokens of the longest caption.
        digest: What pictures and captions amount to; another digest is another data set.
        warnings: What the check found worth knowing.
        thumbnails: Some of the pictures.
    """

    images: int
    sizes: tuple[tuple[str, int], ...]
    tokens: int
    digest: str
    warnings: tuple[str, ...] = ()
    thumbnails: tuple[Thumbnail, ...] = ()


@dataclass(frozen=True)
class EffectiveRates:
    """Learning rates as the optimizer got them, after scaling; None for what was not trained."""

    unet: float | None
    text_encoder: float | None
    embedding: float | None


@dataclass(frozen=True)
class RunFacts:
    """What the report tells and no other file of the output says; kept as report.json beside it.

    Attributes:
        dataset: What was trained on.
        rates: The learning rates that were used.
        images_per_step: Pictures in one optimizer step, over all processes.
        started: When, in ISO form with a time zone.
        seconds: How long the run took, its earlier attempts left out; None while it runs.
        provenance: Versions, digests and the machine: (what, value).
    """

    dataset: DatasetSummary
    rates: EffectiveRates
    images_per_step: int
    started: str
    seconds: float | None
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PreviewRow:
    """Pictures of one prompt and one seed, by step.

    Attributes:
        prompt: What was asked for.
        seed: The same for all of them, so that the difference is the training's.
        pictures: (step, data URI), in the order of the steps.
    """

    prompt: str
    seed: int
    pictures: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class WrittenFile:
    """A file of the output."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ReportInput:
    """Everything that the page shows.

    Attributes:
        run: The resource, with every default.
        facts: What the run noted about itself.
        history: The losses.
        saves: Steps of the checkpoints.
        previews: Pictures by step.
        steps_left_out: Steps with pictures that are not on the page, for its size.
        rows_left_out: Prompts and seeds with pictures that are not on the page, for its size.
        files: What was written.
    """

    run: CharacterLora
    facts: RunFacts
    history: History
    saves: tuple[int, ...]
    previews: tuple[PreviewRow, ...]
    steps_left_out: int
    rows_left_out: int
    files: tuple[WrittenFile, ...]


@dataclass(frozen=True)
class UsedFiles:
    """The two files that a person copies, and where the trigger word comes from.

    Attributes:
        lora: The LoRA in webui format.
        embedding: The trigger word's vectors.
        published: Whether they are named by the word, as on civitai; otherwise their names end with the step.
    """

    lora: str
    embedding: str
    published: bool


def used_files(word: str, paths: frozenset[str], saves: tuple[int, ...]) -> UsedFiles | None:
    """The pair for publishing if it is there, else that of the last checkpoint, else nothing."""
    lora, embedding = f"civitai/{word}.safetensors", f"civitai/{word}.pt"
    if {lora, embedding} <= paths:
        return UsedFiles(lora, embedding, published=True)
    for step in reversed(saves):
        lora, embedding = f"ckpts/lora-{step}.safetensors", f"ckpts/{word}-{step}.pt"
        if {lora, embedding} <= paths:
            return UsedFiles(lora, embedding, published=False)
    return None


def cover(rows: Sequence[PreviewRow], step: int) -> tuple[int, str] | None:
    """The first row's picture of a step, or of the last one before it that has a picture; none where there are no pictures."""
    pictures = rows[0].pictures if rows else ()
    return max((picture for picture in pictures if picture[0] <= step), default=pictures[0] if pictures else None)


def interval_losses(history: History, saves: tuple[int, ...]) -> list[tuple[int, float | None, float | None]]:
    """For each checkpoint: the mean loss since the one before, and the held-out loss."""
    held_out = dict(history.held_out)
    return [(save, history.mean(before + 1, save), held_out.get(save)) for before, save in zip((0, *saves), saves, strict=False)]


def render(report: ReportInput) -> str:
    """The page. Captions, prompts and names are escaped; the page's own policy forbids any script but ours and any request."""
    spec = report.run.spec
    word, steps = spec.character.name, spec.training.steps
    paths = frozenset(file.path for file in report.files)
    chosen = verdict(report.history, report.saves, spec.output.keep)
    context = {
        "report": report,
        "spec": spec,
        "word": word,
        "verdict": chosen,
        "cover": cover(report.previews, chosen.step if chosen else steps),
        "paths": paths,
        "chart": loss_chart(report.history, report.saves, steps),
        "intervals": interval_losses(report.history, report.saves),
        "use": used_files(word, paths, report.saves),
        "held_out": held_out_count(spec.training.loss.held_out, report.facts.dataset.images),
        "resource": cfg.text(report.run),
    }
    return page("report.html.j2", ("copy.js", "pictures.js"), context)


def write_page(report: ReportInput, path: Path) -> None:
    """Write the page, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(render(report), encoding="utf-8")
