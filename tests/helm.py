"""Helm, called on our chart. It is built from its pinned Go module at the first call."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "charalora"
KUBERNETES = "v1.35.0"  # for Helm, which asks no cluster here

Values = dict[str, Any]
Manifest = dict[str, Any]
Render = Callable[[Values], list[Manifest]]


class Helm:
    """The program, called on our chart."""

    def __init__(self, folder: Path) -> None:
        found = subprocess.run([sys.executable, "devcluster/binaries.py", "helm"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
        self._program = found.stdout.split()[-1]
        self._folder = folder

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Helm to its end, with homes of its own."""
        homes = {name: str(self._folder) for name in ("HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        return subprocess.run([self._program, *arguments], cwd=ROOT, env=homes, capture_output=True, text=True, check=False, timeout=120)

    def template(self, values: Values) -> subprocess.CompletedProcess[str]:
        """`helm template` of a release that is called `surtr`, in namespace `ml`."""
        given = self._folder / "values.json"
        given.write_text(json.dumps(values))
        return self.run("template", "surtr", str(CHART), "--namespace", "ml", "--kube-version", KUBERNETES, "--values", str(given))
