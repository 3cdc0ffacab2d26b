"""What every measurement leaves behind: where and when it was made, and its result as JSON and as a page."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine(libraries: Sequence[str]) -> dict[str, Any]:
    """Where this was measured, and with what."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
    }


def processor() -> str:
    """The processor's name, as the system gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(result: Mapping[str, Any], name: str, page: str, folder: Path) -> Path:
    """Leave the result as JSON and as a page, under the day, the machine and a name; the page's path."""
    facts = result["machine"]
    named = facts.get("gpu", facts["processor"]).split(",")[0].lower().replace("(r)", "")
    where = re.sub("[^a-z0-9]+", "-", named).strip("-")
    path = folder / f"{facts['date'][:10]}-{where}-{name}.md"
    folder.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    path.write_text(page, encoding="utf-8")
    return path


def listed(facts: Mapping[str, Any]) -> str:
    """The machine's facts as a list in Markdown."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())
