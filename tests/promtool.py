"""Prometheus's own checker, for tests of figures and alerts; it comes with Debian's Prometheus, which the development cluster needs too."""

import subprocess
from pathlib import Path

from packages import need


def promtool(*arguments: str | Path, content: str | None = None) -> str:
    """What promtool prints; its complaint is the test's."""
    need("promtool")
    done = subprocess.run(["promtool", *arguments], input=content, check=False, capture_output=True, text=True)
    said = f"{done.stdout}{done.stderr}"
    assert done.returncode == 0, f"promtool {' '.join(map(str, arguments))}: {said}"
    return said
