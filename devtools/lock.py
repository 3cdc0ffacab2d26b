"""Write the hashed requirements files from pyproject.toml: `make lock`.

Two files, because a machine without a GPU needs none of the 3 GB of CUDA libraries that the registry's torch brings along:
`dev.txt` is everything else, `cuda.txt` those libraries. Both are installed with `--no-deps --require-hashes`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton\b)")
# open-clip-torch is here for its vocabulary file alone; nothing imports it, so these two of its needs are left out.
UNUSED = re.compile(r"^(torchvision|timm)\b")
# A CPU build of the same torch version, for machines that have its wheel at hand (see README: CHARALORA_WHEELS).
TORCH_CPU_HASH = "sha256:95eaadc40398b8c99d95b0505760c8550f6a01e3eb17b38728d88f053015dc63"


def compiled() -> list[str]:
    """One entry per pinned package: its line and the lines of its hashes."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", "dev", "--generate-hashes"]
    command += ["--python-version", "3.11", "--no-header", "--no-annotate", "--constraint", "requirements/constraints.txt", "--quiet"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return re.split(r"\n(?=\S)", text.strip())


def main() -> None:
    """Split the compiled list into the two files."""
    entries = [entry for entry in compiled() if not UNUSED.match(entry)]
    torch = next(entry for entry in entries if entry.startswith("torch=="))
    entries[entries.index(torch)] = f"{torch} \\\n    --hash={TORCH_CPU_HASH}"
    header = "# Made by `make lock` from pyproject.toml; install with pip --no-deps --require-hashes.\n"
    for name, wanted in (("cuda.txt", True), ("dev.txt", False)):
        chosen = [entry for entry in entries if bool(CUDA_ONLY.match(entry)) is wanted]
        (ROOT / "requirements" / name).write_text(header + "\n".join(chosen) + "\n")


if __name__ == "__main__":
    main()
