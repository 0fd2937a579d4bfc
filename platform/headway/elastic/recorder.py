"""The run's one memory on the driver's side: an actor that takes the workers' records and keeps them in the folder.

It writes `steps.jsonl` (a line per committed step) and `run.json` (the run's state), and feeds the tracking spool. It
dies with the driver, and workers that cannot reach it stop: nobody trains, or commits a checkpoint, for a run that is
not led.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from headway.runs import RunFolder

FRUITLESS_ATTEMPTS = 3


class Recorder:
    """Runs as a Ray actor.

    Args:
        folder: of the run.
        tracking: options of `headway.tracking.mlflow_writer.Writer`, or None for none.
        first: the spool's opening event: job, datasets, environment.
        every_steps: steps between two points of a training curve in the tracking store.
    """

    def __init__(self, folder: str, tracking: dict[str, Any] | None, first: dict[str, Any], every_steps: int) -> None:
        self._run = RunFolder(Path(folder))
        self._hold = self._run.hold_records()
        self._every_steps = every_steps
        self._attempt = 0
        self._fruitless = 0
        self._stop = False
        self._failure: dict[str, Any] | None = None
        self._messages: list[str] = []
        self._seen: dict[str, Any] = {
            "step": 0,
            "total_steps": 0,
            "loss": None,
            "workers": 0,
            "epoch": 0,
            "metrics": {},
        }
        self._recent: deque[tuple[float, int]] = deque(maxlen=4096)
        self._facts = self._run.read()
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

    def begin_attempt(self) -> dict[str, Any]:
        """A worker group starts: its number, and whether to give up because none got anywhere."""
        self._attempt += 1
        self._fruitless += 1
        if self._attempt > 1:
            self._say(f"workers were lost; attempt {self._attempt} goes on from the newest checkpoint")
        if self._fruitless > FRUITLESS_ATTEMPTS and self._failure is None:
            self.fail(
                {
                    "kind": "workers",
                    "fact": f"the workers died {FRUITLESS_ATTEMPTS} times without a single new step",
                    "reason": "the cause lies in the task or the machine (out of memory, a crash in native code)",
                    "remedy": "Look for it in Ray's worker logs, or try a smaller lane_batch.",
                }
            )
        return {"attempt": self._attempt, "give_up": self._failure is not None}

    def push(self, attempt: int, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Take records from rank 0 of an attempt; says whether the run shall stop, and whether that attempt counts."""
        if attempt == self._attempt:
            for record in records:
                getattr(self, "_on_" + record["kind"])(record)
            self._steps.flush()
        return {"stop": self._stop, "current": attempt == self._attempt}

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
        fresh = {"messages": self._messages[messages_seen:], "failure": self._failure, "attempt": self._attempt}
        samples, steps = self._rates()
        return {**self._seen, **fresh, "samples_per_s": samples, "steps_per_s": steps}

    def finish(self, state: str, message: str, timeout_s: float) -> dict[str, Any]:
        """Close the books. Returns the tracking store's summary."""
        self._steps.close()
        self._save(state=state, message=message, ended=time.time())
        if self._writer is None or self._spool is None:
            return {}
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

    def _on_began(self, record: dict[str, Any]) -> None:
        step = record["step"]
        self._steps.close()
        self._steps = self._run.open_steps(before=step)
        keep = {"total_steps": record["total_steps"], "steps_per_epoch": record["steps_per_epoch"]}
        self._seen.update(keep, step=step, workers=record["workers"])
        self._recent.clear()
        history = [w for w in self._facts.get("workers", []) if w["step"] < step]
        history.append({"step": step, "workers": record["workers"], "time": record["time"]})
        metrics = [m for m in self._facts.get("metrics", []) if m["step"] <= step]
        self._seen["metrics"] = metrics[-1]["values"] if metrics else {}
        self._save(state="running", message="", workers=history, metrics=metrics, weights_sha256=None, **keep)

    def _on_step(self, record: dict[str, Any]) -> None:
        self._fruitless = 0
        self._seen.update(step=record["step"] + 1, loss=record["loss"], epoch=record["epoch"])
        self._recent.append((record["time"], record["rows"]))
        fields = ("step", "epoch", "loss", "lr", "rows", "time", "samples")
        self._run.append_step(self._steps, {name: record[name] for name in fields})
        if record["step"] % self._every_steps == 0 or record["step"] + 1 == self._seen["total_steps"]:
            values = {"loss": record["loss"], "lr": record["lr"], "epoch": record["epoch"]}
            values |= {"samples_per_s": self._rates()[0], "workers": self._seen["workers"]}
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
