"""The rounds of a drill, undisturbed and under fire, and what they come to together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway import plan
from headway.errors import RunFailed
from headway.job import Job
from headway.report import Report
from headway.runs import RunFolder
from headway.testing import account, health
from headway.testing.driver import Driver
from headway.testing.faults import Fault
from headway.testing.ground import Ground
from headway.testing.injector import Injector

Tell = Callable[[str], None]


@dataclass
class Run:
    """A run that has ended, one way or another."""

    folder: RunFolder
    report: Report
    injected: list[dict[str, Any]] = field(default_factory=list)
    missing: list[tuple[Fault, str]] = field(default_factory=list)
    repeated: Counter[int] = field(default_factory=Counter)


def undisturbed(cluster: Ground, folder: Path, job: Job, nodes: int, tell: Tell) -> Run:
    """Undisturbed, on one worker less than there are nodes: how many must not matter."""
    workers = max(1, nodes - 1)
    workers = min(workers, job.lanes)
    size = job.workers.model_copy(update={"min": workers, "max": workers, "spares": 0})
    tell(f"the quiet run, on {workers} workers")
    driver = Driver(cluster, folder, "quiet", job.model_copy(update={"workers": size}))
    driver.follow()
    report = driver.report()
    if report.state != "finished":
        raise RunFailed("the job fails without any fault", report.message, "Mend it, then drill it.")
    return Run(driver.run, report)


def under_fire(
    cluster: Ground,
    folder: Path,
    job: Job,
    script: Sequence[Fault],
    tell: Tell,
    ready: Callable[[Fault], bool] = lambda _: True,
    look: Callable[[RunFolder, Injector], None] = lambda *_: None,
    name: str = "fire",
) -> Run:
    """The run, and what is done to it.

    Args:
        cluster: where it is.
        folder: for the run and what is said.
        job: to be run.
        script: what is done.
        tell: called with what happens, in words.
        ready: see `Injector`.
        look: called again and again until the run's end.
        name: of the run.
    """
    if name == "fire":
        tell("the run under fire")
    driver = Driver(cluster, folder, name, job)
    injector = Injector(driver.run.path, script, cluster, driver.kill, ready)

    def follow() -> None:
        while told := injector.done[len(seen) :]:
            seen.append(told[0])
            tell(f"step {told[0]['committed']}: {told[0]['fault']}")
        look(driver.run, injector)

    seen: list[dict[str, Any]] = []
    with injector:
        driver.follow(follow)
        follow()
    missing = [(fault, _why_not(fault, injector)) for fault in injector.left]
    late = {str(fault) for fault, _ in missing}
    done = [record for record in injector.done if record["fault"] not in late]
    return Run(driver.run, driver.report(), done, missing, injector.repeated)


def _why_not(fault: Fault, injector: Injector) -> str:
    told = any(record["fault"] == str(fault) for record in injector.done)
    return injector.refused.get(str(fault), "no worker came to it" if told else "its target was never there")


def accounted(job: Job, checked: plan.Plan, quiet: Run | None, fire: Run, seed: int | None) -> account.Account:
    """What both come to. seed: of random faults."""
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
