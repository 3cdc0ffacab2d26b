"""What the report shows, read from the files of an output folder."""

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from PIL import Image
from pydantic import TypeAdapter

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer import cfg, history, runfile
from charalora_trainer.data.dataset import DatasetPlan
from charalora_trainer.data.pictures import decode
from charalora_trainer.export import manifest
from charalora_trainer.stages.report import (
    FILE,
    DatasetSummary,
    PreviewRow,
    ReportInput,
    RunFacts,
    Thumbnail,
    WrittenFile,
    write_page,
)
from charalora_trainer.storage import Store
from charalora_trainer.storage.staging import stage
from charalora_trainer.storage.wholefile import sha256_of

FACTS_FILE = "report.json"
MOST_STEPS, MOST_ROWS, MOST_PICTURES = 12, 12, 72  # more would make the page too heavy to open on a phone
MOST_THUMBNAILS = 24
THUMBNAIL_PIXELS, PREVIEW_PIXELS = 240, 768
NOT_LISTED = re.compile(rf"state/.*|{FILE}|{FACTS_FILE}|{manifest.FILE}|(.*/)?\..*")
SHOWN = re.compile(rf"{cfg.FILE}|{FACTS_FILE}|{history.FILE}|previews/.*")
_PICTURE = re.compile(r"(?P<number>\d+)-(?P<seed>\d+)-(?P<prompt>.*)\.png")
_SAVE = re.compile(r"ckpts/(unet|text_encoder|lora)-(?P<step>\d+)\.safetensors")
_Item = TypeVar("_Item")
_FACTS = TypeAdapter(RunFacts)


def write_facts(folder: Path, facts: RunFacts) -> None:
    """Keep what the report tells and no other file says."""
    (folder / FACTS_FILE).write_bytes(_FACTS.dump_json(facts, indent=1))


def read_facts(data: bytes) -> RunFacts:
    """The facts as they were kept."""
    return _FACTS.validate_json(data)


def write_report(folder: Path) -> Path:
    """Make report.html of what stands in an output folder; make it again whenever more stands there."""
    page = folder / FILE
    write_page(gather(folder), page)
    return page


def gather(folder: Path, files: Sequence[WrittenFile] | None = None) -> ReportInput:
    """Read an output folder that has cfg.yaml and report.json; `files` are those of the output, where not all of them are here.

    Raises:
        TrainingError: `SpecInvalid` when it is no output of a training.
    """
    missing = [name for name in (cfg.FILE, FACTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise TrainingError(Outcome.SPEC_INVALID, f"{folder} has no {' and no '.join(missing)}; give the output folder of a training.")
    noted = history.read(folder)
    previews = previews_of(folder / "previews", noted.best[0] if noted.best else None)
    listed = written_files(folder) if files is None else tuple(sorted(files, key=_in_reading_order))
    return ReportInput(
        run=runfile.load(folder / cfg.FILE),
        facts=read_facts((folder / FACTS_FILE).read_bytes()),
        history=noted,
        saves=saves_among(file.path for file in listed),
        previews=previews.rows,
        steps_left_out=previews.steps_left_out,
        rows_left_out=previews.rows_left_out,
        files=listed,
    )


def saves_among(paths: Iterable[str]) -> tuple[int, ...]:
    """The steps of which checkpoints are among these files."""
    return tuple(sorted({int(match["step"]) for path in paths if (match := _SAVE.fullmatch(path))}))


def gather_from(store: Store, folder: Path) -> ReportInput:
    """The same of an output prefix: what the page shows is staged into `folder`; of a finished training the large files stay there.

    Raises:
        TrainingError: What the store met, or `SpecInvalid` when it is no output of a training.
    """
    finished = manifest.find(store)
    entries = [entry for entry in store.list() if not NOT_LISTED.fullmatch(entry.key) or entry.key == FACTS_FILE]
    stage(store, [entry for entry in entries if not finished or SHOWN.fullmatch(entry.key)], folder)
    if finished is None:
        return gather(folder)
    written = (WrittenFile(file.path, file.bytes, file.sha256) for file in finished.files)
    return gather(folder, [file for file in written if not NOT_LISTED.fullmatch(file.path)])


def dataset_summary(plan: DatasetPlan, folder: Path, warnings: Iterable[str]) -> DatasetSummary:
    """The data set of a plan, with small pictures of up to 24 of its files."""
    return DatasetSummary(
        images=len(plan.pairs),
        sizes=tuple((f"{bucket.width}x{bucket.height}", len(bucket.members)) for bucket in plan.buckets),
        tokens=plan.tokens,
        digest=plan.digest,
        warnings=tuple(warnings),
        thumbnails=tuple(
            Thumbnail(pair.picture, pair.caption, data_uri(decode(folder / pair.picture, pair.picture), THUMBNAIL_PIXELS))
            for pair in spread(plan.pairs, MOST_THUMBNAILS)
        ),
    )


@dataclass(frozen=True)
class Previews:
    """The pictures on the page, each row over the steps, and how many steps and rows are not on it."""

    rows: tuple[PreviewRow, ...]
    steps_left_out: int
    rows_left_out: int


def previews_of(folder: Path, best: int | None) -> Previews:
    """Pictures by prompt and seed: the first rows, and steps between the first and the last; the best step is always among them."""
    steps = sorted(int(child.name) for child in folder.glob("*") if child.name.isdecimal())
    made = {step: {_row(match): (path, match["prompt"]) for path, match in _pictures(folder / str(step))} for step in steps}
    rows = sorted({row for pictures in made.values() for row in pictures})
    shown = spread(steps, min(MOST_STEPS, MOST_PICTURES // max(1, min(len(rows), MOST_ROWS))))
    if best is not None and best in made:
        shown = sorted({*shown, best})
    across = {row: [(step, *made[step][row]) for step in shown if row in made[step]] for row in rows[:MOST_ROWS]}
    return Previews(
        tuple(_preview_row(seed, pictures) for (_, seed), pictures in across.items() if pictures),
        len(steps) - len(shown),
        max(0, len(rows) - MOST_ROWS),
    )


def _pictures(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in sorted(folder.glob("*.png")):
        if match := _PICTURE.fullmatch(path.name):
            yield path, match


def _row(match: re.Match[str]) -> tuple[int, int]:
    """By which pictures of different steps belong together: number and seed."""
    return int(match["number"]), int(match["seed"])


def _preview_row(seed: int, made: Sequence[tuple[int, Path, str]]) -> PreviewRow:
    """A row of what was made: step, file, and the prompt as the file's name has it."""
    pictures = tuple((step, data_uri(decode(path, path.name), PREVIEW_PIXELS)) for step, path, _ in made)
    _, newest, shortened = made[-1]
    return PreviewRow(_full_prompt(newest, shortened), seed, pictures)


def written_files(folder: Path) -> tuple[WrittenFile, ...]:
    """Every file that a person may want, the pair to publish first, then by path and step."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = (
        WrittenFile(name, (folder / name).stat().st_size, sha256_of(folder / name)) for name in names if not NOT_LISTED.fullmatch(name)
    )
    return tuple(sorted(files, key=_in_reading_order))


def data_uri(picture: Image.Image, most_pixels: int) -> str:
    """A picture inside the page: WebP, its longer side at most `most_pixels`."""
    small = picture.copy()
    small.thumbnail((most_pixels, most_pixels), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    small.save(encoded, "WEBP", quality=86, method=4)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most `most` items, the first and the last among them, evenly between."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _full_prompt(picture: Path, shortened: str) -> str:
    """The prompt as the info file beside a picture has it; the file's name holds its first 50 characters."""
    info = picture.with_name("-".join(picture.name.split("-")[:2]) + "-info.yaml")
    known = yaml.safe_load(info.read_text(encoding="utf-8")) if info.exists() else None
    match known:
        case {"preview": {"prompts": [str(prompt), *_]}}:
            return prompt
    return shortened


def _in_reading_order(file: WrittenFile) -> tuple[bool, list[tuple[int, str]]]:
    """Numbers by their value: step 200 before step 1000."""
    parts = re.split(r"(\d+)", file.path)
    return not file.path.startswith("civitai/"), [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
