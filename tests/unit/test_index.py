"""The index of all characters of a prefix."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from builders import character_lora
from charalora_trainer import cfg, history
from charalora_trainer.stages.index import Character, Index, Unreadable, link_to, render
from charalora_trainer.stages.index_sources import gather_index, training_folders, write_index
from charalora_trainer.stages.report import DatasetSummary, EffectiveRates, RunFacts
from charalora_trainer.stages.report_sources import write_facts
from charalora_trainer.storage.local import LocalStore
from reading import HOSTILE, Page

MANIFEST = json.dumps({"schemaVersion": 1, "specDigest": "ab", "files": []})


def training(root: Path, name: str, started: str = "2026-11-22T23:20:04+00:00", *, finished: bool = True) -> Path:
    """The output folder of a training of 200 steps, whose first save was the better one; unfinished after it."""
    folder = root / name
    (folder / "ckpts").mkdir(parents=True)
    (folder / cfg.FILE).write_text(cfg.text(character_lora(character__name=f"{name}_word", training__steps=200, training__saveEvery=100)))
    (folder / "state" / "step-000100").mkdir(parents=True)
    (folder / "state" / "step-000100" / "manifest.json").write_text("a state's own")
    noted = folder / history.FILE if finished else folder / "state" / "step-000100" / history.FILE
    noted.write_text(history.line(100, held_out_loss=0.125) + (history.line(200, held_out_loss=0.25) if finished else ""))
    claim = dict.fromkeys(("name", "identity", "token", "where", "dataset"), "x") | {"attempt": 1, "since": started}
    (folder / "state" / "run.json").write_text(json.dumps(claim))
    for step, colour in ((100, "red"), (200, "blue"))[: 2 if finished else 1]:
        (folder / "ckpts" / f"lora-{step}.safetensors").write_bytes(b"lora")
        (folder / "previews" / str(step)).mkdir(parents=True)
        Image.new("RGB", (16, 24), colour).save(folder / "previews" / str(step) / "0-7-masterpiece.png")
    if finished:
        facts = RunFacts(DatasetSummary(24, (), 14, "sha256:5f"), EffectiveRates(None, None, None), 4, started, 1.0, ())
        write_facts(folder, facts)
        (folder / "report.html").write_text("<p>the report</p>")
        (folder / "manifest.json").write_text(MANIFEST)
    return folder


def test_trainings_are_found_by_their_manifest_or_settings_and_states_are_no_trainings() -> None:
    """At any depth; other files are nothing."""
    keys = ["a/manifest.json", "a/cfg.yaml", "a/state/step-000100/manifest.json", "b/c/cfg.yaml", "index.html", "d/x.png"]

    assert ["a", "b/c"] == training_folders(keys)
    assert [""] == training_folders(["cfg.yaml", "manifest.json", "state/step-000100/manifest.json"])


def test_a_finished_training_has_a_card_with_its_best_step_and_a_link(tmp_path: Path) -> None:
    """Word, steps, the held-out loss, date, picture, and where its report is."""
    training(tmp_path, "surtr")

    (card,) = gather_index(LocalStore(tmp_path)).characters

    assert ("surtr_word", 200, 200, True) == (card.word, card.saved, card.steps, card.finished)
    assert ((100, 0.125), 100) == (card.best, card.picture_step)
    assert card.picture.startswith("data:image/webp;base64,")
    assert ("2026-11-22T23:20:04+00:00", "./surtr/report.html") == (card.started, card.report)


def test_a_training_under_way_is_shown_as_far_as_its_newest_state_knows(tmp_path: Path) -> None:
    """Without a link: its report is made at the end."""
    training(tmp_path, "surtr", finished=False)

    (card,) = gather_index(LocalStore(tmp_path)).characters

    assert (100, 200, False, "") == (card.saved, card.steps, card.finished, card.report)
    assert ((100, 0.125), "2026-11-22T23:20:04+00:00") == (card.best, card.started)


def test_the_newest_training_comes_first(tmp_path: Path) -> None:
    """What one has just made is what one looks for."""
    training(tmp_path, "a", "2026-11-21T00:00:00+00:00")
    training(tmp_path, "b", "2026-11-23T00:00:00+00:00")
    training(tmp_path, "c", "2026-11-22T00:00:00+00:00")

    assert ["b", "c", "a"] == [card.folder for card in gather_index(LocalStore(tmp_path)).characters]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cfg.yaml", None, "cfg.yaml is missing."),
        ("cfg.yaml", b"kind: [", "cfg.yaml is no valid YAML"),
        ("manifest.json", b"{", "manifest.json is no manifest of a training"),
        ("report.json", b"{}", "report.json is damaged"),
        ("history.jsonl", b"{\n", "history.jsonl is damaged"),
        ("previews/100/0-7-masterpiece.png", b"GIF89a", "previews/100/0-7-masterpiece.png is refused"),
    ],
)
def test_a_damaged_training_is_named_and_the_others_are_shown(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    """Whatever of it is missing or damaged."""
    training(tmp_path, "whole")
    damaged = training(tmp_path, "damaged") / name
    damaged.unlink() if content is None else damaged.write_bytes(content)

    found = gather_index(LocalStore(tmp_path))

    assert ["whole"] == [card.folder for card in found.characters]
    assert ["damaged"] == [place.folder for place in found.unreadable]
    assert found.unreadable[0].why.startswith(reason)
    assert f"damaged : {reason}" in Page(render(found)).text


def test_the_index_is_made_again_of_what_stands_there_then(tmp_path: Path) -> None:
    """The same files give the same page; a removed training is gone from it."""
    training(tmp_path, "surtr")
    training(tmp_path, "amiya")
    store = LocalStore(tmp_path)
    page = Path(write_index(store).removeprefix("file://"))
    first = page.read_text()
    write_index(store)

    assert first == page.read_text()
    assert "surtr_word" in first

    shutil.rmtree(tmp_path / "surtr")
    write_index(store)

    assert "surtr_word" not in page.read_text()
    assert "1 training below" in Page(page.read_text()).text


def test_an_empty_prefix_has_an_index_that_says_so(tmp_path: Path) -> None:
    """No error: trainings may come."""
    assert "No training has written anything here." in Page(render(gather_index(LocalStore(tmp_path)))).text


def test_hostile_names_are_shown_and_lead_nowhere() -> None:
    """A folder's name is text on the page, and a link stays below the page."""

    def shown(text: str) -> Page:
        card = Character(text, text, 100, 200, finished=False, started=text, report=link_to(f"{text}/report.html"))
        return Page(render(Index(text, (card,), (Unreadable(text, text),))))

    assert shown("x").shape == shown(HOSTILE).shape
    assert shown("x").raw == shown(HOSTILE).raw
    assert "./javascript%3Aalert%281%29/report.html" == link_to("javascript:alert(1)/report.html")
    assert "./%23a%3Fb/%E8%A7%92/report.html" == link_to("#a?b/角/report.html")


def test_the_index_loads_nothing_and_allows_our_script_alone(tmp_path: Path) -> None:
    """The same policy as a report's."""
    training(tmp_path, "surtr")
    page = Page(render(gather_index(LocalStore(tmp_path))))
    policy = next(str(meta["content"]) for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")

    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
