"""What runs in every Ray Train worker: build the context, call the user's code, tell who failed."""

from __future__ import annotations

import importlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway import code
from headway.core.ledger import Ledger
from headway.elastic.worker import place
from headway.elastic.worker.line import Control, Dismissed
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.journal import Reporter
    from headway.job import Job


def main(config: dict[str, Any]) -> None:
    """The train function.

    Args:
        config: run folder, job, source of the task, recorder actor, digest of the job.
    """
    import ray

    from headway.elastic.worker import context as contexts
    from headway.elastic.worker.journal import DriverLost

    ledger = Ledger(time.monotonic())
    context: Context | None = None
    control: Control | None = None
    try:
        from headway.job import Job

        job = Job.model_validate(config["job"])
        control = Control(place.current(), ledger, job.workers.silence_s)
        address = ray.util.get_node_ip_address()
        control.connect({"pid": os.getpid(), "node_ip": address})
        context = _context(config, job, control, address, ledger)
        contexts.enter(context)
        run(context.job, code.load(config["source"]))
        _close(context, wait=True)
        ledger.switch("idle", time.monotonic())
        context.members.finished()
    except Dismissed:
        if context is not None:
            _close(context, wait=False)
    except (DriverLost, ray.exceptions.RayActorError):
        os._exit(1)  # nobody leads the run any more
    except Exception as error:  # the user's code, or an input that only a worker could find bad: it ends the run
        rank = context.members.rank if context else 0
        where = f"worker {rank}, at {context.at if context else 'set-up'}"
        failure = _failure(error, where)
        ray.get(config["recorder"].fail.remote(failure))
        if control is not None:
            control.tell("raised", reason=f"{where}: {failure['reason']}")
    finally:
        contexts.enter(None)
        if isinstance(sys.stdout, _Forwarded):
            sys.stdout = sys.stdout.through


def run(job: Job, found: Callable[..., Any]) -> None:
    """Call the user's function, or run their task on the ready-made loop."""
    import inspect

    import torch
    from headway.data.streams import transform_of

    from headway.elastic.worker.context import current
    from headway.elastic.worker.loop import train_task

    torch.manual_seed(job.seed)
    task = found(**job.arguments)
    if not inspect.isclass(found):
        return
    current().use(transform_of(task))
    train_task(task, job)


def _context(config: dict[str, Any], job: Job, control: Control, address: str, ledger: Ledger) -> Context:
    import torch
    from headway.data.streams import Elsewhere, open_readers

    from headway.checkpoint.store import Store
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.journal import Reporter
    from headway.elastic.worker.members import Led
    from headway.elastic.worker.memory import keep_freed

    keep_freed()
    torch.set_num_threads(job.workers.cpus)
    reporter = Reporter(config["recorder"], control.place.worker)
    sys.stdout = _Forwarded(sys.stdout, reporter)
    store = Store(
        Path(config["folder"]) / "checkpoints",
        config["digest"],
        job.checkpoint,
        reporter.checkpoint_done,
        reporter.settle,
    )
    device = _device(job)
    elsewhere = Elsewhere(config["job"], config["source"])
    train, validation = open_readers(job, reporter.quarantined, device, elsewhere=elsewhere)
    return Context(
        job=job,
        device=device,
        train=train,
        validation=validation,
        store=store,
        reporter=reporter,
        run=Path(config["folder"]).name,
        trouble=_mischief(Path(config["folder"]), control.place.worker),
        members=Led(control, "nccl" if job.workers.gpus else "gloo", address, place.show),
        ledger=ledger,
    )


def _mischief(folder: Path, worker: str) -> Callable[[str, Any, int], None]:
    """What a drill does to this worker from inside; nothing where HEADWAY_TROUBLE names no `module:function`.

    The function is called as function(folder, worker, point, model, step).
    """
    module, _, name = os.environ.get("HEADWAY_TROUBLE", "").partition(":")
    if not name:
        return lambda point, model, step: None
    cause = getattr(importlib.import_module(module), name)
    return lambda point, model, step: cause(folder, worker, point, model, step)


def _close(context: Context, wait: bool) -> None:
    """Finish what goes on in the background. wait: the checkpoint under way must succeed."""
    context.store.wait()
    context.close()
    context.reporter.close()
    if wait and context.store.error is not None:
        raise HeadwayError(
            "the last checkpoint could not be written", context.store.error, "Free space, then resume the run."
        )


def _device(job: Job) -> str:
    if not job.workers.gpus:
        return "cpu"
    import ray.train.torch

    return str(ray.train.torch.get_device())


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
    """Standard output; what the leader writes is shown by the driver, line by line."""

    def __init__(self, through: Any, reporter: Reporter) -> None:
        self.through, self._reporter, self._line = through, reporter, ""

    def write(self, text: str) -> int:
        self.through.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._reporter.printed(line)
        return len(text)

    def flush(self) -> None:
        self.through.flush()
