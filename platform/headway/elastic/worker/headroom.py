"""What a lane's pass takes of a worker's memory at its peak, and what is free: how many lanes may go together.

On a device both are known to the byte. On a CPU it is what the process grows by, which is more than the lane takes
where the process is new.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from headway.elastic.worker.shelf import memory

DEVICE_SHARE, HOST_SHARE = 0.8, 0.5
"""Of what is free that activations may take. A host has other uses for it, and ends who asks for too much."""
LEAST_BYTES = 1 << 20
"""That a lane is taken to need at least: below it, measuring says nothing."""


class Headroom:
    """Args:
    device: that the worker computes on.
    reserved: bytes of host memory that the worker was given; None: whatever is free.
    """

    def __init__(self, device: torch.device, reserved: int | None) -> None:
        self._device, self._reserved = device, reserved
        self._before = self._free = 0

    @property
    def share(self) -> float:
        """Of the free bytes that activations may take."""
        return DEVICE_SHARE if self._device.type == "cuda" else HOST_SHARE

    def begin(self) -> None:
        """Before a lane."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            idle = torch.cuda.memory_reserved(self._device) - self._before
            self._free = torch.cuda.mem_get_info(self._device)[0] + idle
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = _status("VmRSS")
        total, used = memory()
        left = [total - used] if total else []
        if self._reserved is not None:
            left.append(self._reserved - self._before)
        self._free = max(0, min(left, default=0))

    def end(self) -> tuple[int, int]:
        """After it: bytes that it took at its peak, and that were free before it; (0, 0) where that is not known."""
        if self._device.type == "cuda":
            took = torch.cuda.max_memory_allocated(self._device) - self._before
        else:
            took = _status("VmHWM") - self._before if self._before else 0
        return (max(took, LEAST_BYTES), self._free) if self._free and self._before else (0, 0)


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0
