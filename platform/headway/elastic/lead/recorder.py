"""The run's one memory on the driver's side: an actor that takes the workers' records and keeps them in the folder.

It writes `steps.jsonl` (a line per committed step) and `run.json` (the run's state), and feeds the tracking spool. It
dies with the driver, and workers that cannot reach it stop: nobody trains, or commits a checkpoint, for a run that is
not led.
"""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

from headway.core import ledger
from headway.elastic.lead.said import words
from headway.runs import RunFolder


class Recorder:
    """Runs as a Ray actor.

    Args:
        folder: of the run.
        tracking: options of `headway.tracking.mlflow_writer.Writer`, or None for none.
        first: the spool's opening event: job, datasets, environment.
        every_steps: steps between two points of a training curve in the tracking store.
        most_aside: rows that may be set aside, by dataset; no limit where not given.
    """

    def __init__(
        self,
        folder: str,
        tracking: dict[str, Any] | None,
        first: dict[str, Any],
        every_steps: int,
        most_aside: dict[str, int] | None = None,
    ) -> None:
        self._run = RunFolder(Path(folder))
        self._hold = self._run.hold_records()
        self._every_steps, self._most_aside = every_steps, most_aside or {}
        self._leader: str | None = None
        self._epoch, self._next = 0, 0
        self._stop = False
        self._failure: dict[str, Any] | None = None
        self._messages: list[str] = []
        self._seen: dict[str, Any] = {
            "step": sum(1 for _ in self._run.steps()),
            "total_steps": 0,
            "loss": None,
            "workers": 0,
            "epoch": 0,
            "goodput": 0.0,
            "metrics": {},
        }
        self._ledger: dict[str, Any] = {}
        self._lost_steps = 0
        self._epoch_began = False
        self._recent: deque[tuple[float, int]] = deque(maxlen=4096)
        self._facts = self._run.read()
        self._facts["ledger_before"] = self._facts.pop("ledger_s", {})
        self._steps = self._run.open_steps()
        self._spool = None
        self._writer = None
        if tracking is not None:
            from headway.tracking.mlflow_writer import Writer
            from headway.tracking.spool import Spool

            self._spool = Spool(self._run.spool)
            self._writer = Writer(self._run.path, **tracking)
            self._spool.append(first)
            self._spool.append({"kind": "state", "state": "running", "message": ""})
            self._writer.start()

    def push(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Take records from a leader; that rows are set aside, from anyone.

        Entries of the journal have a place (epoch, number), and each place is taken once, whoever sends it.

        Returns:
            Whether the run shall stop, whether that worker still leads, and the next place that is wanted.
        """
        current = self._leader in (None, worker)
        for record in records:
            if (current or record["kind"] == "quarantine") and self._is_new(record):
                getattr(self, "_on_" + record["kind"])(record)
        if current:
            self._steps.flush()
        return {"stop": self._stop, "current": current, "next": (self._epoch, self._next)}

    def event(self, event: dict[str, Any]) -> None:
        """What the coordinator tells of the membership."""
        kind = event["kind"]
        if kind == "members":
            self._run.write_members({name: event[name] for name in ("generation", "time", "workers")})
            return
        if kind == "ledger":
            self._ledger = event
            self._seen.update(goodput=event["goodput"], workers=event["workers"])
            return
        if kind == "generation":
            self._leader = event["members"][0]
            self._seen["workers"] = event["workers"]
            self._workers(event["step"], event["workers"], event["time"])
        if kind == "recovery":
            event = {**event, "lost_steps": self._lost_steps}
            self._lost_steps = 0
        with self._run.events_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        said = words(event)
        if said:
            self._say(said)

    def give_up(self, reason: str) -> None:
        """The coordinator cannot go on."""
        self.fail(
            {
                "kind": "workers",
                "fact": reason,
                "reason": "the cause lies in the task or the machines (out of memory, a crash in native code)",
                "remedy": "Look for it in Ray's worker logs, or try a smaller lane_batch.",
            }
        )

    def fail(self, failure: dict[str, Any]) -> None:
        """The first failure counts."""
        if self._failure is None:
            self._failure = failure

    def failure(self) -> dict[str, Any] | None:
        return self._failure

    def request_stop(self) -> None:
        self._stop = True

    def progress(self, messages_seen: int) -> dict[str, Any]:
        """How far the run is, with the messages that the caller has not seen."""
        fresh = {"messages": self._messages[messages_seen:], "failure": self._failure}
        samples, steps = self._rates()
        return {**self._seen, **fresh, "samples_per_s": samples, "steps_per_s": steps}

    def finish(self, state: str, message: str, timeout_s: float) -> dict[str, Any]:
        """Close the books. Returns the tracking store's summary."""
        self._steps.close()
        self._save(state=state, message=message, ended=time.time(), **self._account())
        if self._writer is None or self._spool is None:
            return {}
        account = self._account()
        values = {f"ledger/{cause}_s": seconds for cause, seconds in account["ledger_s"].items()}
        self._point({"step": self._seen["step"], "time": time.time()}, {**values, "goodput": account["goodput"]})
        self._spool.append({"kind": "state", "state": state, "message": message})
        summary = self._writer.close(timeout_s)
        found = {
            "uri": summary.uri,
            "run_id": summary.run_id,
            "sent": summary.sent,
            "waiting": summary.waiting,
            "error": summary.error,
        }
        self._save(tracking=found)
        return found

    def _is_new(self, record: dict[str, Any]) -> bool:
        place = record.get("place")
        if place is None:
            return True
        epoch, number = place
        if (epoch, number) < (self._epoch, self._next):
            return False
        expected = self._next if epoch == self._epoch else 0
        if number != expected:
            self._say(f"{number - expected} records of the steps before {record.get('step')} were lost with a worker")
        self._epoch, self._next = epoch, number + 1
        return True

    def _account(self) -> dict[str, Any]:
        """The ledger of all starts of this run together."""
        before = self._facts.get("ledger_before", {})
        seconds = ledger.total([before, self._ledger.get("seconds", {})])
        return {"ledger_s": {k: round(v, 3) for k, v in seconds.items()}, "goodput": round(ledger.goodput(seconds), 4)}

    def _workers(self, step: int, workers: int, time: float) -> None:
        """So many train from a step on. A generation that begins from a checkpoint knows its step only later (-1)."""
        if step >= 0:
            history = [w for w in self._facts.get("workers", []) if w["step"] < step]
            self._save(workers=[*history, {"step": step, "workers": workers, "time": time}])

    def _on_began(self, record: dict[str, Any]) -> None:
        step = record["step"]
        self._steps.close()
        lost = self._seen["step"] - step
        if lost > 0:
            self._lost_steps += lost if self._epoch_began else 0
            self.event({"kind": "restart", "time": record["time"], "from_step": step, "lost_steps": lost})
        self._steps = self._run.open_steps(before=step)
        keep = {"total_steps": record["total_steps"], "steps_per_epoch": record["steps_per_epoch"]}
        self._epoch_began = True
        self._workers(step, self._seen["workers"], record["time"])
        self._seen.update(keep, step=step)
        self._recent.clear()
        metrics = [m for m in self._facts.get("metrics", []) if m["step"] <= step]
        self._seen["metrics"] = metrics[-1]["values"] if metrics else {}
        self._save(state="running", message="", metrics=metrics, weights_sha256=None, **keep)

    def _on_step(self, record: dict[str, Any]) -> None:
        self._seen.update(step=record["step"] + 1, loss=record["loss"], epoch=record["epoch"])
        self._recent.append((record["time"], record["rows"]))
        fields = ("step", "epoch", "loss", "lr", "rows", "time", "samples")
        self._run.append_step(self._steps, {name: record[name] for name in fields})
        if record["step"] % self._every_steps == 0 or record["step"] + 1 == self._seen["total_steps"]:
            values = {"loss": record["loss"], "lr": record["lr"], "epoch": record["epoch"]}
            values |= {"samples_per_s": self._rates()[0], "workers": self._seen["workers"]}
            values |= {"goodput": self._seen["goodput"]}
            self._point(record, values)

    def _on_metrics(self, record: dict[str, Any]) -> None:
        values = record["values"]
        self._seen["metrics"] = {**self._seen["metrics"], **values}
        history = [m for m in self._facts.get("metrics", []) if m["step"] < record["step"]]
        same = [m for m in self._facts.get("metrics", []) if m["step"] == record["step"]]
        merged = {**(same[0]["values"] if same else {}), **values}
        self._save(metrics=[*history, {"step": record["step"], "values": merged}])
        self._point(record, {f"validation/{name}": value for name, value in values.items()})

    def _on_checkpoint_begun(self, record: dict[str, Any]) -> None:
        self._save(checkpoint_blocked_s=self._facts.get("checkpoint_blocked_s", 0.0) + record["blocked_s"])

    def _on_checkpoint(self, record: dict[str, Any]) -> None:
        event = {name: record[name] for name in ("kind", "step", "path", "bytes", "metrics", "time")}
        if self._spool is not None:
            self._spool.append(event)

    def _on_checkpoint_failed(self, record: dict[str, Any]) -> None:
        self._say(f"a checkpoint could not be written ({record['error']}); training goes on")

    def _on_printed(self, record: dict[str, Any]) -> None:
        self._say(record["text"])

    def _on_note(self, record: dict[str, Any]) -> None:
        self._say(record["text"])

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
        self._point({"step": self._seen["step"], "time": record["time"]}, {"data/quarantined_rows": float(total)})
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
        self._save(steps=record["step"], weights_sha256=record["weights_sha256"])

    def _point(self, record: dict[str, Any], values: dict[str, float]) -> None:
        if self._spool is not None:
            self._spool.append({"kind": "points", "step": record["step"], "time": record["time"], "values": values})

    def _rates(self) -> tuple[float, float]:
        """Rows and steps per second over the latest few seconds."""
        if len(self._recent) < 2:
            return 0.0, 0.0
        newest = self._recent[-1][0]
        lately = [(at, rows) for at, rows in self._recent if newest - at <= 5.0]
        span = newest - lately[0][0]
        if span <= 0:
            return 0.0, 0.0
        return sum(rows for _, rows in lately[1:]) / span, (len(lately) - 1) / span

    def _save(self, **facts: Any) -> None:
        self._facts.update(facts)
        self._run.write(self._facts)

    def _say(self, text: str) -> None:
        self._messages.append(text)
