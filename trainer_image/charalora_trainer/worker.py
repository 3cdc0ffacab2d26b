"""One process of a training, as `accelerate launch` starts it: `python -m charalora_trainer.worker WORKSPACE`."""

import os
import sys
from pathlib import Path

from charalora_spec.outcome import TrainingError
from charalora_trainer import logs
from charalora_trainer.console import open_console
from charalora_trainer.failures import known_failure
from charalora_trainer.job import Job, Workspace, note_outcome
from charalora_trainer.processes import Processes
from charalora_trainer.stages.learn import learn


def main(workspace: Workspace) -> int:
    """Take part in the training that the workspace describes; the exit code is the outcome's.

    The launcher returns 1 for every failure, so the first process that fails leaves its outcome in the workspace.
    """
    logs.configure_from(os.environ)
    job = Job.read(workspace.job)
    processes = Processes.join()
    try:
        learn(job, workspace, processes, open_console(processes.rank))
    except (TrainingError, MemoryError, OSError, RuntimeError) as error:
        known = known_failure(error)
        if known is None:
            raise
        note_outcome(workspace, known)
        return known.outcome.exit_code or 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Workspace(Path(sys.argv[1]))))
