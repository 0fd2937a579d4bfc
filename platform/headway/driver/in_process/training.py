"""The run's one worker: the calling thread, from the task's import to the loop's end."""

from __future__ import annotations

import time
from bdb import BdbQuit
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headway import plan, runs
from headway.carried import code, fitted
from headway.core.ledger import Ledger
from headway.driver import determinism
from headway.driver.in_process import first_step
from headway.driver.in_process.member import NAME, Ended, Near, Orders, Seat, Sole
from headway.driver.in_process.surroundings import kept_as_found
from headway.errors import BadInput
from headway.fitting import work
from headway.job import Job

if TYPE_CHECKING:
    from headway.elastic.worker.context import Context


@dataclass(frozen=True)
class Trained:
    """How the thread came back from it.

    Args:
        failure: in the words of `headway.elastic.worker.failures`; None where it ended in order.
        error: that was raised.
        refused: what is said of the task instead, where no step was done of a new run.
        cut: it was left in the middle, as somebody wanted.
    """

    failure: dict[str, Any] | None = None
    error: BaseException | None = None
    refused: BadInput | None = None
    cut: bool = False


@dataclass(frozen=True)
class Worker:
    """See the module.

    Args:
        run: led by this process; its code was carried.
        job: of the run.
        checked: what it comes to.
        epoch: of the lead.
        seat: the recorder's.
        orders: heeded between lanes.
        account: of this thread's seconds.
    """

    run: runs.RunFolder
    job: Job
    checked: plan.Plan
    epoch: int
    seat: Seat
    orders: Orders
    account: Ledger

    def train(self) -> Trained:
        """To the end. What this process is beside it is put back."""
        with kept_as_found(self.checked):
            return self._train()

    def _train(self) -> Trained:
        from headway.elastic.worker import context as contexts
        from headway.elastic.worker import failures, main
        from headway.elastic.worker.ears import Ears

        ears = Ears(lambda text: self.seat.event("warned", worker=NAME, text=text))  # shown they are where they come up
        ears.open()
        context: Context | None = None
        found: Any = None
        new, starting = self.run.last_step() < 0, True
        try:
            context = self._context()
            contexts.enter(context)
            starting = False
            found = code.load(self._source)
            self._fit(found)
            with first_step.looked_at(self.job, found) if new else nullcontext():
                main.run(self.job, found, self._source)
            main.close(context, wait=True)
            self.account.switch("idle", time.monotonic())
            return Trained()
        except (Ended, KeyboardInterrupt, BdbQuit) as error:  # the last is a debugger's, told to quit
            if context is not None:
                main.close(context, wait=False)
            return Trained(error=error, cut=True)
        except BaseException as error:  # the task's, which may be anything
            contexts.enter(None)
            if context is not None:
                main.close(context, wait=False)
            if new and not self.seat.ask("progress", 0)["step"]:
                refused = first_step.refusal(error, self.job, self.checked, found, self.run.code)
                if refused is not None:
                    return Trained(error=error, refused=refused)
            where = f"worker 0, at {context.at if context else 'set-up'}"
            return Trained(failures.raised(error, where, starting).failure, error)
        finally:
            ears.close()
            contexts.enter(None)

    @property
    def _source(self) -> code.Source:
        """The author's own files, where a debugger looks for them; beside them what the run keeps with its copy."""
        source = self.checked.source
        return source if source.copied else replace(source, copy=self.run.code)

    def _fit(self, found: Any) -> None:
        """Have what the task is fitted to with the run, once for all its starts."""
        if fitted.of(self.run.code) is not None:
            return
        values = work.run(self.job, found)
        if values is not None:
            self.seat.ask("note", fitted=fitted.put(values, self.run.code))

    def _context(self) -> Context:
        import torch

        from headway.data.own.opening import opened
        from headway.data.read.streams import open_readers
        from headway.elastic.worker import dynamo, main
        from headway.elastic.worker.context import Context
        from headway.elastic.worker.memory import keep_freed
        from headway.elastic.worker.saver import Saver

        job, run = self.job, self.run
        keep_freed()
        dynamo.leave_for_later()
        torch.set_num_threads(job.workers.cpus)
        determinism.enforce(job)
        device = "cuda" if job.workers.gpus else "cpu"
        journal = Near(self.seat, self.orders)
        place = {"folder": str(run.path), "far": run.far, "digest": self.checked.digest, "epoch": self.epoch}
        own = opened(job, self._source)
        train, validation = open_readers(job, journal.quarantined, device, own=own, beside=False)
        return Context(
            job=job,
            device=device,
            train=train,
            validation=validation,
            saver=Saver(main.store_of(place, job), job.checkpoint, journal),
            journal=journal,
            run=run.name,
            members=Sole(job.units, self.seat, self.orders),
            ledger=self.account,
        )
