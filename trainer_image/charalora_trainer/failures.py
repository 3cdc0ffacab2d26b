"""What unexpected errors mean, where we know it: the machine's limits, told as outcomes with what to do."""

import errno
import re
import sys

from charalora_spec.outcome import Outcome, TrainingError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_HOST_ALLOCATOR = re.compile(r"DefaultCPUAllocator.*(can't|not enough) ", re.DOTALL)


def known_failure(error: BaseException) -> TrainingError | None:
    """The outcome that an error stands for, or None where nobody foresaw it."""
    match error:
        case TrainingError():
            return error
        case OSError(errno=number, filename=name) if number in _FULL:
            where = f" of {name}" if name else ""
            return TrainingError(Outcome.DISK_FULL, f"The disk{where} is full; free some room, or name another folder with --work.")
    if _while_stopping(error):
        return interrupted()
    if _is_gpu_out_of_memory(error):
        advice = "lower training.batchSize and raise training.gradientAccumulation by as much, or make the pictures smaller"
        return TrainingError(Outcome.CUDA_OUT_OF_MEMORY, f"The training does not fit into the GPU's memory; {advice}.")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _HOST_ALLOCATOR.search(str(error))):
        advice = "lower training.batchSize, or give the run more memory (resources.memory in a cluster)"
        return TrainingError(Outcome.HOST_OUT_OF_MEMORY, f"The training does not fit into this machine's memory; {advice}.")
    return None


def _while_stopping(error: BaseException) -> bool:
    """Whether the error came up in tidying after a stop, which may hit any line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def interrupted() -> TrainingError:
    """A stop that was asked for outside of the training loop, which has nothing more to save than stands already."""
    return TrainingError(Outcome.INTERRUPTED, "Stopped on request; the same command goes on where it was.")


def _is_gpu_out_of_memory(error: BaseException) -> bool:
    """Asked without importing torch: where it was not imported it raised nothing."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
