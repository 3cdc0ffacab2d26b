"""The measurement of `make bench-best`, at its smallest: a character whom the judge is shown at two saves."""

import json
from pathlib import Path

import pytest
from best_step_cells import Setting, Taught, teach_all
from best_step_report import NAME, counts, judges_best, markdown, write

from charalora_trainer.history import History

BASE = Path(__file__).resolve().parents[2] / "examples/toyworld/base"
TINY = Setting(pictures=3, held_out=1, steps=2, save_every=1, judged=4, denoising=1)
ONE_HELD_OUT = Setting(held_out=1)

pytestmark = pytest.mark.timeout(1800)  # seconds of a quiet machine


def taught(name: str, *scores: float) -> Taught:
    """Somebody whose held-out loss is lowest at the second save."""
    held_out = tuple(zip((40, 80, 120), (0.3, 0.1, 0.2), strict=True))
    history = History(held_out=held_out, measurements=tuple((step, (loss, 2 * loss, 3 * loss)) for step, loss in held_out))
    return Taught(name, history, tuple(zip((40, 80, 120), scores, strict=True)), 1.0, "abc")


def test_a_character_is_taught_and_judged_once(tmp_path: Path) -> None:
    """Every save has a held-out loss and a score; who is asked again reads what lies there."""
    done: list[Taught] = []

    [found] = teach_all(["nian_arknights"], TINY, BASE, tmp_path, 1, done.append)

    assert [1, 2] == [step for step, _ in found.history.held_out] == [step for step, _ in found.scores]
    assert all(0 < score < 1 for _, score in found.scores)
    [folder] = tmp_path.iterdir()
    changed = json.loads((folder / "result.json").read_text()) | {"scores": [[1, 0.25], [2, 0.5]]}
    (folder / "result.json").write_text(json.dumps(changed))
    assert ((1, 0.25), (2, 0.5)) == teach_all(["nian_arknights"], TINY, BASE, tmp_path, 1, done.append)[0].scores


def test_the_table_says_whom_the_judge_likes_better(tmp_path: Path) -> None:
    """The choice twice, the last step once."""
    everyone = [taught("amiya", 0.1, 0.9, 0.8), taught("dusk", 0.95, 0.9, 0.5), taught("skadi", 0.1, 0.7, 0.8)]

    write(everyone, ONE_HELD_OUT, {"machine": "a quiet one"}, tmp_path)
    page = (tmp_path / f"{NAME}.md").read_text()

    assert {"the choice": 2, "the last": 1} == counts(everyone, ONE_HELD_OUT)
    assert [80, 40, 120] == [judges_best(one) for one in everyone]
    assert page == markdown(everyone, ONE_HELD_OUT, {"machine": "a quiet one"})
    assert (
        "**The choice agrees with the judge more often than the last step does**: it is better for 2 of 3 characters, worse for 1" in page
    )
    assert ["dusk", "40", "80", "–", "0.900", "0.500", "0.950", "the choice"] == [
        cell.strip() for cell in next(line for line in page.splitlines() if "dusk" in line).strip("|").split("|")
    ]
