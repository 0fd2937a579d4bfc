"""Whose fault an exception in a worker is: the user's code, which fails everywhere, or this one machine's."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

from headway import code
from headway.elastic.wire.messages import TRACE_BYTES, Raised
from headway.errors import HeadwayError

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
    fault = "machine" if of_machine(error, starting) else "user"
    if isinstance(error, HeadwayError):
        kind, fact, reason, remedy = type(error).__name__, error.fact, error.reason, error.remedy
        trace = error.traceback
    else:
        kind, fact = ("machine" if fault == "machine" else "task"), where
        reason = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
        remedy = "Look at that machine, and resume the run." if fault == "machine" else ""
        trace = code.users_traceback(error) if isinstance(error, Exception) else traceback.format_exc()
    trace = trace.encode()[-TRACE_BYTES:].decode(errors="ignore")
    parts = {"kind": kind, "fact": fact[:LONGEST], "reason": reason[:LONGEST], "remedy": remedy[:LONGEST]}
    return Raised(fault, {**parts, "traceback": trace})


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
