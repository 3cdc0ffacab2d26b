"""Starting the processes of a training."""

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.console import Console
from charalora_trainer.cores import available_cores
from charalora_trainer.failures import interrupted
from charalora_trainer.job import LOST_PARTNERS, Job, Workspace, noted_outcome
from charalora_trainer.metrics import Metrics
from charalora_trainer.nodes import SECONDS_TO_MEET, Node

WORKER = "charalora_trainer.worker"
TORCH_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
"""Environment variable that torch looks at when it is imported."""
SECONDS_TO_SAVE = 120
"""How long processes may take to save after a signal, or to end after another one has failed, before they are killed."""
SECONDS_TO_ANSWER = 30
"""How long a node waits for an answer of node 0 before it takes it for lost."""


def launch(job: Job, workspace: Workspace, node: Node, console: Console, metrics: Metrics) -> None:
    """Train here and now: in this process when it is the only one, else through `accelerate launch`.

    Raises:
        TrainingError: How the training ended, if not well.
    """
    if job.processes == 1:
        import torch

        from charalora_trainer.processes import Processes
        from charalora_trainer.stages.learn import learn

        torch.set_num_threads(_threads(processes=1))
        learn(job, workspace, Processes.join(), console, metrics)
        return
    workspace.outcome.unlink(missing_ok=True)
    shutil.rmtree(workspace.metrics, ignore_errors=True)  # of an earlier attempt
    metrics.follow(workspace.metrics)
    if not node.is_first:
        with console.stage("wait for node 0"):
            node.wait_for_host()
    failure = _accelerate(job.processes // node.count, workspace.root, node)
    failure = noted_outcome(workspace) or failure
    if failure is not None:
        raise failure


def _accelerate(processes: int, workspace: Path, node: Node) -> TrainingError | None:
    """Run `accelerate launch` for the processes of this node; what can be said of a failure from outside of them."""
    with without_torch_warnings(os.environ):
        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.elastic.rendezvous.api import RendezvousError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it prints tracebacks of what our outcome says in a line
    arguments = ["--multi_gpu", "--num_processes", str(processes * node.count), "--num_machines", str(node.count)]
    arguments += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", str(_threads(processes))]
    arguments += [*_meeting(node), "-m", WORKER, str(workspace), str(os.getpid())]
    parsed = launch_command_parser().parse_args(arguments)
    parsed.shutdown_timeout = SECONDS_TO_SAVE  # accelerate hands what it does not know on to torchrun
    if node.count > 1:
        parsed.rdzv_id = node.run_id
        parsed.local_addr = node.host if node.is_first else None
    with _signals_kept():
        try:
            launch_command(parsed)
        except SignalException:
            return interrupted()
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            return _seen_from_outside(next((code for code in codes if code != LOST_PARTNERS), LOST_PARTNERS))
        except (RendezvousError, ConnectionError) as error:
            return TrainingError(
                Outcome.INTERNAL_ERROR, f"The nodes did not meet, or lost each other ({error}); see the other nodes' logs."
            )
    return None


def _meeting(node: Node) -> list[str]:
    """Where the processes find each other: on one node at a free port, on several at node 0."""
    if node.count == 1:
        return ["--main_process_port", "0", "--rdzv_backend", "static"]
    settings = f"is_host={int(node.is_first)},join_timeout={SECONDS_TO_MEET},read_timeout={SECONDS_TO_ANSWER}"
    place = ["--machine_rank", str(node.rank), "--main_process_ip", node.host, "--main_process_port", str(node.port)]
    return [*place, "--rdzv_backend", "c10d", "--rdzv_conf", settings]


def _threads(processes: int) -> int:
    """CPU threads of each process: as OMP_NUM_THREADS says, else its share of what this container may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() else max(1, available_cores() // processes)


def _seen_from_outside(exit_code: int) -> TrainingError:
    if exit_code == LOST_PARTNERS:
        what = "Another node of this training is gone, and its own log says why; a new start goes on from the newest state in the store."
    elif exit_code == -signal.SIGKILL:
        what = "A training process was killed, as the kernel does when memory runs out; see its log (dmesg), or give the run more memory."
    else:
        what = f"A training process ended without saying why (exit code {exit_code}); its last lines are above."
    return TrainingError(Outcome.INTERNAL_ERROR, what)


@contextlib.contextmanager
def without_torch_warnings(environ: MutableMapping[str, str]) -> Iterator[None]:
    """Import torch in this block, and its C++ part warns of nothing in this process; those that it starts are as they were.

    The launcher of a node says goodbye to node 0, which may have gone: torch would print a stack at the end of a good training.
    """
    if TORCH_LOG_LEVEL in environ:  # somebody wants to see
        yield
        return
    environ[TORCH_LOG_LEVEL] = "ERROR"
    try:
        yield
    finally:
        del environ[TORCH_LOG_LEVEL]


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
