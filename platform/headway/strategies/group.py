"""All workers of a generation, and what they can say to one another.

Torch's process group objects are used directly, without `torch.distributed`'s default group and its registry: a group
belongs to one generation, goes with it, and can be broken from any thread at any moment.

What a collective leaves in memory is only right if it is *known* to be complete. A gloo collective says so by itself;
an NCCL one is merely put in line, and when it is broken off it leaves half a sum behind without a word. So every verb
that returns something first reads it and then asks `confirm`.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from headway.strategies import plain
from headway.strategies.lost import PeerLost, exchange
from headway.strategies.sockets import Sockets

LINGER_S = 0.5
"""A severed group's collectives end in milliseconds, or never."""
GLANCE_S = 0.1
_CPU = torch.device("cpu")


class Work(Protocol):
    """A collective under way."""

    def wait(self) -> Any:
        """Until it is done, or in line on the device: what is done with its tensors from here on comes after it.

        Raises:
            PeerLost: a worker went away; the tensors are not written any more then.
        """


class Backend(Protocol):
    """What differs between gloo, NCCL and their like. One instance serves one group."""

    device: torch.device | None
    """Where tensors must live; None: anywhere."""

    def start(self, store: Any, rank: int, size: int, limit: timedelta, address: str | None) -> Any:
        """Make torch's process group object, which may not be connected yet."""

    def connect(self, handle: Any) -> None:
        """Have it connected."""

    def done(self, handle: Any) -> bool:
        """Whether the device has done all that was put in line, or broken it off."""

    def error(self, handle: Any) -> str | None:
        """What went wrong, as far as the backend knows."""

    def abort(self, handle: Any) -> None:
        """Break off what is under way, where shutting connections down does not do it."""


class Group:
    """Collectives must be called in the same order by all. Tensors may live anywhere, but for `all_reduce`,
    `all_to_all` and `all_gather`, whose tensors live on `device`.

    Args:
        rank: this worker's place.
        size: number of workers.
        handle: torch's process group object, or the like of it.
        backend: of the handle.
        sockets: those that making it opened, where shutting them down is the way to break it.
        limit_s: of waiting for the device.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        handle: Any,
        backend: Backend,
        sockets: Sockets | None = None,
        limit_s: float = 600.0,
    ) -> None:
        self.rank, self.size = rank, size
        self._handle, self._backend, self._limit_s = handle, backend, limit_s
        self._sockets = sockets or Sockets()
        self._severed_at: float | None = None
        self._reckoned = 0

    @property
    def device(self) -> torch.device:
        """Where the exchange happens."""
        return self._backend.device or _CPU

    # Collectives under way: for strategies, which confirm by themselves

    def all_reduce(self, tensor: torch.Tensor) -> Work:
        """Sum in place."""
        return self._started("allreduce", [tensor])

    def all_to_all(
        self, output: torch.Tensor, input: torch.Tensor, output_sizes: Sequence[int], input_sizes: Sequence[int]
    ) -> Work:
        """Flat tensors; sizes in elements, by rank."""
        return self._started("alltoall_base", output, input, list(output_sizes), list(input_sizes))

    def all_gather(self, output: torch.Tensor, input: torch.Tensor) -> Work:
        """Flat tensors; every worker's input has the same size."""
        return self._started("_allgather_base", output, input)

    def start_send(self, tensor: torch.Tensor, to: int) -> Work:
        """Begin to give a contiguous tensor on `device` to one worker."""
        return self._started("send", [tensor], to, 0, pair=True)

    def start_receive(self, tensor: torch.Tensor, source: int) -> Work:
        """Begin to fill a contiguous tensor on `device` with what one worker sends."""
        return self._started("recv", [tensor], source, 0, pair=True)

    def confirm(self) -> None:
        """What was exchanged and read up to here is complete and right. Call it after the last read.

        Raises:
            PeerLost: or it may not be, since a worker went away.
        """
        self._settle()
        if self._severed_at is not None:
            raise PeerLost("the group was broken off")
        error = self._backend.error(self._handle)
        if error is not None:
            self.sever()
            raise PeerLost(error)

    def settle(self) -> None:
        """Return when nothing writes to the tensors of earlier collectives any more, complete or not."""
        self._settle()

    # Verbs that return what is complete; all raise PeerLost when a worker goes away

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all workers; a new tensor where the given one lives."""
        there = self._there(tensor, copy=True)
        self.all_reduce(there).wait()
        return self._back(there, tensor)

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        """Give everybody the tensor of rank `source`, in place; of any device and strides. On PeerLost, the others' may
        hold anything."""
        there = self._there(tensor)
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = source, 0
        self._started("broadcast", [there], options).wait()
        if there is not tensor and self.rank != source:
            self.confirm()
            with torch.no_grad():
                tensor.copy_(there)
        self.confirm()

    def send(self, tensor: torch.Tensor, to: int) -> None:
        """Give a tensor to one worker, which calls `receive`."""
        self.start_send(self._there(tensor), to).wait()
        self.confirm()

    def receive(self, tensor: torch.Tensor, source: int) -> None:
        """Fill a tensor with what one worker sends; same shape and dtype there."""
        there = self._there(tensor)
        self.start_receive(there, source).wait()
        if there is not tensor:
            self.confirm()
            with torch.no_grad():
                tensor.copy_(there)
        self.confirm()

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value by rank; plain values (see `plain.pack`), for small things."""
        if self.size == 1:
            self.confirm()
            return [plain.unpack(plain.pack(value))]
        mine = _bytes(plain.pack(value)).to(self.device)
        sizes = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        self.all_gather(sizes, torch.tensor([len(mine)], device=self.device)).wait()
        lengths = self._read(sizes).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8, device=self.device)
        padded[: len(mine)] = mine
        found = torch.empty(len(padded) * self.size, dtype=torch.uint8, device=self.device)
        self.all_gather(found, padded).wait()
        parts = zip(self._read(found).view(self.size, -1), lengths, strict=True)
        return [plain.unpack(part[:length].numpy().tobytes()) for part, length in parts]

    def share(self, value: Any, source: int) -> Any:
        """The value of rank `source` (see `plain.pack`), for small things. The others' is not looked at."""
        mine = _bytes(plain.pack(value)) if self.rank == source else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(mine)])
        self.broadcast(size, source)
        if self.rank != source:
            mine = torch.empty(_length(int(size)), dtype=torch.uint8)
        self.broadcast(mine, source)
        return plain.unpack(mine.numpy().tobytes())

    def barrier(self) -> None:
        """Wait for all."""
        self._read(self.total(torch.zeros(1, dtype=torch.float32, device="cpu")))

    # The end

    def sever(self) -> None:
        """Break every connection, from any thread: collectives fail here and at the peers. Again does nothing more."""
        first = self._severed_at is None
        self._severed_at = self._severed_at or time.monotonic()  # before the abort: who reads after it must see it
        self._sockets.shut_down()
        if first:
            self._backend.abort(self._handle)

    def close(self) -> None:
        """Sever, and let go of torch's object. Everything raises PeerLost from here on."""
        self.sever()
        self._handle, self._sockets = _Closed(), Sockets()

    # Seen from other threads

    def unanswered(self, patience_s: float) -> tuple[str, ...]:
        """Addresses of peers whose kernel has not acknowledged for so long what was sent to it. Ask regularly; nothing
        is known of NCCL's connections."""
        return self._sockets.unanswered(patience_s)

    def bytes_moved(self) -> int:
        """Acknowledged bytes on the group's connections, both ways: they move while an exchange does. 0 for NCCL."""
        return self._sockets.bytes_moved()

    @property
    def reckoned(self) -> int:
        """Where connections are not seen (NCCL): bytes to and from peers that the collectives took at least, if they
        went round a ring; else 0."""
        return self._reckoned

    # Inside

    def _there(self, tensor: torch.Tensor, copy: bool = False) -> torch.Tensor:
        """The tensor where the exchange happens, contiguous."""
        found = tensor.detach()
        device = self._backend.device or found.device
        if copy or found.device != device or not found.is_contiguous():
            return found.to(device, copy=True, memory_format=torch.contiguous_format)
        return tensor

    def _back(self, there: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        self.confirm()  # reading would wait too, but without a limit
        found = there.to(tensor.device)
        self.confirm()
        return found

    def _read(self, tensor: torch.Tensor) -> torch.Tensor:
        """In host memory, known to be complete."""
        return self._back(tensor, torch.empty(0))

    def _settle(self) -> None:
        deadline = time.monotonic() + self._limit_s
        pause_s = 0.0
        while not self._backend.done(self._handle):
            if self._given_up():
                return  # an abort that the device does not heed: nobody can wait for that
            if self._severed_at is None:
                error = self._backend.error(self._handle)
                if error is not None or time.monotonic() > deadline:
                    self.sever()
                    raise PeerLost(error or f"an exchange took more than {self._limit_s:g} s")
            time.sleep(pause_s)
            pause_s = min(pause_s + 1e-5, 1e-3)

    def _started(self, verb: str, *arguments: Any, pair: bool = False) -> Work:
        with exchange():
            work = getattr(self._handle, verb)(*arguments)
        if not self._sockets:
            self._reckoned += _both_ways(verb, arguments, self.size)
        return _Pending(work, self, arguments if pair else None)

    def _given_up(self) -> bool:
        """Whether a collective that has not ended by now never will."""
        return self._severed_at is not None and time.monotonic() - self._severed_at > LINGER_S

    def _abandon(self, work: Any) -> None:
        """Keep a collective that never ends, and its group, for good: torch would wait for it to let them go."""
        for kept in (work, self._handle):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


class _Pending:
    """A collective that is waited for while its group holds.

    A gloo one that is started in the moment in which the group is severed sometimes never ends, here or at the peers;
    so it is looked at again and again. What passes between two workers is waited for in a thread beside: there, a wait
    that ends for its time limit makes gloo break all connections of the group.
    """

    def __init__(self, work: Any, group: Group, tensors: Any = None) -> None:
        self._work, self._group, self._tensors = work, group, tensors
        self._endless, self._pair = bool(group._sockets), tensors is not None

    def wait(self) -> None:
        if not self._endless:
            with exchange():
                self._work.wait()
        elif self._pair:
            self._wait_beside()
        else:
            self._glance()

    def _glance(self) -> None:
        while True:
            try:
                self._work.wait(timedelta(seconds=GLANCE_S))
                return
            except RuntimeError:
                with exchange():
                    if self._work.is_completed():  # failed, or done just after the glance
                        self._work.wait()  # returns at once, or says what failed
                        return
                    if self._group._given_up():
                        self._group._abandon(self._work)
                        raise

    def _wait_beside(self) -> None:
        """In a thread that can be left behind, with the tensors that it has."""
        ended = threading.Event()
        trouble: list[BaseException] = []

        def wait() -> None:
            try:
                self._work.wait()
            except BaseException as error:  # told to the waiting thread below
                trouble.append(error)
            ended.set()

        threading.Thread(target=wait, name="headway-pair", daemon=True).start()
        while not ended.wait(GLANCE_S):
            if self._group._given_up():
                self._group._abandon(self._work)
                raise PeerLost("what was to pass between two workers never ended")
        with exchange():
            if trouble:
                raise trouble[0]


class _Closed:
    """Stands for torch's process group once it is closed."""

    def __getattr__(self, name: str) -> Any:
        raise PeerLost("the group is closed")


def _both_ways(verb: str, arguments: tuple[Any, ...], size: int) -> int:
    """Bytes that a collective moves to and from each of `size` workers: of a sum twice what it is of, a worker's own
    part left out."""
    match verb:
        case "allreduce" | "broadcast":
            whole = 4 if verb == "allreduce" else 2
            return sum(whole * (size - 1) * tensor.nbytes // size for tensor in arguments[0])
        case "alltoall_base":
            return int((size - 1) * (arguments[0].nbytes + arguments[1].nbytes) // size)
        case "_allgather_base":
            return int(2 * (arguments[0].nbytes - arguments[1].nbytes))
        case _:
            return sum(tensor.nbytes for tensor in arguments[0])


def _bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _length(found: int) -> int:
    if not 0 < found <= plain.MOST_BYTES:
        raise PeerLost(f"a peer announced a value of {found} bytes")
    return found
