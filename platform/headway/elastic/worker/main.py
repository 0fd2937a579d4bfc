"""What runs in every Ray Train worker: build the context, call the user's code, tell who failed."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.carried import code, fitted
from headway.core.ledger import Ledger
from headway.driver import determinism
from headway.elastic.wire import place
from headway.elastic.wire.messages import Raised
from headway.elastic.worker import failures, rounding
from headway.elastic.worker.attendant import Attendant, Attended
from headway.elastic.worker.ears import Ears
from headway.elastic.worker.heart import Heart
from headway.elastic.worker.line import Dismissed, Line
from headway.elastic.worker.output import Output
from headway.errors import HeadwayError
from headway.faults import blame
from headway.logs.layout import worker_source
from headway.logs.writer import EVERY_S
from headway.runs.place import cache_folder, slug, split

if TYPE_CHECKING:
    from headway.checkpoint.store import Store
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.journal import Journal
    from headway.elastic.worker.keeping import Keeping
    from headway.job import Job

LINE = 10_000
"""Characters of a line without an end that are remembered."""

logger = logging.getLogger(__name__)


def main(config: dict[str, Any]) -> None:
    """The train function of a run that has its processes for itself. Arguments as of `work`."""
    work(config)


def work(config: dict[str, Any], attendant: Attendant | None = None, used: bool = False) -> str:
    """Work for a run until its end, or until it goes on without this worker. The process ends where nobody leads it.

    Returns why the process had better not work for another run; empty: it may.

    Args:
        config: run folder (of a run in a store: `far`, see `headway.runs.RunFolder.far`), job, source of the task,
            recorder actor, digest of the job; save_at: see `Context`.
        attendant: beside a process that is to work for other runs as well: all connections are closed.
        used: it has worked for others. What user's code raises before it trains may come of what they have left (there
            are things that can be done but once in a process), and is no word on the run: a new process shall try.
    """
    import ray

    from headway.elastic.worker import context as contexts
    from headway.elastic.worker.journal import DriverLost

    ledger = Ledger(time.monotonic())
    context: Context | None = None
    line: Line | None = None
    output: Output | None = None
    ears: Ears | None = None
    starting, let_go, raised, stays, remark = True, False, False, attendant is not None, ""
    try:
        config = {**config, "given": ray.get(config["recorder"].given.remote())}
        os.environ.update(config["given"])
        if config.get("far") is not None:
            config["folder"] = str(_scratch(config["far"]["url"]))
        from headway.job import Job

        job = Job.model_validate(config["job"])
        output = _kept(config, attendant)
        heart = partial(Attended, attendant) if attendant is not None else Heart
        line = Line(place.current(), ledger, job.workers.silence_s, heart=heart)
        address = ray.util.get_node_ip_address()
        line.connect(address, stays)
        context = _context(config, job, line, address, ledger)
        contexts.enter(context)
        ears = Ears(context.journal.warned)
        ears.open()
        starting = False
        run(context.job, code.load(config["source"]), config["source"])
        close(context, wait=True)
        ledger.switch("idle", time.monotonic())
        if stays:
            line.over()
        context.members.finished()
    except Dismissed:
        let_go = True
        if context is not None:
            close(context, wait=False)
    except (DriverLost, ray.exceptions.RayActorError):
        os._exit(1)  # nobody leads the run any more
    except BaseException as error:  # the coordinator decides what becomes of the run; sys.exit() would end it unheard
        raised = True
        rank = context.rank if context else 0
        where = f"worker {rank}, at {context.at if context else 'set-up'}"
        sys.stderr.write(f"{where}: {blame.whole_traceback(error)}\n")  # for the log
        if context is not None:
            context.journal.close()  # what was committed before it is not to be lost with it
        if stays and line is not None:
            line.over()
        if not (stays and line is not None and line.dismissed):  # then nobody asks
            told = failures.raised(error, where, starting)
            if used and told.failure["kind"] == "task" and line is not None and not line.entered:
                told, remark = failures.of_used_process(told), "a task could not begin in it"
            _tell(line, told)
    finally:
        contexts.enter(None)
        if ears is not None:
            ears.close()
        if isinstance(sys.stdout, _Forwarded):
            sys.stdout = sys.stdout.through
        if output is not None:
            output.close()
        if (let_go or stays) and line is not None:
            line.close()  # nothing is left to be done, and its place is free at once
        if raised and stays and context is not None:
            close(context, wait=False)
    return remark


def _scratch(url: str) -> Path:
    """A folder of this machine for a run in a store: what a drill does to its workers is noted there."""
    place, name = split(url)
    return cache_folder() / "workers" / slug(place) / name


def shipped_every_s(config: dict[str, Any]) -> float:
    """How often one worker's log is shipped to a store: all of them together 16 times a second at most."""
    return max(EVERY_S, float(config["job"]["workers"]["max"]) / 16)


def _kept(config: dict[str, Any], attendant: Attendant | None) -> Output | None:
    """Begin to keep what this process writes; a worker whose words cannot be kept trains all the same."""
    if "folder" not in config:
        return None
    worker = place.current().worker
    far = config.get("far") or {"url": config["folder"], "options": None}
    output = Output(worker_source(worker), far["url"], far["options"], shipped_every_s(config), attendant)
    try:
        output.start()
    except OSError as error:
        logger.warning("what this worker writes is not kept: %s", error)
        return None
    sys.stderr.write(f"-- {time.strftime('%Y-%m-%d %H:%M:%S %z')} {worker}, process {os.getpid()}\n")
    return output


def _tell(line: Line | None, raised: Raised) -> None:
    """What ended this worker. Where nobody hears it, its process ends, which is seen as well."""
    try:
        if line is None:
            raise OSError("not connected")
        line.tell(raised)
    except OSError:
        sys.stderr.write(f"{raised.failure['fact']}: {raised.failure['reason']}\n{raised.failure['traceback']}\n")
        sys.stderr.flush()
        os._exit(1)


def run(job: Job, found: Callable[..., Any], source: code.Source | None = None, values: bytes | None = None) -> None:
    """Call the user's function, or run their task on the ready-made loop.

    Args:
        source: beside it lies what a task is fitted to.
        values: that, packed, where it lies nowhere.
    """
    import inspect

    import torch

    from headway.data.read.streams import collate_of, transform_of
    from headway.elastic.worker.context import current
    from headway.elastic.worker.loop import train_task
    from headway.elastic.worker.tables import building

    torch.manual_seed(job.seed)
    with building(job):
        task = found(**job.call())
    if not inspect.isclass(found):
        return
    if values is not None:
        task.fitted = fitted.unpack(values)
    elif source is not None:
        fitted.given(task, source)
    current().use(transform_of(task), collate_of(task))
    train_task(task, job)


def _context(config: dict[str, Any], job: Job, line: Line, address: str, ledger: Ledger) -> Context:
    import torch

    from headway.data.own.opening import opened
    from headway.data.read.streams import Elsewhere, open_readers
    from headway.elastic.worker import dynamo
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.journal import Journal
    from headway.elastic.worker.members import Led
    from headway.elastic.worker.memory import keep_freed
    from headway.elastic.worker.saver import Saver

    keep_freed()
    dynamo.leave_for_later()
    torch.set_num_threads(job.workers.cpus)
    journal = Journal(config["recorder"], line.place.worker, pauses="shelf" in config.get("keeper", {}))
    sys.stdout = _Forwarded(sys.stdout, journal)
    store = store_of(config, job)
    determinism.enforce(job)
    device = _device(job)
    keeping = keeping_of(config, job, line, address, journal.note)
    if keeping is not None:
        keeping.open()
    elsewhere = Elsewhere(config["job"], config["source"], config["given"])
    own = opened(job, config["source"])
    train, validation = open_readers(job, journal.quarantined, device, elsewhere=elsewhere, own=own)
    return Context(
        job=job,
        device=device,
        train=train,
        validation=validation,
        saver=Saver(store, job.checkpoint, journal),
        journal=journal,
        run=config["run"],
        trouble=_mischief(Path(config["folder"]), line.place.worker),
        members=Led(
            line,
            "nccl" if job.workers.gpus else "gloo",
            address,
            place.show,
            job.workers.silence_s,
            job.workers.patience_s,
            rounding.digest(job.workers.cpus) if device == "cpu" else torch.cuda.get_device_name(device),
        ),
        ledger=ledger,
        keeping=keeping,
        save_at=frozenset(config.get("save_at", ())),
    )


def keeping_of(
    config: dict[str, Any], job: Job, line: Line, address: str, say: Callable[[str], None], machine: str = ""
) -> Keeping | None:
    """The worker's hold on its node's keeper; None where the job wants none, or there can be none.

    Args:
        config: digest: of the job; keeper: the run's id and token; keepers: where there were some under another driver.
        job: says how often.
        line: to the lead, which knows the other keepers.
        address: of this node.
        say: takes a line for people.
        machine: a name for it in place of its own.
    """
    from headway.elastic.wire.messages import Keeper
    from headway.elastic.worker import keeper
    from headway.elastic.worker.keeping import Keeping

    every = job.checkpoint.memory_every
    if every is None or "keeper" not in config:
        return None
    try:
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memory without a name")
        there = {"machine": machine or keeper.machine(), "host": address, "folder": str(keeper.folder())}
    except OSError as error:
        say(f"the newest state is not kept in memory on this node: {error}")
        return None
    earlier = [(str(host), int(port)) for host, port in config.get("keepers", ())]
    return Keeping(
        {**there, **config["keeper"]},
        every,
        config["digest"],
        line.place.token,
        say,
        lambda host, port: line.tell(Keeper(host, port)),
        lambda: tuple(dict.fromkeys((*line.keepers, *earlier))),
    )


def store_of(config: dict[str, Any], job: Job) -> Store:
    """The run's checkpoints, in its folder or in a store."""
    from headway.checkpoint.store import Store

    digest, epoch, pinned = config["digest"], config["epoch"], config.get("save_at", ())
    if config.get("far") is None:
        return Store(Path(config["folder"]) / "checkpoints", digest, job.checkpoint, epoch, pinned=pinned)
    from headway.runs import far

    run = far.open_run(config["far"])
    place = run.storage.at(far.CHECKPOINTS)
    counting, fence = partial(far.counting, run), partial(far.fence, run, epoch)
    return Store(place, digest, job.checkpoint, epoch, counting, fence, pinned)


def _mischief(folder: Path, worker: str) -> Callable[[str, Any, int], None]:
    """What a drill does to this worker from inside; nothing where HEADWAY_TROUBLE names no `module:function`.

    The function is called as function(folder, worker, point, model, step).
    """
    module, _, name = os.environ.get("HEADWAY_TROUBLE", "").partition(":")
    if not name:
        return lambda point, model, step: None
    cause = getattr(importlib.import_module(module), name)
    return lambda point, model, step: cause(folder, worker, point, model, step)


def close(context: Context, wait: bool) -> None:
    """Finish what goes on in the background. wait: the checkpoint under way must succeed."""
    if wait:
        context.saver.finish()
    context.saver.close()
    context.close()
    if context.keeping is not None:
        context.keeping.close(end=wait and not context.goes_on)
        context.journal.states_kept(*context.keeping.account())
    context.journal.close()
    if wait and context.saver.error is not None:
        raise HeadwayError(
            "the last checkpoint could not be written", context.saver.error, "Free space, then resume the run."
        )


def _device(job: Job) -> str:
    if not job.workers.gpus:
        return "cpu"
    import ray.train.torch

    return str(ray.train.torch.get_device())


class _Forwarded(io.TextIOBase):
    """Standard output; what the leader writes is shown by the driver, line by line."""

    def __init__(self, through: Any, journal: Journal) -> None:
        self.through, self._journal, self._line = through, journal, ""
        self._process = os.getpid()

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):  # nobody stops training for a line that cannot be kept
            self.through.write(text)
        if os.getpid() != self._process:
            return len(text)  # a child that was forked, whose journal nobody sends
        *lines, last = (self._line + text).split("\n")
        self._line = _last_state(last)[-LINE:]
        for line in lines:
            self._journal.printed(_last_state(line))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.through, name)  # buffer, reconfigure and what else people ask of it

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.through.flush()

    def fileno(self) -> int:
        return int(self.through.fileno())

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self.through.encoding)


def _last_state(line: str) -> str:
    """Of a line that is written again and again, as a progress bar."""
    return line.rstrip("\r").rpartition("\r")[2]
