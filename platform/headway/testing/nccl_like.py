"""A backend that behaves as NCCL does where it differs from gloo, between threads, on a device that is not the CPU.

- `wait()` puts a collective in line and returns; it is done when the device gets there. Until then its outputs hold
  anything.
- Tensors that are not on the device are refused, and so are those in several pieces.
- Nobody is told of a lost peer. A collective that lacks a part goes on for ever, until the group is aborted here: then
  its outputs hold garbage, and no error is raised, not even by `get_error`.
- It connects at the first collective.
- A device (that is, a worker's line) has one group at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import torch
from torch._C._distributed_c10d import ErrorType

from headway.strategies.backends import BACKENDS
from headway.testing import far
from headway.testing.far import Far, Line
from headway.testing.meeting import Exchange, Finish, Place

_holders: weakref.WeakKeyDictionary[Line, weakref.ref[_Place]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_noise = torch.Generator().manual_seed(1)
"""Its own: the workers are threads, whose random numbers are one stream."""


class NcclLike:
    """See `headway.strategies.group.Backend`. Made by the thread that stands for the worker."""

    def __init__(self) -> None:
        far.install()
        line = far.line()
        assert line is not None, "no worker's thread"
        self._line = line
        self.device: torch.device | None = torch.device(far.NAME, 0)

    def start(self, store: Any, rank: int, size: int, limit: timedelta, address: str | None) -> Any:
        made = _Place(self._line, store, rank, size, limit)
        with _lock:
            holder = _holders[self._line]() if self._line in _holders else None
            if holder is not None and not holder.aborted:
                raise RuntimeError("ncclInvalidUsage: another group is on this device")
            _holders[self._line] = weakref.ref(made)
        return made

    def connect(self, handle: Any) -> None:
        handle.allreduce([torch.zeros(1, device=self.device)]).wait()
        self._line.advance(wait=True)

    def done(self, handle: Any) -> bool:
        return self._line.advance(wait=False)

    def error(self, handle: Any) -> str | None:
        return None if handle.get_error() == ErrorType.SUCCESS else "an error"

    def abort(self, handle: Any) -> None:
        handle.abort()


class _Place(Place):
    def __init__(self, line: Line, store: Any, rank: int, size: int, limit: timedelta) -> None:
        super().__init__(store, rank, size, limit)
        self.line = line
        self.aborted = False

    def get_error(self) -> Any:
        return ErrorType.SUCCESS

    def abort(self) -> None:
        self.aborted = True
        if self._meeting is not None:
            with self._meeting.changed:
                self._meeting.changed.notify_all()

    def _begin(
        self,
        key: tuple[Any, ...],
        needed: Collection[int],
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
        finish: Finish,
        sizes: list[int],
    ) -> Any:
        for tensor in (*inputs, *outputs):
            if not isinstance(tensor, Far):
                raise ValueError("Tensors must be on the device and dense")
            if not tensor.is_contiguous():
                raise ValueError("Tensors must be contiguous")
            tensor.line = self.line
        meeting = self.meeting  # which connects
        self.line.advance(wait=True)  # what comes before it on the device
        brought = [tensor.near.clone() for tensor in inputs]  # type: ignore[attr-defined]
        nears = [tensor.near for tensor in outputs]  # type: ignore[attr-defined]

        for near in nears:
            _spoil(near)
        if not self.aborted:
            meeting.bring(key, self.rank, brought, sizes)
        return _Work(self, Exchange(meeting, key, needed, nears, finish))


class _Work:
    def __init__(self, place: _Place, exchange: Exchange) -> None:
        self._place, self._exchange, self._in_line = place, exchange, False

    def is_completed(self) -> bool:
        return self._exchange.done

    def wait(self, limit: timedelta | None = None) -> None:
        if not self._in_line:
            self._in_line = True
            self._place.line.put(self._advance)

    def _advance(self, wait: bool) -> bool:
        with self._place.meeting.changed:
            while not self._place.aborted:
                if self._exchange.complete():
                    return True
                if not wait:
                    return False
                self._place.meeting.changed.wait()
        for output in self._exchange.outputs:
            _spoil(output)
        return True


def _spoil(tensor: torch.Tensor) -> None:
    """Garbage, of any bits."""
    with torch.no_grad():
        if tensor.numel():
            tensor.reshape(-1).view(torch.uint8).random_(0, 256, generator=_noise)


def install() -> None:
    """Make the backend `nccl_like` known, and its device."""
    far.install()
    BACKENDS["nccl_like"] = NcclLike
