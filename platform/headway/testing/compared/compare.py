"""The runs of a comparison: one job, once for each strategy and seed, on local clusters, under the same faults.

One after the other, each on a cluster of its own where faults may take its machines away: what they have of this
machine is the same for all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headway import plan, tryout
from headway.core.incidents import PLANNED, UNKNOWN
from headway.errors import BadInput, HeadwayError
from headway.job import Job
from headway.runs import RunFolder, accounts, columns
from headway.strategies.summary import Summary
from headway.testing import inside, rounds
from headway.testing.cluster import Cluster, Node
from headway.testing.compared.outcome import Comparison, Floats, Result, Run, sent_at
from headway.testing.compared.ways import Way, link, parse
from headway.testing.disk import Disk
from headway.testing.drill import planned, usual
from headway.testing.driver import RUNS
from headway.testing.faults import VERBS, Fault
from headway.testing.faults import parse as read_faults
from headway.testing.links import require, require_cut
from headway.testing.network.switch import HEAD
from headway.testing.rounds import Tell
from headway.testing.story.acts import refuse_foreign

NODES = 2


class Narrow(Cluster):
    """A cluster whose nodes are on links of so many kilobits a second, each way; the head's is as it is.

    Args:
        kbit: None: as fast as can be. The rest is `Cluster`'s.
    """

    kbit: float | None = None

    def _launch(self, number: int, shape: object) -> Node:
        node = super()._launch(number, shape)  # type: ignore[arg-type]
        if self.kbit is not None and number != HEAD:
            self.switch.slow(number, self.kbit)
        return node


@dataclass(frozen=True)
class Start:
    """A run that is to be.

    Args:
        way: of it.
        job: with the way's changes.
        seed: of the job.
    """

    way: Way
    job: Job
    seed: int


Runner = Callable[[Start, Path], Run]
"""Runs one, and tells what became of it."""


def compare(
    job: str | Path,
    strategies: str,
    *,
    faults: str | None = None,
    rate: str | None = None,
    steps: int | None = None,
    nodes: int | None = None,
    seeds: Sequence[int] = (),
    settings: Sequence[str] = (),
    keep: Path | None = None,
    tell: Tell = lambda _: None,
    runner: Runner | None = None,
) -> Comparison:
    """Run a job under several strategies.

    Args:
        job: its YAML file.
        strategies: see `headway.testing.compared.ways.parse`.
        faults: a script, done to each run; none when None.
        rate: of each node's link, like 100mbit; needs root.
        steps: to run for instead of the job's own.
        nodes: machines to begin with, one worker on each; workers.max of the job, 2 at least, when None.
        seeds: one run of each strategy for each; the job's own when there are none.
        settings: `key=value` changes to the job, for all of them.
        keep: where the runs stay; nowhere when None.
        tell: called with what happens, in words.
        runner: of one run; on a local cluster when None.

    Raises:
        BadInput: the job, a strategy or the script cannot be used; nothing was started.
    """
    ways = parse(strategies)
    script = () if faults is None else read_faults(faults)
    refuse_foreign(script, cloud=False)
    kbit = None if rate is None else link(rate)
    if kbit is not None and any(fault.verb == "rate" for fault in script):
        raise BadInput("--link, and faults with `rate`", "both say how fast a link is", "Leave one of them out.")
    common = [each for each in usual(steps, script) if not each.startswith("reproducible=")]
    first, count = _first(job, [*common, *settings], nodes)
    starts, notes = _starts(job, ways, [*common, *settings], count, script, seeds or [first.seed], tell)
    for verb in sorted({fault.verb for fault in script}):
        require(verb)
    if kbit is not None:
        require_cut()
        require("rate")
    folder = keep or Path(tempfile.mkdtemp(prefix="headway-compare-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            run = runner or stack.enter_context(_Clusters(count, script, kbit, tell))
            done: dict[Way, list[Run]] = {way: [] for way in ways}
            for number, start in enumerate(starts):
                tell(f"{number + 1} of {len(starts)}: {start.way.name}, seed {start.seed}")
                done[start.way].append(_tried(run, start, folder, tell))
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    sections = {start.way: start.job.strategy.model_dump(exclude_defaults=True) for start in starts}
    results = [Result(way.name, {"kind": "all_reduce", **sections[way]}, done[way]) for way in ways]
    metric = _metric(first, results)
    mode = first.checkpoint.mode if metric == first.checkpoint.metric else "min" if "loss" in metric else "max"
    told = list(dict.fromkeys(notes))
    used = seeds or [first.seed]
    return Comparison(first.name, metric, mode, faults or "", rate or "", count, list(used), results, told)


def _first(job: str | Path, settings: Sequence[str], nodes: int | None) -> tuple[Job, int]:
    """The job as it is, and how many nodes there will be."""
    from headway.job import load

    found = load(job, [*settings])
    if found.workers.spares:
        raise BadInput(f"workers.spares={found.workers.spares}", "", "Compare without spares: --set workers.spares=0.")
    return found, nodes or max(min(NODES, found.lanes), found.workers.max)


def _starts(
    job: str | Path,
    ways: Sequence[Way],
    settings: Sequence[str],
    nodes: int,
    script: Sequence[Fault],
    seeds: Sequence[int],
    tell: Tell,
) -> tuple[list[Start], list[str]]:
    """Every run that is to be, checked. The task is tried once: it is the same for all."""
    starts: list[tuple[Way, Job]] = []
    notes: list[str] = []
    for way in ways:
        try:
            chosen, checked = planned(job, [*settings, *way.settings], nodes, script)
        except BadInput as error:
            raise BadInput(f"{way.name}: {error.fact}", error.reason, error.remedy) from None
        notes += [f"{way.name}: {note}" for note in Summary.of(chosen).notes()]
        if not starts:
            with tryout.begun(chosen) as trial:
                trial.ask(plan.pinned(chosen, checked), checked)
                for note in trial.answer().notes:
                    tell(f"note: {note}")
        starts.append((way, chosen.model_copy(update={"check": None})))
    # Seed by seed: what changes on this machine meanwhile is shared among the strategies.
    return [Start(way, made.model_copy(update={"seed": seed}), seed) for seed in seeds for way, made in starts], notes


def _tried(run: Runner, start: Start, folder: Path, tell: Tell) -> Run:
    """The run, or that it failed: the others are worth having."""
    try:
        return run(start, folder)
    except HeadwayError as error:
        tell(f"note: {start.way.name}: {error}")
        nothing = np.empty(0)
        return Run(start.seed, "failed", str(error), np.empty(0, np.int64), nothing, nothing, nothing, None, {}, None)


class _Clusters:
    """Clusters of this machine: one for all runs, or a new one for each where faults change it. A context manager."""

    def __init__(self, nodes: int, script: Sequence[Fault], kbit: float | None, tell: Tell) -> None:
        self._nodes, self._script, self._kbit, self._tell = nodes, script, kbit, tell
        self._means = {VERBS[fault.verb].means for fault in script} - {""}
        self._open = ExitStack()
        self._shared: Cluster | None = None

    def __enter__(self) -> _Clusters:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, start: Start, folder: Path) -> Run:
        if self._script:
            with ExitStack() as stack:
                if "disk" in self._means:
                    stack.enter_context(Disk(folder / RUNS))
                return self._run(stack.enter_context(self._cluster(start.job)), start, folder)
        if self._shared is None:
            self._shared = self._open.enter_context(self._cluster(start.job))
        return self._run(self._shared, start, folder)

    def _cluster(self, job: Job) -> Cluster:
        links = self._kbit is not None or bool(self._means - {"disk"})
        made = Narrow(self._nodes, cpus=job.workers.cpus, links=links, environment=inside.ENVIRONMENT)
        made.kbit = self._kbit
        return made

    def _run(self, cluster: Cluster, start: Start, folder: Path) -> Run:
        name = f"{start.way.slug}-{start.seed}"
        found = rounds.under_fire(cluster, folder, start.job, self._script, self._tell, name=name)
        return read(found.folder, start.seed, [f"{fault}: {why}" for fault, why in found.missing])


def read(folder: RunFolder, seed: int, missing: Sequence[str] = ()) -> Run:
    """What a run came to, from its folder."""
    from headway.report import load as load_report

    report, steps = load_report(folder), columns.steps(folder.path / "steps.jsonl")
    known = columns.lines(folder.path / accounts.FILE)
    events = list(folder.events())
    again = sum(int(event.get("lost_steps", 0)) for event in events if event["kind"] == "restart")
    sent = None if report.exchanged_bytes is None else float(report.exchanged_bytes)
    return Run(
        seed=seed,
        state=report.state,
        message=report.message,
        step=steps.step,
        seconds=since(events, steps.time),
        loss=steps.loss,
        sent=sent_at(steps.step, known),
        sent_bytes=sent,
        metrics=report.metrics,
        goodput=report.goodput,
        lost=len(lost(events)),
        repeated=again,
        missing=list(missing),
    )


def lost(events: Iterable[Mapping[str, Any]]) -> set[str]:
    """Workers that were lost without a plan. An exchange that broke with nobody gone has lost none."""
    told = (event for event in events if event["kind"] == "recovery" and event["cause"] not in PLANNED | UNKNOWN)
    return {worker for event in told for worker in event.get("workers", ())}


def since(events: Iterable[Mapping[str, Any]], times: Floats) -> Floats:
    """Seconds from the moment at which workers began to train. The steps of a round are told together when it is over:
    since the first of them it would be a round less.

    Args:
        events: of the run.
        times: float64[steps], Unix seconds at which steps were told.
    """
    first = float(times[0]) if len(times) else 0.0
    began = next((float(event["time"]) for event in events if event["kind"] == "generation"), first)
    return np.asarray(times - min(began, first))


def _metric(job: Job, results: Sequence[Result]) -> str:
    """The metric by which checkpoints are judged, where it was measured; else the first that is no loss."""
    known = list(dict.fromkeys(name for each in results for run in each.runs for name in run.metrics))
    if job.checkpoint.metric in known and job.checkpoint.metric != "loss":
        return job.checkpoint.metric
    return next((name for name in known if "loss" not in name), known[0] if known else "")
