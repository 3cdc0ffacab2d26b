"""Try one target with what atheris thinks of, for some minutes: python tests/fuzz/run.py TARGET MINUTES [CORPUS].

Bytes that break a promise are written beside as crash-…, timeout-… or oom-…; with the fault mended they belong into corpus/TARGET/.
"""

import sys
import tempfile
from pathlib import Path

import atheris
import torch  # noqa: F401  # before the others: to watch all of it as well would take minutes

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
with atheris.instrument_imports(include=["charalora_spec", "charalora_operator", "charalora_trainer", "yaml"]):
    from fuzz.targets import TARGETS, seeds

_SECONDS = 10  # of one try; a machine may be busy
_MEGABYTES = 2048  # torch and what it takes to run come to some hundred


def main(name: str, minutes: str, corpus: str = "") -> None:
    """Fuzz one target; ends with another exit code than 0 at the first finding."""
    with tempfile.TemporaryDirectory(prefix="charalora-fuzz-") as temporary:
        found = Path(corpus or Path(temporary, "corpus"))
        found.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(name)):
            (found / f"seed-{number}").write_bytes(seed)
        folder = Path(temporary, "scratch")
        folder.mkdir()
        options = [f"-max_total_time={round(60 * float(minutes))}", f"-timeout={_SECONDS}", f"-rss_limit_mb={_MEGABYTES}", "-max_len=4096"]
        options += ["-print_final_stats=1", "-verbosity=0", "-close_fd_mask=0"]
        atheris.Setup([sys.argv[0], *options, str(found)], lambda data: TARGETS[name](data, folder))
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:] == ["list"]:
        print(*TARGETS, sep="\n")
    else:
        main(*sys.argv[1:])
