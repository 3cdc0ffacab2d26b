"""A page that is one file: its style and its scripts stand in it, and its own policy forbids every other one and every request."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from charalora_trainer.progress import Unit, amount, duration

_PARTS = Path(__file__).parent / "report_page"


def page(template: str, scripts: Sequence[str], context: Mapping[str, Any]) -> str:
    """The page; every value of the context is escaped, `Markup` alone is not.

    A browser hashes a script or style as the page has it, so both stand there letter by letter.
    """
    style, script = _part("page.css"), Markup("").join(map(_part, scripts))
    ours = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    policy = f"default-src 'none'; img-src data:; {ours}; base-uri 'none'; form-action 'none'"
    return _environment().get_template(template).render(context, style=style, script=script, policy=policy)


def _part(name: str) -> Markup:
    """Our own style or script, as it stands in the package."""
    return Markup((_PARTS / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["bytes"] = lambda number: amount(number, Unit.BYTES)
    return environment
