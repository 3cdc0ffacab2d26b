"""One process of a training, as `accelerate launch` starts it: `python -m charalora_trainer.worker WORKSPACE`."""

import json
import logging
import sys
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.console import open_console
from charalora_trainer.job import Job, Workspace
from charalora_trainer.processes import Processes
from charalora_trainer.stages.learn import learn


def main(workspace: Workspace) -> int:
    """Take part in the training that the workspace describes; the exit code is the outcome's.

    The launcher returns 1 for every failure, so the first process that fails leaves its outcome in the workspace.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    job = Job.read(workspace.job)
    processes = Processes.join()
    try:
        learn(job, workspace, processes, open_console(processes.rank))
    except TrainingError as error:
        note_outcome(workspace, error)
        return error.outcome.exit_code or 1
    return 0


def note_outcome(workspace: Workspace, error: TrainingError) -> None:
    """Leave a failure for the process that started this one; of several only the first counts."""
    try:
        with workspace.outcome.open("x") as file:
            json.dump({"reason": error.outcome.reason, "message": error.message}, file)
    except FileExistsError:
        logging.getLogger(__name__).debug("Another process failed first")


def noted_outcome(workspace: Workspace) -> TrainingError | None:
    """The failure that a process left, if one did."""
    try:
        noted = json.loads(workspace.outcome.read_text())
    except FileNotFoundError:
        return None
    outcome = next(outcome for outcome in Outcome if outcome.reason == noted["reason"])
    return TrainingError(outcome, noted["message"])


if __name__ == "__main__":
    sys.exit(main(Workspace(Path(sys.argv[1]))))
