"""Process groups within one process, whose workers are threads: an exchange takes microseconds and opens no sockets.

`threads` behaves as gloo does: tensors of the CPU, a collective that was waited for is complete or has raised, and who
leaves breaks everybody's. `headway.testing.nccl_like` builds on the same meeting.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from headway.strategies.backends import BACKENDS

Parts = dict[int, tuple[list[torch.Tensor], list[int]]]
"""What each rank brought: tensors, and sizes where the verb has some."""

Finish = Callable[[Parts, list[torch.Tensor]], object]
"""Writes one rank's outputs from everybody's parts."""

_meetings: weakref.WeakValueDictionary[str, Meeting] = weakref.WeakValueDictionary()
_numbers = itertools.count()


class Meeting:
    """Where the members of one group bring their parts."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.left: set[int] = set()
        self._parts: dict[tuple[Any, ...], Parts] = {}
        self._read: Counter[tuple[Any, ...]] = Counter()

    def bring(self, key: tuple[Any, ...], rank: int, tensors: list[torch.Tensor], sizes: list[int]) -> None:
        with self.changed:
            self._parts.setdefault(key, {})[rank] = (tensors, sizes)
            self.changed.notify_all()

    def there(self, key: tuple[Any, ...]) -> Parts:
        return self._parts.get(key, {})

    def forget(self, key: tuple[Any, ...], readers: int) -> None:
        """One of so many readers has read."""
        with self.changed:
            self._read[key] += 1
            if self._read[key] == readers:
                del self._parts[key], self._read[key]

    def leave(self, rank: int) -> None:
        with self.changed:
            self.left.add(rank)
            self.changed.notify_all()


def meet(store: Any, rank: int, limit: timedelta) -> Meeting:
    """The meeting of those that share a store; raises RuntimeError after the limit."""
    store.set_timeout(limit)
    if rank == 0:
        made, name = Meeting(), f"meeting-{next(_numbers)}"
        _meetings[name] = made
        store.set("meeting", name)
        return made
    return _meetings[store.get("meeting").decode()]


@dataclass
class Exchange:
    """One collective, as one rank sees it."""

    meeting: Meeting
    key: tuple[Any, ...]
    needed: Collection[int]
    outputs: list[torch.Tensor]
    finish: Finish
    done: bool = field(default=False)

    def complete(self) -> bool:
        """Whether all parts are there; then its outputs are written."""
        if not self.done and len(self.meeting.there(self.key)) == len(self.needed):
            with torch.no_grad():
                self.finish(self.meeting.there(self.key), self.outputs)
            self.meeting.forget(self.key, len(self.needed))
            self.done = True
        return self.done


class Place:
    """One rank's, in the form of torch's process group."""

    def __init__(self, store: Any, rank: int, size: int, limit: timedelta) -> None:
        self.rank, self.size, self.limit = rank, size, limit
        self._store = store
        self._meeting: Meeting | None = None
        self._collectives = 0
        self._pairs: Counter[tuple[int, int]] = Counter()

    @property
    def meeting(self) -> Meeting:
        if self._meeting is None:
            self._meeting = meet(self._store, self.rank, self.limit)
        return self._meeting

    def set_timeout(self, limit: timedelta) -> None:
        self.limit = limit

    def allreduce(self, tensors: list[torch.Tensor]) -> Any:
        def finish(parts: Parts, outputs: list[torch.Tensor]) -> None:
            whole = parts[0][0][0].clone()
            for rank in range(1, self.size):
                whole += parts[rank][0][0]
            outputs[0].copy_(whole)

        return self._all(tensors, tensors, finish)

    def broadcast(self, tensors: list[torch.Tensor], options: Any) -> Any:
        source = options.rootRank

        def finish(parts: Parts, outputs: list[torch.Tensor]) -> None:
            for output in outputs:
                output.copy_(parts[source][0][0])

        return self._all(tensors, [] if self.rank == source else tensors, finish)

    def _allgather_base(self, output: torch.Tensor, input: torch.Tensor) -> Any:
        def finish(parts: Parts, outputs: list[torch.Tensor]) -> None:
            outputs[0].copy_(torch.cat([parts[rank][0][0] for rank in range(self.size)]))

        return self._all([input], [output], finish)

    def alltoall_base(
        self, output: torch.Tensor, input: torch.Tensor, output_sizes: list[int], input_sizes: list[int]
    ) -> Any:
        def finish(parts: Parts, outputs: list[torch.Tensor]) -> None:
            came = [parts[r][0][0].split(parts[r][1])[self.rank] for r in range(self.size)]
            assert [len(part) for part in came] == output_sizes
            outputs[0].copy_(torch.cat(came))

        return self._all([input], [output], finish, input_sizes)

    def send(self, tensors: list[torch.Tensor], to: int, tag: int) -> Any:
        return self._pair(self.rank, to, tensors, [], lambda parts, outputs: None)

    def recv(self, tensors: list[torch.Tensor], source: int, tag: int) -> Any:
        return self._pair(source, self.rank, [], tensors, lambda parts, outputs: outputs[0].copy_(parts[source][0][0]))

    def abort(self) -> None:
        """Leave, whatever is under way."""
        if self._meeting is not None:
            self._meeting.leave(self.rank)

    # Inside

    def _all(
        self, inputs: list[torch.Tensor], outputs: list[torch.Tensor], finish: Any, sizes: list[int] | None = None
    ) -> Any:
        self._collectives += 1
        return self._begin((self._collectives,), range(self.size), inputs, outputs, finish, sizes or [])

    def _pair(self, source: int, to: int, inputs: list[torch.Tensor], outputs: list[torch.Tensor], finish: Any) -> Any:
        self._pairs[source, to] += 1
        key = (source, to, self._pairs[source, to])
        return self._begin(key, (source, to), inputs, outputs, finish, [])

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
            if tensor.device.type != "cpu":
                raise ValueError(f"No backend type associated with device type {tensor.device.type}")
        self.meeting.bring(key, self.rank, [tensor.clone() for tensor in inputs], sizes)
        return _Work(self, Exchange(self.meeting, key, needed, outputs, finish))


class _Work:
    def __init__(self, place: Place, exchange: Exchange) -> None:
        self._place, self._exchange = place, exchange

    def is_completed(self) -> bool:
        return self._exchange.done

    def wait(self, limit: timedelta | None = None) -> None:
        meeting = self._place.meeting

        def over() -> bool:
            return self._exchange.complete() or bool(meeting.left)

        with meeting.changed:
            over_in_time = meeting.changed.wait_for(over, (limit or self._place.limit).total_seconds())
        if not self._exchange.done:
            raise RuntimeError("Connection closed by peer" if over_in_time else "Timed out waiting for the others")


class Threads:
    """See `headway.strategies.group.Backend`; like gloo's."""

    device: torch.device | None = torch.device("cpu")

    def start(self, store: Any, rank: int, size: int, limit: timedelta, address: str | None) -> Any:
        return Place(store, rank, size, limit)

    def connect(self, handle: Any) -> None:
        handle.allreduce([torch.zeros(1)]).wait()

    def done(self, handle: Any) -> bool:
        return True

    def error(self, handle: Any) -> str | None:
        return None

    def abort(self, handle: Any) -> None:
        handle.abort()


def install() -> None:
    """Make the backend `threads` known."""
    BACKENDS["threads"] = Threads


def store() -> Any:
    """A rendezvous of threads, as torch's store."""
    return dist.HashStore()  # type: ignore[attr-defined]
