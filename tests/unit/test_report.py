"""The report: what an artist opens."""

import base64
import hashlib
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image

from builders import character_lora
from charalora_trainer.history import History
from charalora_trainer.stages.report import (
    DatasetSummary,
    EffectiveRates,
    PreviewRow,
    ReportInput,
    RunFacts,
    Thumbnail,
    UsedFiles,
    WrittenFile,
    cover,
    interval_losses,
    render,
    used_files,
)
from charalora_trainer.stages.report_sources import data_uri
from faults import Fault
from reading import HOSTILE, Page

PICTURE = data_uri(Image.new("RGB", (8, 8), "red"), 8)
FACTS = RunFacts(
    dataset=DatasetSummary(24, (("128x128", 24),), 14, "sha256:5f", thumbnails=(Thumbnail("a.png", "1girl, solo", PICTURE),)),
    rates=EffectiveRates(4e-4, 4e-5, 1.2e-2),
    images_per_step=4,
    started="2026-11-22T23:20:04+00:00",
    seconds=312.0,
    provenance=(("torch", "2.13.0"),),
)
CURVE = History(tuple((step, 1.0 / step) for step in range(1, 201)), ((100, 0.3), (200, 0.2)))
REPORT = ReportInput(
    run=character_lora(),
    facts=FACTS,
    history=CURVE,
    saves=(100, 200),
    previews=(PreviewRow("1girl, {surtr_arknights:1.2}", 0, ((100, PICTURE), (200, PICTURE))),),
    steps_left_out=0,
    rows_left_out=0,
    files=(
        WrittenFile("civitai/surtr_arknights.safetensors", 15_000_000, "ab" * 32),
        WrittenFile("civitai/surtr_arknights.pt", 13_000, "cd" * 32),
    ),
)


def report_with(text: str) -> ReportInput:
    """A report in which `text` stands wherever users or files may put one."""
    dataset = replace(FACTS.dataset, warnings=(text,), digest=text, sizes=((text, 24),), thumbnails=(Thumbnail(text, text, PICTURE),))
    uris = {"output__uri": f"file:///{text}/", "dataset__uri": f"file:///{text}/"}
    return replace(
        REPORT,
        run=character_lora(**{"character.class": text, "preview.prompts": [text]}, **uris),
        facts=replace(FACTS, dataset=dataset, started=text, provenance=((text, text),)),
        previews=(PreviewRow(text, 0, ((100, PICTURE),)),),
        files=(*REPORT.files, WrittenFile(text, 1, text)),
    )


@pytest.mark.fault(Fault.HOSTILE_TEXT)
def test_hostile_texts_are_shown_and_not_run() -> None:
    """Captions, prompts, names and uris make no element and no attribute: they are text, letter by letter."""
    harmless, hostile = Page(render(report_with("1girl"))), Page(render(report_with(HOSTILE)))

    assert harmless.shape == hostile.shape
    assert harmless.raw == hostile.raw
    assert 9 <= sum(HOSTILE in text for text in hostile.texts)


def test_the_page_loads_nothing() -> None:
    """Every address is inside the page: data or an anchor."""
    page = Page(render(report_with(HOSTILE)))
    addresses = [
        str(attributes[name]) for _, attributes in page.elements for name in ("src", "href", "action", "srcset") if name in attributes
    ]

    assert addresses
    assert all(address.startswith(("data:image/webp;base64,", "#")) for address in addresses)
    assert "url(" not in "".join(page.raw["style"])


def test_the_policy_allows_our_script_and_style_alone() -> None:
    """The hashes are those of what stands in the page."""
    page = Page(render(REPORT))
    policy = next(str(meta["content"]) for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")

    def digest(kind: str) -> str:
        return base64.b64encode(hashlib.sha256("".join(page.raw[kind]).encode()).digest()).decode()

    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert f"script-src 'sha256-{digest('script')}'" in policy
    assert f"style-src 'sha256-{digest('style')}'" in policy


def test_every_picture_says_what_it_shows() -> None:
    """Alternative texts name step, seed and prompt; that of the empty enlarged view is filled when it opens."""
    alternatives = [attributes.get("alt") for attributes in Page(render(REPORT)).all("img")]

    assert "Step 200, seed 0: 1girl, {surtr_arknights:1.2}" in alternatives
    assert alternatives == [text for text in alternatives if text is not None]


def test_every_table_names_its_columns_and_rows() -> None:
    """Header cells say which way they point."""
    headers = Page(render(REPORT)).all("th")

    assert headers
    assert all(header.get("scope") in {"col", "row"} for header in headers)


def test_headings_skip_no_level() -> None:
    """One h1, and h3 only below an h2: people who listen to the page move by headings."""
    levels = [int(tag[1]) for tag, _ in Page(render(REPORT)).elements if tag in {"h1", "h2", "h3", "h4"}]

    assert 1 == levels.count(1)
    assert 1 == levels[0]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_identifiers_are_unique() -> None:
    """Each copy button copies its own text."""
    elements = Page(render(REPORT)).elements
    names = [attributes["id"] for _, attributes in elements if "id" in attributes]

    assert len(names) == len(set(names))
    assert {attributes["data-copy"] for _, attributes in elements if "data-copy" in attributes} <= set(names)


def test_the_page_says_how_each_program_uses_the_files() -> None:
    """Paths, trigger word and strength, ready to copy."""
    text = Page(render(REPORT)).text

    assert "models/Lora/surtr_arknights.safetensors" in text
    assert "(surtr_arknights:1.2) <lora:surtr_arknights:0.85>" in text
    assert "models/embeddings/surtr_arknights.pt" in text
    assert "(embedding:surtr_arknights:1.2)" in text
    assert 'pipe.load_textual_inversion("civitai/surtr_arknights.pt", token="surtr_arknights")' in text
    assert "Set Clip skip to 2" in text


def test_the_page_tells_the_rates_that_were_asked_for_and_those_that_were_used() -> None:
    """Four pictures a step make 1e-4 into 4e-4."""
    text = Page(render(REPORT)).text

    assert "UNet LoRA 1e-4 4.00e-04" in text
    assert "Trigger word 3e-3 1.20e-02" in text


def test_the_page_holds_the_resource_that_ran() -> None:
    """It can be copied and run again, numbers in quotes as the API wants them."""
    text = Page(render(REPORT)).text

    assert "kind: CharacterLora" in text
    assert "unet: '1e-4'" in text


def test_pictures_that_are_held_out_are_not_counted_as_trained() -> None:
    """They only measure."""
    page = Page(render(replace(REPORT, run=character_lora(training__loss__held_out=4))))

    assert "steps on 20 pictures; 4 more, never trained on, measure it." in page.text


def test_the_page_says_which_step_to_take_and_marks_its_pictures() -> None:
    """The lowest held-out loss, in the words above the pictures and on them."""
    page = Page(render(replace(REPORT, history=replace(CURVE, held_out=((100, 0.2), (200, 0.3))))))

    assert "Take step 100" in page.text
    assert ["100", "200"] == [attributes["data-step"] for attributes in page.all("img") if "data-step" in attributes]
    assert 1 == len([attributes for attributes in page.all("li") if attributes.get("class") == "best"])
    assert "step 100 best step 200" in page.text
    assert "surtr_arknights after step 100, seed 0" in [attributes.get("alt") for attributes in page.all("img")]


def test_every_saved_step_is_listed_with_its_files() -> None:
    """Those that are there; others were not kept."""
    kept = WrittenFile("ckpts/lora-200.safetensors", 1, "ef" * 32)

    text = Page(render(replace(REPORT, files=(*REPORT.files, kept)))).text

    assert "0.30000 not kept not kept" in text
    assert "0.20000 ckpts/lora-200.safetensors not kept" in text


def test_two_steps_can_be_compared_where_there_are_two() -> None:
    """One slider for each side, each with its label."""
    both, one = Page(render(REPORT)), Page(render(replace(REPORT, previews=(PreviewRow("1girl", 0, ((200, PICTURE),)),))))
    sliders = [attributes["id"] for attributes in both.all("input")]

    assert ["compare-left", "compare-right"] == sliders
    assert sliders == [attributes["for"] for attributes in both.all("label")]
    assert not one.all("input")


def test_the_picture_on_top_is_of_the_step_or_of_one_before_it() -> None:
    """Of the first after it where there is none before; of none where there is none at all."""
    rows = (PreviewRow("1girl", 0, ((100, "a"), (300, "b"))),)

    assert (100, "a") == cover(rows, 200)
    assert (300, "b") == cover(rows, 300)
    assert (100, "a") == cover(rows, 50)
    assert cover((), 100) is None


def test_pictures_that_are_held_out_unasked_are_not_counted_either() -> None:
    """One of eight."""
    assert "steps on 21 pictures; 3 more, never trained on, measure it." in Page(render(replace(REPORT, run=character_lora()))).text


def test_the_time_of_a_resumed_run_is_called_that_of_its_last_attempt() -> None:
    """Nobody shall think that it all took so little."""
    again = replace(FACTS, provenance=(("attempt", "2"),))

    assert "Took 5m12s" in Page(render(REPORT)).text
    assert "Last attempt took 5m12s" in Page(render(replace(REPORT, facts=again))).text


def test_a_run_without_checkpoints_still_has_a_page() -> None:
    """Nothing but the data set and the settings."""
    page = Page(render(replace(REPORT, history=History(), saves=(), previews=(), files=())))

    assert "no checkpoint yet" in page.text
    assert not page.all("svg")


def test_the_pair_to_publish_comes_before_that_of_the_last_step() -> None:
    """Its names are what webui wants."""
    paths = frozenset({"civitai/w.safetensors", "civitai/w.pt", "ckpts/lora-200.safetensors", "ckpts/w-200.pt"})

    assert UsedFiles("civitai/w.safetensors", "civitai/w.pt", published=True) == used_files("w", paths, (100, 200))
    assert UsedFiles("ckpts/lora-200.safetensors", "ckpts/w-200.pt", published=False) == used_files(
        "w", paths - {"civitai/w.pt"}, (100, 200)
    )
    assert used_files("w", frozenset(), (100, 200)) is None


def test_a_checkpoints_loss_is_the_mean_since_the_one_before() -> None:
    """Steps 1-2 and 3-4."""
    curve = History(((1, 1.0), (2, 0.5), (3, 0.4), (4, 0.2)), ((4, 0.3),))

    assert [(2, 0.75, None), (4, pytest.approx(0.3), 0.3)] == interval_losses(curve, (2, 4))
