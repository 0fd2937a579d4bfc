"""Whose fault an exception in a worker is: the user's code or ours, which fail everywhere, or this one machine's."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from headway.elastic.wire.messages import TRACE_BYTES, Raised
from headway.errors import HeadwayError
from headway.faults import blame

_BROKEN = {errno.EIO, errno.ENOSPC, errno.ESTALE, errno.ENODEV, errno.EROFS, errno.ETIMEDOUT}
_DEVICE = re.compile(r"CUDA error|CUDA driver|NVML|CUBLAS_STATUS_|CUDNN_STATUS_|cuDNN error|ECC error")
LONGEST = 2000
"""Characters of a reason."""


def raised(error: BaseException, where: str, starting: bool) -> Raised:
    """What the coordinator is told.

    Args:
        error: that ended this worker.
        where: in the run, in words.
        starting: it came from our own setting-up, before any code of the user's was called.
    """
    parts = _words(error, where, starting)
    fault = "machine" if of_machine(error, starting) else "user"
    trace = blame.bounded(parts.pop("traceback"), TRACE_BYTES)
    return Raised(fault, {**{name: text[:LONGEST] for name, text in parts.items()}, "traceback": trace})


def of_used_process(told: Raised) -> Raised:
    """The same, of a process that has worked for other runs: another may do better."""
    fact = f"{told.failure['fact']}, in a process that has worked for other runs"
    return Raised("machine", {**told.failure, "fact": fact})


def _words(error: BaseException, where: str, starting: bool) -> dict[str, str]:
    """Kind, fact, reason, remedy and traceback. The kind is that of an error of ours, machine, task or internal."""
    if isinstance(error, HeadwayError):
        told = {"fact": error.fact, "reason": error.reason, "remedy": error.remedy}
        return {"kind": type(error).__name__, **told, "traceback": error.traceback}
    error = blame.first(error)
    reason, theirs = blame.reason(error), blame.users_traceback(error)
    if of_machine(error, starting):
        remedy = "Look at that machine, and resume the run."
        return {"kind": "machine", "fact": where, "reason": reason, "remedy": remedy, "traceback": theirs}
    if blame.is_ours(error):
        reason = f"{reason} ({blame.place(error)})"
        trace = blame.whole_traceback(error)
        return {"kind": "internal", "fact": where, "reason": reason, "remedy": "", "traceback": trace}
    return {"kind": "task", "fact": where, "reason": reason, "remedy": "", "traceback": theirs}


def of_machine(error: BaseException, starting: bool) -> bool:
    """Whether another machine might have done better. Arguments as of `raised`."""
    return any(_is_machines(each, starting) for each in _chain(error))


def _is_machines(error: BaseException, starting: bool) -> bool:
    import torch

    from headway.elastic.worker.replica import TornState

    if isinstance(error, TornState):
        return True
    if isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    if isinstance(error, OSError) and error.errno in _BROKEN:
        return True
    if starting and isinstance(error, OSError | ImportError):  # a mount that is missing, a library that is broken
        return True
    return isinstance(error, RuntimeError) and _DEVICE.search(str(error)) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error of ours, and what it was raised from; anybody else's alone: what they handled on their way is theirs."""
    yield error
    while isinstance(error, HeadwayError) and error.__cause__ is not None:
        error = error.__cause__
        yield error
