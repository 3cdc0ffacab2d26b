"""What the launcher of a training says, and leaves unsaid."""

import os
import subprocess
import sys

import pytest

from charalora_trainer.stages.launch import TORCH_LOG_LEVEL

GOODBYE = f"""
import os
from contextlib import suppress
from datetime import timedelta

from charalora_trainer.stages.launch import without_torch_warnings

with without_torch_warnings(os.environ):
    from torch.distributed import DistError, TCPStore

patience = timedelta(seconds=5)
host = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=patience)
guest = TCPStore("127.0.0.1", host.port, is_master=False, timeout=patience)
guest.set("here", "1")
del host
with suppress(DistError):
    guest.compare_set("here", "1", "0")
    raise SystemExit("the store still answers")
print(os.environ.get("{TORCH_LOG_LEVEL}", "as it was"))
"""


@pytest.mark.parametrize(("asked", "prints_a_stack", "left"), [({}, False, "as it was"), ({TORCH_LOG_LEVEL: "INFO"}, True, "INFO")])
def test_goodbye_to_a_node_that_has_gone_is_quiet_unless_somebody_wants_to_see(
    asked: dict[str, str], prints_a_stack: bool, left: str  # noqa: FBT001 - a table's columns
) -> None:  # fmt: skip
    """The training's processes, which are started later, do not inherit it."""
    environ = {name: value for name, value in os.environ.items() if name != TORCH_LOG_LEVEL} | asked

    done = subprocess.run([sys.executable, "-c", GOODBYE], env=environ, check=True, capture_output=True, text=True)

    assert prints_a_stack is ("frame #" in done.stderr), done.stderr
    assert left == done.stdout.strip()
