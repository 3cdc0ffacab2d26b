"""What the report reads from an output folder."""

import hashlib
from pathlib import Path

from PIL import Image

from builders import character_lora
from charalora_trainer import cfg, history
from charalora_trainer.stages.report import DatasetSummary, EffectiveRates, RunFacts, Thumbnail
from charalora_trainer.stages.report_sources import data_uri, gather, previews_of, spread, write_facts, write_report, written_files

PICTURE = data_uri(Image.new("RGB", (8, 8), "red"), 8)
FACTS = RunFacts(
    dataset=DatasetSummary(24, (("128x128", 24),), 14, "sha256:5f", thumbnails=(Thumbnail("a.png", "1girl, solo", PICTURE),)),
    rates=EffectiveRates(4e-4, 4e-5, None),
    images_per_step=4,
    started="2026-11-22T23:20:04+00:00",
    seconds=312.0,
    provenance=(("torch", "2.13.0"),),
)


def test_the_first_and_the_last_of_many_are_kept() -> None:
    """Evenly between."""
    assert [1, 4, 7, 10] == spread(range(1, 11), 4)
    assert [1, 2] == spread([1, 2], 4)


def output_folder(folder: Path) -> Path:
    """An output folder as a training leaves it, small."""
    (folder / cfg.FILE).write_text(cfg.text(character_lora(training__steps=200)))
    (folder / history.FILE).write_text("".join(history.line(step, loss=0.5) for step in range(1, 201)))
    write_facts(folder, FACTS)
    for step in (100, 200):
        pictures = folder / "previews" / str(step)
        pictures.mkdir(parents=True)
        Image.new("RGB", (16, 24), "blue").save(pictures / "0-7-masterpiece.png")
        (pictures / "0-7-info.yaml").write_text("seed: 7\npreview: {prompts: ['masterpiece, 1girl, and more']}\n")
        for name in (f"unet-{step}.safetensors", f"surtr_arknights-{step}.pt", f"lora-{step}.safetensors"):
            (folder / "ckpts").mkdir(exist_ok=True)
            (folder / "ckpts" / name).write_bytes(name.encode())
    (folder / "state" / "step-200").mkdir(parents=True)
    (folder / "state" / "step-200" / "training.safetensors").write_bytes(b"state")
    return folder


def test_a_report_is_made_of_what_stands_in_the_output_folder(tmp_path: Path) -> None:
    """Resource, facts, losses, saves, previews and files."""
    report = gather(output_folder(tmp_path))

    assert character_lora(training__steps=200) == report.run
    assert FACTS == report.facts
    assert (100, 200) == report.saves
    assert 200 == len(report.history.losses)
    assert [("masterpiece, 1girl, and more", 7, [100, 200])] == [
        (row.prompt, row.seed, [step for step, _ in row.pictures]) for row in report.previews
    ]


def test_files_are_listed_in_the_order_of_their_steps_without_what_is_no_result(tmp_path: Path) -> None:
    """No training states, and neither the report nor the manifest, which are written later."""
    folder = output_folder(tmp_path)
    (folder / "manifest.json").write_text("{}")
    write_report(folder)

    names = [file.path for file in written_files(folder)]

    assert ["ckpts/lora-100.safetensors", "ckpts/lora-200.safetensors"] == [name for name in names if "lora-" in name]
    assert not {"manifest.json", "report.html", "report.json"} & set(names)
    assert not [name for name in names if name.startswith("state/")]
    assert hashlib.sha256(b"lora-100.safetensors").hexdigest() == written_files(folder)[names.index("ckpts/lora-100.safetensors")].sha256


def test_a_report_can_be_made_again(tmp_path: Path) -> None:
    """The same files give the same page."""
    folder = output_folder(tmp_path)

    first = write_report(folder).read_bytes()

    assert first == write_report(folder).read_bytes()


def previews(folder: Path, steps: int, prompts: int) -> Path:
    """Pictures of so many steps and prompts."""
    for step in range(1, steps + 1):
        (folder / str(step)).mkdir()
        for prompt in range(prompts):
            Image.new("RGB", (8, 8)).save(folder / str(step) / f"{prompt}-0-x.png")
    return folder


def test_pictures_of_very_many_steps_are_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    """A page of forty steps would be too heavy for a phone."""
    found = previews_of(previews(tmp_path, steps=40, prompts=1), best=None)

    assert 28 == found.steps_left_out
    assert (1, 40) == (found.rows[0].pictures[0][0], found.rows[0].pictures[-1][0])


def test_the_best_step_is_never_thinned_out(tmp_path: Path) -> None:
    """It is what people come to see."""
    found = previews_of(previews(tmp_path, steps=40, prompts=1), best=2)

    assert [1, 2] == [step for step, _ in found.rows[0].pictures][:2]
    assert 27 == found.steps_left_out


def test_many_prompts_have_fewer_steps_and_the_page_says_which_are_missing(tmp_path: Path) -> None:
    """The pictures of a page are limited, not only those of a row."""
    found = previews_of(previews(tmp_path, steps=10, prompts=14), best=None)

    assert (12, 2) == (len(found.rows), found.rows_left_out)
    assert (6, 4) == (len(found.rows[0].pictures), found.steps_left_out)


def test_cfg_yaml_keeps_numbers_as_the_text_that_they_are(tmp_path: Path) -> None:
    """Without quotes 1e-4 is a number to Kubernetes' tools, which the API refuses."""
    report = gather(output_folder(tmp_path))

    assert "1e-4" == report.run.spec.training.learning_rate.unet.text
