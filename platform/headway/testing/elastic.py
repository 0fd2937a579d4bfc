"""A whole elastic run on this machine without Ray: the coordinator and the recorder in this process, real workers in
processes of their own that can be killed, stopped and drained at any moment. Many runs take seconds.

    with Run(folder, job, train) as run:
        run.wait_until(lambda: run.step >= 5)
        run.kill(run.members[0])
        outcome = run.result()
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headway.core.demand import Worth
from headway.core.events import Launch
from headway.core.figures import Subject
from headway.core.ledger import Ledger
from headway.core.membership import Policy
from headway.core.watch import Patience
from headway.driver import equipment
from headway.elastic.lead.coordinator import Coordinator, Failure
from headway.elastic.lead.recorder import Recorder
from headway.elastic.wire import messages as wire
from headway.elastic.wire.place import Place
from headway.elastic.worker import failures
from headway.elastic.worker.journal import DriverLost, Journal
from headway.elastic.worker.line import Dismissed, Line
from headway.job import Job
from headway.runs import RunFolder
from headway.testing.forks import forks
from headway.tracking.prometheus.way import Exported

if TYPE_CHECKING:
    from headway.elastic.worker.context import Context

HOST = "127.0.0.1"
DIGEST = "a" * 64
"""Of every run's job."""
POLL_S = 0.005
GATHER_S = 60.0
"""A run's own is shorter: its members would differ from one time to the next where one starts late."""


@dataclass(frozen=True)
class Outcome:
    """What is left of a run.

    Args:
        failure: why it could not go on.
        steps: lines of steps.jsonl.
        events: what the coordinator recorded, the ledger's and the members' events too.
        results: what each worker's function returned.
        facts: run.json.
        evaluations: what was recorded, by step.
        account: seconds by cause of all workers.
    """

    failure: str | None
    steps: list[dict[str, Any]]
    events: list[dict[str, Any]]
    results: dict[str, Any]
    facts: dict[str, Any]
    evaluations: list[dict[str, Any]]
    account: dict[str, float]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of a kind."""
        return [event for event in self.events if event["kind"] == kind]


@dataclass
class _Slots:
    free: int
    waiting: list[str] = field(default_factory=list)


class Run:
    """See the module. Its attributes may be read at any time.

    Args:
        folder: empty; becomes the run's folder. Checkpoints that are there are gone on from.
        job: with data prepared.
        train: called as train(context, *arguments) in each worker; importable by name.
        arguments: picklable.
        places: workers that there is room for at first; see `places`.
        setup: called as setup(worker) in each worker's process before anything else; importable by name.
        machines: called as machines(worker), names the machine that it runs on; where given, each has a keeper of the
            newest state.
        until: the step of the first gate, see `headway.elastic.wire.messages.Until`; -1: there is none.
        save_at: steps at which a checkpoint is taken in any case.
        shelf: name of the run in keepers that serve several.
        hold: after so many steps all stand, where the function calls `advance`, until `join` lets them go on; -1: they
            do not. One that takes long to start is there before the run's end so.
        exports: its figures are served for Prometheus, with an entry in the folder's parent, as by the job.
        host: of the coordinator, as workers reach it.
        enter: called as enter(worker) in each worker's process before it connects, into a network of its own for one;
            returns the worker's address there. Importable by name.
        policy: fields of `Policy` to set beside the job's. For the first generation all are waited for that have room,
            however slowly processes start on a busy machine.
    """

    def __init__(
        self,
        folder: Path,
        job: Job,
        train: Callable[..., Any],
        *arguments: Any,
        places: int | None = None,
        setup: Callable[[str], None] | None = None,
        machines: Callable[[str], str] | None = None,
        until: int = -1,
        save_at: tuple[int, ...] = (),
        shelf: str = "",
        hold: int = -1,
        exports: bool = False,
        host: str = HOST,
        enter: Callable[[str], str] | None = None,
        **policy: Any,
    ) -> None:
        self.folder, self.job, self._exports = folder, job, exports
        self._host, self._enter = host, enter
        self._machines = machines
        self._more = {"save_at": save_at, "shelf": shelf}
        self._setup, self._train, self._arguments = setup, train, arguments
        workers = job.workers
        of_job = {"lanes": job.units, "slow": workers.slow}
        of_job |= {"min": workers.min, "max": workers.max, "spares": workers.spares}
        patience = Patience.of(workers.silence_s, workers.hang_s, workers.patience_s)
        self.coordinator = Coordinator(
            Policy(**{**of_job, "gather_s": GATHER_S, "patience": patience, **policy}), self, until=until
        )
        self.evaluations: list[wire.Evaluated] = []
        """That were told, in order."""
        self.members: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.processes: dict[str, Any] = {}
        """Of workers that are there, by name."""
        self.results: dict[str, Any] = {}
        self.orders = (0, 0)
        """What a cluster that buys machines could be asked for: places in all, and workers that are worth one."""
        self.failure: str | None = None
        self.stop_told = False
        """Whether who speaks for all was told that the run is to stop."""
        self._slots = _Slots(workers.max + workers.spares if places is None else places)
        self._step = forks.Value("q", 0, lock=False)  # a worker killed in it would hold a lock for ever
        self._hold = forks.Value("q", hold, lock=False)
        self._lock = threading.RLock()
        self._recording = threading.Lock()  # the recorder is an actor elsewhere, and does one thing at a time
        self._over = threading.Event()
        self._port = 0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        files = RunFolder(self.folder)
        if not (self.folder / "run.json").exists():
            files.write({"run": self.folder.name})
        self._recorder = Recorder(
            str(self.folder), None, {}, 10, terms=equipment.terms(self.job), exported=self._exported()
        )
        self._listener = Listener(str(self.folder / "r"))
        self._thread(self._accept)
        self._port = self.coordinator.start(self._host)
        self.coordinator.begin()
        self._fill()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._lock:
            for process in self.processes.values():
                process.kill()
        self.coordinator.close()
        with contextlib.suppress(OSError):
            Client(self._listener.address).close()  # wakes the thread that accepts
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)
        with self._recording:
            if not self._closed:
                self._recorder._export.close()
                self._recorder._scribe.close(1.0)
        self._recorder._hold.close()

    def _exported(self) -> Exported | None:
        if not self._exports:
            return None
        sizes = self.job.workers.min, self.job.workers.max
        way = equipment.way(self.folder.parent, self.folder.name, self.job, through_ray=False)
        return Exported(Subject(self.job.task, DIGEST, sizes), way)

    # What a test does

    @property
    def step(self) -> int:
        """Steps that the foremost worker has committed; counts where the function calls `advance`."""
        return int(self._step.value)

    def wait_until(self, condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
        """Raises AssertionError if it does not come true, or the run ends first."""
        deadline = time.monotonic() + deadline_s
        while not condition():
            assert not self._over.is_set(), f"the run ended first ({self.failure})"
            assert time.monotonic() < deadline, f"not within {deadline_s:g} s; {self.state()}"
            time.sleep(POLL_S)

    def places(self, number: int) -> None:
        """Have room for so many more (or fewer) workers; those that run are left alone."""
        with self._lock:
            self._slots.free += number
        self._fill()

    def join(self, number: int = 1) -> None:
        """Where all stand, have room for so many more, and go on once as many are ready: they join after that step."""
        self.wait_until(lambda: self.step >= self._hold.value)
        before = self.ready()
        self.places(number)
        self.wait_until(lambda: len(self.ready() - before) >= number)
        self.release()

    def stand(self, step: int) -> None:
        """Let all go on, and stand again after so many steps: what a test does next comes before them, however late."""
        self._hold.value = step

    def release(self) -> None:
        """Where all stand, let them go on."""
        self._hold.value = -1

    def ready(self) -> set[str]:
        """Workers that train, or could."""
        return {name for name, each in list(self.coordinator.membership.workers.items()) if each.phase != "warming"}

    def kill(self, worker: str) -> None:
        """As a lost machine does; its place stays free for another."""
        self._signal(worker, signal.SIGKILL)

    def stop(self, worker: str) -> None:
        """It stands still, but its machine answers."""
        self._signal(worker, signal.SIGSTOP)

    def resume(self, worker: str) -> None:
        self._signal(worker, signal.SIGCONT)

    def drain(self, worker: str, deadline_s: float) -> None:
        """Notice that it will be taken away, which is done at the deadline."""
        self.coordinator.drained(node(worker), deadline_s)
        timer = threading.Timer(deadline_s, self.kill, (worker,))
        timer.daemon = True
        timer.start()

    def resize(self, least: int, most: int) -> None:
        """As `headway resize` does."""
        self.coordinator.resize(least, most, "mary")

    def stands(self, step: int) -> bool:
        """Whether it is known that all stand at the gate, or the end, after so many steps."""
        return any(said.step == step and said.stands for said in self.evaluations)

    def request_stop(self) -> None:
        """As the driver does on Ctrl-C."""
        self._recorder.request_stop()

    def result(self, deadline_s: float = 60.0) -> Outcome:
        """Wait for the end.

        Raises:
            AssertionError: it did not come in time; says where everybody was.
        """
        assert self._over.wait(deadline_s), f"not over within {deadline_s:g} s; {self.state()}"
        account = self.coordinator.account()
        failed = self._recorder.failure()
        failure = self.failure or (f"{failed['fact']}: {failed['reason']}" if failed else None)
        self._wait_for_results()
        with self._recording:
            self._closed = True
            self._recorder.finish("failed" if failure else "finished", failure or "", 1.0)
        files = RunFolder(self.folder)
        return Outcome(
            failure, list(files.steps()), self.events, self.results, files.read(), files.evaluations(), account
        )

    def state(self) -> str:
        """For messages."""
        machine = self.coordinator.membership
        peers = {
            w: (p.step, str(p.at), "waits" if p.waiting else "works") for w, p in list(self.coordinator._peers.items())
        }
        return (
            f"step {self.step}, published {machine.published}, active {machine.active}, "
            f"workers {machine.workers}, peers {peers}, events {self.events[-5:]}"
        )

    # What the coordinator asks for

    def launch(self, wanted: Launch) -> None:
        def queue() -> None:
            if wanted.after_s:
                self._slots.waiting.append(wanted.worker)
            self._fill()

        if not wanted.after_s:  # in the order asked for: of threads that begin together any may be the first
            self._slots.waiting.append(wanted.worker)
        timer = threading.Timer(wanted.after_s, queue)
        timer.daemon = True
        timer.start()

    def dismiss(self, worker: str) -> None:
        with self._lock:
            if worker in self._slots.waiting:
                self._slots.waiting.remove(worker)
            process = self.processes.get(worker)
        if process is not None:
            process.kill()

    def record(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        with self._recording:
            self._recorder.event(event)

    def changed(self, members: list[str]) -> None:
        self.members = members

    def order(self, number: int, worth: Worth) -> None:
        self.orders = number, worth.workers

    def evaluated(self, said: wire.Evaluated) -> None:
        self.evaluations.append(said)

    def ended(self, failure: Failure | None) -> None:
        if failure is not None:
            self.failure = f"{failure['fact']}: {failure['reason']}\n{failure.get('traceback', '')}".rstrip()
            with self._recording:
                self._recorder.fail(failure)
        self._over.set()

    # Processes

    def _fill(self) -> None:
        with self._lock:
            while self._port and self._slots.free > 0 and self._slots.waiting and not self._over.is_set():
                self._slots.free -= 1
                worker = self._slots.waiting.pop(0)
                self.coordinator.placed(worker, self._machine(worker) or node(worker), None)
                self._spawn(worker)

    def _spawn(self, worker: str) -> None:
        receive, send = forks.Pipe(duplex=False)
        where = Place(worker, self._host, self._port, self.coordinator.pulse_port, self.coordinator.token)
        tree = self.job.model_dump()
        config = {"folder": str(self.folder), "machine": self._machine(worker), "enter": self._enter, **self._more}
        arguments = (send, where, tree, config, (self._step, self._hold), self._setup, self._train, self._arguments)
        process = forks.Process(target=_work, args=arguments, daemon=True)
        process.start()
        send.close()
        self.processes[worker] = process
        self._thread(self._attend, worker, process, receive)

    def _machine(self, worker: str) -> str:
        return self._machines(worker) if self._machines is not None else ""

    def _attend(self, worker: str, process: Any, pipe: Connection) -> None:
        """Until the worker's end; then its place is free."""
        try:
            kind, value = pipe.recv()
        except (EOFError, OSError):
            kind, value = "gone", None
        if kind == "returned":
            self.results[worker] = value
        process.join()
        pipe.close()
        with self._lock:
            del self.processes[worker]
            self._slots.free += 1
        self.coordinator.gone(worker, "process_died")  # for one that ended before it said hello
        self._fill()

    def _wait_for_results(self) -> None:
        """The workers that finished end by themselves."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with self._lock:
                there = [w for w in self.members if w in self.processes]
            if not there or self.failure is not None:
                return
            time.sleep(POLL_S)

    def _signal(self, worker: str, number: int) -> None:
        with self._lock:
            process = self.processes.get(worker)
            if process is not None and process.is_alive():
                os.kill(process.pid, number)

    # The recorder, for workers

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection = self._listener.accept()
            except (OSError, EOFError):
                return
            self._thread(self._answer, connection)

    def _answer(self, connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                worker, records = connection.recv()
                with self._recording:
                    if self._closed:
                        return
                    answer = self._recorder.push(worker, records)
                connection.send(answer)
                self.stop_told |= bool(answer["stop"] and answer["current"])

    def _thread(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


def node(worker: str) -> str:
    """The name of the only worker's machine."""
    return f"node-of-{worker}"


# In the worker's process

_shared: tuple[Any, Any] | None = None


def advance(step: int) -> None:
    """For the function of a worker: this many steps are committed."""
    if _shared is not None:
        foremost, hold = _shared
        foremost.value = max(foremost.value, step)
        while 0 <= hold.value <= step:
            time.sleep(POLL_S)


class _Journal(Journal):
    """Talks to the recorder over a connection instead of Ray."""

    def __init__(self, address: str, worker: str, pauses: bool) -> None:
        super().__init__(None, worker, pauses)
        self._address = address
        self._connection: Connection | None = None

    def _push(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            if self._connection is None:
                self._connection = Client(self._address)
            self._connection.send((self._worker, records))
            answer: dict[str, Any] = self._connection.recv()
        except (OSError, EOFError) as error:
            raise DriverLost(str(error)) from error
        return answer


def _work(
    pipe: Connection,
    where: Place,
    tree: dict[str, Any],
    config: dict[str, Any],
    shared: tuple[Any, Any],
    setup: Callable[[str], None] | None,
    train: Callable[..., Any],
    arguments: Any,
) -> None:
    global _shared
    import torch

    from headway.elastic.worker import context as contexts

    _shared = shared
    torch.set_num_threads(1)
    ledger = Ledger(time.monotonic())
    job = Job.model_validate(tree)
    torch.manual_seed(job.seed)
    line = Line(where, ledger, job.workers.silence_s)
    address = HOST if config["enter"] is None else config["enter"](where.worker)
    line.connect(address)
    context = None
    starting = True
    try:
        if setup is not None:
            setup(where.worker)
        context = _context(job, Path(config["folder"]), line, ledger, {**config, "address": address})
        contexts.enter(context)
        starting = False
        value = train(context, *arguments)
        _close(context)
        ledger.switch("idle", time.monotonic())
        pipe.send(("returned", value))
        context.members.finished()
    except Dismissed:
        if context is not None:
            _close(context)
        pipe.send(("dismissed", None))
    except BaseException as error:  # as the platform's own worker does
        at = context.at if context is not None else "set-up"
        line.tell(failures.raised(error, f"{where.worker}, at {at}", starting))
        pipe.send(("raised", None))
        time.sleep(1)


def keeper_of(folder: Path) -> dict[str, Any]:
    """What the keepers of the run in a folder are told of it."""
    return {"run": hashlib.sha256(str(folder).encode()).hexdigest(), "token": "secret", "linger_s": 60.0}


def _context(job: Job, folder: Path, line: Line, ledger: Ledger, told: dict[str, Any]) -> Context:
    from headway.carried import code
    from headway.checkpoint.store import Store
    from headway.data.own import naming, opening
    from headway.data.read.streams import open_readers
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.main import keeping_of
    from headway.elastic.worker.members import Led
    from headway.elastic.worker.saver import Saver

    worker, machine, save_at = line.place.worker, told["machine"], told["save_at"]
    journal = _Journal(str(folder / "r"), worker, bool(told["shelf"]))
    store = Store(folder / "checkpoints", DIGEST, job.checkpoint, pinned=save_at)
    own = opening.opened(job, code.locate(job.task)) if naming.named(job) else {}
    training, validation = open_readers(job, journal.quarantined, own=own)
    config = {"digest": DIGEST, **({"keeper": {**keeper_of(folder), "shelf": told["shelf"]}} if machine else {})}
    keeping = keeping_of(config, job, line, told["address"], journal.note, machine)
    if keeping is not None:
        keeping.open()
    return Context(
        job=job,
        device="cpu",
        train=training,
        validation=validation,
        saver=Saver(store, job.checkpoint, journal),
        journal=journal,
        run=folder.name,
        members=Led(line, "gloo", told["address"], lambda spot: None, job.workers.silence_s, job.workers.patience_s),
        ledger=ledger,
        keeping=keeping,
        save_at=frozenset(save_at),
    )


def _close(context: Context) -> None:
    if context.keeping is not None:
        context.keeping.close(end=context.goes_on is False and bool(context.keeping.shelf))
        context.journal.states_kept(*context.keeping.account())
    context.saver.close()
    context.close()
    context.journal.close()
