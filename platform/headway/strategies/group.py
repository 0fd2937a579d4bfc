"""Process groups of one generation: made in milliseconds, given up at any moment, broken from any thread.

Torch's process group objects are used directly, without `torch.distributed`'s default group and its registry: a group
belongs to one generation and goes with it. Two things torch does not give:

- A worker that leaves does not reliably free those that wait for it: gloo's `abort` does nothing, and destroying the
  group leaves its connections open. Shutting the group's sockets down does; collectives fail within milliseconds.
- Making a group waits for all peers, and cannot be interrupted. It is done in a thread that can be left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from headway.errors import BadInput
from headway.strategies import PeerLost, exchange

DESCRIPTORS = Path("/proc/self/fd")
POLL_S = 0.005
LINGER_S = 0.5
"""A severed group's collectives end in milliseconds, or never."""
_GLANCE = timedelta(milliseconds=100)

Sockets = frozenset[tuple[int, str]]
"""File descriptor and inode of each socket."""


class Work(Protocol):
    """A collective under way."""

    def wait(self) -> Any:
        """Until it is done. Raises RuntimeError when a peer is lost; the tensors are not written any more then."""


class Group:
    """All workers of a generation. Collectives must be called in the same order by all.

    Args:
        rank: this worker's place.
        size: number of workers.
        handle: torch's process group object.
        sockets: those that making it opened; none where the backend can abort by itself.
        device: where tensors made here for small messages live.
    """

    def __init__(self, rank: int, size: int, handle: Any, sockets: Sockets = frozenset(), device: str = "cpu") -> None:
        self.rank, self.size = rank, size
        self._handle, self._sockets, self._device = handle, sockets, device
        self._severed_at: float | None = None

    def all_reduce(self, tensor: torch.Tensor) -> Work:
        """Sum in place."""
        return self._started(self._handle.allreduce([tensor]))

    def all_to_all(
        self, output: torch.Tensor, input: torch.Tensor, output_sizes: Sequence[int], input_sizes: Sequence[int]
    ) -> Work:
        """Flat tensors; sizes in elements, by rank."""
        return self._started(self._handle.alltoall_base(output, input, list(output_sizes), list(input_sizes)))

    def all_gather(self, output: torch.Tensor, input: torch.Tensor) -> Work:
        """Flat tensors; every worker's input has the same size."""
        return self._started(self._handle._allgather_base(output, input))

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        """Give everybody the tensor of rank `source`, in place.

        Raises:
            PeerLost: a worker went away.
        """
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = source, 0
        with exchange():
            self._started(self._handle.broadcast([tensor], options)).wait()

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every worker's value by rank; pickled, for small things.

        Raises:
            PeerLost: a worker went away.
        """
        mine = self._packed(value)
        sizes = torch.zeros(self.size, dtype=torch.int64, device=self._device)
        with exchange():
            self.all_gather(sizes, torch.tensor([len(mine)], device=self._device)).wait()
            longest = int(sizes.max())
            padded = torch.zeros(longest, dtype=torch.uint8, device=self._device)
            padded[: len(mine)] = mine
            found = torch.empty(longest * self.size, dtype=torch.uint8, device=self._device)
            self.all_gather(found, padded).wait()
        parts = zip(found.view(self.size, longest).cpu(), sizes.tolist(), strict=True)
        return [pickle.loads(part[:size].numpy().tobytes()) for part, size in parts]

    def broadcast_object(self, value: Any, source: int) -> Any:
        """The value of rank `source`; pickled, for small things. The others' is not looked at.

        Raises:
            PeerLost: a worker went away.
        """
        mine = self._packed(value if self.rank == source else None)
        size = torch.tensor([len(mine)], device=self._device)
        self.broadcast(size, source)
        if self.rank != source:
            mine = torch.empty(int(size), dtype=torch.uint8, device=self._device)
        self.broadcast(mine, source)
        return pickle.loads(mine.cpu().numpy().tobytes())

    def barrier(self) -> None:
        """Wait for all.

        Raises:
            PeerLost: a worker went away.
        """
        with exchange():
            self._started(self._handle.barrier()).wait()

    def sever(self) -> None:
        """Break every connection, from any thread: collectives fail here and at the peers. Again does nothing more."""
        self._severed_at = self._severed_at or time.monotonic()
        if self._sockets:
            _shut_down(self._sockets)
        elif self.size > 1:
            self._handle.abort()

    def close(self) -> None:
        """Sever, and let go of torch's object. Collectives raise PeerLost from here on."""
        self.sever()
        self._handle, self._sockets = _Closed(), frozenset()

    def _started(self, work: Any) -> Work:
        return _Patient(work, self) if self._sockets else work

    def _given_up(self) -> bool:
        """Whether a collective that has not ended by now never will."""
        return self._severed_at is not None and time.monotonic() - self._severed_at > LINGER_S

    def _abandon(self, work: Any) -> None:
        """Keep a collective that never ends, and its group, for good: torch would wait for it to let them go."""
        for kept in (work, self._handle):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))

    def _packed(self, value: Any) -> torch.Tensor:
        return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8).to(self._device)


def connect(
    store: Any,
    rank: int,
    size: int,
    *,
    backend: str = "gloo",
    address: str | None = None,
    timeout_s: float = 600.0,
    connect_s: float = 3.0,
    given_up: Callable[[], bool] = lambda: False,
) -> Group:
    """Make a group with the other workers; all must call it, one call at a time in a process.

    Args:
        store: torch's, where the workers find one another, under a prefix that no group had before. It is cloned, so
            that an attempt that is left behind does not hold it. A worker alone needs none.
        rank: this worker's place.
        size: number of workers. One worker opens no sockets.
        backend: gloo or nccl (for tensors on the current CUDA device).
        address: of this node, as the peers reach it (gloo); by default what its host name resolves to.
        timeout_s: of a collective.
        connect_s: for making the group.
        given_up: asked every few milliseconds; true ends the attempt.

    Raises:
        PeerLost: the group could not be made in time, or was given up.
        BadInput: no such backend.
    """
    if backend not in _MAKERS:
        raise BadInput(f"backend={backend!r}", "there is no such backend", f"Choose one of {', '.join(_MAKERS)}.")
    if size == 1:
        return Group(rank, size, _Alone())
    before = _sockets()
    attempt = _Attempt(lambda: _MAKERS[backend](store, rank, size, connect_s, address))
    deadline = time.monotonic() + connect_s
    while not attempt.done.wait(POLL_S):
        late = time.monotonic() > deadline
        if late or given_up():
            _shut_down(_sockets() - before)  # frees the thread, and peers that are connected already
            reason = f"took more than {connect_s:g} s" if late else "was given up"
            raise PeerLost(f"making a group of {size} workers {reason}")
    if attempt.error is not None:
        _shut_down(_sockets() - before)
        raise PeerLost(f"no group of {size} workers: {attempt.error}") from attempt.error
    attempt.made.set_timeout(timedelta(seconds=timeout_s))
    if backend == "nccl":
        return Group(rank, size, attempt.made, device="cuda")
    return Group(rank, size, attempt.made, _sockets() - before)


class _Patient:
    """A gloo collective that is waited for while its group holds.

    One that is started in the moment in which the group is severed sometimes never ends, here or at the peers.
    """

    def __init__(self, work: Any, group: Group) -> None:
        self._work, self._group = work, group

    def wait(self) -> None:
        while True:
            try:
                self._work.wait(_GLANCE)
                return
            except RuntimeError:
                if self._work.is_completed():
                    raise
                if self._group._given_up():
                    self._group._abandon(self._work)
                    raise


class _Attempt:
    """Makes something in a thread of its own; `done` is set once `made` or `error` is there."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.made: Any = None
        self.error: Exception | None = None
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(make,), name="headway-connect", daemon=True).start()

    def _run(self, make: Callable[[], Any]) -> None:
        try:
            self.made = make()
        except Exception as error:  # given to whoever waits
            self.error = error
        self.done.set()


def _gloo(store: Any, rank: int, size: int, connect_s: float, address: str | None) -> Any:
    # The time limit of this call is the group's; set_timeout() changes it once the group is there.
    limit = timedelta(seconds=connect_s)
    if address is None:
        return dist.ProcessGroupGloo(store.clone(), rank, size, limit)
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = limit
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
    return dist.ProcessGroupGloo(store.clone(), rank, size, options)


def _nccl(store: Any, rank: int, size: int, connect_s: float, address: str | None) -> Any:
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=connect_s)
    made: Any = dist.ProcessGroupNCCL(store.clone(), rank, size, options)
    made.allreduce([torch.zeros(1, device="cuda")]).wait()  # NCCL connects at the first collective
    torch.cuda.current_stream().synchronize()
    return made


_MAKERS: dict[str, Callable[[Any, int, int, float, str | None], Any]] = {"gloo": _gloo, "nccl": _nccl}


class _Done:
    """The work of a worker alone."""

    def wait(self) -> None:
        return


class _Alone:
    """Stands for torch's process group where there is one worker."""

    def allreduce(self, tensors: list[torch.Tensor]) -> Work:
        return _Done()

    def broadcast(self, tensors: list[torch.Tensor], options: Any) -> Work:
        return _Done()

    def barrier(self) -> Work:
        return _Done()

    def alltoall_base(self, output: torch.Tensor, input: torch.Tensor, *sizes: list[int]) -> Work:
        output.copy_(input)
        return _Done()

    def _allgather_base(self, output: torch.Tensor, input: torch.Tensor) -> Work:
        output.copy_(input)
        return _Done()


class _Closed:
    """Stands for torch's process group once it is closed."""

    def __getattr__(self, name: str) -> Any:
        raise PeerLost("the group is closed")

    def abort(self) -> None:
        return


def _sockets() -> Sockets:
    """The process's sockets that a new program would inherit. Gloo's are; those of Python, torch's store and gRPC are
    not, so what other threads open while a group is made stays untouched."""
    found = set()
    for name in os.listdir(DESCRIPTORS):  # noqa: PTH208  names only: the entries come and go
        with contextlib.suppress(OSError):
            target = os.readlink(DESCRIPTORS / name)  # noqa: PTH115
            if target.startswith("socket:") and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.add((int(name), target))
    return frozenset(found)


def _shut_down(sockets: Sockets) -> None:
    for descriptor, target in sockets & _sockets():  # a number may have been given to another file since
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            same = os.readlink(DESCRIPTORS / str(connection.fileno())) == target  # noqa: PTH115
            # A listening socket must stay as it is: gloo's accept loop ends the process when it breaks.
            if same and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                connection.shutdown(socket.SHUT_RDWR)
