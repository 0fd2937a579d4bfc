"""A worker's way to tell the driver's side what happened, without ever waiting for it in the training thread.

What every replica says alike (steps, metrics) is kept in a journal on every worker, and sent by the leader (rank 0): if
the leader dies before it has sent something, the next one sends it. An entry's place is made of what it is: (start,
step, kind, n-th of its kind within the step); the recorder takes each place once, whoever sends it, and what only one
worker says (`if session.rank == 0: session.record(...)`) shifts nobody else's places.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import dropwhile, islice
from typing import Any

from headway.checkpoint.found import Checkpoint
from headway.core.outage import Outage
from headway.elastic.wire.records import of_anybody
from headway.elastic.worker.contents import Contents, without

logger = logging.getLogger(__name__)

FLUSH_S = 0.2
PUSH_S = 60.0
SETTLE_S = 10.0
BATCH = 1000  # entries in one push
ENTRIES = 50_000  # kept, and waiting at most; more than a leader commits between two flushes, by far
CROWDED = 5_000  # from here on whoever adds an entry lets the sending thread run first

Place = tuple[int, int, str, int]


class DriverLost(RuntimeError):
    """The recorder is gone: the driver died, and nobody would keep what this worker does."""


class Journal:
    """See the module.

    Args:
        recorder: actor handle of `headway.elastic.lead.recorder.Recorder`.
        worker: id of this one.
        pauses: the run may have been paused until now, and goes on from there.
    """

    def __init__(self, recorder: Any, worker: str, pauses: bool = False) -> None:
        self._pauses = pauses
        self._recorder, self._worker = recorder, worker
        self._leads = False
        self._start, self._step = 0, -1
        self._counts: Counter[str] = Counter()
        """Entries by kind within the newest step."""
        self._own_step = -1
        self._own_counts: Counter[str] = Counter()
        """Likewise of this worker's own."""
        self._entries: deque[dict[str, Any]] = deque()
        """The leader's: what waits. The others': the newest, of which the recorder may have any."""
        self._first = 0
        """The number of the oldest of them."""
        self._sent: deque[tuple[int, dict[str, Any]]] = deque()
        """Those that the recorder has taken and may not have on its disk, each with the count of its tasks until then;
        and a few before them."""
        self._cut = False
        """Whether entries of this start were let go by now."""
        self._found = False
        """Whether entries were found with a kept state, and are still to be handed on."""
        self._asked = False
        """Whether the recorder was asked what it has, since this worker leads."""
        self._forgotten = -1
        """The newest step of which an entry was let go, though it is not known here whether the recorder has it."""
        self._dropped = 0
        self._contents = Contents()
        self._own: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._stop = False
        self._lost = False
        self._outage = Outage(None)
        self._pause = 0.0
        self._thread: threading.Thread | None = None

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
                self._asked = False
            self._leads, self._found = leads, False
        if leads:
            self._begin()

    def restart(self, start: int, found: bool = False) -> None:
        """Begin the journal anew: the run goes on from a checkpoint.

        Args:
            start: greater than any before, same on all.
            found: it goes on from a kept state, and the entries that were found with it are sent first.
        """
        with self._lock:
            self._start, self._step, self._cut = start, -1, found and self._cut
            self._counts.clear()
            if not found:
                self._forget()

    def journal(self) -> dict[str, Any]:
        """For a worker that joins: where the journal is, and the entries that may not have been taken yet."""
        with self._lock:
            told = {"start": self._start, "step": self._step, "counts": dict(self._counts)}
            return {**told, "entries": self._waiting(), "found": self._found}

    def kept(self) -> dict[str, Any]:
        """To be kept with this moment's state: entries that may not be on the driver's disk, and the first step of
        which surely all are here."""
        with self._lock:
            waiting = self._waiting()
            entries = [*(entry for _, entry in self._sent), *waiting]
            whole = not self._cut and len(waiting) == len(self._entries)
            first = entries[0]["step"] if entries else self._step
            light = list(map(without, entries))
            return {"start": self._start, "entries": light, "whole_from": first if whole else first + 1}

    def _waiting(self) -> list[dict[str, Any]]:
        """The last entries, from the first on that may not have been taken yet."""
        if self._leads or self._found:
            return list(self._entries)
        since = time.time() - 10 * FLUSH_S
        return list(dropwhile(lambda entry: entry["time"] < since, self._entries))

    def find(self, kept: dict[str, Any], start: int) -> None:
        """Entries that were kept with the state that the run goes on from: what the recorder lacks of them is sent
        before anything new. start: of its records; -1 where it is another driver's, and has only what is on the disk.
        """
        entries, cut = list(kept["entries"]), kept["whole_from"]
        part = bool(entries) and entries[0]["step"] < cut
        if start < 0 and entries:
            # It cannot tell what of it is there: all of the last steps is taken away, and comes again.
            at, part = entries[0]["time"], False
            told = [e for e in entries if e["step"] >= cut and e["kind"] not in ("began", "again")]
            entries = [{"kind": "again", "time": at, "place": (0, cut, "again", 0), "step": cut}]
            counts: Counter[tuple[int, str]] = Counter()
            for entry in told:  # of several starts, maybe
                _, step, key, _ = entry["place"]
                entries.append({**entry, "place": (0, step, key, counts[step, key])})
                counts[step, key] += 1
        with self._lock:
            self._forget()
            self._entries.extend(entries)
            self._found, self._cut = True, part

    def records(self) -> dict[str, Any] | None:
        """What the recorder has, see `Recorder.push`; None where it cannot be asked."""
        return self._send()

    def take(self, journal: dict[str, Any]) -> None:
        """The journal of the worker that this one takes its state from."""
        with self._lock:
            if journal["start"] != self._start or journal["found"]:
                self._forget()
            self._found = journal["found"]
            mine = {tuple(e["place"]) for e in self._entries}
            self._entries.extend(e for e in journal["entries"] if tuple(e["place"]) not in mine)
            self._start, self._step = journal["start"], journal["step"]
            self._counts = Counter(journal["counts"])

    def began(self, step: int, total_steps: int, steps_per_epoch: int, made: str = "", of: str = "") -> None:
        """made: a name for this start; of: that of the start whose kept state it goes on from."""
        told: dict[str, Any] = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch, "made": made, "of": of}
        if self._pauses:
            told["paused"] = True
        self._note(step, "began", **told)

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self._note(step, "step", epoch=epoch, loss=loss, lr=rate, rows=rows, samples=samples)

    def metrics(self, step: int, values: dict[str, float], tables: dict[str, Any] | None = None) -> None:
        """Of an evaluation. tables: what is more than a number."""
        more = {"tables": tables} if tables else {}
        self._note(step, "metrics", ",".join(sorted(values)), values=values, **more)

    def recorded(self, step: int, values: dict[str, float], tables: dict[str, Any] | None = None) -> None:
        """What the user's code recorded, the same on all workers. tables: what is more than a number."""
        more = {"tables": tables} if tables else {}
        self._note(step, "recorded", ",".join(sorted(values)), values=values, **more)

    def logged(self, step: int, kind: str, name: str, content: str, **about: Any) -> None:
        """A figure, text, table or file. content: of it, as base64; about: suffix, mime, caption."""
        told = {"thing": kind, "name": name, "content": content, **about}
        entry = self._note(step, "logged", f"{kind}:{name}", **told)
        with self._lock:
            self._contents.hold(entry)

    def own(self, step: int, values: dict[str, float]) -> None:
        """What the user's code recorded of this worker alone, which sends it itself."""
        with self._lock:
            if step != self._own_step:
                self._own_step = step
                self._own_counts.clear()
            key = "recorded:" + ",".join(sorted(values))  # names have the worker's in them
            place = (self._start, step, key, self._own_counts[key])
            self._own_counts[key] += 1
        self._say("recorded", place=place, step=step, values=values, own=True)
        self._begin()

    def replicas(self, step: int, digest: str) -> None:
        """All replicas had this digest before the step."""
        if self._leads:  # not in the journal: a worker whose exchange breaks there never sees it
            self._say("replicas", step=step, digest=digest)

    def ended(self, step: int, weights_sha256: str, reason: str = "") -> None:
        """reason: that the loop, or a hook, gave for its end."""
        self._note(step, "ended", weights_sha256=weights_sha256, **({"reason": reason} if reason else {}))

    def checkpoint_begun(self, step: int, reason: str, blocked_s: float) -> None:
        self._say("checkpoint_begun", step=step, reason=reason, blocked_s=blocked_s)

    def checkpoint_skipped(self, step: int, reason: str) -> None:
        """One was due while the one before was still being written."""
        self._say("checkpoint_skipped", step=step, reason=reason)

    def checkpoint_done(self, checkpoint: Checkpoint | None, error: str | None, let_go: Sequence[int] = ()) -> None:
        """let_go: steps of those that the job's policy has removed since."""
        if checkpoint is None:
            self._say("checkpoint_failed", error=error)
        else:
            facts = checkpoint.facts
            self._say(
                "checkpoint",
                step=checkpoint.step,
                path=checkpoint.where,
                bytes=checkpoint.bytes,
                metrics=facts["metrics"],
                digest=checkpoint.digest,
                let_go=list(let_go),
            )

    def states_kept(self, states: int, seconds: float, every: int, cost_s: float, step_s: float) -> None:
        """What keeping states in memory has cost this worker."""
        told = {"states": states, "seconds": seconds, "every": every, "cost_s": cost_s, "step_s": step_s}
        self._say("states_kept", **told)

    def printed(self, text: str) -> None:
        if self._leads:
            self._say("printed", text=text)

    def quarantined(self, source: str, shard: str, group: int, rows: int, reason: str) -> None:
        """Rows of a row group are set aside. Sent at once, by whoever finds it: the leader need not carry that lane."""
        self._say("quarantine", source=source, shard=shard, group=group, rows=rows, reason=reason)
        self._begin()
        self._wake.set()

    def note(self, text: str, ends: str = "") -> None:
        """ends: of one that says why the run comes to its end: why, for the books."""
        self._say("note", text=text, **({"ends": ends} if ends else {}))

    def lanes(self, text: str, **facts: Any) -> None:
        """How lanes are put together, or are not any more, in words; facts: for the books, where it holds for all. Sent
        soon, by whoever says it."""
        self._say("lanes", text=text, **facts)
        self._begin()

    def memory(self, found: dict[str, int]) -> None:
        """The most bytes that this worker took, see `headway.elastic.worker.footprint`."""
        self._say("memory", worker=self._worker, **found)
        self._begin()

    def warned(self, text: str) -> None:
        """This worker's process warns. Sent soon, by whoever hears it."""
        self._say("warned", worker=self._worker, text=text)
        self._begin()

    def settle(self, patience_s: float | None = None) -> bool:
        """Send all that was said so far, and wait until it is on the disk; returns whether this worker still leads, as
        far as the driver's side knows, and it is there.

        It may wait: that a worker leads may become known a little later than it begins to. Not for the training thread.
        """
        deadline = time.monotonic() + (SETTLE_S if patience_s is None else patience_s)
        mark = None
        while True:
            answer = self._send(sync=mark is None)
            if answer is not None and answer["current"] and answer["complete"]:
                mark = answer["taken"] if mark is None else mark
                if answer["written"] >= mark:
                    return True
            if self._lost or not self._leads or time.monotonic() > deadline:
                return False
            time.sleep(FLUSH_S if mark is None else FLUSH_S / 10)

    def allows(self, step: int) -> bool:
        """Whether a checkpoint of that step may be committed: the records before it are on the disk, so that no run
        goes on from a step whose records were lost with the worker; and the run did not go on elsewhere.

        A worker that leaves may finish what it began, once the one after it has told of the steps until then. It waits
        as long as the driver's side cannot write; not for the training thread.
        """
        mark = deadline = None
        while not self._lost:
            answer = self._send(sync=mark is None)
            if answer is not None and not answer["current"] and answer["start"] > self._start:
                return False
            if answer is not None and self._is_kept(answer, step):
                mark = answer["taken"] if mark is None else mark
                if answer["written"] >= mark:
                    return True
            # Where it leads it waits for the driver's side: that may be slow, and has a limit where it is in trouble.
            if answer is not None and not answer["error"] and not (answer["current"] and self._leads):
                deadline = deadline or time.monotonic() + SETTLE_S
                if time.monotonic() > deadline:
                    return False
            time.sleep(FLUSH_S if mark is None else FLUSH_S / 10)
        return False

    def _is_kept(self, answer: dict[str, Any], step: int) -> bool:
        """Whether the recorder has all records before a step: from this worker, or from the one that leads now."""
        if answer["current"]:
            return bool(answer["complete"])
        return bool(answer["start"] == self._start and answer["step"] >= step)

    def close(self) -> None:
        """Send what is left."""
        self._closing = True
        self._wake.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=30)

    # Adding

    def _note(self, step: int, kind: str, what: str = "", **entry: Any) -> dict[str, Any]:
        """What every replica says."""
        with self._lock:
            if step != self._step:
                self._step = step
                self._counts.clear()
            key = f"{kind}:{what}" if what else kind
            place = (self._start, step, key, self._counts[key])
            self._counts[key] += 1
            made = {"kind": kind, "time": time.time(), "place": place, "step": step, **entry}
            self._entries.append(made)
            if len(self._entries) > ENTRIES:
                self._let_go()
            crowded = self._leads and len(self._entries) > CROWDED
        if crowded:
            self._wake.set()
            time.sleep(0)
        return made

    def _let_go(self) -> None:
        """Of the oldest entry. What the recorder surely lacks is counted; the next leader looks at the others."""
        gone = self._entries.popleft()
        self._first += 1
        self._cut = True
        if self._leads:
            self._dropped += 1
        else:
            self._forgotten = gone["step"]

    def _forget(self) -> None:
        self._first += len(self._entries)
        self._entries.clear()
        self._sent.clear()
        self._contents.clear()
        self._forgotten = -1

    def _say(self, kind: str, **record: Any) -> None:
        with self._lock:
            self._own.append({"kind": kind, "time": time.time(), **record})
            if len(self._own) > ENTRIES:
                self._own.popleft()
                self._dropped += 1

    # Sending

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._lost:
            last = self._closing
            pause = FLUSH_S
            if self._leads or self._urgent():
                answer = self._send()
                if answer is None and not last:
                    pause = max(FLUSH_S, self._pause)
            if last:
                return
            self._wake.wait(pause)
            self._wake.clear()

    def _urgent(self) -> bool:
        return any(map(of_anybody, list(self._own)))

    def _push(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Raises DriverLost where the recorder is dead; anything else is tried again by whoever calls."""
        import ray

        try:
            answer: dict[str, Any] = ray.get(self._recorder.push.remote(self._worker, records), timeout=PUSH_S)
        except ray.exceptions.ActorUnavailableError:
            raise
        except ray.exceptions.RayActorError as error:
            raise DriverLost(str(error)) from error
        return answer

    def _send(self, sync: bool = False) -> dict[str, Any] | None:
        """Push all that waits, a batch after the other; returns the last answer, or None if there was none.

        Batches are taken in order and each place once, so that one whose answer was lost may be sent again.

        Args:
            sync: what was sent is to be made durable.
        """
        with self._sending:
            try:
                answer = self._push_all(sync)
            except DriverLost:
                self._lost = True
                return None
            except Exception as error:  # the recorder's, Ray's, or a time that ran out: none of them is its death
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self._pause = self._outage.failed(time.monotonic(), reason)
                logger.warning("the recorder does not answer, and is asked again: %s", reason)
                return None
            lasted = self._outage.worked(time.monotonic())
            if lasted is not None:
                self.note(f"the driver's side did not answer {self._worker} for {lasted:.1f} s; nothing was lost")
            return answer

    def _push_all(self, sync: bool) -> dict[str, Any]:
        if self._leads and not self._asked:
            self._compare(self._push([]))
        while True:
            with self._lock:
                leads, first = self._leads and self._asked, self._first
                entries = list(islice(self._entries, BATCH)) if leads else []
                own = list(islice(self._own, BATCH - len(entries))) if len(entries) == len(self._entries) else []
                own = own if leads else list(filter(of_anybody, self._own))[:BATCH]
                dropped, self._dropped = (self._dropped, 0) if leads else (0, self._dropped)
                last = len(entries) == len(self._entries) and len(own) == len(self._own)
            batch = [*entries, *own]
            if dropped:
                batch.insert(0, {"kind": "dropped", "time": time.time(), "entries": dropped})
            if sync and leads and last:
                batch.append({"kind": "sync", "time": time.time()})
            try:
                answer = self._push(batch)
            except BaseException:  # raised again: what was dropped is still to be told
                self._dropped += dropped
                raise
            with self._lock:
                taken = answer["accepted"] and (answer["current"] or not leads)
                if taken:
                    self._took(first, len(entries), own, answer["taken"])
                    self._let_go_written(answer["written"])
                else:
                    self._dropped += dropped
                if leads:
                    self._stop = answer["stop"]
                answer["complete"] = leads and taken and last
            if last or not taken or not leads:
                return answer

    def _took(self, first: int, entries: int, own: list[dict[str, Any]], mark: int) -> None:
        """The recorder has these entries, from the number `first` on, and these words of this worker's own; they are on
        its disk when it has done `mark` tasks."""
        sent = {id(record) for record in own}
        self._own = deque(record for record in self._own if id(record) not in sent) if sent else self._own
        end = first + entries
        if self._leads:
            self._dropped -= max(0, min(self._first, end) - first)  # let go on their way: they arrived all the same
        while self._first < end and self._entries:
            self._sent.append((mark, self._entries.popleft()))
            self._first += 1

    def _let_go_written(self, written: int) -> None:
        """Of what is on the recorder's disk, but for the last steps before the first that is not."""
        waiting = next((e["step"] for mark, e in self._sent if mark > written), None)
        if waiting is None:
            waiting = self._entries[0]["step"] if self._entries else self._step
        while self._sent and self._sent[0][0] <= written and self._sent[0][1]["step"] < waiting - 2:
            self._sent.popleft()
            self._cut = True
        while len(self._sent) > ENTRIES:
            self._sent.popleft()
            self._cut = True

    def _compare(self, answer: dict[str, Any]) -> None:
        """This worker leads since just now: only what the recorder has not is sent."""
        with self._lock:
            if not answer["current"]:
                return
            same = answer["start"] == self._start
            while same and self._entries and self._entries[0]["step"] < answer["step"]:
                self._sent.append((answer["taken"], self._entries.popleft()))
                self._first += 1
            if same and self._forgotten >= max(0, answer["step"]):
                steps = f"steps {answer['step']} to {self._forgotten}"
                text = f"records of {steps} may be lost: the worker that led before did not send them"
                self._own.append({"kind": "note", "time": time.time(), "text": text})
            self._asked, self._forgotten = True, -1
