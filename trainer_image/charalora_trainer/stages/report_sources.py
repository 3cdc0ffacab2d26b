"""What the report shows, read from the files of an output folder."""

import base64
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
MOST_STEPS = 12  # pictures of more steps would make the page too heavy to open on a phone
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
    previews, left_out = preview_rows(folder / "previews")
    listed = written_files(folder) if files is None else tuple(sorted(files, key=_in_reading_order))
    return ReportInput(
        run=runfile.load(folder / cfg.FILE),
        facts=_FACTS.validate_json((folder / FACTS_FILE).read_bytes()),
        history=history.read(folder),
        saves=tuple(sorted({int(match["step"]) for file in listed if (match := _SAVE.fullmatch(file.path))})),
        previews=previews,
        previews_left_out=left_out,
        files=listed,
    )


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


def preview_rows(folder: Path) -> tuple[tuple[PreviewRow, ...], int]:
    """Pictures by prompt and seed, each row over the steps; and how many steps were left out between the first and the last."""
    steps = sorted(int(child.name) for child in folder.glob("*") if child.name.isdigit())
    shown = spread(steps, MOST_STEPS)
    rows: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    prompts: dict[tuple[int, int], str] = {}
    for step in shown:
        for path in sorted((folder / str(step)).glob("*.png")):
            if match := _PICTURE.fullmatch(path.name):
                row = int(match["number"]), int(match["seed"])
                rows[row].append((step, data_uri(decode(path, path.name), PREVIEW_PIXELS)))
                prompts[row] = _full_prompt(path, match["prompt"])
    return tuple(PreviewRow(prompts[row], row[1], tuple(pictures)) for row, pictures in sorted(rows.items())), len(steps) - len(shown)


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
