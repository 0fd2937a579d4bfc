"""The fire drill: run a job on a local cluster, do to it what a script of faults says, and see whether it shows.

The job is run twice on machines of this one: undisturbed, on fewer workers, and then under fire. The drivers are
processes of their own, as a user's would be, so that they can be killed too.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headway import plan, tryout
from headway.errors import BadInput, RunFailed
from headway.job import Job, load, to_yaml
from headway.report import Report
from headway.report import load as load_report
from headway.runs import RunFolder
from headway.testing import account, health, inside
from headway.testing.cluster import Cluster
from headway.testing.disk import Disk
from headway.testing.faults import VERBS, Fault, in_order, parse, random_faults
from headway.testing.injector import Injector
from headway.testing.links import lacking, require

NODES = 3
HANG_S = 10
CHECK_STEPS = 1
"""What a drill with a `hang` or a `flip` sets the job's limits to; it would end before the usual ones."""
RUNS = "runs"
LOOK_S = 0.1
STALL_S = 300.0
"""After so long without a step, the run is given up."""

Tell = Callable[[str], None]


def drill(
    job: str | Path,
    *,
    faults: str | Iterable[Fault] | None = None,
    seed: int = 0,
    nodes: int | None = None,
    steps: int | None = None,
    settings: Sequence[str] = (),
    quiet_run: bool = True,
    keep: bool = False,
    tell: Tell = lambda _: None,
) -> account.Account:
    """Drill a job.

    Args:
        job: its YAML file, anywhere.
        faults: a script (see `headway.testing.faults`), or faults; random ones when None.
        seed: of the random faults.
        nodes: machines to begin with, one worker (or spare) on each; 3, or as many as there are lanes, when None.
        steps: to run for instead of the job's own.
        settings: `key=value` changes to the job. A drill is bitwise reproducible, goes on with one worker, and
            records nothing in MLflow, unless they say otherwise.
        quiet_run: run undisturbed too; without it nothing is known of the weights.
        keep: leave the runs on disk.
        tell: called with what happens, in words.

    Raises:
        BadInput: the job or the script cannot be used; nothing was started.
        RunFailed: the job fails without any fault.
    """
    script = None if faults is None else parse(faults) if isinstance(faults, str) else in_order(faults)
    settings = [*_usual(steps, script or ()), *settings]
    first = load(job, settings)
    spares = first.workers.spares
    nodes = nodes or max(min(NODES, first.lanes + spares), spares + 1)
    if script is None:
        carrying = max(1, nodes - spares)
        script = random_faults(seed, plan.check(first).total_steps, carrying, without=lacking())
    chosen, checked = _planned(job, settings, nodes, script)
    for verb in sorted({fault.verb for fault in script}):
        require(verb)
    means = {VERBS[fault.verb].means for fault in script} - {""}
    links = bool(means - {"disk"})
    folder = Path(tempfile.mkdtemp(prefix="headway-drill-"))
    try:
        with ExitStack() as stack:
            trial = stack.enter_context(tryout.begun(chosen))
            trial.ask(plan.pinned(chosen, checked), checked)
            chosen = chosen.model_copy(update={"check": None})  # once is enough for all of its runs
            if "disk" in means:
                stack.enter_context(Disk(folder / RUNS))
            cluster = stack.enter_context(
                Cluster(nodes, cpus=chosen.workers.cpus, links=links, environment=inside.ENVIRONMENT)
            )
            for note in trial.answer().notes:
                tell(f"note: {note}")
            tell(f"a cluster of {nodes} nodes is up" + (", each with a network of its own" if links else ""))
            quiet = _quiet(cluster, folder, chosen, nodes, tell) if quiet_run else None
            fire = _under_fire(cluster, folder, chosen, script, tell)
            drilled = _account(chosen, checked, quiet, fire, None if faults is not None else seed)
            if keep and "disk" in means:
                shutil.copytree(folder / RUNS, folder / f"{RUNS}-kept")  # the disk goes with the drill
        return replace(drilled, folder=str(folder)) if keep else drilled
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _usual(steps: int | None, script: Sequence[Fault]) -> list[str]:
    """What a drill changes in a job unless it is told otherwise."""
    found = ["tracking.enabled=false", "workers.min=1", "reproducible=bitwise"]
    found += [f"steps={steps}", "epochs=null"] if steps else []
    verbs = {fault.verb for fault in script}
    found += [f"workers.hang_s={HANG_S}"] if "hang" in verbs else []
    return found + ([f"replica_check_every={CHECK_STEPS}"] if "flip" in verbs else [])


def _planned(job: str | Path, settings: Sequence[str], nodes: int, script: Sequence[Fault]) -> tuple[Job, plan.Plan]:
    """The job, with as many workers as there will be nodes, but for those of its spares; what it comes to; and whether
    the script fits it.

    Raises:
        BadInput: it does not.
    """
    given = load(job, list(settings))
    lanes, spares = given.lanes, given.workers.spares
    if nodes > lanes + spares:
        raise BadInput(f"--nodes {nodes}", f"the job has {lanes} lanes, and a worker carries at least one", "")
    if nodes <= spares:
        remedy = f"Drill with --nodes {spares + 1} or more, or with --set workers.spares=0."
        raise BadInput(f"--nodes {nodes}", f"{spares} of them would carry spares, and none a worker", remedy)
    most = min(lanes, nodes + sum(fault.verb == "add" for fault in script) - spares)
    chosen = load(job, [f"workers.max={most}", *settings])
    if chosen.workers.gpus:
        raise BadInput(
            f"workers.gpus={chosen.workers.gpus:g}",
            "the nodes of a drill have no GPUs",
            "Drill it on CPUs: --set workers.gpus=0.",
        )
    checked = plan.check(chosen)
    total = nodes + sum(fault.verb == "add" for fault in script)
    for fault in script:
        if fault.step >= checked.total_steps:
            remedy = "Choose an earlier step, or run for more with --steps."
            raise BadInput(f"the fault '{fault}' comes too late", f"the run has {checked.total_steps} steps", remedy)
        if fault.target == "node" and fault.which and max(fault.which) >= total:
            raise BadInput(f"the fault '{fault}' hits nobody", f"there are nodes 0 to {total - 1}", "")
        if fault.target == "worker" and max(fault.which) >= chosen.workers.max:
            ranks = f"there are at most {chosen.workers.max} workers, counted from 0"
            raise BadInput(f"the fault '{fault}' hits nobody", ranks, "Drill with more --nodes.")
    return chosen, checked


@dataclass
class _Run:
    """A run that has ended, one way or another."""

    folder: RunFolder
    report: Report
    injected: list[dict[str, Any]] = field(default_factory=list)
    missing: list[tuple[Fault, str]] = field(default_factory=list)
    repeated: Counter[int] = field(default_factory=Counter)


def _quiet(cluster: Cluster, folder: Path, job: Job, nodes: int, tell: Tell) -> _Run:
    """Undisturbed, on one worker less than there are nodes: how many must not matter."""
    workers = max(1, nodes - 1)
    workers = min(workers, job.lanes)
    size = job.workers.model_copy(update={"min": workers, "max": workers, "spares": 0})
    tell(f"the quiet run, on {workers} workers")
    driver = _Driver(cluster, folder, "quiet", job.model_copy(update={"workers": size}))
    driver.follow()
    report = driver.report()
    if report.state != "finished":
        raise RunFailed("the job fails without any fault", report.message, "Mend it, then drill it.")
    return _Run(driver.run, report)


def _under_fire(cluster: Cluster, folder: Path, job: Job, script: Sequence[Fault], tell: Tell) -> _Run:
    tell("the run under fire")
    driver = _Driver(cluster, folder, "fire", job)
    injector = Injector(driver.run.path, script, cluster, driver.kill)

    def look() -> None:
        while told := injector.done[len(seen) :]:
            seen.append(told[0])
            tell(f"step {told[0]['committed']}: {told[0]['fault']}")

    seen: list[dict[str, Any]] = []
    with injector:
        driver.follow(look)
        look()
    missing = [(fault, _why_not(fault, injector)) for fault in injector.left]
    late = {str(fault) for fault, _ in missing}
    done = [record for record in injector.done if record["fault"] not in late]
    return _Run(driver.run, driver.report(), done, missing, injector.repeated)


def _why_not(fault: Fault, injector: Injector) -> str:
    told = any(record["fault"] == str(fault) for record in injector.done)
    return injector.refused.get(str(fault), "no worker came to it" if told else "its target was never there")


class _Driver:
    """`headway train` on the cluster's head, as a process of its own; `headway resume` after it was killed."""

    def __init__(self, cluster: Cluster, folder: Path, name: str, job: Job) -> None:
        self.run = RunFolder(folder / RUNS / name)
        self._cluster, self._log = cluster, folder / f"{name}.log"
        self._killed = False
        file = folder / f"{name}.yaml"
        file.write_text(to_yaml(job), encoding="utf-8")
        self._process = self._start("train", file, "--name", name)

    def _start(self, *arguments: str | Path) -> subprocess.Popen[Any]:
        program = [sys.executable, "-m", "headway.cli.app", *arguments]
        where: list[str | Path] = ["--runs", self.run.path.parent, "--address", self._cluster.address, "--json"]
        with self._log.open("a") as log:
            return self._cluster.run(
                [*program, *where], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> int:
        """SIGKILL; `follow` resumes the run."""
        self._killed = True
        self._process.send_signal(signal.SIGKILL)
        return self._process.pid

    def follow(self, look: Callable[[], None] = lambda: None) -> None:
        """Wait for the run's end, looking around now and then.

        Raises:
            RunFailed: no step was committed for long.
        """
        steps = self.run.path / "steps.jsonl"
        try:
            seen, moved = -1, time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(LOOK_S)
                    if not self._killed:
                        return
                    self._killed = False
                    self._process = self._start("resume", self.run.path)
                look()
                size = steps.stat().st_size if steps.exists() else -1
                if size != seen:
                    seen, moved = size, time.monotonic()
                elif time.monotonic() - moved > STALL_S:
                    reason = f"no step was committed for {STALL_S:.0f} s"
                    raise RunFailed(f"the drill's run '{self.run.name}' stands still", reason, self._said())
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def report(self) -> Report:
        """What the run came to.

        Raises:
            RunFailed: it never began.
        """
        try:
            return load_report(self.run)
        except BadInput:
            raise RunFailed("the drill's run could not be started", self._said(), "") from None

    def _said(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "its driver said nothing"


def _account(job: Job, checked: plan.Plan, quiet: _Run | None, fire: _Run, seed: int | None) -> account.Account:
    events, steps = list(fire.folder.events()), list(fire.folder.steps())
    found = account.samples(checked.order, checked.total_steps, steps, events, fire.repeated)
    late: list[dict[str, Any]] = [
        {"fault": str(fault), "step": fault.step, "committed": None, "time": None, "target": {}, "reason": reason}
        for fault, reason in fire.missing
    ]
    runs = {"fire": fire.report} | ({"quiet": quiet.report} if quiet else {})
    samples = {name: report.samples_sha256 for name, report in runs.items()}
    weights = {name: report.weights_sha256 for name, report in runs.items()}
    patience = health.Patience(job.workers.silence_s, job.workers.hang_s, job.workers.patience_s)
    killed = health.killed(events, fire.injected, patience)
    return account.Account(
        same_samples=found.same and len(set(samples.values())) == 1,
        same_weights=len(set(weights.values())) == 1 and None not in weights.values() if quiet else None,
        steps_repeated=found.repeated_steps,
        samples_repeated=found.repeated,
        samples_missed=found.missed,
        recoveries=account.recoveries(events, fire.injected, steps),
        goodput=fire.report.goodput,
        ledger_s=fire.report.ledger_s,
        faults=[*fire.injected, *late],
        seed=seed,
        state=fire.report.state,
        message=fire.report.message,
        steps=fire.report.steps,
        bitwise=job.reproducible == "bitwise",
        healthy_killed=len(killed),
        killed=killed,
        benign=all(health.excuse(record, patience) is None for record in fire.injected),
        weights_sha256=weights,
        samples_sha256=samples,
    )
