"""A worker's way to tell the driver's side what happened, without ever waiting for it in the training thread.

What every replica says alike (steps, metrics) is kept in a journal on every worker, and sent by the leader (rank 0): if
the leader dies before it has sent something, the next one sends it. The recorder takes each entry once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from headway.checkpoint.folder import Checkpoint

FLUSH_S = 0.2
SETTLE_S = 10.0
JOURNAL = 20_000  # entries kept; more than a leader commits between two flushes, by far


class DriverLost(RuntimeError):
    """The recorder is gone: the driver died, and nobody would keep what this worker does."""


class Reporter:
    """See the module.

    Args:
        recorder: actor handle of `headway.elastic.lead.recorder.Recorder`.
        worker: id of this one.
    """

    def __init__(self, recorder: Any, worker: str) -> None:
        self._recorder, self._worker = recorder, worker
        self._leads = False
        self._epoch, self._next = 0, 0
        self._journal: deque[dict[str, Any]] = deque(maxlen=JOURNAL)
        self._own: list[dict[str, Any]] = []
        self._taken: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._stop = False
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    @property
    def leads(self) -> bool:
        """Whether this worker speaks for all."""
        return self._leads

    @property
    def stop_requested(self) -> bool:
        """Whether the run was asked to stop; only the leader knows.

        Raises:
            DriverLost: nobody is there to ask.
        """
        if self._lost:
            raise DriverLost("the driver's recorder is gone")
        return self._stop

    def enter(self, leads: bool) -> None:
        """This worker is in another generation now, and speaks for all of it or not."""
        with self._lock:
            if leads and not self._leads:
                self._taken = None
            self._leads = leads
        if leads and not self._thread.is_alive():
            self._thread.start()

    def restart(self, epoch: int) -> None:
        """Begin the journal anew: the run goes on from a checkpoint. epoch: greater than any before, same on all."""
        with self._lock:
            self._epoch, self._next = epoch, 0
            self._journal.clear()

    def journal(self) -> dict[str, Any]:
        """For a worker that joins: where the journal is, and the entries that may not have been taken yet."""
        with self._lock:
            since = time.time() - 10 * FLUSH_S
            recent = [e for e in self._journal if e["time"] >= since or self._waits(e)]
            return {"epoch": self._epoch, "next": self._next, "entries": recent}

    def take(self, journal: dict[str, Any]) -> None:
        """The journal of the worker that this one takes its state from."""
        with self._lock:
            mine = {tuple(e["place"]) for e in self._journal}
            fresh = [e for e in journal["entries"] if tuple(e["place"]) not in mine]
            if journal["epoch"] != self._epoch:
                self._journal.clear()
            self._journal.extend(fresh)
            self._epoch, self._next = journal["epoch"], journal["next"]

    def began(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        self._note("began", step=step, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self._note("step", step=step, epoch=epoch, loss=loss, lr=rate, rows=rows, samples=samples)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._note("metrics", step=step, values=values)

    def replicas(self, step: int, digest: str) -> None:
        """All replicas had this digest before the step."""
        if self._leads:  # not in the journal: a worker whose exchange breaks there never sees it
            self._say("replicas", step=step, digest=digest)

    def ended(self, step: int, weights_sha256: str) -> None:
        self._note("ended", step=step, weights_sha256=weights_sha256)

    def checkpoint_begun(self, step: int, reason: str, blocked_s: float) -> None:
        self._say("checkpoint_begun", step=step, reason=reason, blocked_s=blocked_s)

    def checkpoint_done(self, checkpoint: Checkpoint | None, error: str | None) -> None:
        if checkpoint is None:
            self._say("checkpoint_failed", error=error)
        else:
            facts = checkpoint.facts
            self._say(
                "checkpoint",
                step=checkpoint.step,
                path=str(checkpoint.folder),
                bytes=checkpoint.bytes,
                metrics=facts["metrics"],
            )

    def printed(self, text: str) -> None:
        if self._leads:
            self._say("printed", text=text)

    def quarantined(self, source: str, shard: str, group: int, rows: int, reason: str) -> None:
        """Rows of a row group are set aside. Sent at once, by whoever finds it: the leader need not carry that lane."""
        said = {"source": source, "shard": shard, "group": group, "rows": rows, "reason": reason}
        with self._sending:
            try:
                self._push([{"kind": "quarantine", "time": time.time(), **said}])
            except DriverLost:
                self._lost = True

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def settle(self) -> bool:
        """Send all that was said so far; returns whether this worker still leads, as far as the driver's side knows.

        A checkpoint is committed only after this, so that no run goes on from a step whose records were lost with the
        worker. It may wait: that a worker leads may become known a little later than it begins to.
        """
        deadline = time.monotonic() + SETTLE_S
        while not self._send():
            if self._lost or not self._leads or time.monotonic() > deadline:
                return False
            time.sleep(FLUSH_S)
        return True

    def close(self) -> None:
        """Send what is left."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _note(self, kind: str, **entry: Any) -> None:
        """What every replica says."""
        with self._lock:
            place = (self._epoch, self._next)
            self._next += 1
            self._journal.append({"kind": kind, "time": time.time(), "place": place, **entry})

    def _say(self, kind: str, **record: Any) -> None:
        with self._lock:
            self._own.append({"kind": kind, "time": time.time(), **record})

    def _waits(self, entry: dict[str, Any]) -> bool:
        return self._taken is None or tuple(entry["place"]) >= self._taken

    def _run(self) -> None:
        while not self._lost:
            last = self._closing
            self._send()
            if last:
                return
            self._wake.wait(FLUSH_S)

    def _push(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Raises DriverLost."""
        import ray

        try:
            answer: dict[str, Any] = ray.get(self._recorder.push.remote(self._worker, records), timeout=60)
        except ray.exceptions.RayError as error:
            raise DriverLost(str(error)) from error
        return answer

    def _send(self) -> bool:
        with self._sending:
            with self._lock:
                leads = self._leads
                own, self._own = self._own, []
                entries = [e for e in self._journal if self._waits(e)] if leads else []
            try:
                answer = self._push([*entries, *own])
            except DriverLost:
                self._lost = True
                return False
            with self._lock:
                if not answer["current"]:
                    self._own = own + self._own
                if leads:
                    self._taken = tuple(answer["next"])
                    self._stop = answer["stop"]
            return bool(answer["current"])
