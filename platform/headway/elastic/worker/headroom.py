"""What a lane's pass takes of a worker's memory at its peak, and what is free: how many lanes may go together.

On a device both are known to the byte. On a CPU it is what the process grows by, which is more than the lane takes
where the process is new; what it had freed and kept is given back first, since a lane that is computed in that would
seem to take nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from headway.elastic.worker.footprint import status
from headway.elastic.worker.memory import give_back
from headway.elastic.worker.shelf import memory

DEVICE_SHARE, HOST_SHARE = 0.8, 0.5
"""Of what is free that activations may take. A host has other uses for it, and ends who asks for too much."""
LEAST_BYTES = 1 << 20
"""That a lane is taken to need at least: below it, measuring says nothing."""


class Headroom:
    """Args:
    device: that the worker computes on.
    reserved: bytes of host memory that the worker was given; None: whatever is free.
    look: called before the counts of the highest begin anew.
    """

    def __init__(self, device: torch.device, reserved: int | None, look: Callable[[], Any] = lambda: None) -> None:
        self._device, self._reserved, self._look = device, reserved, look
        self._before = self._shared = 0
        self._own: int | None = None

    @property
    def share(self) -> float:
        """Of the free bytes that activations may take."""
        return DEVICE_SHARE if self._device.type == "cuda" else HOST_SHARE

    def begin(self) -> None:
        """Before a lane."""
        self._look()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            idle = torch.cuda.memory_reserved(self._device) - self._before
            self._own = torch.cuda.mem_get_info(self._device)[0] + idle
            return
        give_back()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = status("VmRSS")
        total, used = memory()
        self._shared = max(0, total - used)
        self._own = None if self._reserved is None else max(0, self._reserved - self._before)

    def free(self, neighbours: int) -> int:
        """Bytes that were free before the lane, for this worker of so many of its machine; 0 where that is not known.
        What it was given, and its device, it has for itself."""
        shares = [self._shared // neighbours] if self._shared else []
        return min([*shares, *([] if self._own is None else [self._own])], default=0)

    def end(self) -> int:
        """After it: bytes that it took at its peak; 0 where that is not known."""
        if self._device.type == "cuda":
            took = torch.cuda.max_memory_allocated(self._device) - self._before
        else:
            took = status("VmHWM") - self._before if self._before else 0
        return max(took, LEAST_BYTES) if self.free(1) and self._before else 0
