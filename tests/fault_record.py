"""Which faults a session of pytest showed. A plugin, loaded by conftest.py: it notes how each marked test ended.

Several sessions add to one record, which `make test` ends with; a test's newest outcome counts.
"""

import fcntl
import json
from collections import defaultdict

import pytest

from faultmatrix import RECORD, marked_tests
from faults import Fault

_PROPERTY = "fault"
_FINE = "passed"

_outcomes: dict[str, dict[str, str]] = defaultdict(dict)


def pytest_configure(config: pytest.Config) -> None:
    """The mark that a test of a fault has."""
    config.addinivalue_line("markers", "fault(row, ...): rows of devtools/faults.py that the test shows")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A mark must be where the page's maker looks for it, and then goes with the test's reports."""
    listed = marked_tests()
    for item in items:
        for row in [row for mark in item.iter_markers("fault") for row in mark.args]:
            test = _test(item.nodeid)
            if test not in ["::".join(found) for found in listed[row]]:
                raise pytest.UsageError(f"{test}: the mark of {row} must be @pytest.mark.fault(Fault.{row.name}) on the function.")
            item.user_properties.append((_PROPERTY, row.name))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The worst of what a test's steps and cases say."""
    for name, value in report.user_properties:
        if name == _PROPERTY and (report.when == "call" or report.outcome != _FINE):
            told = _outcomes[str(value)]
            if told.get(_test(report.nodeid), _FINE) == _FINE:
                told[_test(report.nodeid)] = report.outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add to the record, and say of which rows this session has shown."""
    if not _outcomes:
        return
    RECORD.parent.mkdir(exist_ok=True)
    with RECORD.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = json.loads(file.read() or "{}")
        record = {row: before.get(row, {}) | _outcomes.get(row, {}) for row in before.keys() | _outcomes.keys()}
        file.truncate(0)
        file.write(json.dumps(record, indent=1, sort_keys=True))
    shown = sorted(row for row, tests in _outcomes.items() if set(tests.values()) == {_FINE})
    terminalreporter.line(f"faults: {len(shown)} of {len(Fault)} rows shown by what ran here: {', '.join(shown) or 'none'}")


def _test(nodeid: str) -> str:
    """A test function, whatever its parameters."""
    return nodeid.partition("[")[0]
