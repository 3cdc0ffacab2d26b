"""Every reason has a page, and what the pages quote and tell people to type exists."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from charalora_operator import names
from charalora_operator.settings import Settings
from charalora_spec.crd import custom_resource_definition
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.spec import CharacterLora

ROOT = Path(__file__).resolve().parents[2]
REASONS = ROOT / "docs" / "reasons"
PAGES = sorted(REASONS.glob("*.md"))
GUIDES = [*PAGES, *sorted((ROOT / "docs" / "runbooks").glob("*.md")), ROOT / "docs" / "troubleshooting.md", ROOT / "docs" / "user-guide.md"]
HEADINGS = ["What happened", "How to see it", "Causes, and what to do", "Does it try again?", "What it cost", "What is kept"]
RESOURCE = custom_resource_definition()["spec"]
SCHEMA = RESOURCE["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
GAP = "…"


@cache
def sections(page: Path) -> dict[str, str]:
    """A page's parts by heading, in its order."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@cache
def sentences_of_the_code() -> str:
    """Every text in operator and trainer, a line each, with a gap in place of each value."""
    files = [path for folder in ("operator", "trainer_image") for path in (ROOT / folder).rglob("*.py")]
    return "\n".join(text for file in files for text in _texts(ast.parse(file.read_text())))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values]
            yield "".join(parts).replace("\n", " ")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.replace("\n", " ")


def quotations(page: Path) -> list[str]:
    """What a page says that the program says: quoted lines, and the first column of tables headed `What it says`."""
    lines = page.read_text().splitlines()
    quoted = [line.strip().removeprefix("> ") for line in lines if line.strip().startswith("> ")]
    table = sections(page)["Causes, and what to do"].partition("| What it says |")[2]
    return quoted + re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)


def schema_at(path: str) -> dict[str, Any] | None:
    """The schema of a field such as status.attempts[*].reason; None where there is no such field."""
    node: dict[str, Any] = {"properties": SCHEMA}
    for step in re.sub(r"\[[^]]*\]", "", path).split("."):
        node = node.get("items", node)
        if step not in node.get("properties", {}):
            return None
        node = node["properties"][step]
    return node


def commands(page: Path) -> str:
    """What a page tells people to type."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL))


def test_each_reason_has_its_page_and_no_page_is_left_over() -> None:
    """A page is named after its reason."""
    assert sorted(outcome.reason for outcome in Outcome) == [page.stem for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_have_the_same_headings_and_are_short(page: Path) -> None:
    """Who has read one page finds everything in the next."""
    text = page.read_text()

    assert text.startswith(f"# `{page.stem}`\n")
    assert list(sections(page)) == HEADINGS
    assert all(part.strip() for part in sections(page).values())
    assert len(text.splitlines()) <= 48


@pytest.mark.parametrize("outcome", Outcome, ids=lambda outcome: outcome.reason)
def test_pages_say_of_retries_what_the_table_of_outcomes_says(outcome: Outcome) -> None:
    """The first word is the answer."""
    answer = re.findall(r"\w+", sections(REASONS / f"{outcome.reason}.md")["Does it try again?"])[0]

    assert answer == ("No" if outcome.retry is Retry.NEVER else "Yes")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_messages_that_are_quoted_stand_in_the_code(page: Path) -> None:
    """Between two gaps word for word."""
    pieces = [piece.strip() for quotation in quotations(page) for piece in quotation.split(GAP)]
    told = [piece for piece in pieces if len(piece) > 2]

    assert [] == [piece for piece in told if piece not in sentences_of_the_code()]


def test_a_message_that_nobody_writes_is_noticed() -> None:
    """The search does not find everything."""
    assert "is no diffusers folder, but it holds model files" in sentences_of_the_code()
    assert "is no diffusers folder, but it holds a cat" not in sentences_of_the_code()
    assert sum(len(quotations(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_fields_that_commands_read_or_change_exist(page: Path) -> None:
    """In jsonpath and in patches."""
    typed = commands(page)
    read = re.findall(r"\{\.((?:spec|status)\.[\w.]+)", typed)
    listed = [
        (f"status.{one}.{two}") for one, rest in re.findall(r"range \.status\.(\w+)\[\*\]\}(.*?)\{end\}", typed) for two in _leaves(rest)
    ]
    conditions = re.findall(r"conditions\[\?\(@\.type==\"(\w+)\"\)\]", typed)
    patched = [f"spec.{part}.{field}" for part, field in re.findall(r"\{\"spec\":\{\"(\w+)\":\{\"(\w+)\"", typed)]

    assert [] == [path for path in [*read, *listed, *patched] if schema_at(path) is None]
    assert set(conditions) <= {"DatasetReady", "Admitted", "Training", "ArtifactsUploaded", "Succeeded"}


def _leaves(jsonpath: str) -> list[str]:
    return re.findall(r"\{\.(\w+)\}", jsonpath)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_names_in_commands_are_those_that_the_operator_gives(page: Path) -> None:
    """Labels, annotations and the resource's short name."""
    typed = commands(page)
    known = {value for value in vars(names).values() if isinstance(value, str)}

    assert {"clora"} == set(RESOURCE["names"]["shortNames"])
    assert set(re.findall(r"\b(?:charalora\.dev|app\.kubernetes\.io)/[\w-]+", typed)) <= known
    assert set(re.findall(r"component=(\w+)", typed)) <= {names.PREFLIGHT, names.TRAINING, "operator"}
    assert "characterlora/" not in typed


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_settings_that_are_named_exist(page: Path) -> None:
    """What administrators are asked for."""
    named = re.findall(r"`settings\.([\w.]+)", page.read_text())
    properties = Settings.model_json_schema()["properties"]

    assert {name.partition(".")[0] for name in named} <= set(properties)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_fields_that_are_named_in_prose_exist(page: Path) -> None:
    """With the part that they stand in, as in `run.retries`."""
    parts = "|".join(SCHEMA["spec"]["properties"])
    named = re.findall(rf"`(?:spec\.)?((?:{parts})(?:\.\w+)+)\b[^`/]*`", page.read_text())

    assert [] == [path for path in named if schema_at(f"spec.{path}") is None]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    """Files are looked at by another test, the place in them here."""
    links = re.findall(r"\]\(([^)\s:]*)#([^)\s]+)\)", page.read_text())
    lost = [f"{file}#{place}" for file, place in links if place not in _places(page.parent / file if file else page)]

    assert [] == lost


def _places(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_columns_that_are_explained_are_those_that_kubectl_prints() -> None:
    """In the same order."""
    explained = re.findall(r"^\| ([A-Z]+) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)

    assert explained == [column["name"].upper() for column in RESOURCE["versions"][0]["additionalPrinterColumns"]]


def test_the_resource_of_the_user_guide_is_valid_with_each_piece_that_may_be_added() -> None:
    """A reader types them as they stand there."""
    whole, *pieces = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "user-guide.md").read_text(), re.DOTALL)
    ]
    described = [CharacterLora.model_validate(whole | {"spec": whole["spec"] | piece}) for piece in pieces]

    assert [run.spec.scheduling.queue_name for run in described] == ["training", None, None]
    assert [run.spec.cache.claim_name for run in described] == [None, "models", "models"]
