"""Starting the processes of a training."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.console import Console
from charalora_trainer.job import Job, Workspace, noted_outcome

WORKER = "charalora_trainer.worker"


def launch(job: Job, workspace: Workspace, console: Console) -> None:
    """Train here and now: in this process when it is the only one, else through `accelerate launch`.

    Raises:
        TrainingError: How the training ended, if not well.
    """
    if job.processes == 1:
        from charalora_trainer.processes import Processes
        from charalora_trainer.stages.learn import learn

        learn(job, workspace, Processes.join(), console)
        return
    workspace.outcome.unlink(missing_ok=True)
    failed = _accelerate(job.processes, workspace.root)
    noted = noted_outcome(workspace)
    if noted is not None:
        raise noted
    if failed:
        raise TrainingError(Outcome.INTERNAL_ERROR, "A training process ended without saying why; its last lines are above.")


def _accelerate(processes: int, workspace: Path) -> bool:
    """Run `accelerate launch` on this machine; whether a process failed."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it prints tracebacks of what our outcome says in a line
    threads = max(1, (os.cpu_count() or 1) // processes)
    arguments = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    arguments += ["--dynamo_backend", "no", "--main_process_port", "0", "--num_cpu_threads_per_process", str(threads)]
    arguments += ["--rdzv_backend", "static", "-m", WORKER, str(workspace)]
    with _signals_kept():
        try:
            launch_command(launch_command_parser().parse_args(arguments))
        except (ChildFailedError, SignalException):
            return True
    return False


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
