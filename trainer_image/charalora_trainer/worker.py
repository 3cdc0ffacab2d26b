"""One process of a training, as `accelerate launch` starts it: `python -m charalora_trainer.worker WORKSPACE [LAUNCHER]`."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from charalora_spec.outcome import TrainingError
from charalora_trainer import logs
from charalora_trainer.console import MeteredConsole, open_console
from charalora_trainer.failures import interrupted, known_failure
from charalora_trainer.job import LOST_PARTNERS, Job, Workspace, note_outcome
from charalora_trainer.metrics import Metrics
from charalora_trainer.peers import PartnersLostError, together
from charalora_trainer.processes import Processes
from charalora_trainer.stages.learn import learn

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(workspace: Workspace) -> int:
    """Take part in the training that the workspace describes; the exit code is the outcome's.

    The launcher returns 1 for every failure, so the first process that fails leaves its outcome in the workspace. The others fail after it,
    because they miss it; of that nothing is told.
    """
    try:
        return _take_part(workspace)
    finally:
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, signal.SIG_IGN)  # how it ended is decided; on the way out a stop would only leave a traceback


def _take_part(workspace: Workspace) -> int:
    logs.configure_from(os.environ)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the training loop takes over while it runs, and saves first
    try:
        job = Job.read(workspace.job)
        processes = Processes.join()
        metrics = Metrics()
        console = MeteredConsole(open_console(processes.rank), metrics) if processes.is_first else open_console(processes.rank)
        with metrics.handed_over(workspace.metrics / f"{processes.local_rank}.prom"), together(processes):
            learn(job, workspace, processes, console, metrics)
    except PartnersLostError:
        return LOST_PARTNERS
    except KeyboardInterrupt:
        note_outcome(workspace, interrupted())
        return interrupted().outcome.exit_code or 1
    except (TrainingError, MemoryError, OSError, RuntimeError) as error:
        known = known_failure(error)
        if known is not None:
            note_outcome(workspace, known)
        elif not workspace.outcome.exists():
            raise
        return known.outcome.exit_code or 1 if known else 1
    return 0


def end_with(launcher: int) -> None:
    """Have the kernel end this process with its launcher: a killed one stops nobody, and a restart would find us in its workspace."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit(f"The launcher {launcher} has ended.")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        end_with(int(sys.argv[2]))
    sys.exit(main(Workspace(Path(sys.argv[1]))))
