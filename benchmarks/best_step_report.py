"""Ten characters as a table: which step the held-out loss chose, and what the judge says of it and of the last one."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev

from best_step_cells import Setting, Taught
from best_step_rules import RULES, Rule, lowest
from proof_report import table

from charalora_trainer.best import overfitting_since

NAME = "best-step-toyworld"
CHOICE, LAST, NEITHER = "the choice", "the last", "the same step"


def nearer(taught: Taught, step: int) -> str:
    """Which of a step and the last one the judge likes better."""
    last = taught.scores[-1][0]
    if step == last:
        return NEITHER
    scores = dict(taught.scores)
    return CHOICE if scores[step] > scores[last] else LAST


def judges_best(taught: Taught) -> int:
    """The step that the judge likes best."""
    return max(taught.scores, key=lambda point: point[1])[0]


def counts(all_taught: Sequence[Taught], setting: Setting, rule: Rule = lowest) -> Counter[str]:
    """For how many characters a rule's step is better than the last, for how many worse, for how many the same."""
    return Counter(nearer(taught, rule(taught.history, setting.held_out)) for taught in all_taught)


def markdown(all_taught: Sequence[Taught], setting: Setting, facts: Mapping[str, str]) -> str:
    """The whole page."""
    head = ["character", "judge's best", "chosen", "overfitting after", "score at chosen", "at the last", "at the judge's best", "better"]
    tried = ["rule", "mean score", "better than the last", "worse", "saves away from the judge's best"]
    return "\n".join(
        [
            "# Which step to use",
            "",
            _verdict(all_taught, setting),
            "",
            table(head, [*(_row(taught, setting) for taught in all_taught), _means(all_taught, setting)]),
            "",
            _how(setting),
            "",
            "## What else was tried",
            "",
            "The same histories, chosen from by other rules:",
            "",
            table(tried, _rules(all_taught, setting)),
            "",
            table(["measured with", ""], list(facts.items())),
            "",
        ]
    )


def _verdict(all_taught: Sequence[Taught], setting: Setting) -> str:
    found = counts(all_taught, setting)
    sentence = (
        "agrees with the judge more often than the last step does" if found[CHOICE] > found[LAST] else "is no better than the last step"
    )
    return (
        f"**The choice {sentence}**: it is better for {found[CHOICE]} of {len(all_taught)} characters, worse for {found[LAST]}, and the "
        f"last step itself for {found[NEITHER]}."
    )


def _how(setting: Setting) -> str:
    return (
        f"Each character is taught with {setting.pictures - setting.held_out} pictures, far too few, at {setting.rates:g} times the demo's "
        f"rates for {setting.steps} steps: a training that goes too far; {setting.held_out} more pictures give the held-out loss. A "
        f"save every {setting.save_every} steps is shown to the judge: {setting.judged} pictures in {setting.denoising} denoising steps, "
        "a quarter on each background. Its *score* is how sure it is, from 0 to 1, of seeing each of her seven attributes and the "
        "background that was asked for. The judge knows drawings and no training."
    )


def write(all_taught: Sequence[Taught], setting: Setting, facts: Mapping[str, str], folder: Path) -> None:
    """Leave the page and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.md").write_text(markdown(all_taught, setting, facts), encoding="utf-8")
    characters = [
        {"name": taught.name, "heldOut": taught.history.held_out, "judge": taught.scores, "measurements": taught.history.measurements}
        | {"seconds": taught.seconds, "commit": taught.commit}
        for taught in all_taught
    ]
    content = {"facts": dict(facts), "setting": asdict(setting), "characters": characters}
    (folder / f"{NAME}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def _row(taught: Taught, setting: Setting) -> list[str]:
    scores, chosen, best = dict(taught.scores), lowest(taught.history, setting.held_out), judges_best(taught)
    since = overfitting_since(taught.history)
    figures = (scores[chosen], taught.scores[-1][1], scores[best])
    return [taught.name, str(best), str(chosen), str(since or "–"), *(f"{score:.3f}" for score in figures), nearer(taught, chosen)]


def _means(all_taught: Sequence[Taught], setting: Setting) -> list[str]:
    chosen = [dict(taught.scores)[lowest(taught.history, setting.held_out)] for taught in all_taught]
    lasts = [taught.scores[-1][1] for taught in all_taught]
    bests = [dict(taught.scores)[judges_best(taught)] for taught in all_taught]
    return ["mean ± standard deviation", "", "", "", *(_spread(scores) for scores in (chosen, lasts, bests)), ""]


def _spread(scores: Sequence[float]) -> str:
    return f"{fmean(scores):.3f}" + (f" ± {stdev(scores):.3f}" if len(scores) > 1 else "")


def _rules(all_taught: Sequence[Taught], setting: Setting) -> list[list[str]]:
    rows = []
    for name, rule in RULES.items():
        steps = [rule(taught.history, setting.held_out) for taught in all_taught]
        scores = [dict(taught.scores)[step] for taught, step in zip(all_taught, steps, strict=True)]
        away = [abs(step - judges_best(taught)) / setting.save_every for taught, step in zip(all_taught, steps, strict=True)]
        found = counts(all_taught, setting, rule)
        rows.append([name, _spread(scores), str(found[CHOICE]), str(found[LAST]), f"{fmean(away):.1f}"])
    return rows
