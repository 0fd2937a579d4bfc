"""The most memory that a worker took so far, as the system and the device count it: read seldom, told where it grew.

Both keep the highest by themselves, so that looking now and then misses nothing. Where somebody begins their count anew
(`headroom` does), the highest until then is read before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

GROWN = 1.02
"""By less than this share it is not told again."""
EVERY_S = 10.0

Tell = Callable[[dict[str, int]], None]


class Footprint:
    """Args:
    device: that the worker computes on.
    model_bytes: of the host's memory, that the model takes already.
    tell: takes what is known: host, the process's most bytes of memory (its resident set); base, those that it had
        before there was a model; device, the most bytes of tensors on it. What is not known is left out.
    """

    def __init__(self, device: torch.device, model_bytes: int, tell: Tell) -> None:
        self._device, self._tell = device, tell
        self._base = max(0, status("VmRSS") - model_bytes)
        self._most: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._next = 0.0

    def look(self) -> dict[str, int]:
        """The highest so far, by name."""
        found = {"host": status("VmHWM")}
        if self._device.type == "cuda":
            found["device"] = torch.cuda.max_memory_allocated(self._device)
        for name, size in found.items():
            if size > self._most.get(name, 0):
                self._most[name] = size
        return self._most

    def due(self, at: float) -> None:
        """Tell it, where it was not told lately. at: seconds of any clock."""
        if at >= self._next:
            self._next = at + EVERY_S
            self.say()

    def say(self) -> None:
        """Tell it, where it grew."""
        found = self.look()
        if any(size > GROWN * self._told.get(name, 0) for name, size in found.items()):
            self._told = dict(found)
            self._tell({**found, "base": self._base} if self._base else dict(found))


def status(name: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0
