"""The folder that is published."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from adapters import same, small_adapter, training_facts
from charalora_trainer.export import civitai, webui
from charalora_trainer.export.civitai import Bundle
from charalora_trainer.export.metadata import file_hashes
from charalora_trainer.export.model_card import Sample
from charalora_trainer.weights import Adapter, LoraModule, Word
from charalora_trainer.words import embedding

WORD = Word("surtr_arknights", torch.randn(4, 768, generator=torch.Generator().manual_seed(0)))


def bundle(folder: Path, adapter: Adapter | None = None) -> Bundle:
    """The guide's character with one picture."""
    picture = folder / "0-7-masterpiece, {surtr_arknights_1.2}.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    return Bundle(
        adapter or small_adapter(),
        WORD,
        training_facts(),
        (Sample(picture, "masterpiece, {surtr_arknights:1.2}", 7),),
        negative_prompt="lowres",
    )


def test_the_folder_holds_the_pair_the_guide_publishes(tmp_path: Path) -> None:
    """LoRA and embedding under the trigger word's name, for in webui the file's name is the word."""
    written = civitai.write(bundle(tmp_path), tmp_path / "civitai")

    expected = {
        "surtr_arknights.safetensors",
        "surtr_arknights.pt",
        "surtr_arknights.json",
        "surtr_arknights.preview.png",
        "README.md",
        "samples/1.png",
    }
    assert expected == {path.relative_to(tmp_path / "civitai").as_posix() for path in written}
    assert expected == {path.relative_to(tmp_path / "civitai").as_posix() for path in (tmp_path / "civitai").rglob("*") if path.is_file()}
    assert torch.equal(WORD.vectors, embedding.load(tmp_path / "civitai" / "surtr_arknights.pt").vectors)


def test_the_page_tells_word_strength_base_model_and_hashes(tmp_path: Path) -> None:
    """And what to write into the prompt."""
    civitai.write(bundle(tmp_path), tmp_path)
    page, hashes = (tmp_path / "README.md").read_text(), file_hashes(tmp_path / "surtr_arknights.safetensors")

    for told in (
        "`surtr_arknights`",
        "<lora:surtr_arknights:0.85>",
        "animefull-latest",
        "30",
        hashes.auto_v2,
        hashes.auto_v3,
        hashes.sha256,
    ):
        assert told in page


def test_every_picture_of_the_page_is_there(tmp_path: Path) -> None:
    """Linked relative to the page, with the prompt as webui writes emphasis."""
    civitai.write(bundle(tmp_path), tmp_path)

    assert "](samples/1.png)\n\n    masterpiece, (surtr_arknights:1.2)\n    Seed: 7" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "samples" / "1.png").read_bytes() == (tmp_path / "surtr_arknights.preview.png").read_bytes()


def test_webuis_card_fills_the_prompt(tmp_path: Path) -> None:
    """A click on the card gives word and strength."""
    civitai.write(bundle(tmp_path), tmp_path)
    card = json.loads((tmp_path / "surtr_arknights.json").read_text())

    assert ("SD1", "surtr_arknights", 0.85, "lowres") == tuple(
        card[key] for key in ("sd version", "activation text", "preferred weight", "negative text")
    )


def test_without_pictures_there_are_no_empty_places(tmp_path: Path) -> None:
    """A training may have made none."""
    written = civitai.write(Bundle(small_adapter(), WORD, training_facts()), tmp_path)

    assert {"surtr_arknights.safetensors", "surtr_arknights.pt", "surtr_arknights.json", "README.md"} == {path.name for path in written}
    assert "## Pictures" not in (tmp_path / "README.md").read_text()


def test_page_and_card_say_why_this_step(tmp_path: Path) -> None:
    """The one number that nobody can see in the files."""
    why = "step 700 of 1000: it has the lowest held-out loss, 0.0510; the last step has 0.0580"

    civitai.write(replace(bundle(tmp_path), why=why), tmp_path)

    assert (
        "| Step | 700 of 1000: it has the lowest held-out loss, 0.0510; the last step has 0.0580 |" in (tmp_path / "README.md").read_text()
    )
    assert f"S{why[1:]}." == json.loads((tmp_path / "surtr_arknights.json").read_text())["notes"]


def test_the_lora_is_half_precision_where_that_keeps_its_strength(tmp_path: Path) -> None:
    """Half the download; what does not fit into fp16 stays fp32."""
    large = Adapter(unet={"conv_in": LoraModule(torch.full((1, 4), 1e5), torch.full((8, 1), 1e-7), 1.0)}, text_encoder={})
    civitai.write(bundle(tmp_path), tmp_path / "half")
    civitai.write(bundle(tmp_path, large), tmp_path / "whole")

    assert not same(small_adapter(), webui.read(tmp_path / "half" / "surtr_arknights.safetensors"))
    assert same(large, webui.read(tmp_path / "whole" / "surtr_arknights.safetensors"))


def test_a_name_with_markdown_characters_is_shown_as_it_is(tmp_path: Path) -> None:
    """Underscores are the rule in trigger words."""
    civitai.write(bundle(tmp_path), tmp_path)

    assert (tmp_path / "README.md").read_text().startswith("# surtr\\_arknights\n")


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    """So that a repeated export changes nothing."""
    for folder in ("1", "2"):
        civitai.write(bundle(tmp_path), tmp_path / folder)

    for path in (tmp_path / "1").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes(), path.name
