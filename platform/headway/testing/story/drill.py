"""The drill on a cloud: Ray's autoscaler buys the run's machines there, and what can happen to them happens."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

from headway import plan, tryout
from headway.errors import BadInput
from headway.job import Job, load
from headway.testing import inside
from headway.testing.cloud.cluster import CloudCluster
from headway.testing.cloud.goods import VM
from headway.testing.cluster import Cluster
from headway.testing.drill import usual
from headway.testing.faults import Fault, parse
from headway.testing.links import lacking, require
from headway.testing.rounds import Run, Tell, accounted, under_fire, undisturbed
from headway.testing.story import account, place
from headway.testing.story.account import CloudAccount, Sold
from headway.testing.story.acts import FEWEST, Act, drawn, refuse_foreign, scripted
from headway.testing.story.stage import Stage

MOST = 3
IDLE_LIMIT_S = 90.0
"""So long after the run's end the last idle machine must be gone."""
LOOK_S = 0.2
Happening = str | Iterable[Fault] | Iterable[Act]


def drill(
    job: str | Path,
    *,
    faults: Happening | None = None,
    seed: int | None = None,
    nodes: int | None = None,
    steps: int | None = None,
    settings: Sequence[str] = (),
    quiet_run: bool = True,
    keep: bool = False,
    tell: Tell = lambda _: None,
) -> CloudAccount:
    """Drill a job on a cloud. See `headway.testing.drill.drill` for the arguments that are not here.

    Args:
        faults: a script, faults, or acts; where there is none and no seed, the story of `headway.testing.story.acts`.
        seed: of random faults.
        nodes: workers' machines at most; 3, or as many as there are lanes, when None.

    Raises:
        BadInput: the job or the script cannot be used, or no machines can be made here; nothing was started.
        RunFailed: the job fails without any fault.
    """
    require("reclaim")
    chosen, checked, most = _planned(job, [*usual(steps, ()), *settings], nodes)
    acts = _acts(faults, seed, checked.total_steps, most)
    folder = Path(tempfile.mkdtemp(prefix="headway-drill-"))
    try:
        with ExitStack() as stack:
            trial = stack.enter_context(tryout.begun(chosen))
            trial.ask(plan.pinned(chosen, checked), checked)
            chosen = chosen.model_copy(update={"check": None})
            quiet = _quiet(chosen, folder, tell) if quiet_run else None
            for note in trial.answer().notes:
                tell(f"note: {note}")
            drilled = _on_a_cloud(folder, chosen, checked, most, acts, quiet, None if faults else seed, tell)
        return replace(drilled, folder=str(folder)) if keep else drilled
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _planned(job: str | Path, settings: Sequence[str], nodes: int | None) -> tuple[Job, plan.Plan, int]:
    """The job with as many workers at most as there may be machines; what it comes to; and how many that are.

    Raises:
        BadInput: it cannot be drilled so.
    """
    given = load(job, list(settings))
    most = nodes or min(MOST, given.lanes)
    if most > given.lanes:
        raise BadInput(f"--nodes {nodes}", f"the job has {given.lanes} lanes, and a worker carries at least one", "")
    if given.workers.gpus:
        fact = f"workers.gpus={given.workers.gpus:g}"
        raise BadInput(fact, "the machines of a drill have no GPUs", "Drill it on CPUs: --set workers.gpus=0.")
    chosen = load(job, [f"workers.max={most}", "workers.spares=0", *settings])
    return chosen, plan.check(chosen), most


def _acts(
    faults: str | Iterable[Fault] | Iterable[Act] | None, seed: int | None, steps: int, most: int
) -> tuple[Act, ...]:
    """What will happen.

    Raises:
        BadInput: it cannot, here or at all.
    """
    if faults is None:
        return scripted(steps, most) if seed is None else drawn(seed, steps, max(most, FEWEST), lacking())
    given = parse(faults) if isinstance(faults, str) else faults
    acts = tuple(each if isinstance(each, Act) else Act(each) for each in given)
    refuse_foreign((act.fault for act in acts), cloud=True)
    for fault in (act.fault for act in acts):
        require(fault.verb)
        if fault.step >= steps:
            remedy = "Choose an earlier step, or run for more with --steps."
            raise BadInput(f"the fault '{fault}' comes too late", f"the run has {steps} steps", remedy)
        if fault.target == "worker" and max(fault.which) >= most:
            reason = f"there are at most {most} workers, counted from 0"
            raise BadInput(f"the fault '{fault}' hits nobody", reason, "Drill with more --nodes.")
    return acts


def _quiet(job: Job, folder: Path, tell: Tell) -> Run:
    """Undisturbed, on one worker of a cluster that nobody sold."""
    with Cluster(1, cpus=job.workers.cpus) as cluster:
        return undisturbed(cluster, folder, job, 1, tell)


def _on_a_cloud(
    folder: Path,
    job: Job,
    checked: plan.Plan,
    most: int,
    acts: Sequence[Act],
    quiet: Run | None,
    seed: int | None,
    tell: Tell,
) -> CloudAccount:
    began = time.time()
    cloud, file = place.cloud(), place.cluster_file(job.workers.cpus, most)
    stage = Stage(acts, most, checked.total_steps)
    with CloudCluster(file, cloud, environment=inside.ENVIRONMENT) as cluster:
        tell(f"the cluster's head is up after {time.time() - began:.1f} s; no worker's machine is bought yet")
        script = [act.fault for act in acts]
        fire = under_fire(cluster, folder, job, script, tell, stage.ready, stage.look)
        idle_s = _idle(cluster, tell)
        leftovers = left(cluster)
        tell("the cluster has been taken down")
    now, machines, events = time.time(), sold(cluster), list(fire.folder.events())
    drilled = accounted(job, checked, quiet, fire, seed)
    return CloudAccount(
        **{each.name: getattr(drilled, each.name) for each in fields(drilled)},
        least=job.workers.min,
        most=most,
        sizes=account.sizes(events, began),
        machines=account.bill(machines, began, now),
        dollars=round(sum(machine.dollars(now) for machine in machines), 6),
        notices=account.notices(fire.injected, machines, events),
        joins=account.joins(machines, events, stage.carriers),
        autoscaler=account.asked([(each.at, each.verb, each.what, each.answer) for each in cloud.log], began),
        idle_s=idle_s,
        leftovers=leftovers,
    )


def _idle(cluster: CloudCluster, tell: Tell) -> float | None:
    """Wait until the machines that nobody needs any more are gone; returns after how many seconds the last was."""
    ended, deadline = time.time(), time.monotonic() + IDLE_LIMIT_S
    tell("the run is over; its machines idle")
    while (found := account.idle_s(sold(cluster), ended)) is None and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return found


def left(cluster: CloudCluster) -> list[str]:
    """Take the cluster down; returns what is there all the same, by the cloud's books and by this machine's."""
    listed = cluster.down()
    found = [f"the cloud lists {machine.id}" for machine in listed.machines]
    found += [listed.trouble] if listed.trouble else []
    found += [f"{machine} is not paid off" for machine in cluster.cloud.left(cluster.file.name)]
    return found + [f"process {pid} lives" for pid in cluster.processes()]


def sold(cluster: CloudCluster) -> list[Sold]:
    """The cluster's machines in the order in which they were bought, the head's first."""
    vms = [vm for vm in cluster.cloud.machines if vm.cluster == cluster.file.name]
    return [_sold(cluster, vm) for vm in vms]


def _sold(cluster: CloudCluster, vm: VM) -> Sold:
    head = vm is cluster.head_machine
    node_id = cluster.nodes[vm.number].node_id if vm.number is not None and not head else ""
    number = -1 if head else vm.number
    price = vm.option.price_per_hour or 0.0
    return Sold(vm.id, number, str(vm.option), price, vm.asked_at, vm.running_at, vm.gone_at, vm.why, node_id, head)
