"""Functions run as the workers of a process group on this machine, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 10.0
"""Of the group's collectives: a peer that vanished is noticed after this time at the latest."""
CONNECT_S = 30.0
"""For making the group: processes start at different moments on a busy machine."""

_processes = multiprocessing.get_context("forkserver")


def run(
    function: Callable[..., Any], workers: int, folder: Path, *arguments: Any, deadline_s: float = 60.0
) -> list[Any]:
    """Call function(group, *arguments) in each worker.

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
    _processes.set_forkserver_preload(["headway.strategies.all_reduce", "torch._dynamo"])  # seconds, once
    pipes, processes = [], []
    for rank in range(workers):
        receive, send = _processes.Pipe(duplex=False)
        process = _processes.Process(target=_work, args=(send, function, rank, workers, str(folder), arguments))
        process.start()
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


def die() -> None:
    """End this worker as a lost node does."""
    os.kill(os.getpid(), signal.SIGKILL)


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

    from headway.strategies.group import connect

    torch.set_num_threads(1)
    try:
        store = dist.FileStore(str(Path(folder) / "rendezvous"), workers)  # type: ignore[attr-defined]
        group = connect(store, rank, workers, timeout_s=TIMEOUT_S, connect_s=CONNECT_S)
        group.barrier()  # whoever closes at once must not break off the others' connecting
        value = function(group, *arguments)
    except BaseException:  # told to the parent, which raises it
        pipe.send((True, traceback.format_exc()))
    else:
        pipe.send((False, value))
        group.close()
