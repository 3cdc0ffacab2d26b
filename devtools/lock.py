"""Write the hashed requirements files from pyproject.toml: `make lock`.

`dev.txt` is what a checkout needs. Each image has a file of its own with the same versions: `operator.txt`, `preflight.txt`, `trainer.txt`.
The 3 GB of CUDA libraries that the registry's torch brings along stand apart in `cuda.txt`, because a machine without a GPU needs none of
them. All are installed with `--no-deps --require-hashes`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
IMAGES = ("operator", "preflight", "trainer")
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton\b)")
# open-clip-torch is here for its vocabulary file alone; nothing imports it, so these two of its needs are left out.
UNUSED = re.compile(r"^(torchvision|timm)\b")
# A CPU build of the same torch version, for machines that have its wheel at hand (see README: CHARALORA_WHEELS).
TORCH_CPU_HASH = "sha256:95eaadc40398b8c99d95b0505760c8550f6a01e3eb17b38728d88f053015dc63"
HEADER = "# Made by `make lock` from pyproject.toml; install with pip --no-deps --require-hashes.\n"


def compiled(extra: str, constraint: str) -> list[str]:
    """One entry per package that an extra needs, pinned: its line and the lines of its hashes."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", extra, "--generate-hashes"]
    command += ["--python-version", "3.11", "--no-header", "--no-annotate", "--constraint", f"requirements/{constraint}", "--quiet"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    entries = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if not UNUSED.match(entry)]
    return [f"{entry} \\\n    --hash={TORCH_CPU_HASH}" if entry.startswith("torch==") else entry for entry in entries]


def write(name: str, entries: list[str]) -> None:
    """One requirements file."""
    (REQUIREMENTS / f"{name}.txt").write_text(HEADER + "\n".join(entries) + "\n")


def main() -> None:
    """Everything is pinned once; the images take their share of it."""
    everything = compiled("dev", "constraints.txt")
    write("dev", [entry for entry in everything if not CUDA_ONLY.match(entry)])
    write("cuda", [entry for entry in everything if CUDA_ONLY.match(entry)])
    for image in IMAGES:
        write(image, [entry for entry in compiled(image, "dev.txt") if not CUDA_ONLY.match(entry)])


if __name__ == "__main__":
    main()
