"""What the documents tell people to type exists."""

import re
from pathlib import Path

import click
import pytest

from charalora_trainer.cli.main import charalora

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*"), ROOT / "Makefile")
    if path.is_file()
)
EXAMPLES = [(path.name, line) for path in DOCUMENTS for line in path.read_text().splitlines() if re.search(r"\bcharalora [a-z]+ ", line)]


def typed(line: str) -> list[tuple[str, list[str]]]:
    """The commands in a line, each with its options."""
    calls = re.findall(r"(?:^|[`\s])charalora ([a-z]+)((?: [^`|#]*)?)", line)
    return [(command, re.findall(r"--[\w-]+", rest)) for command, rest in calls if command in charalora.commands or "--" in rest]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_that_are_named_exist(path: Path) -> None:
    """In prose and in code."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.suffix == ".md"], ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    """From the folder of the document."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()) if "://" not in link]

    assert [] == [link for link in links if link and not (path.parent / link).exists()]


def test_commands_that_are_named_exist_with_their_options() -> None:
    """A renamed option is found here."""
    calls = [(name, *call) for name, line in EXAMPLES for call in typed(line)]
    unknown = [
        (name, command, option)
        for name, command, options in calls
        for option in (options or [""])
        if command not in charalora.commands or (option and option not in _options(charalora.commands[command]))
    ]

    assert {"run", "check", "train"} <= {command for _, command, _ in calls}
    assert [] == unknown


@pytest.mark.parametrize("command", charalora.commands)
def test_the_examples_in_a_commands_help_use_its_options(command: str) -> None:
    """Help is documentation too."""
    found = charalora.commands[command]
    examples = (found.help or "").split("Examples:")[1]

    assert set(re.findall(r"--[\w-]+", examples)) <= _options(found)


def _options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}
