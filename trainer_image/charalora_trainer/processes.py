"""Which of the training's processes this one is, and the few things that they agree on."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from charalora_spec.outcome import Outcome, TrainingError

DEVICE = "CHARALORA_DEVICE"
"""Environment variable: `cpu` leaves GPUs alone."""

# Other processes wait while the first one makes previews or proves files, which takes minutes on a CPU.
PATIENCE = timedelta(hours=2)


T = TypeVar("T")


def gpu_count() -> int:
    """GPUs that training may use: none where it was told to stay on the CPU."""
    return 0 if os.environ.get(DEVICE) == "cpu" else torch.cuda.device_count()


def on_cpu() -> bool:
    """Whether training runs on the CPU: asked for, or for want of a GPU."""
    return os.environ.get(DEVICE) == "cpu" or not torch.cuda.is_available()


@dataclass(frozen=True)
class Processes:
    """This process among the others.

    Attributes:
        rank: Its number over all nodes; 0 writes files, logs and previews.
        count: How many there are.
        local_rank: Its number on this node.
        device: Where it computes.
        nodes: How many machines they are on.
    """

    rank: int
    count: int
    local_rank: int
    device: torch.device
    nodes: int = 1

    @classmethod
    def join(cls) -> "Processes":
        """Meet the others as `accelerate launch` arranged it; alone where it did not. NCCL on GPUs, gloo on CPUs."""
        state = PartialState(cpu=on_cpu(), timeout=PATIENCE)
        return cls(
            rank=state.process_index,
            count=state.num_processes,
            local_rank=state.local_process_index,
            device=state.device,
            nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean over the processes, the same on each; in place."""
        if self.count > 1:
            dist.all_reduce(value)
            value.div_(self.count)
        return value

    def any(self, *, flag: bool) -> bool:
        """Whether `flag` holds in at least one process; every process gets the same answer."""
        if self.count == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self.device)).item() > 0)

    def share(self, value: T) -> T:
        """What the first process gives, to every process; what the others give is not looked at."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """What every process gives, in the order of their numbers, to every process."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def expect(self, count: int) -> None:
        """Stop before any work when fewer or more processes came than the resource asks for.

        Raises:
            TrainingError: `GpuMismatch`.
        """
        if self.count != count:
            raise TrainingError(
                Outcome.GPU_MISMATCH,
                f"{self.count} processes met where {count} were asked for; give the Job as many GPUs as spec.resources says.",
            )
