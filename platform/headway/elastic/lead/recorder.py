"""The run's one memory on the driver's side: an actor that takes the workers' records and has them kept in the folder.

It answers at once: `steps.jsonl` (a line per committed step), `metrics.jsonl` (a line per record of the user's) and
`run.json` (the run's state, which does not grow) are written by a thread of their own, and it feeds the tracking spool.
It dies with the driver, and workers that cannot reach it stop: nobody trains, or commits a checkpoint, for a run that
is not led.
"""

from __future__ import annotations

import os
import shlex
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headway.core import chronicle, footprints, ledger
from headway.core.alarms import Seen
from headway.core.bill import PURCHASE, STAKE
from headway.core.cost import Paid, Terms
from headway.core.incidents import PLANNED
from headway.elastic.lead.drawing import Drawing
from headway.elastic.lead.logged import Logged
from headway.elastic.lead.machines import OWN, Asked, Machines
from headway.elastic.lead.outlay import Accountant
from headway.elastic.lead.scribe import Scribe
from headway.elastic.lead.shipper import Shipper
from headway.elastic.lead.spending import BY, Spending, more
from headway.elastic.lead.standing import Standing, per_second, step_s
from headway.elastic.wire import keepers
from headway.elastic.wire.records import of_anybody
from headway.faults import blame
from headway.faults.last_words import last_words
from headway.logs.layout import worker_source
from headway.notify.addresses import Address
from headway.notify.forms import about_run
from headway.notify.lookout import Lookout
from headway.runs import RunFolder, accounts
from headway.runs.listing import GONE
from headway.tracking.prometheus import exporting
from headway.tracking.prometheus.way import Exported
from headway.tracking.told import at_end

PLACES = 20_000  # places of entries that are remembered; an entry comes again within a few batches, or never
MESSAGES = 10_000  # that nobody has asked for yet
WARNINGS = 1000  # distinct texts in one start
WARNED_S, WARNED_MOST = 60.0, 10  # so many are shown in so many seconds
CLOSE_S = 60.0
RATE_S = 5.0
LOGS_S = 6.0  # so long the log of a worker that died is asked for in a store


class Recorder:
    """Runs as a Ray actor.

    Args:
        folder: of the run.
        tracking: options of `headway.tracking.mlflow_writer.Writer`, or None for none.
        first: the spool's opening event: job, datasets, environment.
        every_steps: steps between two points of a training curve in the tracking store.
        most_aside: rows that may be set aside, by dataset; no limit where not given.
        epoch: of the process that leads the run, see `headway.runs.epochs`; 0 where nobody else could.
        fail_after: seconds for which writing may fail before the run ends; None for ever.
        given: variables of the environment that the run was started from.
        far: of a run in a store, see `headway.runs.RunFolder.far`: the folder is its working copy.
        sends: whether the tracking store is sent to at once, which imports it; else from `send` on.
        notify: addresses that are told of the run.
        terms: by which it is said what the run costs.
        exported: how its figures are given to Prometheus; None: not at all.
        machines: whose figures are kept: the keepers' ("keepers"), this process's own ("own"), or nobody's ("").
        best: the validation metric of which the best is told, and whether less ("min") or more ("max") of it is better.
    """

    def __init__(
        self,
        folder: str,
        tracking: dict[str, Any] | None,
        first: dict[str, Any],
        every_steps: int,
        most_aside: dict[str, int] | None = None,
        epoch: int = 0,
        fail_after: float | None = 600.0,
        given: dict[str, str] | None = None,
        far: dict[str, Any] | None = None,
        sends: bool = True,
        notify: Sequence[Address] = (),
        terms: Terms | None = None,
        exported: Exported | None = None,
        machines: str = "",
        best: tuple[str, str] | None = None,
    ) -> None:
        self._given = given or {}
        os.environ.update(self._given)  # before MLflow reads them
        self._run = RunFolder(Path(folder))
        self._hold = self._run.hold_records()
        self._far, self._epoch, self._fail_after = far, epoch, fail_after
        self._look = f"headway logs {shlex.quote(far['url'] if far else str(self._run.path))}"  # as it works anywhere
        self._shipper: Shipper | None = None
        self._most_aside = most_aside or {}
        self._leader: str | None = None
        self._start, self._floor = -1, -1
        self._places: OrderedDict[tuple[int, str], int] = OrderedDict()
        """How many entries of a step and kind were taken in this start, for the newest of them."""
        self._stop = self._ended = False
        self._reason = ""
        """Why the run's loop ends before its last step, where somebody says so."""
        self._failure: dict[str, Any] | None = None
        self._messages: deque[str] = deque(maxlen=MESSAGES)
        self._said = 0
        """Messages so far."""
        self._seen: dict[str, Any] = {
            "step": self._run.last_step() + 1,
            "total_steps": 0,
            "loss": None,
            "workers": 0,
            "epoch": 0,
            "goodput": 0.0,
            "metrics": {},
            "evaluated": None,
        }
        self._unsaved = ""
        """Why the newest checkpoint could not be written."""
        self._warned: set[str] = set()
        self._lanes_told: set[str] = set()
        """What was warned of in this start."""
        self._warned_at, self._warned_lately = 0.0, 0
        self._measured = -1
        """The newest step of which metrics came in this start."""
        self._ledger: dict[str, Any] = {}
        self._lost_steps = 0
        self._stored: dict[int, int] = {}
        """Bytes in the store, by the step of a checkpoint of this start."""
        self._again_from = -1
        """So many steps were recorded when the last of them were taken away, to come once more."""
        self._from_kept = False
        """Whether training went on from a state that a keeper held, since the recovery before."""
        self._epoch_began = False
        self._recent: deque[tuple[float, int]] = deque(maxlen=4096)
        self._step_s = 0.0
        """What a step took when that was last known."""
        self._facts = self._run.read()
        self._terms = terms or Terms()
        self._spending = Spending(self._terms)
        self._stopped: tuple[str | None, str] = None, ""
        """Who asked for the end, and why."""
        self._foreseen: dict[str, str] = {}
        """What is foreseen to go wrong with money and time."""
        self._facts["ledger_before"] = accounts.known(self._run.path, self._facts)
        self._facts["exchanged_before"] = accounts.exchanged(self._run.path, self._facts)
        for of_before in ("ledger_s", "exchanged_bytes"):
            self._facts.pop(of_before, None)
        left = self._left_open()
        kept = self._facts.pop("outlay", None)
        if kept is not None and "dollars" not in self._facts:  # of a leader that was killed
            self._facts["dollars"] = kept["dollars"]
        if "dollars" in self._facts:  # else the start before was killed, and what it spent has no price yet
            self._facts.update(dollars_before=self._facts.pop("dollars"))
            self._facts.update(dollars_before_s=sum(self._facts["ledger_before"].values()))
        self._facts["environment"] = first.get("environment") or self._facts.get("environment", {})
        for of_a_start in (
            *("ended", "closed", "in_process", "tracking", "price_per_hour", "memory_peak", "resume_with"),
        ):
            self._facts.pop(of_a_start, None)
        if self._terms.price is not None:
            self._facts["price_per_hour"] = self._terms.price
        self._writer = spool = None
        drawn: tuple[dict[str, int], dict[str, Any]] = ({}, {})
        if tracking is not None:
            from headway.tracking.mlflow_writer import Writer
            from headway.tracking.spool import Spool

            spool = Spool(self._run.spool)
            drawn = spool.drawn()
            self._writer = Writer(self._run.path, **tracking, say=self._say)
        self._scribe = Scribe(self._run, epoch, fail_after, self._say, self.fail, spool, far is not None)
        self._logged = Logged(self._run, self._scribe, self._say)
        self._scribe.track(first)
        self._scribe.track({"kind": "state", "state": "running", "message": ""})
        lately = self._facts.get("lately", ())
        self._accounts = accounts.Accounts(
            partial(self._scribe.line, "ledger"), self._facts.get("created", time.time())
        )
        self._standing = Standing(self._run.path, epoch, self._trouble, self._recent, lately)
        self._drawing = Drawing(every_steps, best, self._facts.get("best"), *drawn, self._scribe.track, self._save)
        self._machines = Machines(self._facts.get("created", 0.0), self._places_asked(machines), self._look_at)
        self._sends = False
        about = about_run(self._run.name, far["url"] if far else str(self._run.path), self._given)
        self._lookout = Lookout(about, notify, self._looked, self._say)
        self._export = exporting.of_run(
            exported, self._run, self._facts, self._terms, self._seen["step"], self._writer, self._say
        )
        self._accountant = Accountant(self._begin(), self._facts.get("dollars_before") or 0.0)
        self._lookout.start(left)
        if machines:
            self._machines.start()
        if sends:
            self.send()

    def push(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Take records from a leader; those of anybody (see `records`) from anyone. Answers at once.

        Entries of the journal have a place (start, step, kind, n-th within the step); each is taken once.

        Returns:
            stop: whether the run shall stop.
            current: whether that worker leads, as far as is known here.
            accepted: whether there was room for the records; else they are to be sent again.
            start, step: the run's start whose entries are taken, and how many of its steps are.
            made, origin: a name for that start; and of the one whose kept state it went on from, with the step.
            taken, written: tasks for the disk so far, and those that are done.
            error: why none can be done at present; empty where they can.
        """
        current = self._leader in (None, worker)
        accepted = not self._scribe.full
        for record in records if accepted else ():
            if (current or of_anybody(record)) and self._is_new(record):
                getattr(self, "_on_" + record["kind"])(record)
                self._export.record(record)
        return {
            "stop": self._stop,
            "current": current,
            "accepted": accepted,
            "start": self._start,
            "step": self._seen["step"],
            "made": self._facts.get("made", ""),
            "origin": self._facts.get("origin", ("", -1)),
            "taken": self._scribe.taken,
            "written": self._scribe.written,
            "error": self._scribe.error,
        }

    def event(self, event: dict[str, Any]) -> None:
        """What the coordinator tells of the membership."""
        kind = event["kind"]
        self._export.event(event)
        if kind == "waits":
            self._standing.waits(event["reason"], event.get("more", ""))
            return
        if kind == "members":
            self._scribe.members({name: event[name] for name in ("generation", "time", "workers")})
            return
        if kind == "ledger":
            self._ledger = event
            self._standing.account(event)
            self._accounts.look(
                time.time(), self._seen["step"], lambda: (self._account()["ledger_s"], self._exchanged())
            )
            self._seen.update(goodput=event["goodput"], workers=event["workers"])
            self._count(time.time())
            self._mind_money()
            return
        if kind in (PURCHASE, STAKE):
            self._accountant.take(event)
            self._scribe.line("events", event)
            return
        if kind == "nodes":
            return
        if kind == "keepers":
            self._save(keepers=event["places"])
            return
        if kind == "resize":
            self._save(target={name: event[name] for name in ("min", "max", "request", "at_once")})
        if kind == "foreseen":
            self._foreseen[event["about"]] = "" if event["over"] else event["text"]
        if kind == "generation":
            self._leader = event["members"][0]
            self._seen["workers"] = event["workers"]
            self._workers(event["step"], event["workers"], event["time"])
        if kind == "recovery":
            event = {**event, "lost_steps": self._lost_steps, **({"kept": True} if self._from_kept else {})}
            self._lost_steps, self._from_kept = 0, False
            if event["cause"] not in PLANNED:
                self._save(recoveries=self._facts["recoveries"] + 1)
        self._scribe.line("events", event)
        said = chronicle.live(event)
        if said:
            self._standing.happened(said)
        if said and kind == "recovery" and event["cause"] == "process_died":
            threading.Thread(target=self._say_died, args=(said, event["workers"]), daemon=True).start()
        elif said:
            self._say(said)

    def ship(self) -> None:
        """Keep a run that lives in a store there from now on; the driver does so no more."""
        assert self._far is not None
        self._shipper = Shipper(self._far, self._run.path, self._epoch, self._fail_after, self._say, self.fail)
        self._shipper.start(self._scribe.ship)

    def send(self) -> None:
        """What is kept for the tracking store is sent there from now on, and figures are to be had."""
        if not self._sends:
            self._export.open()
            if self._writer is not None:
                self._writer.start()
        self._sends = True

    def fail(self, failure: dict[str, Any]) -> None:
        """The first failure counts."""
        if self._failure is None:
            self._failure = failure

    def failure(self) -> dict[str, Any] | None:
        return self._failure

    def given(self) -> dict[str, str]:
        """Variables of the environment that the run was started from, for its workers."""
        return self._given

    def request_stop(self, by: str | None = None, now: bool = False, why: str = "") -> None:
        """Let the run end after a checkpoint. by: who asked for it; None: a signal did. why: in words."""
        self._stop, self._stopped = True, (by, why)
        self.event({"kind": "stop", "time": time.time(), "by": by, "now": now, **({"why": why} if why else {})})

    def stopped(self) -> tuple[str | None, str]:
        """Who asked for the end, and why; ("", "") where nobody but a signal did."""
        return self._stopped

    def _mind_money(self) -> None:
        """Have the run end where its money does."""
        self._step_s = step_s(self._recent, RATE_S) or self._step_s
        stands = self._accountant.outlay(time.time())
        dollars, per_hour = (
            (self._account().get("dollars"), None) if stands is None else (stands.dollars, stands.per_hour)
        )
        why = self._spending.look(time.monotonic(), dollars, per_hour, self._step_s)
        if not why or self._stop or self._ended:
            return
        if self._seen["step"] == 0:
            usd = self._terms.dollars or 0.0
            self.fail(
                {
                    "kind": "BadInput",
                    "fact": f"budget.usd={usd:g} was spent before the first step was done",
                    "reason": f"{self._spending.per_hour:.2f} dollars an hour went to machines that came and began",
                    "remedy": "Raise it, or give less of: workers.min, budget.on_demand_min.",
                }
            )
        self.request_stop(BY, why=why)
        self._save(resume_with=more(self._terms.dollars or 0.0))

    def progress(self, messages_seen: int) -> dict[str, Any]:
        """How far the run is, with the messages that the caller has not seen."""
        waiting = max(0, min(self._said - messages_seen, len(self._messages)))
        messages = list(self._messages)[len(self._messages) - waiting :]
        missed = self._said - messages_seen - waiting
        if missed > 0:
            messages[:1] = [f"({missed + 1} messages were not shown)"]
        samples, steps = self._rates()
        found = {"messages": messages, "messages_seen": self._said, "failure": self._failure, "stopping": self._stop}
        return {**self._seen, **found, "samples_per_s": samples, "steps_per_s": steps}

    def began(self) -> tuple[float, float]:
        """When this start began, in Unix seconds, and the dollars of those before."""
        return self._accountant.began, self._accountant.before

    def note(self, **facts: Any) -> None:
        """Have these in run.json from now on."""
        self._save(**facts)

    def done(self) -> int:
        """Steps that a worker has told the run to have ended with, in this start or one before."""
        return int(self._facts.get("steps", 0))

    def own_end(self) -> bool:
        """Whether the task's loop has ended in this start, and nobody had asked it to stop."""
        return self._ended and not self._stop

    def end_reason(self) -> str:
        """That the loop, or a hook, gave for its end in this start."""
        return self._reason

    def finish(
        self, state: str, message: str, timeout_s: float, cause: str | None = None, keep: bool = False
    ) -> dict[str, Any]:
        """Close the books; the run's last event is its end. Arguments as of `headway.core.ends.End`.

        Args:
            timeout_s: for the tracking store.
            keep: what keepers hold of it stays: it may go on before long, or they serve other runs as well.

        Returns:
            The tracking store's summary; `unwritten` in it says why records are not on the disk.
        """
        self._machines.close()
        if not keep:
            self._end_keepers()
        self._export.over(state)
        now = time.time()
        self._accountant.end(now)
        self._facts.pop("outlay", None)
        told = {"state": state, "message": message, "cause": cause}
        self._lookout.ended(state, message)
        self._scribe.line("events", {"kind": "end", "time": now, **told, "step": self._seen["step"]})
        self._save(**told, ended=now, lately=self._standing.close(), **self._account())
        self._save(exchanged_bytes=self._exchanged())
        self.send()
        account = self._account()
        self._accounts.keep(now, self._seen["step"], account["ledger_s"], self._exchanged())
        self._drawing.rest()
        self._scribe.track({"kind": "state", **told, "tags": at_end(self._facts)})
        self._scribe.sync()
        found: dict[str, Any] = {}
        if self._writer is not None and self._scribe.flush(CLOSE_S):
            found = self._tracked(timeout_s)
            self._save(tracking=found)
        for untold in self._lookout.close():
            self._save(notes=[*self._facts.get("notes", ()), untold])
        whole = self._scribe.close(CLOSE_S)
        if whole and self._shipper is not None:
            whole = self._shipper.close(CLOSE_S)
        self._export.close()
        return found if whole else {**found, "unwritten": self._scribe.error or "another process leads the run"}

    def sent(self, timeout_s: float) -> None:
        """Wait for the tracking store once more, and note how that stands; after `finish`, while nobody else leads the
        run. (Of a run in a store what `finish` has noted stays.)"""
        if self._writer is None:
            return
        found = self._tracked(timeout_s)
        if self._far is None:
            self._run.write({**self._run.read(), "tracking": found})

    def _tracked(self, timeout_s: float) -> dict[str, Any]:
        assert self._writer is not None
        summary = self._writer.close(timeout_s)
        return {name: getattr(summary, name) for name in ("uri", "run_id", "page", "sent", "waiting", "error", "whole")}

    def leave(self) -> None:
        """Instead of `finish`, before anything was sent: the run did not begin, and nothing is to be kept of it."""
        self._standing.close()
        self._lookout.close(0.0)
        self._export.close()
        self._machines.close()
        self._scribe.close(CLOSE_S)
        if self._shipper is not None:
            self._shipper.close(CLOSE_S)
        self._run.spool.unlink(missing_ok=True)

    def release(self) -> None:
        """Let another process, or another recorder of this one, keep the run's records. After `finish`."""
        self._hold.close()

    def _trouble(self) -> str:
        return self._scribe.error or self._unsaved

    def _begin(self) -> float:
        """This start, by whoever it was submitted; when."""
        recoveries = self._facts.get("recoveries")
        if recoveries is None:  # of a release that did not count them
            of = [event["cause"] for event in self._run.events() if event["kind"] == "recovery"]
            recoveries = sum(cause not in PLANNED for cause in of)
        at, submission = time.time(), self._facts.get("submission") or {}
        self._save(state="running", message="", cause=None, started=at, recoveries=recoveries)
        who = {"by": submission.get("by", ""), "submission": submission.get("id", ""), "host": socket.gethostname()}
        self._scribe.line(
            "events", {"kind": "start", "time": at, **who, "epoch": self._epoch, "step": self._seen["step"]}
        )
        self._standing.start()
        return at

    def _left_open(self) -> str:
        """Why nobody was told of the end of the start before, where its leader was killed."""
        killed = self._facts.get("state") == "running" and "started" in self._facts
        return GONE if killed or "closed" in self._facts else ""

    def _looked(self) -> tuple[Seen, dict[str, Any]]:
        """How the run is, for who tells people of it; in another thread."""
        seen, account = self._seen, self._account()
        done = seen["step"] + self._measured
        losses, waits = self._facts.get("recoveries", 0), self._standing.why
        told = {name: seen[name] for name in ("step", "total_steps", "loss", "workers", "metrics")}
        used = self._terms.used(sum(account.pop("ledger_s").values()), account.get("dollars"))
        told.update(account, waits=waits, losses=losses, budget_used=used)
        foreseen = "; ".join(filter(None, self._foreseen.values()))
        return Seen(seen["step"], seen["total_steps"], done, losses, waits, used, foreseen), told

    def _end_keepers(self) -> None:
        """The run is over: what they hold is needed no more. One that does not hear it goes by itself before long."""
        places = [(str(host), int(port)) for host, port in self._facts.pop("keepers", ())]
        if places:
            keepers.end_all(places, self._run.keeper()["token"])

    def _is_new(self, record: dict[str, Any]) -> bool:
        place = record.get("place")
        if place is None:
            return True
        start, step, kind, number = place
        if start > self._start:
            self._start, self._floor, self._measured = start, -1, -1
            self._places.clear()
        at = (step, kind)
        if start < self._start or step < self._floor or number < self._places.get(at, 0):
            return False
        self._places[at] = number + 1
        if len(self._places) > PLACES:
            (oldest, _), _ = self._places.popitem(last=False)
            self._floor = max(self._floor, oldest + 1)
        return True

    def _account(self) -> dict[str, Any]:
        """The ledger of all starts of this run together."""
        before = self._facts.get("ledger_before", {})
        now = self._ledger.get("seconds", {})
        seconds = ledger.total([before, now])
        stands = self._accountant.outlay(time.time())
        cost = stands.dollars if stands else self._terms.cost(sum(seconds.values()), Paid.of(self._facts))
        told = {"ledger_s": {k: round(v, 3) for k, v in seconds.items()}, "goodput": round(ledger.goodput(seconds), 4)}
        return told if cost is None else {**told, "dollars": round(cost, 6)}

    def _count(self, now: float) -> None:
        """What the run costs, for those who look at it, and for a start to come if this one is killed."""
        stands = self._accountant.outlay(now)
        if stands is None:
            return
        told = {"dollars": round(stands.dollars, 6), "per_hour": round(stands.per_hour, 6)}
        self._export.event({"kind": "outlay", "time": now, **told})
        if self._accountant.due(now):
            self._save(outlay={**told, "at": round(now, 3)})

    def _exchanged(self) -> int | None:
        """Bytes that workers have sent to each other in all starts; None where nobody counts them."""
        before, now = self._facts.get("exchanged_before"), self._ledger.get("exchanged_bytes")
        return before if now is None else (before or 0) + int(now)

    def _workers(self, step: int, workers: int, time: float) -> None:
        """So many train from a step on. A generation that begins from a checkpoint knows its step only later (-1)."""
        if step >= 0:
            self._scribe.line("events", {"kind": "workers", "step": step, "workers": workers, "time": time})

    def _on_began(self, record: dict[str, Any]) -> None:
        step = record["step"]
        lost = max(self._seen["step"], self._again_from) - step
        self._again_from = -1
        of = record.get("of", "")
        quiet = record.get("paused", False) and not self._epoch_began  # it goes on where it was paused, as it should
        if lost > 0 or (of and not quiet):
            lost, self._from_kept = max(0, lost), bool(of)
            self._lost_steps += lost if self._epoch_began else 0
            told = {"from_step": step, "lost_steps": lost, **({"kept": True} if of else {})}
            self.event({"kind": "restart", "time": record["time"], **told})
        self._scribe.cut(step, self._left)
        self._logged.rewind(step)
        self._drawing.rewind(step)
        keep: dict[str, Any] = {"total_steps": record["total_steps"], "steps_per_epoch": record["steps_per_epoch"]}
        keep.update(made=record.get("made", ""), origin=(of, step))
        self._epoch_began = True
        self._workers(step, self._seen["workers"], record["time"])
        self._seen.update(keep, step=step)
        self._recent.clear()
        if "metrics" in self._facts:  # as runs of an earlier release kept them
            keep["metrics"] = [m for m in self._facts["metrics"] if m["step"] <= step]
        self._save(state="running", message="", weights_sha256=None, **keep)

    def _on_again(self, record: dict[str, Any]) -> None:
        """The last steps come once more: a worker kept them, and another driver's recorder may not have written all."""
        self._scribe.cut(record["step"], self._left, logged=False)  # of which it has names alone
        self._drawing.rewind(record["step"])
        self._again_from, self._seen["step"] = self._seen["step"], record["step"]

    def _on_logged(self, record: dict[str, Any]) -> None:
        self._logged.take(record)

    def _left(self, metrics: dict[str, float]) -> None:
        """Called by the thread that writes: the newest metrics on the disk, when the later ones are gone."""
        if self._measured < 0:
            self._seen["metrics"] = metrics

    def _on_step(self, record: dict[str, Any]) -> None:
        lost = record["step"] - self._seen["step"]
        if lost > 0:
            self._say(f"the records of {lost} steps before {record['step']} were lost with a worker")
        self._seen.update(step=record["step"] + 1, loss=record["loss"], epoch=record["epoch"])
        self._recent.append((record["time"], record["rows"]))
        fields = ("step", "epoch", "loss", "lr", "rows", "time", "samples")
        self._scribe.line("steps", {name: record[name] for name in fields})
        self._drawing.step(record, self._gauges)

    def _on_metrics(self, record: dict[str, Any]) -> None:
        self._measure(record)
        self._drawing.evaluated(record)

    def _on_recorded(self, record: dict[str, Any]) -> None:
        self._measure(record)
        self._drawing.recorded(record)

    def _measure(self, record: dict[str, Any]) -> None:
        values, self._measured = record["values"], record["step"]
        self._seen.update(metrics={**self._seen["metrics"], **values}, evaluated=record["step"])
        more: dict[str, Any] = {"tables": record["tables"]} if record.get("tables") else {}
        if record["kind"] == "recorded":
            more["recorded"] = True
        self._scribe.line("metrics", {"step": record["step"], "time": record["time"], "values": values, **more})

    def _on_dropped(self, record: dict[str, Any]) -> None:
        self._save(records_dropped=self._facts.get("records_dropped", 0) + record["entries"])
        self._say(f"{record['entries']} records were dropped: they came faster than they could be kept")

    def _on_sync(self, record: dict[str, Any]) -> None:
        self._scribe.sync()

    def _on_checkpoint_begun(self, record: dict[str, Any]) -> None:
        self._spending.saving(time.monotonic())
        self._save(checkpoint_blocked_s=self._facts.get("checkpoint_blocked_s", 0.0) + record["blocked_s"])

    def _on_checkpoint(self, record: dict[str, Any]) -> None:
        if self._unsaved:
            self._say(f"checkpoints are written again, since step {record['step']}")
        self._unsaved = ""
        self._spending.saved(time.monotonic())
        self._scribe.line("events", {name: record[name] for name in ("kind", "time", "step", "bytes")})
        self._save(checkpoint={name: record[name] for name in ("step", "time", "bytes")})
        self._store(record)
        names = ("kind", "step", "path", "bytes", "metrics", "time", "digest", "let_go")
        told = {name: record[name] for name in names if name in record}
        self._scribe.track({**told, **self._drawing.of_checkpoint(record["step"])})

    def _store(self, record: dict[str, Any]) -> None:
        """Of a run in a store, what its checkpoints take there from now on."""
        if self._far is None:
            return
        self._stored[record["step"]] = record["bytes"]
        for step in record.get("let_go") or ():
            self._stored.pop(step, None)
        gigabytes = round(sum(self._stored.values()) / 1e9, 9)
        self.event({"kind": STAKE, "time": record["time"], "stored_gb": gigabytes})

    def _on_checkpoint_failed(self, record: dict[str, Any]) -> None:
        if record["error"] != self._unsaved:
            self._say(f"a checkpoint could not be written ({record['error']}); training goes on, and tries again")
            self._scribe.line("events", {name: record[name] for name in ("kind", "time", "error")})
        self._unsaved = record["error"]

    def _on_checkpoint_skipped(self, record: dict[str, Any]) -> None:
        self._save(checkpoints_skipped=self._facts.get("checkpoints_skipped", 0) + 1)

    def _on_states_kept(self, record: dict[str, Any]) -> None:
        names = ("states", "seconds", "every", "cost_s", "step_s")
        self._save(states_kept={name: round(record[name], 6) for name in names})

    def _on_printed(self, record: dict[str, Any]) -> None:
        self._say(record["text"])

    def _on_note(self, record: dict[str, Any]) -> None:
        if record["text"] not in self._messages:  # that all workers say alike
            self._say(record["text"])
        self._reason = record.get("ends", self._reason)

    def _on_lanes(self, record: dict[str, Any]) -> None:
        """How lanes are put together; each text once, whoever says it."""
        if record["text"] in self._lanes_told or len(self._lanes_told) >= WARNINGS:
            return
        self._lanes_told.add(record["text"])
        if record.get("apart"):
            self._save(lanes_apart={name: record[name] for name in ("step", "apart", "why")})
        self._say(record["text"])

    def _on_memory(self, record: dict[str, Any]) -> None:
        """What a worker took at most; of many workers those are kept that took the most."""
        known = footprints.grown(self._facts.get("memory_peak") or {}, record)
        if known is not None:
            self._save(memory_peak=known)

    def _on_warned(self, record: dict[str, Any]) -> None:
        """Each text once, whoever of the workers says it; and not more than can be read."""
        told = blame.alike(record["text"])
        if told in self._warned or len(self._warned) >= WARNINGS:
            return
        self._warned.add(told)
        if record["time"] - self._warned_at >= WARNED_S:
            self._warned_at, self._warned_lately = record["time"], 0
        self._warned_lately += 1
        self._scribe.line("events", record)
        if self._warned_lately <= WARNED_MOST:
            self._say(f"{record['worker']} warns: {record['text']}")
        elif self._warned_lately == WARNED_MOST + 1:
            self._say(f"there are more warnings: see `{self._look}`")

    def _on_quarantine(self, record: dict[str, Any]) -> None:
        """Every worker that reads the row group says so, in every start of the run; it counts once."""
        source, place = record["source"], f"{record['shard']}:{record['group']}"
        aside = self._facts.get("quarantine", {})
        if place in aside.get(source, {}):
            return
        aside = {**aside, source: {**aside.get(source, {}), place: record["rows"]}}
        self._save(quarantine=aside)
        total = sum(aside[source].values())
        self.event({**record, "total_rows": total})
        aside_points = {"kind": "points", "step": self._seen["step"], "time": record["time"]}
        self._scribe.track({**aside_points, "values": {"data/quarantined_rows": float(total)}})
        most = self._most_aside.get(source)
        if most is not None and total > most:
            self.fail(
                {
                    "kind": "BadData",
                    "fact": f"{total} rows of {source} are set aside, more than the {most} of data.quarantine_limit",
                    "reason": f"the latest: {record['reason']}",
                    "remedy": "Run `headway data check` on it and make it again, or raise the limit.",
                }
            )

    def _on_replicas(self, record: dict[str, Any]) -> None:
        self._save(replicas={"step": record["step"], "digest": record["digest"]})

    def _on_ended(self, record: dict[str, Any]) -> None:
        skipped = self._facts.get("checkpoints_skipped", 0)
        if skipped:
            self._say(f"{skipped} checkpoints were skipped: the one before each was still being written")
        self._ended, self._reason = True, record.get("reason") or self._reason
        self._save(steps=record["step"], weights_sha256=record["weights_sha256"])

    def _say_died(self, said: str, workers: Sequence[str]) -> None:
        """In a thread of its own, which may wait for the disk: with what the workers' logs say of it."""
        far = self._shipper
        storage, within_s = (self._run.printed, 0.0) if far is None else (far.storage, LOGS_S)
        words = last_words(storage, [worker_source(worker) for worker in workers], within_s)
        logs = " and ".join(f"`{self._look} --worker {worker}`" for worker in workers)
        self._say(f"{said}. Its last words: {words}" if words else f"{said}; see {logs}")

    def _gauges(self) -> dict[str, float]:
        return {"samples_per_s": self._rates()[0], "workers": self._seen["workers"], "goodput": self._seen["goodput"]}

    def _places_asked(self, machines: str) -> Callable[[], list[Asked]]:
        """Gives what is asked for figures of its machine, see `Machines`."""
        if machines == "own":
            return lambda: [OWN]
        return lambda: [(host, port, self._run.keeper()["token"]) for host, port in self._facts.get("keepers", ())]

    def _look_at(self, newest: dict[str, dict[str, float]], line: dict[str, Any] | None) -> None:
        """What machines do; called in a thread."""
        self.event({"kind": "nodes", "nodes": newest})
        if line is not None:
            self._scribe.line("nodes", {**line, "step": self._seen["step"]})
            self._drawing.machines(line, self._seen["step"])

    def _rates(self) -> tuple[float, float]:
        """Rows and steps per second over the latest few seconds."""
        return per_second(self._recent, RATE_S)

    def _save(self, **facts: Any) -> None:
        self._facts.update(facts)
        self._scribe.facts(self._facts)

    def _say(self, text: str) -> None:
        self._messages.append(text)
        self._said += 1
