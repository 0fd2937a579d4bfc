"""A leg of a run on the driver's side: the run made or found, led, and its books closed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from headway import plan, runs, variables
from headway.carried import code
from headway.core import ends
from headway.driver import determinism, ending, equipment, leading
from headway.elastic.crew import told
from headway.elastic.crew.fits import Fits
from headway.elastic.crew.recorders import Seat
from headway.errors import BadInput, RunFailed
from headway.job import Job
from headway.runs import forking
from headway.runs.place import Place
from headway.sweeps.crew import Left, Origin
from headway.sweeps.crew import Leg as Wish
from headway.tracking.environment import environment

CLOSE_S = 30.0
SENT_S = 1.0
"""So long a tracking store is waited for before it is told that a run has left: one that is well needs less."""


@dataclass
class Leg:
    """One under way.

    Args:
        number: never used again.
        run, epoch: led by this process.
        led: left when it is over.
        why: as what it was told to leave; empty while it was not.
        failure: that was found outside of its workers.
    """

    number: int
    wish: Wish
    run: runs.RunFolder
    epoch: int
    job: Job
    checked: plan.Plan
    seat: Seat
    led: ExitStack
    why: str = ""
    failure: dict[str, Any] | None = None
    seen: int = 0
    """Messages of its recorder that were shown."""
    step: int = 0
    source: code.Source | None = field(default=None)


def opened(wish: Wish, number: int, place: Place, recorders: Any, common: plan.Plan, fits: Fits | None = None) -> Leg:
    """Make the run, or find it, and lead it.

    Args:
        place: that holds the run.
        recorders: the actor that keeps records.
        common: of another run of the sweep: the task and what travels with it are the same.
        fits: what the task is fitted to; None: to nothing.

    Raises:
        BadInput: it cannot begin; nothing is left of it then.
    """
    checked = replace(plan.check(wish.job, common.source, common.cargo), origin=common.origin)
    job = plan.pinned(equipment.tracked(wish.job), checked)
    run, new = _run(wish, place, job)
    with ExitStack() as undo:
        if new:
            undo.callback(run.discard)
        led = ExitStack()
        undo.push(led)
        epoch = led.enter_context(run.led())
        if not new:
            if _is_empty(run):
                run.write({"run": run.name, "state": "running", "created": time.time(), **wish.facts})
            determinism.admit(run.name, run.read().get("bits"), determinism.facts(job), set())
            runs.write_job(run, job)
        equipment.note_bits(run, job, checked)
        checked = _carried(run, job, checked)
        facts = fits.give(job, checked, run.code) if fits is not None else None
        if facts is not None:
            with run.hold_records():
                run.write({**run.read(), "fitted": facts})
        _begin_with(wish.origin, run, place, checked.digest, epoch)
        undo.pop_all()
    seat = Seat(recorders, f"{run.name}/{epoch}")
    return Leg(number, wish, run, epoch, job, checked, seat, led)


def _run(wish: Wish, place: Place, job: Job) -> tuple[runs.RunFolder, bool]:
    """The run, and whether it was made.

    Raises:
        BadInput: a run of that name is none of this sweep's.
    """
    try:
        return runs.create(place, wish.run, job, wish.facts), True
    except runs.Taken:
        run = runs.find(place, wish.run)
    if not _is_empty(run) and _key(run.read()) != _key(wish.facts):
        reason = "a run of that name was there before, or another sweep made it"
        remedy = f"Remove it (headway runs prune {wish.run}), or give the sweep another name: --name."
        raise BadInput(f"{run.where} is none of this sweep's", reason, remedy)
    return run, False


def _is_empty(run: runs.RunFolder) -> bool:
    """Whether it only has a name: in a store that comes first, and whoever was to write more may have been killed."""
    return not (run.path / "run.json").exists()


def _key(facts: Mapping[str, Any]) -> str:
    return str((facts.get("sweep") or {}).get("key", ""))


def _begin_with(origin: Origin | None, run: runs.RunFolder, place: Place, digest: str, epoch: int) -> None:
    """Take over the other run's state, unless the run has come as far by itself, or with it, before.

    Raises:
        RunFailed: it is not there (any more), which is nobody's mistake.
    """
    if origin is None or (origin.exact and run.last_step() + 1 >= origin.step):
        return
    try:
        source = runs.find(place, origin.run)
        forking.begin_with(run, source, origin.step, origin.exact, digest, epoch)
    except BadInput as error:
        raise RunFailed(f"{run.name} cannot begin with {origin.run}: {error.fact}", error.reason, "") from None


def _carried(run: runs.RunFolder, job: Job, checked: plan.Plan) -> plan.Plan:
    """Have the task's code in the run's folder. Of a sweep's copy the run has one of its own."""
    if checked.source.copied:
        if not run.code.is_dir():
            code.adopt(checked.cargo.base, run.code)
        return replace(checked, source=code.kept(job.task, run.code))
    if not run.code.is_dir():
        code.carry(checked.source, run.code, checked.cargo)
    return checked


def record(leg: Leg, through_ray: bool = False) -> None:
    """Begin to keep the run's records. through_ray: its figures go to Ray's exporter as well. Raises RunFailed: they
    cannot be kept."""
    import ray

    given = variables.given(leg.job)
    options = equipment.recorder_options(leg.run, leg.job, leg.checked, leg.epoch, given, _around, None, through_ray)
    try:
        ray.get(leg.seat.open(options))
    except ray.exceptions.RayError as error:
        found = ending.of_ray(error)
        raise RunFailed(found["fact"], found["reason"], found["remedy"]) from None
    if leg.run.far is not None:
        leg.led.enter_context(leg.run.handed_over())
        leg.seat.ship.remote()


@cache
def _around() -> dict[str, Any]:
    """The environment of all: found once, since that asks git."""
    return environment()


def given(leg: Leg, keeper: Mapping[str, Any]) -> told.Given:
    """For the house. keeper: of the sweep: id, token and bytes of memory."""
    leg.source = equipment.source_for(leg.run, leg.checked)
    config = equipment.config_of(leg.run, leg.job, leg.checked, leg.source, leg.seat, leg.epoch)
    most = max(1, min(leg.wish.workers, leg.job.units))
    policy = replace(equipment.policy(leg.job), min=1, max=most, spares=0)
    until = min(leg.wish.until, leg.checked.total_steps)
    return told.Given(
        leg.number,
        policy,
        equipment.alike(leg.job),
        until,
        leg.seat,
        {**config, "save_at": leg.wish.save_at, "keeper": {**keeper, "shelf": leg.run.name}},
    )


def closed(leg: Leg, over: told.Ended) -> Left:
    """Close the run's books; what became of it. Blocks; but a tracking store is waited for later, see `sent`."""
    import ray

    tracked = leg.job.tracking.enabled
    failure = leg.failure or over.failure
    if failure is not None and leg.checked.origin is not None and leg.source is not None:
        failure = ending.own_files(failure, leg.source.packed, leg.run.code, leg.checked.origin)
    steps = over.step
    if failure is not None:
        failure = ending.explained(failure, leg.run)
        end, why = ends.failed(failure["kind"], ending.said(failure)), "failed"
    else:
        steps = int(ray.get(leg.seat.done.remote()))
        why = leg.why if leg.why and steps < leg.checked.total_steps else "finished"
        end = _end(why, steps, leg.checked.total_steps, ray.get(leg.seat.end_reason.remote()))
    patience_s = SENT_S if leg.run.far is not None and tracked else 0.0
    found = ray.get(leg.seat.finish(end.state, end.message, patience_s, end.cause, True, lingers=tracked))
    if failure is None and found.get("unwritten"):
        why = "failed"
        failure = {"kind": "records", "fact": "the last records could not be written", "reason": found["unwritten"]}
        failure["remedy"] = f"Free space, then `headway resume {leg.run.name}`."
    told = Left(leg.run.name, steps, why, failure)
    if tracked:
        ray.get(leg.seat.sent(SENT_S, last=not lingers(leg, told)))
    return told


def lingers(leg: Leg, told: Left) -> bool:
    """Whether a tracking store is to be waited for; what one that may go on has not sent is sent when it does."""
    return leg.job.tracking.enabled and told.why in ("finished", "stopped")


def sent(leg: Leg) -> None:
    """Of one that lingers: wait for the tracking store, and lead the run no more. Blocks for long."""
    import ray

    try:
        ray.get(leg.seat.linger(leading.TRACKING_CLOSE_S))
    finally:
        leg.led.close()


def keepers(leg: Leg) -> set[tuple[str, int]]:
    """Where the run's states are, or were, kept in memory."""
    return {(str(host), int(port)) for host, port in leg.run.read().get("keepers", ())}


def _end(why: str, steps: int, total_steps: int, reason: str) -> ends.End:
    if why == "finished":
        rest = "" if steps >= total_steps else ends.early(steps, total_steps, reason)
        return ends.End("finished", rest)
    return ends.End("stopped", f"{why} by the sweep after step {steps} of {total_steps}")


def left(leg: Leg) -> None:
    """Close the run's books, which ends with the sweep's driver. Blocks."""
    import ray

    end = ends.ended(leg.step, leg.checked.total_steps, False, ends.Asked())
    try:
        ray.get(leg.seat.finish(end.state, end.message, 0.0, end.cause, True), timeout=CLOSE_S)
    finally:
        leg.led.close()
