"""To lead a run: from its checked plan to its end, on the Ray that it goes to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from headway import plan, runs, tryout, variables
from headway.carried import code, fitted
from headway.core import ends
from headway.core.offers import Stock
from headway.driver import attach, ending, equipment, means, signals, sizes
from headway.driver.fit import on_cluster
from headway.driver.names import Names
from headway.driver.progress import Progress, Watch
from headway.driver.progress import tell as tell_before
from headway.driver.sizes import Sizes
from headway.driver.submission import Began, Submission
from headway.faults import internal
from headway.fitting import work
from headway.job import Job
from headway.report import Report
from headway.report import load as load_report
from headway.runs import now, requests
from headway.runs.place import Place, split
from headway.runs.requests import Box, Ear, Heard, Resize

POLL_S = 0.2
OBJECT_STORE_BYTES = 256 * 2**20
TRACKING_CLOSE_S = 60.0
HEARD_S = 2.0
"""So long a run that is to stop, and has no workers, may yet get some; there is nothing to be saved without them."""


@contextmanager
def told_by_cause() -> Iterator[None]:
    """Ray's errors as what is at the bottom of them: what leads the run needs it all the time."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("ray."):
            raise internal.of(error, "while the run was led") from None
        raise


@told_by_cause()
def lead(
    run: runs.RunFolder,
    job: Job,
    checked: plan.Plan,
    trial: tryout.Trial,
    address: str | None,
    watch: Watch | None,
    epoch: int,
    submission: Submission | None = None,
    resumed_from: int | None = None,
    settle: Callable[[], None] = lambda: None,
) -> Report:
    """Lead the run to its end.

    Args:
        run: led by this process.
        checked: what the job comes to.
        trial: of its task, not asked yet.
        address, watch, submission: see `headway.train`.
        epoch: of this lead.
        resumed_from: step of the checkpoint that it goes on from.
        settle: called once it is sure to begin; what the run keeps is not changed before.

    Raises:
        BadInput, KeyboardInterrupt: it did not begin.
        RunFailed: it could not go on.
    """
    if not checked.source.copied:
        code.carry(checked.source, run.code, checked.cargo)
    code_of = submission.code if submission is not None and submission.code is not None else run.code
    inside, values = attach.where(address).address is not None, fitted.of(run.code)
    late = values is None and not work.is_small(checked.datasets) and work.may_have_fit(checked.source, code_of)
    if not late:
        trial.ask(job, checked, code_of, inside, values)
    now.say(run.path, "Ray and the trial of its task")
    stop = threading.Event()
    cpus = max(os.cpu_count() or 1, job.workers.most * job.workers.cpus + 1)
    home = code.home(checked.source, code_of)
    names = Names(run.name)
    leader = _Leader(run, job, checked, epoch, watch, submission, stop, names, Sizes(job, names))
    early: dict[str, Any] = {}
    starts = [requests.of_epoch(epoch), *([requests.of_attempt(submission.attempt)] if submission else [])]
    with (
        requests.heard(Box.of_run(run), starts, lambda _: stop.set(), lambda wish: leader.resize(wish, early)) as ear,
        signals.asking(stop),
        ExitStack() as after,  # all of Ray's processes
        attach.ray_for(
            address, cpus, OBJECT_STORE_BYTES, working_dir=home, metadata=leader.names.metadata, tell=leader.tell
        ) as own,
    ):
        if late:  # as a job on all of the cluster: nobody else holds a part of it yet
            values = leader.fit(code_of)
            trial.ask(job, checked, code_of, inside, values, fits=False)
        idle_s = leader.afford(own)
        if own or (submission is not None and submission.granted):
            early.update(leader.early())
        found = leader.look(trial, ear)
        settle()
        leader = leader.settled()
        leader.keep(values if late else found.values, found)
        recorder = leader.record(after, through_ray=not own, idle_s=idle_s)
        if submission is not None:
            submission.began(Began(run.name, run.where, run.far, epoch, resumed_from))
        failure = leader.follow(recorder, ear, early)
    if failure is not None:
        raise ending.raised(failure, run)
    return load_report(run)


@dataclass(frozen=True)
class _Leader:
    """Leads a run on the Ray that this process is connected to; see `lead`."""

    run: runs.RunFolder
    job: Job
    checked: plan.Plan
    epoch: int
    watch: Watch | None
    submission: Submission | None
    stop: threading.Event
    names: Names
    sizes: Sizes
    sized: threading.Event = field(default_factory=threading.Event)
    """Somebody has asked for a size."""

    @property
    def begun(self) -> Job:
        """As its workers are begun, see `Submission.sized`."""
        return self.submission.sized(self.job) if self.submission is not None else self.job

    def tell(self, *messages: str) -> None:
        tell_before(self.watch, self.run, self.checked, list(messages))

    def early(self) -> dict[str, Any]:
        """The first workers' processes, which get ready while the task is tried."""
        from headway.elastic.lead import early
        from headway.elastic.worker.warm import warm

        return early.begin(self.names, self.job.workers.each, self.begun.workers.most, warm)

    def afford(self, own: bool) -> float:
        """See whether the run's money and time will do. Gives the seconds for which machines cost on once it has left
        them. own: it is on a Ray of this process's own. Raises BadInput: they will not."""
        if not means.minds(self.job):
            return 0.0
        stock = Stock() if own else means.stock()
        means.admit(self.job, means.known(self.run, self.checked.total_steps), stock, time.time(), means.nodes())
        return stock.idle_s

    def resize(self, wish: Resize, early: dict[str, Any]) -> None:
        """Somebody asks for another size, in any thread. early: workers' processes of a run that has no controller yet,
        of which those that are too many give their places back at once."""
        self.sizes.ask(wish)
        self.sized.set()
        if early and self.names.find("controller") is None:
            from headway.elastic.lead.early import give_up

            give_up(early, wish.max)

    def standing(self) -> list[tuple[str, Any]]:
        """Processes of workers to be, of a run that is held."""
        from headway.elastic.lead import early
        from headway.elastic.worker.warm import warm

        workers, given = self.job.workers, self.submission
        if given is None or not given.held or not given.warm:
            return []
        return early.stand_by(self.names, workers.each, workers.cpus, min(given.warm, workers.max), warm)

    def fit(self, copied: Path) -> bytes | None:
        """Fit the task on the cluster; of a run that is held not before it was told its size, for until then all of the
        cluster is others'. copied: where its code was carried to. Raises BadInput: it failed."""
        held = self.submission is not None and self.submission.held
        while held and not self.sized.wait(POLL_S):
            if self.stop.is_set():
                raise KeyboardInterrupt
        rows = sum(dataset.rows for use, dataset in self.checked.datasets.items() if use != "validation")
        now.say(self.run.path, f"the task to be fitted to {rows:,} rows")
        self.tell(f"fitting the task to {rows:,} rows, if it has a fit()")
        source = code.carried(self.checked.source, copied)
        values = on_cluster(self.job, source, self.stop.is_set)
        if self.stop.is_set():
            raise KeyboardInterrupt
        return values

    def keep(self, values: bytes | None, found: tryout.Found) -> None:
        """Have what the task was fitted to now with the run, for good: it is not fitted again. And how large it is, by
        its trial."""
        memory = found.told(self.checked).memory
        told: dict[str, Any] = {} if found.parameters is None else {"parameters": found.parameters}
        told |= {} if memory is None else {"memory_planned": memory["peak_bytes"]}
        if values is not None:
            told["fitted"] = fitted.put(values, self.run.code)
        if not told:
            return
        with self.run.hold_records():
            self.run.write({**self.run.read(), **told})

    def look(self, trial: tryout.Trial, ear: Ear) -> tryout.Found:
        """Wait for what the task's trial gave, and for what was found of a cluster that the run was submitted to.

        Raises:
            BadInput: the run would fail.
            KeyboardInterrupt: it was submitted, and is to end before it began.
        """
        run, submission = self.run, self.submission
        with ExitStack() as looking:
            look = None
            if submission is not None:
                look = looking.enter_context(closing(submission.look(self.job, self.checked, place_of(run))))
            found = trial.answer(self.stop.is_set)  # it went on while Ray started
            if look is not None:
                self._unless_stopped(ear)
            self.tell(*(f"note: {note}" for note in found.notes))
            if found.checkpoint_bytes is not None and run.far is None:
                plan.check_space(self.job, found.checkpoint_bytes, run.path)
            if look is not None:
                look.done(found.told(self.checked), self.stop.is_set)
                self._unless_stopped(ear)
            return found

    def _unless_stopped(self, ear: Ear) -> None:
        if self.stop.is_set():
            raise Heard(ear.stop) if ear.stop is not None else KeyboardInterrupt

    def settled(self) -> _Leader:
        """By the run's own copy of code that came with a submission, which is made here."""
        if self.submission is None or self.submission.code is None:
            return self
        code.adopt(self.submission.code, self.run.code)
        return replace(self, checked=replace(self.checked, source=code.delivered(self.job.task, self.run.code)))

    def record(self, after: ExitStack, through_ray: bool, idle_s: float) -> Any:
        """The recorder, which has begun. after: left once Ray is. The others: see `equipment.recorder_options`."""
        import ray

        given = variables.given(self.job)
        options = equipment.recorder_options(
            self.run, self.job, self.checked, self.epoch, given, through_ray=through_ray, idle_s=idle_s
        )
        recorder = _recorder(self.names, options)
        if self.run.far is not None:
            ray.get(recorder.failure.remote())  # it has begun
            after.enter_context(self.run.handed_over())
            recorder.ship.remote()
        return recorder

    def follow(self, recorder: Any, ear: Ear, early: dict[str, Any]) -> dict[str, Any] | None:
        """Have workers train, and follow the run to its end. Gives the failure, where there was one.

        Args:
            early: workers that are there already.
        """
        import ray

        run, job, checked, stop = self.run, self.job, self.checked, self.stop
        source = equipment.source_for(run, checked)
        ended = threading.Event()
        trouble: list[BaseException] = []

        def fit() -> None:
            try:
                held = self.submission is not None and self.submission.held
                standing = self.standing()
                _fit(run, job, self.begun, checked, source, recorder, self.epoch, self.names, early, held, standing)
            except BaseException as error:  # told to the leading thread below
                trouble.append(error)
            finally:
                ended.set()

        if stop.is_set():  # while Ray started
            ended.set()
        else:
            threading.Thread(target=fit, name="ray-train", daemon=True).start()
        failure, cut = _watch(run, recorder, ended, stop, ear, self.watch, self.names, self.sizes)
        if failure is None and trouble and not cut:
            failure = ending.of_ray(trouble[0])
        if failure is not None and checked.origin is not None:
            failure = ending.own_files(failure, source.packed, run.code, checked.origin)
        if failure is not None:
            failure = ending.explained(failure, run)
            end = ends.failed(failure["kind"], ending.said(failure))
        else:
            end = ending.ended(run, recorder, checked.total_steps, ear, stop.is_set(), cut)
        patience_s = TRACKING_CLOSE_S if job.tracking.enabled else 0.0
        found = ray.get(recorder.finish.remote(end.state, end.message, patience_s, end.cause))
        ray.kill(recorder)
        if failure is None and found.get("unwritten"):
            failure = {"kind": "records", "fact": "the last records could not be written", "reason": found["unwritten"]}
            failure["remedy"] = f"Free space, then `headway resume {run.name}`."
        return failure


def _watch(
    run: runs.RunFolder,
    recorder: Any,
    ended: threading.Event,
    stop: threading.Event,
    ear: Ear,
    watch: Watch | None,
    names: Names,
    sizes: Sizes,
) -> tuple[dict[str, Any] | None, bool]:
    """Follow the run to its end. Gives the failure, if there was one, and whether it was cut short: there was nobody
    who could have heard that it is to stop."""
    import ray

    seen, failed_at, cut = 0, None, False
    asked_at: float | None = None
    while True:
        last = ended.wait(POLL_S)
        if stop.is_set() and asked_at is None:
            asked = ending.asked(ear)
            ray.get(recorder.request_stop.remote(asked.by, asked.now))
            asked_at = time.monotonic()
        sizes.hand_on()
        found = ray.get(recorder.progress.remote(seen))
        if found["stopping"]:  # of itself: its money is spent
            asked_at = asked_at or time.monotonic()
        seen = found["messages_seen"]
        if watch is not None:
            shown = {field.name: found[field.name] for field in fields(Progress) if field.name in found}
            watch(Progress(run=run.name, **shown))
        if found["failure"] is not None:
            failed_at = failed_at or time.monotonic()
            if last or time.monotonic() - failed_at > 10.0:  # workers that hang in a reduction end with the cluster
                failure: dict[str, Any] = found["failure"]
                return failure, cut
        if last:
            return None, cut
        deaf = asked_at is not None and not found["workers"] and time.monotonic() - asked_at > HEARD_S
        if deaf or ending.asked(ear).now:
            cut = names.end("controller") or cut


def place_of(run: runs.RunFolder) -> Place:
    """That holds the run."""
    if run.far is None:
        return Place(str(run.path.parent), run.path.parent)
    url = split(run.far["url"])[0]
    return Place(url, run.path.parent, url)


def _fit(
    run: runs.RunFolder,
    job: Job,
    begun: Job,
    checked: plan.Plan,
    source: code.Source,
    recorder: Any,
    epoch: int,
    names: Names,
    early: dict[str, Any],
    held: bool,
    standing: list[tuple[str, Any]],
) -> None:
    from ray.train import RunConfig

    from headway.elastic.lead.controller import ElasticController
    from headway.elastic.lead.trainer import ElasticTrainer
    from headway.elastic.worker.main import main

    ElasticTrainer(
        ElasticController,
        main,
        {
            "policy": equipment.policy(begun),
            "recorder": recorder,
            "alike": equipment.alike(job),
            "names": names,
            "total_steps": checked.total_steps,
            "at_once": sizes.at_once(run),
            "early": early,
            "wishing": means.wishing(begun, run, checked.total_steps),
            "each": job.workers.each,
            "prices": None if job.prices is None else [one.model_dump() for one in job.prices],
            "per_worker": job.workers.price_per_hour,
            "held": held,
            "standing": standing,
        },
        train_loop_config=equipment.config_of(run, job, checked, source, recorder, epoch),
        scaling_config=equipment.scaling(job, begun.workers.max),
        run_config=RunConfig(name=run.name, storage_path=str(run.path / "ray")),
    ).fit()


def _recorder(names: Names, options: dict[str, Any]) -> Any:
    import ray
    from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]

    from headway.elastic.lead.recorder import Recorder

    here = ray.get_runtime_context().get_node_id()
    actor = ray.remote(num_cpus=0, label_selector={RAY_NODE_ID_KEY: here})(Recorder).options(**names.of("recorder"))
    return actor.remote(**options)
