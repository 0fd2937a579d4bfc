"""Making a group: in milliseconds, with limits that follow from its size, and given up at any moment.

Making one waits for all peers and cannot be interrupted, so it is done in a thread that can be left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from headway.errors import BadInput
from headway.strategies.backends import BACKENDS, Alone
from headway.strategies.group import Backend, Group
from headway.strategies.lost import PeerLost
from headway.strategies.sockets import Sockets, opened

POLL_S = 0.005


@dataclass(frozen=True)
class Limits:
    """Seconds: for making a group; for one collective, the wait for its slowest member included."""

    connect_s: float
    collective_s: float


def limits(size: int, *, backend: str = "gloo", silence_s: float = 2.0, longest_s: float = 900.0) -> Limits:
    """How long the making of a group and a collective may take; what is behind everything else, not the detector.

    Gloo connects each pair of workers, at under a millisecond each on one machine; NCCL loads its library, looks at
    the machine and exchanges its ids in the first collective, which took minutes on thousands of devices. The time a
    member may take over its first step counts for a collective of those that wait for it.

    Args:
        size: number of workers.
        backend: gloo or nccl.
        silence_s: of the job: who is silent for so long is taken out, and the others' attempt is given up.
        longest_s: for which a member may keep the others waiting and be in order: the largest of the job's patiences.
    """
    first_s, each_s = (60.0, 0.1) if backend == "nccl" else (5.0, 0.02)
    return Limits(max(first_s, 2 * silence_s) + each_s * size, 1.25 * longest_s + 30.0 + each_s * size)


def connect(
    store: Any,
    rank: int,
    size: int,
    *,
    backend: str = "gloo",
    address: str | None = None,
    limits: Limits | None = None,
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
        limits: of making it and of its collectives; by default `limits(size)`.
        given_up: asked every few milliseconds; true ends the attempt.

    Raises:
        PeerLost: the group could not be made in time, or was given up.
        BadInput: no such backend.
    """
    if backend not in BACKENDS:
        raise BadInput(f"backend={backend!r}", "there is no such backend", f"Choose one of {', '.join(BACKENDS)}.")
    limits = limits or _limits(size, backend=backend)
    if size == 1:
        return Group(rank, size, Alone(), Alone())
    made = BACKENDS[backend]()
    before = opened()
    attempt = _Attempt(made, store, rank, size, limits, address)
    deadline = time.monotonic() + limits.connect_s
    while not attempt.done.wait(POLL_S):
        late = time.monotonic() > deadline
        if late or given_up():
            attempt.leave()
            Sockets(opened() - before).shut_down()  # frees the thread, and peers that are connected already
            reason = f"took more than {limits.connect_s:g} s" if late else "was given up"
            raise PeerLost(f"making a group of {size} workers {reason}")
    if attempt.error is not None:
        attempt.leave()
        Sockets(opened() - before).shut_down()
        raise PeerLost(f"no group of {size} workers: {attempt.error}") from attempt.error
    attempt.handle.set_timeout(timedelta(seconds=limits.collective_s))
    sockets = Sockets(opened() - before if backend == "gloo" else frozenset())
    sockets.try_often()
    return Group(rank, size, attempt.handle, made, sockets, limits.collective_s)


_limits = limits


class _Attempt:
    """Makes a process group in a thread of its own; `done` is set once it is connected or `error` is there."""

    def __init__(self, backend: Backend, store: Any, rank: int, size: int, limits: Limits, address: str | None) -> None:
        self.handle: Any = None
        self.error: Exception | None = None
        self.done = threading.Event()
        self._backend, self._left = backend, False
        self._lock = threading.Lock()
        # The time limit of this call is the group's; set_timeout() changes it once the group is there.
        arguments = (store.clone(), rank, size, timedelta(seconds=limits.connect_s), address)
        threading.Thread(target=self._run, args=arguments, name="headway-connect", daemon=True).start()

    def leave(self) -> None:
        """Nobody waits for it any more: it must not hold the device."""
        with self._lock:
            self._left = True
            if self.handle is not None:
                self._backend.abort(self.handle)

    def _run(self, *arguments: Any) -> None:
        try:
            made = self._backend.start(*arguments)
            with self._lock:
                self.handle, left = made, self._left
            if left:
                self._backend.abort(made)
            else:
                self._backend.connect(made)
        except Exception as error:  # given to whoever waits
            self.error = error
        self.done.set()
