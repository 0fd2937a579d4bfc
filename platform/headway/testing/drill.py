"""The fire drill: run a job on a local cluster, do to it what a script of faults says, and see whether it shows.

The job is run twice on machines of this one: undisturbed, on fewer workers, and then under fire. The drivers are
processes of their own, as a user's would be, so that they can be killed too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from headway import plan, tryout
from headway.errors import BadInput
from headway.job import Job, load
from headway.testing import account, inside
from headway.testing.cluster import Cluster
from headway.testing.disk import Disk
from headway.testing.driver import RUNS
from headway.testing.faults import VERBS, Fault, in_order, parse, random_faults
from headway.testing.links import lacking, require
from headway.testing.rounds import Tell, accounted, under_fire, undisturbed
from headway.testing.story.acts import refuse_foreign

NODES = 3
HANG_S = 10
CHECK_STEPS = 1
"""What a drill with a `hang` or a `flip` sets the job's limits to; it would end before the usual ones."""


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
    refuse_foreign(script or (), cloud=False)
    settings = [*usual(steps, script or ()), *settings]
    first = load(job, settings)
    spares = first.workers.spares
    nodes = nodes or max(min(NODES, first.lanes + spares), spares + 1)
    if script is None:
        carrying = max(1, nodes - spares)
        script = random_faults(seed, plan.check(first).total_steps, carrying, without=lacking())
    chosen, checked = planned(job, settings, nodes, script)
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
            quiet = undisturbed(cluster, folder, chosen, nodes, tell) if quiet_run else None
            fire = under_fire(cluster, folder, chosen, script, tell)
            drilled = accounted(chosen, checked, quiet, fire, None if faults is not None else seed)
            if keep and "disk" in means:
                shutil.copytree(folder / RUNS, folder / f"{RUNS}-kept")  # the disk goes with the drill
        return replace(drilled, folder=str(folder)) if keep else drilled
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def usual(steps: int | None, script: Sequence[Fault]) -> list[str]:
    """What a drill changes in a job unless it is told otherwise."""
    found = ["tracking.enabled=false", "notify=[]", "workers.min=1", "reproducible=bitwise"]
    found += [f"steps={steps}", "epochs=null"] if steps else []
    verbs = {fault.verb for fault in script}
    found += [f"workers.hang_s={HANG_S}"] if "hang" in verbs else []
    return found + ([f"replica_check_every={CHECK_STEPS}"] if "flip" in verbs else [])


def planned(job: str | Path, settings: Sequence[str], nodes: int, script: Sequence[Fault]) -> tuple[Job, plan.Plan]:
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
