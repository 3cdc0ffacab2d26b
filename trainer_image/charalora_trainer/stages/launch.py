"""Starting the processes of a training."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.console import Console
from charalora_trainer.failures import interrupted
from charalora_trainer.job import Job, Workspace, noted_outcome

WORKER = "charalora_trainer.worker"
SECONDS_TO_SAVE = 120
"""How long processes may take to save after a signal, or to end after another one has failed, before they are killed."""


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
    failure = _accelerate(job.processes, workspace.root)
    failure = noted_outcome(workspace) or failure
    if failure is not None:
        raise failure


def _accelerate(processes: int, workspace: Path) -> TrainingError | None:
    """Run `accelerate launch` on this machine; what can be said of a failure from outside of the processes."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it prints tracebacks of what our outcome says in a line
    threads = max(1, (os.cpu_count() or 1) // processes)
    arguments = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    arguments += ["--dynamo_backend", "no", "--main_process_port", "0", "--num_cpu_threads_per_process", str(threads)]
    arguments += ["--rdzv_backend", "static", "-m", WORKER, str(workspace), str(os.getpid())]
    parsed = launch_command_parser().parse_args(arguments)
    parsed.shutdown_timeout = SECONDS_TO_SAVE  # accelerate hands it on to torchrun
    with _signals_kept():
        try:
            launch_command(parsed)
        except SignalException:
            return interrupted()
        except ChildFailedError as error:
            return _seen_from_outside(error.get_first_failure()[1].exitcode)
    return None


def _seen_from_outside(exit_code: int) -> TrainingError:
    if exit_code == -signal.SIGKILL:
        what = "A training process was killed, as the kernel does when memory runs out; see its log (dmesg), or give the run more memory."
    else:
        what = f"A training process ended without saying why (exit code {exit_code}); its last lines are above."
    return TrainingError(Outcome.INTERNAL_ERROR, what)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
