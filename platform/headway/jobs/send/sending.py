"""A submission on its way: handed to Ray exactly once, and followed by what its driver tells, until it has begun or
ended. An answer that is lost is asked for; a head that was replaced is asked again, under the same name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from headway.errors import BAD_INPUT, BadInput, HeadwayError, RunFailed
from headway.jobs import entry, told
from headway.jobs.api.client import Failed, NotARay, RayJob, RayJobs, Unasked
from headway.jobs.send import parcel
from headway.jobs.send.parcel import Parcel
from headway.jobs.send.wording import options
from headway.jobs.spec import PREFIX, Spec

ANSWER_S = 60.0
"""So long it is tried to learn whether a submission was taken."""
LOOK_S, SLOW_LOOK_S = 0.2, 2.0
"""Pauses between two looks at what a driver tells: in its first seconds, and later."""
QUICK_S = 20.0
SLOW_S = 10.0
"""After so long without a word of the driver it is told what Ray says."""
END_S = 15.0
"""For which the end of a driver is waited for that has told its last."""
MOST_RESENT = 3
"""Times that a submission is sent again which Ray has forgotten."""
STOP_S = 600.0
"""Between Ray's SIGTERM and its SIGKILL, where a job is stopped by Ray; it would be 3 s, in which no checkpoint is
written. A driver that was asked to end ends by itself."""
SETTLE_S = 2.0
"""Between a job's end and its removal from Ray's list. Ray's own monitor looks each second; a job that it does not find
there as ended is dead to it, and is written down again, as one that nobody knows."""
LEFT_S = 3600.0
"""So long ago a check has ended that nobody waits for, by two machines' clocks."""
STRAY = "Job supervisor actor died"
"""What Ray says of such a one."""
LONGEST_PAUSE_S = 2.0
"""Between two tries to hand over a submission."""
TAIL = 12

Say = Callable[[str], None]


class Lost(RunFailed):
    """It is not known what became of a submission."""


@dataclass(frozen=True)
class Packed:
    """What goes with a submission.

    Args:
        working_dir: the folder that the job begins in.
        modules: that can be imported in every process of it.
        packages: pinned requirements that are installed for it, see `headway.jobs.send.install`.
    """

    working_dir: Parcel
    modules: tuple[Parcel, ...]
    packages: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parcels(self) -> list[Parcel]:
        return [self.working_dir, *self.modules]

    @property
    def runtime_env(self) -> dict[str, Any]:
        """As Ray takes it. Every holder of the cluster's token can read it: nothing secret is in it."""
        return {
            "working_dir": self.working_dir.uri,
            "py_modules": [each.uri for each in self.modules],
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": f"{STOP_S:.0f}"},
            **self.packages,
        }


def send(
    api: RayJobs,
    spec: Spec,
    packed: Packed,
    say: Say = lambda _: None,
    within_s: float = ANSWER_S,
    asking: Callable[[], None] = lambda: None,
) -> int:
    """Hand a submission to Ray: once, however often it must be asked. Ray takes one job of an id.

    Args:
        asking: called when Ray is asked, from when on it may have the job.

    Returns the bytes that the cluster did not have yet.

    Raises:
        BadInput: Ray refuses it.
        Unasked: nobody could be asked, and nothing was.
        Lost: no answer came to what was asked.
    """
    deadline, pause_s, sent = time.monotonic() + within_s, LOOK_S, 0
    posted = asked = False  # and perhaps heard
    while True:
        try:
            sent += parcel.deliver(api, packed.parcels, say)
            posted = True
            asking()
            api.submit(spec.submission, entry.line(), packed.runtime_env, spec.metadata)
            return sent
        except Failed as error:
            asked, reason = True, str(error)
        except Unasked as error:
            if not asked and not (posted and isinstance(error, NotARay)):
                raise
            asked, reason = True, error.reason
        if _taken(api, spec):
            return sent
        if time.monotonic() > deadline:
            raise Lost(
                f"it is not known whether {api.address} took {spec.run}",
                reason,
                f"Ask again: headway status {spec.run}{options(api.address, spec.runs)}; or submit it once more with "
                f"--name {spec.run}: there is one run of a name.",
            )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _taken(api: RayJobs, spec: Spec) -> bool:
    try:
        return api.job(spec.submission) is not None
    except Unasked:
        return False


@dataclass
class Follower:
    """What the driver of a submission tells, from its beginning.

    Args:
        resend: sends the submission again, where Ray has forgotten it; None to end then.
        unheard_s: for which it may be out of reach; None for ever.
        kept: what would have been told at its end, where somebody else than Ray knows that it is over.
    """

    api: RayJobs
    spec: Spec
    say: Say
    resend: Callable[[], Any] | None = None
    unheard_s: float | None = None
    kept: Callable[[], dict[str, Any] | None] = lambda: None
    tail: list[str] = field(default_factory=list)
    """The last lines that it printed for people."""
    has_begun: bool = False
    """Whether its run has."""
    last: RayJob | None = None
    """As it was seen last."""
    _since: float = field(default_factory=time.monotonic)
    _heard: float = field(default_factory=time.monotonic)
    _silent: bool = False
    _waits: bool = True
    _said: str = ""
    _lines: int = 0
    _resent: int = 0

    def told(self) -> Iterator[dict[str, Any]]:
        """Every told line once, waiting for the next; ends when the job is over.

        Raises:
            Lost: Ray has forgotten the job, and it is not to be sent again; or it is out of reach for too long.
        """
        while True:
            try:
                found, text = self._look()
            except Unasked as error:
                if (end := self.kept()) is not None:
                    yield end
                    return
                self._unheard(error.reason)
                continue
            if found is None:
                if (end := self.kept()) is not None:
                    yield end
                    return
                self._again()
                continue
            yield from self._new(text, whole=not found.alive)
            if not found.alive:
                return
            self._tell_of_waiting(found)
            quick = not self.has_begun and time.monotonic() - self._since < QUICK_S
            time.sleep(LOOK_S if quick else SLOW_LOOK_S)

    def _look(self) -> tuple[RayJob | None, str]:
        """The job, and then what it has printed. Of a run that has begun only the end is wanted: it may print much."""
        found = self.api.job(self.spec.submission)
        self.last = found or self.last
        wanted = found is not None and not (self.has_begun and found.alive)
        text = (self.api.logs(self.spec.submission) if wanted else None) or ""
        self._heard = time.monotonic()
        if self._silent:
            self.say(f"{self.api.address} answers again")
            self._silent = False
        return found, text

    def _unheard(self, reason: str) -> None:
        if self.unheard_s is not None and time.monotonic() - self._heard > self.unheard_s:
            raise self._lost(reason)
        if not self._silent:
            self.say(f"{self.api.address} could not be asked ({reason}); asking on")
        self._silent = True
        time.sleep(SLOW_LOOK_S)

    def _tell_of_waiting(self, found: RayJob) -> None:
        """Why its driver has not even begun, in Ray's words, whenever these change."""
        words = f"{self.spec.run} waits for Ray: {found.message}"
        if (
            self._waits
            and found.status == "PENDING"
            and words != self._said
            and time.monotonic() - self._since > SLOW_S
        ):
            self._said = words
            self.say(words)

    def _again(self) -> None:
        if self.resend is None:
            raise self._lost("its head was replaced, or somebody took the job from Ray's list")
        self._resent += 1
        if self._resent > MOST_RESENT:
            raise self._lost(f"it forgot the job {self._resent} times")
        self.say(f"{self.api.address} knows nothing of {self.spec.run}: its head was replaced. It is sent once more")
        self._lines = 0
        self.resend()

    def _new(self, text: str, whole: bool) -> list[dict[str, Any]]:
        """What was told since the last look. whole: nothing more comes, and the last line needs no end."""
        lines = text.split("\n")
        if not whole or not lines[-1]:
            lines.pop()
        new, self._lines = lines[self._lines :], max(self._lines, len(lines))
        self.tail = [*self.tail, *(line for line in new if not told.is_told(line) and line.strip())][-TAIL:]
        found = told.read(new)
        self._waits = self._waits and not found
        return found

    def _lost(self, reason: str) -> Lost:
        there = f"{self.spec.run}{options(self.api.address, self.spec.runs)}"
        remedy = f"headway status {there} reads what the run itself has kept; headway resume goes on with it."
        return Lost(f"{self.api.address} does not say what became of {self.spec.run}", reason, remedy)


def refusal(tree: Mapping[str, Any]) -> HeadwayError:
    """What a driver refused, as if it had been refused here."""
    said = (str(tree.get("fact", "")), str(tree.get("reason", "")), str(tree.get("remedy", "")))
    code = int(tree.get("exit_code", BAD_INPUT))
    error: HeadwayError = BadInput(*said) if code == BAD_INPUT else RunFailed(*said)
    error.exit_code = code
    error.traceback = str(tree.get("traceback") or "")
    return error


def silent_end(found: RayJob | None, follower: Follower) -> HeadwayError:
    """A job that ended before its driver told anything: Ray could not make what it needs, say."""
    words = [line.strip() for line in (found.detail if found else "").splitlines() if line.strip()]
    reason = "; ".join(words[-2:]) if words else "Ray says no more"
    if found is not None and found.exit_code is not None:
        reason = f"its driver ended with exit code {found.exit_code}"
    if follower.tail:
        reason = f"{reason}. The last that it printed: {' | '.join(follower.tail[-3:])}"
    return RunFailed(f"{follower.spec.run} did not begin on {follower.api.address}", reason, "")


def forget(api: RayJobs, name: str, within_s: float = END_S) -> bool:
    """Take a job that is ending from Ray's list. Whether that could be done; nothing hangs on it."""
    deadline = time.monotonic() + within_s
    with suppress(HeadwayError):
        while (found := api.job(name)) is not None:
            if not found.alive:
                time.sleep(SETTLE_S)
                return api.delete(name)
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True
    return False


def sweep(api: RayJobs, listed: Iterable[RayJob]) -> None:
    """Take from Ray's list what came back there after it had been taken from it; and what made no run, and that nobody
    has waited for."""
    for found in listed:
        if found.alive or not found.id.startswith(PREFIX):
            continue
        stray = not found.run and STRAY in found.message
        left = found.kind in ("check", "doctor", "queue") and time.time() - (found.ended or time.time()) > LEFT_S
        if stray or left:
            with suppress(HeadwayError):
                api.delete(found.id)


def ask(api: RayJobs, spec: Spec, packed: Packed, say: Say) -> list[dict[str, Any]]:
    """Send what makes no run (`check`, `doctor`), hear all that is told, and leave nothing in Ray's list.

    Raises:
        HeadwayError: it was refused, or ended without a word; or nobody could be asked.
    """
    send(api, spec, packed, say)
    follower = Follower(api, spec, say, lambda: send(api, spec, packed, say), unheard_s=ANSWER_S)
    found: list[dict[str, Any]] = []
    try:
        for tree in follower.told():
            found.append(tree)
            if tree["told"] == "note":
                say(str(tree["text"]))
            if tree["told"] == "refused":
                raise refusal(tree)
            if tree["told"] == "ended":
                return found
        raise silent_end(follower.last, follower)
    except KeyboardInterrupt:
        with suppress(HeadwayError):
            api.stop(spec.submission)  # nobody waits for it any more
        raise
    finally:
        forget(api, spec.submission)
