"""A worker's way to tell the driver's side what happened, without ever waiting for it in the training thread."""

from __future__ import annotations

import threading
import time
from typing import Any

from headway.checkpoint.folder import Checkpoint

FLUSH_S = 0.2


class DriverLost(RuntimeError):
    """The recorder is gone: the driver died, and nobody would keep what this worker does."""


class Reporter:
    """Collects records and hands them to the recorder actor from a thread. Only rank 0 has anything to say but errors.

    Args:
        recorder: actor handle of `headway.elastic.recorder.Recorder`.
        rank: of this worker.
        attempt: number of this start of the worker group; the recorder ignores older ones.
    """

    def __init__(self, recorder: Any, rank: int, attempt: int) -> None:
        self._recorder, self._rank, self._attempt = recorder, rank, attempt
        self._records: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._stop = False
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def stop_requested(self) -> bool:
        """Whether the run was asked to stop.

        Raises:
            DriverLost: nobody is there to ask.
        """
        if self._lost:
            raise DriverLost("the driver's recorder is gone")
        return self._stop

    def began(self, step: int, workers: int, total_steps: int, steps_per_epoch: int) -> None:
        self._say("began", step=step, workers=workers, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self._say("step", step=step, epoch=epoch, loss=loss, lr=rate, rows=rows, samples=samples)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._say("metrics", step=step, values=values)

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
        self._say("printed", text=text)

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def ended(self, step: int, weights_sha256: str) -> None:
        self._say("ended", step=step, weights_sha256=weights_sha256)

    def settle(self) -> bool:
        """Send all records said so far; returns whether this start of the worker group still counts.

        A checkpoint is committed only after this, so that no run goes on from a step whose records were lost with the
        worker. Not for the training thread.
        """
        return self._send()

    def close(self) -> None:
        """Send what is left."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _say(self, kind: str, **record: Any) -> None:
        if self._rank == 0:
            with self._lock:
                self._records.append({"kind": kind, "time": time.time(), **record})

    def _run(self) -> None:
        while not self._lost:
            last = self._closing
            self._send()
            if last:
                return
            self._wake.wait(FLUSH_S)

    def _send(self) -> bool:
        import ray

        with self._sending:
            with self._lock:
                records, self._records = self._records, []
            try:
                answer = ray.get(self._recorder.push.remote(self._attempt, records), timeout=60)
            except ray.exceptions.RayError:
                self._lost = True
                return False
            self._stop = answer["stop"]
            return bool(answer["current"])
