"""What runs in every Ray Train worker: build the context, call the user's code, tell who failed."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway import code
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.elastic.context import Context
    from headway.elastic.reporter import Reporter
    from headway.job import Job

ASK_S = 5.0
COLLECTIVE_S = 600.0


def main(config: dict[str, Any]) -> None:
    """The train function.

    Args:
        config: run folder, job, source of the task, recorder actor, digest of the job.
    """
    import ray

    from headway.elastic import context as contexts
    from headway.elastic.reporter import DriverLost
    from headway.strategies import PeerLost

    recorder, rank = config["recorder"], ray.train.get_context().get_world_rank()
    context: Context | None = None
    try:
        context = _begin(config, rank)
        if context is not None:
            contexts.enter(context)
            run(context.job, code.load(config["source"]))
            _wait_for_checkpoint(context)
    except PeerLost:
        if not _has_failed(recorder):
            raise  # a worker died: Ray Train starts the group anew
    except (DriverLost, ray.exceptions.RayActorError):
        os._exit(1)  # nobody leads the run any more
    except Exception as error:  # the user's code, or an input that only a worker could find bad: it ends the run
        where = f"worker {rank}, at {context.at if context else 'set-up'}"
        ray.get(recorder.fail.remote(_failure(error, where)))
        if context is not None and context.group is not None:
            context.group.sever()  # the others wait in a reduction, and would wait for long
    finally:
        contexts.enter(None)
        if context is not None:
            _end(context)


def _begin(config: dict[str, Any], rank: int) -> Context | None:
    """Join the run. None: it has been given up."""
    import ray
    import torch
    import torch.distributed as dist

    from headway.elastic.memory import keep_freed
    from headway.elastic.reporter import Reporter
    from headway.job import Job

    keep_freed()
    size = ray.train.get_context().get_world_size()
    job = Job.model_validate(config["job"])
    torch.set_num_threads(job.workers.cpus)
    started: list[Any] = [ray.get(config["recorder"].begin_attempt.remote()) if rank == 0 else None]
    if size > 1:
        dist.broadcast_object_list(started, 0)
    if started[0]["give_up"]:
        return None
    reporter = Reporter(config["recorder"], rank, started[0]["attempt"])
    if rank == 0:
        reporter.start()
        sys.stdout = _Forwarded(sys.stdout, reporter)
    return _context(config, job, rank, size, reporter)


def _end(context: Context) -> None:
    context.close()
    context.reporter.close()
    if isinstance(sys.stdout, _Forwarded):
        sys.stdout = sys.stdout.through


def _wait_for_checkpoint(context: Context) -> None:
    context.store.wait()
    if context.store.error is not None:
        raise HeadwayError(
            "the last checkpoint could not be written", context.store.error, "Free space, then resume the run."
        )


def run(job: Job, found: Callable[..., Any]) -> None:
    """Call the user's function, or run their task on the ready-made loop."""
    import inspect

    import torch

    from headway.elastic.context import current
    from headway.elastic.loop import train_task

    torch.manual_seed(job.seed)
    task = found(**job.arguments)
    if not inspect.isclass(found):
        return
    current().transform = task.transform
    train_task(task, job)


def _context(config: dict[str, Any], job: Job, rank: int, size: int, reporter: Reporter) -> Context:
    import torch.distributed as dist

    from headway.checkpoint.store import Store
    from headway.data.arrays import arrays
    from headway.elastic.context import Context
    from headway.elastic.group import join
    from headway.elastic.streams import open_streams

    store = Store(
        Path(config["folder"]) / "checkpoints",
        config["digest"],
        job.checkpoint,
        reporter.checkpoint_done,
        reporter.settle,
    )
    chosen: list[Any] = [None]
    if rank == 0:
        store.clean()
        chosen[0], passed_over = store.newest()
        for reason in passed_over:
            reporter.note(f"passed over a damaged checkpoint: {reason}")
    if size > 1:
        dist.broadcast_object_list(chosen, 0)
    train, validation = open_streams(job)
    return Context(
        job=job,
        rank=rank,
        size=size,
        device=_device(job),
        train=train,
        validation=validation,
        transform=lambda table, random, training: arrays(table),
        store=store,
        start=chosen[0],
        reporter=reporter,
        run=Path(config["folder"]).name,
        group=join(COLLECTIVE_S) if size > 1 else None,
    )


def _device(job: Job) -> str:
    if not job.workers.gpus:
        return "cpu"
    import ray.train.torch

    return str(ray.train.torch.get_device())


def _has_failed(recorder: Any) -> bool:
    """Whether the connection broke because another worker's code raised; asked for a while, as news may be late."""
    import ray

    deadline = time.monotonic() + ASK_S
    while time.monotonic() < deadline:
        if ray.get(recorder.failure.remote()) is not None:
            return True
        time.sleep(0.1)
    return False


def _failure(error: Exception, where: str) -> dict[str, Any]:
    if isinstance(error, HeadwayError):
        return {
            "kind": type(error).__name__,
            "fact": error.fact,
            "reason": error.reason,
            "remedy": error.remedy,
            "traceback": error.traceback,
        }
    last = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
    return {"kind": "task", "fact": where, "reason": last, "traceback": code.users_traceback(error)}


class _Forwarded(io.TextIOBase):
    """Standard output of rank 0 that the driver shows, line by line."""

    def __init__(self, through: Any, reporter: Any) -> None:
        self.through, self._reporter, self._line = through, reporter, ""

    def write(self, text: str) -> int:
        self.through.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._reporter.printed(line)
        return len(text)

    def flush(self) -> None:
        self.through.flush()
