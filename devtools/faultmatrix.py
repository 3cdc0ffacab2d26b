"""The page docs/faults.md from the table in faults.py and from the tests that are marked with its rows; whether those tests ran.

`faultmatrix.py ran` ends `make test`: it reads what tests/fault_record.py noted and is an error unless every row's tests passed.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from faults import Fault, Group

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "faults.md"
RECORD = ROOT / "build" / "faults.json"
NOTE = "<!-- Made by `make generate` from devtools/faults.py and the tests' marks. -->"
END = "<!-- The end of what is generated. -->"
_MARK = "pytest.mark.fault"

Tests = dict[Fault, list[tuple[str, str]]]
"""The tests of each row: the file below the repository's folder, and the function's name."""


def marked_tests() -> Tests:
    """Read the marks, without importing what is tested.

    Raises:
        ValueError: A row has no test.
    """
    tests: Tests = {fault: [] for fault in Fault}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if _MARK in text:
            for name, fault in _marks(ast.parse(text)):
                tests[fault].append((path.relative_to(ROOT).as_posix(), name))
    if untested := [fault.name for fault, found in tests.items() if not found]:
        raise ValueError(f"No test is marked with {', '.join(untested)} of devtools/faults.py.")
    return tests


def _marks(module: ast.Module) -> Iterator[tuple[str, Fault]]:
    for function in module.body:
        if isinstance(function, ast.FunctionDef):
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == _MARK:
                    yield from ((function.name, Fault[ast.unparse(row).removeprefix("Fault.")]) for row in mark.args)


def render_faults(text: str) -> str:
    """The page as it was written by hand, with its tables made anew."""
    before, _, rest = text.partition(NOTE)
    _, _, after = rest.partition(END)
    return "\n".join([before + NOTE, "", *_tables(marked_tests()), END]) + after


def _tables(tests: Tests) -> Iterator[str]:
    for group in Group:
        rows = [fault for fault in Fault if fault.group is group]
        if rows:
            yield f"## {group.value}"
            yield ""
            yield "| What breaks | What the user sees | What is lost at most | Tests |"
            yield "| --- | --- | --- | --- |"
            yield from (f"| {fault.what} | {fault.seen} | {fault.lost} | {_links(tests[fault])} |" for fault in rows)
            yield ""


def _links(tests: list[tuple[str, str]]) -> str:
    return "<br>".join(f"[{name.removeprefix('test_').replace('_', ' ')}](../{path})" for path, name in tests)


def unproven() -> list[str]:
    """What is wrong with the last run of the tests, a sentence for each row."""
    record: dict[str, dict[str, str]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    wrong = []
    for fault, tests in marked_tests().items():
        outcomes = record.get(fault.name, {})
        missing = [name for path, name in tests if outcomes.get(f"{path}::{name}") != "passed"]
        if missing:
            wrong.append(f"{fault.name} is not proven: {', '.join(missing)} did not run or did not pass.")
    return wrong


def main() -> int:
    """Whether every row of the page is shown by tests that ran and passed."""
    wrong = unproven()
    print("\n".join(wrong) or f"Each of the {len(Fault)} faults of docs/faults.md was shown.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
