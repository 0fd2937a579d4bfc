"""To lead a run in this process: from its checked plan to its end, with the calling thread for its one worker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from headway import plan, runs, variables
from headway.carried import code
from headway.core import ends
from headway.core.ledger import Ledger
from headway.core.offers import Stock
from headway.driver import ending, equipment, means, signals
from headway.driver.in_process.follower import Follower
from headway.driver.in_process.member import NAME, Orders, Seat
from headway.driver.in_process.training import Trained, Worker
from headway.driver.progress import Watch
from headway.elastic.lead.recorder import Recorder
from headway.errors import BadInput
from headway.faults import blame
from headway.job import Job
from headway.logs.layout import worker_source
from headway.logs.writer import Writer
from headway.report import Report
from headway.report import load as load_report
from headway.runs import now, requests
from headway.runs.requests import Box, Ear, Heard, Stop

TRACKING_CLOSE_S = 60.0
LOG_CLOSE_S = 5.0


def nothing() -> None:
    """Does nothing."""


def admit(job: Job) -> None:
    """Raises BadInput: a job that one process cannot be; or this process is busy with a run."""
    from headway.elastic.worker import context

    if context.entered():
        raise BadInput(
            "a run in this process was asked for, and one is under way in it",
            "they would have one set of random generators and signals",
            "Wait for the end of the other, or take another process. (In a task's file, call headway.train only under "
            'if __name__ == "__main__".)',
        )
    if job.workers.min > 1:
        raise BadInput(
            f"workers.min={job.workers.min} in this process",
            "a run in one process is one worker",
            "Set workers.min to 1 (with reproducible: bitwise the bits are the same), or train on a Ray.",
        )
    if job.workers.gpus:
        import torch

        if not torch.cuda.is_available():
            remedy = "Set workers.gpus to 0, or train where one is."
            raise BadInput(f"workers.gpus={job.workers.gpus:g}", "torch finds none on this machine", remedy)


def lead(
    run: runs.RunFolder,
    job: Job,
    checked: plan.Plan,
    watch: Watch | None,
    epoch: int,
    settle: Callable[[], None] = nothing,
    begun: Callable[[], None] = nothing,
) -> Report:
    """Lead the run to its end, and train it. See `headway.driver.leading.lead` for the other arguments and errors.

    Args:
        settle: called before there is a recorder.
        begun: called once its first step is done: in another thread.
    """
    if not checked.source.copied:
        code.carry(checked.source, run.code, checked.cargo)
    now.say(run.path, "its task to be built")
    orders, account = Orders(), Ledger(time.monotonic())

    def heard(stop: Stop) -> None:
        orders.stop.set()
        if stop.now:
            orders.cut.set()

    starts = [requests.of_epoch(epoch)]
    with requests.heard(Box.of_run(run), starts, heard) as ear, signals.asking(orders.stop), ExitStack() as after:
        if orders.stop.is_set():
            raise Heard(ear.stop) if ear.stop is not None else KeyboardInterrupt
        if means.minds(job):
            unlisted = job.model_copy(update={"prices": None})  # there are no machines that a list could name
            means.admit(unlisted, means.known(run, checked.total_steps), Stock(), time.time())
        settle()
        seat = _seat(run, job, checked, epoch, after)
        log = _log(run, after)
        follower = Follower(run.name, seat, account, orders, watch, partial(ending.asked, ear), begun)
        follower.start()
        try:
            trained = Worker(run, job, checked, epoch, seat, orders, account).train()
        finally:
            follower.close()
        if trained.refused is not None:
            seat.ask("leave")
            raise trained.refused from trained.error
        follower.begin()
        failure = _finish(run, job, checked, seat, trained, follower, ear, orders)
        if failure is not None:
            log.write(f"{failure['fact']}: {failure['reason']}\n{failure.get('traceback', '')}\n".encode())
    if follower.trouble is not None:
        raise follower.trouble
    if failure is not None:
        raise ending.raised(failure, run) from trained.error
    return load_report(run)


def _seat(run: runs.RunFolder, job: Job, checked: plan.Plan, epoch: int, after: ExitStack) -> Seat:
    """The recorder, which has begun. after: left once it has ended."""
    given = variables.given(job)
    options = equipment.recorder_options(run, job, checked, epoch, given, put=lambda value: value)
    recorder = Recorder(**{**options, "machines": "own"}, sends=False)
    recorder.note(in_process=True)
    after.callback(recorder.release)
    if run.far is not None:
        after.enter_context(run.handed_over())
        recorder.ship()
    return Seat(recorder)


def _log(run: runs.RunFolder, after: ExitStack) -> Writer:
    """The worker's: what the task prints is the caller's own, and is not taken from them."""
    log = Writer(worker_source(NAME))
    log.open(run.where, run.far["options"] if run.far is not None else None)
    said = f"-- {time.strftime('%Y-%m-%d %H:%M:%S %z')} {NAME}, in process {os.getpid()}, which began the run: what it "
    log.write(f"{said}prints is shown there, and not kept\n".encode())
    after.callback(log.close, LOG_CLOSE_S)
    return log


def _finish(
    run: runs.RunFolder,
    job: Job,
    checked: plan.Plan,
    seat: Seat,
    trained: Trained,
    follower: Follower,
    ear: Ear,
    orders: Orders,
) -> dict[str, Any] | None:
    """Close the books. Gives the failure, where there was one."""
    failure: dict[str, Any] | None = trained.failure or seat.ask("failure")
    if failure is not None:
        end = ends.failed(failure["kind"], ending.said(failure))
    elif follower.trouble is not None:
        end = ends.End("interrupted", f"what watched it raised {blame.reason(follower.trouble)}")
    else:
        end = _ended(run, checked, seat, trained, ear, orders)
    patience_s = TRACKING_CLOSE_S if job.tracking.enabled else 0.0
    found = seat.ask("finish", end.state, end.message, patience_s, end.cause)
    if failure is None and found.get("unwritten"):
        failure = {"kind": "records", "fact": "the last records could not be written", "reason": found["unwritten"]}
        failure["remedy"] = f"Free space, then `headway resume {run.name}`."
    return failure


def _ended(run: runs.RunFolder, checked: plan.Plan, seat: Seat, trained: Trained, ear: Ear, orders: Orders) -> ends.End:
    """It ended in order, or was left as somebody wanted."""
    why = ending.of_itself(*seat.ask("stopped"))
    if why is None and (trained.cut or orders.stop.is_set()):
        why = ending.asked(ear)
    total_steps = checked.total_steps
    if not trained.cut:
        return ends.ended(seat.ask("done"), total_steps, seat.ask("own_end"), why, reason=seat.ask("end_reason"))
    steps = seat.ask("progress", 0)["step"]
    return ends.ended(min(steps, total_steps - 1), total_steps, False, why, ending.newest(run))
