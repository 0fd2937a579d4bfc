"""Functions run as the workers of a group on this machine: each in a process of its own, or as threads of this one.

`crew` gives one of the ways, so that a suite can be run over all of them:

    @pytest.fixture(params=CREWS)
    def crew(request, tmp_path):
        return workers.crew(request.param, tmp_path)

    def test_sums(crew):
        crew(sums, 3)

Processes are for what only a process can show: sockets, and death. Threads are a hundred times cheaper; they share
this process's globals, torch's random numbers among them.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headway.testing.forks import forks

if TYPE_CHECKING:
    from headway.strategies.group import Group

TIMEOUT_S = 10.0
"""Of the group's collectives: a peer that vanished is noticed after this time at the latest."""
CONNECT_S = 30.0
"""For making the group: processes start at different moments on a busy machine."""
TOLD_S = 0.05
"""After which threads' groups are broken when one of them is dead, as the coordinator would do."""

CREWS = ("gloo", "threads", "nccl_like")
"""Processes over gloo; threads over what is like gloo; threads, in a process of their own, over what is like NCCL."""

TOGETHER_S = 60.0

_here = threading.local()


class Crew(Protocol):
    """Runs function(group, *arguments) in each of so many workers, and gives what each returned, by rank."""

    def __call__(self, function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]: ...


def crew(backend: str, folder: Path) -> Crew:
    """A way of running workers.

    Args:
        backend: one of CREWS.
        folder: empty; for processes' rendezvous.
    """
    if backend == "threads":
        return functools.partial(together, backend)
    if backend == "nccl_like":
        return functools.partial(_apart, backend)
    numbers = itertools.count()

    def each_in_a_process(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
        (folder / str(number := next(numbers))).mkdir()
        return run(function, workers, folder / str(number), *arguments)

    return each_in_a_process


def run(
    function: Callable[..., Any], workers: int, folder: Path, *arguments: Any, deadline_s: float = 60.0
) -> list[Any]:
    """Call function(group, *arguments) in each worker, a process over gloo.

    Args:
        function: importable by name; the `headway.strategies.group.Group` it is given holds rank and size.
        workers: how many.
        folder: empty; for the group's rendezvous.
        arguments: the same for all, picklable.
        deadline_s: when whoever still runs is killed.

    Returns:
        What each returned, by rank; None for one that was killed.

    Raises:
        AssertionError: a worker raised (holds its traceback), or did not end in time.
    """
    pipes, processes = [], []
    for rank in range(workers):
        receive, send = forks.Pipe(duplex=False)
        process = launch(_work, send, function, rank, workers, str(folder), arguments)
        send.close()
        pipes.append(receive)
        processes.append(process)
    try:
        return [_result(pipe, rank, deadline_s) for rank, pipe in enumerate(pipes)]
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()


def launch(function: Callable[..., Any], *arguments: Any) -> Any:
    """Start function(*arguments) in a process of its own, which holds no thread or group of another's.

    Args:
        function: importable by name.
        arguments: picklable.

    Returns:
        The `multiprocessing.Process`, to be joined.
    """
    process = forks.Process(target=function, args=arguments)
    process.start()
    return process


def _apart(backend: str, function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    """`together` in a process of its own: torch must know of a device before its first backward pass in a process."""
    receive, send = forks.Pipe(duplex=False)
    process = launch(_together, send, backend, function, workers, arguments)
    send.close()
    try:
        found: list[Any] = _result(receive, 0, 2 * TOGETHER_S)
        return found
    finally:
        process.kill()
        process.join()
        process.close()


def _together(pipe: Any, backend: str, function: Callable[..., Any], workers: int, arguments: Any) -> None:
    import torch

    from headway.testing import far, nccl_like

    torch.set_num_threads(1)
    try:
        if backend == "nccl_like":
            nccl_like.install()
            far.first_pass()
        found = together(backend, function, workers, *arguments)
    except BaseException:  # told to the parent, which raises it
        pipe.send((True, traceback.format_exc()))
    else:
        pipe.send((False, found))


def together(
    backend: str, function: Callable[..., Any], workers: int, *arguments: Any, deadline_s: float = TOGETHER_S
) -> list[Any]:
    """Call function(group, *arguments) in each worker, a thread.

    Args:
        backend: threads or nccl_like.
        function: the group it is given holds rank and size.
        workers: how many.
        arguments: the same for all.
        deadline_s: when the groups of those that still run are broken.

    Returns:
        What each returned, by rank; None for one that died.

    Raises:
        AssertionError: a worker raised (holds its traceback), or did not end in time.
    """
    from headway.testing import meeting, nccl_like

    meeting.install()
    if backend == "nccl_like":  # its device comes before a process' first backward pass, or not at all
        nccl_like.install()
    threads = _Threads(backend, function, workers, arguments)
    for thread in threads.threads:
        thread.start()
    deadline = time.monotonic() + deadline_s
    for thread in threads.threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    frames = sys._current_frames()
    late = [
        f"worker {rank} did not end within {deadline_s:g} s:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
        for rank, thread in enumerate(threads.threads)
        if thread.ident in frames and thread.is_alive()
    ]
    ours = {thread.ident for thread in threads.threads}
    if late:  # autograd's thread among them, which serves all
        others = (frame for ident, frame in frames.items() if ident not in ours)
        late += [f"another thread:\n{''.join(traceback.format_stack(frame))}" for frame in others]
    threads.sever_all()
    if late or threads.failures:
        raise AssertionError("\n".join([*threads.failures, *late]))
    return threads.results


def connect_again(
    group: Group, name: str, rank: int, size: int, folder: str, given_up: Callable[[], bool] = lambda: False
) -> Group:
    """Another group of workers of the same crew.

    Args:
        group: of the crew.
        name: that no group had before.
        rank: in the new group.
        size: of the new group.
        folder: shared; for processes' rendezvous.
        given_up: whether the attempt is over.
    """
    import torch.distributed as dist

    from headway.strategies.connect import Limits, connect

    threads: _Threads | None = getattr(_here, "threads", None)
    limits = Limits(CONNECT_S, TIMEOUT_S)
    if threads is None:
        store = dist.PrefixStore(name, dist.FileStore(f"{folder}/again", -1))  # type: ignore[attr-defined]
        return connect(store, rank, size, limits=limits, given_up=given_up)
    return threads.connect(name, rank, size, given_up)


def store(folder: str) -> Any:
    """Torch's, the same for all workers of this crew.

    Args:
        folder: shared; for processes' file.
    """
    import torch.distributed as dist

    threads: _Threads | None = getattr(_here, "threads", None)
    if threads is None:
        return dist.FileStore(f"{folder}/said", -1)  # type: ignore[attr-defined]
    return dist.PrefixStore("said", threads.store)  # type: ignore[attr-defined]


def start_values(model: Any, seed: int) -> None:
    """Draw a model's floating-point parameters anew, from a generator of their own: workers that are threads share
    torch's, and what one of them seeds or draws would change what another begins with."""
    import torch

    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.empty(parameter.shape).uniform_(-0.5, 0.5, generator=draws))


def die() -> None:
    """End this worker as a lost node does."""
    if getattr(_here, "threads", None) is not None:
        raise Died
    os.kill(os.getpid(), signal.SIGKILL)


class Died(BaseException):
    """Ends a thread that stands for a worker."""


class _Threads:
    """Workers that are threads, and the hand that breaks their groups when one of them is gone."""

    def __init__(self, backend: str, function: Callable[..., Any], workers: int, arguments: tuple[Any, ...]) -> None:
        from headway.testing import meeting

        self._backend, self._function, self._workers, self._arguments = backend, function, workers, arguments
        self.store = meeting.store()
        self._groups: dict[int, Group] = {}
        self._lock = threading.Lock()
        self.results: list[Any] = [None] * workers
        self.failures: list[str] = []
        self.threads = [
            threading.Thread(target=self._run, args=(rank,), name=f"worker-{rank}", daemon=True)
            for rank in range(workers)
        ]

    def connect(self, name: str, rank: int, size: int, given_up: Callable[[], bool] = lambda: False) -> Group:
        import torch.distributed as dist

        from headway.strategies.connect import Limits, connect

        store = dist.PrefixStore(name, self.store)  # type: ignore[attr-defined]
        limits = Limits(CONNECT_S, TIMEOUT_S)
        made = connect(store, rank, size, backend=self._backend, limits=limits, given_up=given_up)
        with self._lock:
            self._groups[threading.get_ident()] = made
        return made

    def sever_all(self) -> None:
        with self._lock:
            for group in self._groups.values():
                group.sever()

    def _run(self, rank: int) -> None:
        from headway.testing import far

        _here.threads = self
        far.work_on(far.Line())
        try:
            group = self.connect("first", rank, self._workers)
            self.results[rank] = self._function(group, *self._arguments)
            self._groups[threading.get_ident()].close()
        except Died:
            threading.Timer(TOLD_S, self._tell, [dict(self._groups)]).start()
        except BaseException:  # told to who runs this, which raises it
            self.failures.append(f"worker {rank}:\n{traceback.format_exc()}")
            self.sever_all()

    def _tell(self, groups: dict[int, Group]) -> None:
        for group in groups.values():
            group.sever()


def _result(pipe: Any, rank: int, deadline_s: float) -> Any:
    if not pipe.poll(deadline_s):
        raise AssertionError(f"worker {rank} did not end within {deadline_s:g} s")
    try:
        failed, value = pipe.recv()
    except EOFError:
        return None
    if failed:
        raise AssertionError(f"worker {rank}:\n{value}")
    return value


def _work(pipe: Any, function: Callable[..., Any], rank: int, workers: int, folder: str, arguments: Any) -> None:
    import torch
    import torch.distributed as dist

    from headway.strategies.connect import Limits, connect

    torch.set_num_threads(1)
    try:
        store = dist.FileStore(str(Path(folder) / "rendezvous"), workers)  # type: ignore[attr-defined]
        group = connect(store, rank, workers, limits=Limits(CONNECT_S, TIMEOUT_S))
        group.barrier()  # whoever closes at once must not break off the others' connecting
        value = function(group, *arguments)
    except BaseException:  # told to the parent, which raises it
        pipe.send((True, traceback.format_exc()))
    else:
        pipe.send((False, value))
        group.close()
