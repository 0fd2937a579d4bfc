"""The real crew of a sweep: a house of warm processes on a Ray, and the driver's part of the runs that lodge there."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headway import plan, tryout, variables
from headway.carried import code
from headway.carried.cargo import Cargo
from headway.core.figures import Sample
from headway.driver import attach, ending, equipment, leading
from headway.driver.names import Names
from headway.elastic.crew import legs, told
from headway.elastic.crew.fits import Fits
from headway.elastic.crew.legs import Leg
from headway.elastic.wire import keepers
from headway.errors import RunFailed
from headway.job import Job
from headway.runs import RunFolder
from headway.runs.place import Place
from headway.sweeps.crew import Holds, Left, News, Passed, Said, Sized
from headway.sweeps.crew import Leg as Wish

NEWS_S = 1.0
PROGRESS_S = 0.5
NO_RECORDS = (
    "the runs' records cannot be kept any more",
    "the process that keeps them is gone (out of memory, or it was ended)",
    "Look for it in Ray's logs, then `headway resume` the sweep.",
)
FOUND_S = 60.0
"""The house's actor is there after so long, or never."""
END_S = 10.0
CLOSERS = 4
"""Runs whose books are closed at a time; and for which a tracking store is waited for."""


@contextmanager
def crew(
    name: str,
    folder: Path,
    place: Place,
    job: Job,
    workers: int,
    *,
    source: code.Source | None = None,
    memory: int = 0,
    address: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[RealCrew]:
    """A crew on a Ray of this process's own, or on a cluster; the job's task is tried first. Ended when this is left.

    Args:
        name: of the sweep.
        folder: of this machine, for the sweep's code and Ray Train's files.
        place: where runs are kept.
        job: of a trial: what all have in common is taken from it.
        workers: to begin with.
        source: the copy of the task in the sweep's folder, where that is run; None: the task as the job names it.
        memory: bytes on each node for the states of paused runs; 0: they are in their checkpoints alone.
        address: see `headway.train`.
        tell: takes a line for people, before there are news.
        stopped: asked now and then whether to give up, while it begins.

    Raises:
        BadInput: the job, its data or its task cannot be used, or there is no cluster.
    """
    with variables.in_force(job), tryout.begun(job) as trial:
        carried = folder / "code"
        checked = plan.check(job, source, Cargo(carried) if source is not None else None)
        if not checked.source.copied:
            code.carry(checked.source, carried, checked.cargo)
        trial.ask(plan.pinned(job, checked), checked, carried, attach.where(address).address is not None)
        names = Names(name)
        cpus = max(os.cpu_count() or 1, int(workers * job.workers.cpus) + 1)
        os.environ.setdefault("RAY_num_workers_soft_limit", "0")  # else a Ray of ours keeps processes that do nothing
        home = code.home(checked.source, carried)
        with (
            leading.told_by_cause(),
            attach.ray_for(
                address,
                cpus,
                leading.OBJECT_STORE_BYTES,
                working_dir=home,
                metadata=names.metadata,
                tell=tell,
            ) as own,
        ):
            tried = trial.answer(stopped)
            for note in tried.notes:
                tell(f"note: {note}")
            if stopped():
                raise KeyboardInterrupt
            found = RealCrew(names, folder, place, job, checked, workers, memory, through_ray=not own)
            found.fits.know(plan.pinned(job, checked), tried.values)
            try:
                found.open()
                yield found
            finally:
                found.close()


class RealCrew:
    """See `headway.sweeps.crew.Crew`, and `crew` for arguments. through_ray: figures go to Ray's exporter as well."""

    def __init__(
        self,
        names: Names,
        folder: Path,
        place: Place,
        job: Job,
        common: plan.Plan,
        workers: int,
        memory: int = 0,
        through_ray: bool = False,
    ) -> None:
        self._through_ray = through_ray
        self._names, self._folder, self._place, self._job, self._workers = names, folder, place, job, workers
        self._common, self.fits = common, Fits()
        self._keeper: dict[str, Any] = {**RunFolder(folder).keeper(), "memory": memory}
        self._keepers: set[tuple[str, int]] = set()
        """Where there were keepers of runs whose legs are over."""
        self._numbers = itertools.count(1)
        self._legs: dict[int, Leg] = {}
        self._by_run: dict[str, Leg] = {}
        self._closing: dict[str, Future[None]] = {}
        """Runs whose books are being closed."""
        self._news: queue.SimpleQueue[News | BaseException] = queue.SimpleQueue()
        self._closers = ThreadPoolExecutor(CLOSERS, thread_name_prefix="close")
        self._senders = ThreadPoolExecutor(CLOSERS, thread_name_prefix="send")
        self._over = threading.Event()
        self._recorders: Any = None
        self._house: Any = None
        self._fit: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        self._trouble: BaseException | None = None
        """What Ray Train ended by."""

    def open(self) -> None:
        """Start the house and the recorders on the Ray that this process is connected to.

        Raises:
            RunFailed: the house does not come up.
        """
        import ray
        from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]

        from headway.elastic.crew.recorders import OPTIONS, Recorders

        here = {RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        actor: Any = ray.remote(**OPTIONS, label_selector=here)
        self._recorders = actor(Recorders).options(**self._names.of("recorder")).remote()
        if self._job.prometheus.enabled:
            way = equipment.way(self._place.folder, self._names.run, self._job, self._through_ray)
            self._recorders.export.remote(self._names.run, way)
        self._fit = threading.Thread(target=self._train, name="ray-train", daemon=True)
        self._fit.start()
        deadline = time.monotonic() + FOUND_S
        while (house := self._names.find("controller")) is None:
            if time.monotonic() > deadline or not self._fit.is_alive():
                raise self._failed()
            time.sleep(0.01)
        self._house = house
        for target, name in ((self._listen, "news"), (self._look, "progress")):
            self._threads.append(threading.Thread(target=target, name=name, daemon=True))
            self._threads[-1].start()

    def _train(self) -> None:
        """In a thread: until the house is closed."""
        try:
            self._trainer().fit()
        except BaseException as error:  # told to whoever asks for news
            self._trouble = error
            if not self._over.is_set():
                self._news.put(self._failed())

    def _trainer(self) -> Any:
        from ray.train import RunConfig

        from headway.elastic.crew.house import House
        from headway.elastic.lead.trainer import ElasticTrainer
        from headway.elastic.worker import serve

        controls = {
            "names": self._names,
            "wanted": self._workers,
            "slow_s": equipment.policy(self._job).patience.slow_s,
            "enter": serve.enter,
            "give": serve.give,
        }
        return ElasticTrainer(
            House,
            serve.serve,
            controls,
            train_loop_config={},
            scaling_config=equipment.scaling(self._job, max(1, self._workers)),
            run_config=RunConfig(name=self._names.run, storage_path=str(self._folder / "ray")),
        )

    def _failed(self) -> RunFailed:
        if self._trouble is None:
            return RunFailed("the sweep's workers could not be led", "their controller is gone", "See Ray's logs.")
        found = ending.of_ray(self._trouble)
        return RunFailed(found["fact"], found["reason"], found["remedy"])

    # What the sweep asks for

    def want(self, workers: int) -> None:
        """See `Crew.want`."""
        self._house.want.remote(workers)

    def begin(self, leg: Wish) -> None:
        """See `Crew.begin`."""
        if leg.run in self._by_run:
            raise ValueError(f"{leg.run} is under way")
        before = self._closing.pop(leg.run, None)
        if before is not None:
            before.result()
        begun = legs.opened(leg, next(self._numbers), self._place, self._recorders, self._common, self.fits)
        try:
            legs.record(begun, self._through_ray)
            given = legs.given(begun, self._keeper)
        except BaseException:  # raised again: nobody leads it then
            begun.led.close()
            raise
        self._legs[begun.number] = self._by_run[leg.run] = begun
        self._house.begin.remote(given)

    def go_on(self, run: str, until: int) -> None:
        """See `Crew.go_on`."""
        leg = self._by_run.get(run)
        if leg is not None:
            self._house.go_on.remote(leg.number, until)

    def leave(self, run: str, why: str) -> None:
        """See `Crew.leave`."""
        leg = self._by_run.get(run)
        if leg is not None:
            leg.why = leg.why or why
            self._house.leave.remote(leg.number, why)

    def resize(self, run: str, workers: int) -> None:
        """See `Crew.resize`."""
        leg = self._by_run.get(run)
        if leg is not None:
            self._house.resize.remote(leg.number, workers)

    def figures(self, samples: Sequence[Sample]) -> None:
        """Those of the sweep, for Prometheus; of no use once it is closed."""
        if not self._over.is_set():
            self._recorders.figures.remote(samples)

    def news(self, timeout_s: float) -> Sequence[News]:
        """See `Crew.news`."""
        found: list[News] = []
        try:
            first = self._news.get(timeout=timeout_s)
            while True:
                if isinstance(first, BaseException):
                    raise first
                found.append(first)
                first = self._news.get_nowait()
        except queue.Empty:
            return found

    def close(self) -> None:
        """See `Crew.close`."""
        import ray

        if self._over.is_set():
            return
        self._over.set()
        if self._house is not None:
            self._house.end.remote()
        if self._fit is not None:
            self._fit.join(END_S)
        under_way = list(self._legs.values())
        for leg in under_way:
            self._closers.submit(legs.left, leg)
        self._closers.shutdown()
        self._senders.shutdown()
        places = self._keepers.union(*map(legs.keepers, under_way))
        keepers.end_all(sorted(places), self._keeper["token"])
        for thread in self._threads:  # none may speak to a Ray that this process has left
            thread.join(END_S)
        if self._recorders is not None:
            with suppress(ray.exceptions.RayError):
                ray.get(self._recorders.end.remote(), timeout=END_S)
            ray.kill(self._recorders)

    # What it tells

    def _listen(self) -> None:
        import ray

        while not self._over.is_set():
            try:
                for said in ray.get(self._house.news.remote(NEWS_S)):
                    self._hear(said)
            except Exception:  # the house is gone: what became of it its trainer says
                if not self._over.wait(NEWS_S) and self._fit is not None and not self._fit.is_alive():
                    self._news.put(self._failed())
                    return

    def _hear(self, said: told.Told) -> None:
        match said:
            case told.Evaluated(number, step, values, stands):
                if number in self._legs:
                    self._legs[number].step = step
                    self._news.put(Passed(self._legs[number].run.name, step, values, stands))
            case told.Ended(number):
                if number in self._legs:
                    self._end(self._legs[number], said)
            case told.There(processes):
                self._news.put(Sized(processes))
            case told.Account(workers, steps, seconds):
                named = {number: leg.run.name for number, leg in list(self._legs.items())}
                by_run = ({named[n]: value for n, value in each.items() if n in named} for each in (workers, steps))
                self._news.put(Holds(next(by_run), next(by_run), seconds))
            case told.Remark(number, text):
                leg = self._legs.get(number) if number is not None else None
                self._news.put(Said(leg.run.name if leg else None, text))
            case told.Broken(failure):
                self._news.put(RunFailed(failure["fact"], failure["reason"], failure["remedy"]))

    def _end(self, leg: Leg, over: told.Ended) -> None:
        """A leg is over: its books are closed by another thread, and then it is told."""
        run = leg.run.name
        self._legs.pop(leg.number, None)
        self._by_run.pop(run, None)
        self._closing[run] = self._closers.submit(self._close, leg, over)

    def _close(self, leg: Leg, over: told.Ended) -> None:
        try:
            news = legs.closed(leg, over)
            self._keepers |= legs.keepers(leg)
            if legs.lingers(leg, news):  # nobody waits for that
                self._senders.submit(legs.sent, leg)
            else:
                leg.led.close()
        except BaseException as error:  # told as what became of it
            with suppress(Exception):  # where it cannot be handed back, its lease runs out
                leg.led.close()
            news = Left(leg.run.name, over.step, "failed", ending.of_ray(error))
        self._news.put(news)

    def _look(self) -> None:
        """What users' code prints, and failures that only recorders see."""
        import ray

        while not self._over.wait(PROGRESS_S):
            under_way = {leg.seat.key: leg for leg in list(self._legs.values())}
            if not under_way:
                continue
            try:
                found = ray.get(self._recorders.progress.remote({key: leg.seen for key, leg in under_way.items()}))
            except ray.exceptions.ActorDiedError:  # and with them all: nobody's records are kept any more
                if not self._over.is_set():
                    self._news.put(RunFailed(*NO_RECORDS))
                return
            except Exception:  # Ray may be away for a moment
                continue
            for key, progress in found.items():
                self._show(under_way[key], progress)

    def _show(self, leg: Leg, progress: dict[str, Any]) -> None:
        leg.seen = progress["messages_seen"]
        for text in progress["messages"]:
            self._news.put(Said(leg.run.name, text))
        if progress["failure"] is not None and leg.failure is None:
            leg.failure = progress["failure"]
            self._house.leave.remote(leg.number, "stopped")
