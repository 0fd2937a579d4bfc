"""A submission until it has begun, or ended: sent, followed, and taken back where nothing came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from headway.core import ends
from headway.errors import FINISHED, BadInput, HeadwayError
from headway.jobs import entry
from headway.jobs.api.client import RayJobs
from headway.jobs.send import install, naming, parcel, sending
from headway.jobs.send.sending import ANSWER_S, Follower, Packed, Say
from headway.jobs.send.wording import options
from headway.jobs.spec import FILE, Spec, new_attempt, to_json


class Left(KeyboardInterrupt):
    """Ctrl-C, and what was submitted goes on.

    Args:
        run: its name, with the options that other commands find it by.
    """

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.run = run


@dataclass(frozen=True)
class Submitted:
    """What became of a submission.

    Args:
        run: its name.
        submission: Ray's id of the job.
        address: of the cluster.
        runs: where the run is kept; None for what the cluster's machines say themselves.
        state: checked, running, or how it ended.
        where: the run itself is; "" of a dry run.
        message: why, where the state needs a reason.
        plan: what was told before it began.
        resumed_from: the step that it went on from; None from its beginning.
        elsewhere: it is led already, by what was sent before.
        sent_bytes: that the cluster did not have yet.
        installed: requirements that were installed for it.
        exit_code: of `headway submit`.
    """

    run: str
    submission: str
    address: str
    runs: str | None
    state: str = "checking"
    where: str = ""
    message: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    resumed_from: int | None = None
    elsewhere: bool = False
    sent_bytes: int = 0
    installed: tuple[str, ...] = ()
    exit_code: int = FINISHED

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class How:
    """What whoever submits wants of it.

    Args:
        wait: for the run's end.
        install: packages that the cluster lacks.
        say: takes what they should know.
        plan: takes the plan, before the run begins.
    """

    wait: bool
    install: bool
    say: Say
    plan: Callable[[dict[str, Any]], None]


class _Lacking(Exception):
    def __init__(self, packages: Mapping[str, list[str | None]], refusal: HeadwayError) -> None:
        super().__init__(refusal)
        self.packages, self.refusal = packages, refusal


def begin(api: RayJobs, spec: Spec, files: Mapping[str, Path | bytes], how: How) -> Submitted:
    """Send it, and follow it until it has begun; to its end, where that is waited for.

    Args:
        files: of the task, by their names in the job's folder.

    Raises:
        BadInput: it was refused; nothing is left.
        HeadwayError: it could not begin, or it is not known whether it did.
    """
    try:
        return _Beginning(api, spec, files, how, ()).follow()
    except _Lacking as lacking:
        if not how.install:
            raise lacking.refusal from None
        wanted = tuple(install.requirements(lacking.packages))
    how.say(f"installing {', '.join(wanted)}: Ray copies its environment for that on every machine of the run")
    begun = time.monotonic()
    again = replace(spec, attempt=new_attempt())
    try:
        return _Beginning(api, again, files, how, wanted, begun).follow()
    except _Lacking as lacking:
        raise lacking.refusal from None


class _Beginning:
    def __init__(
        self,
        api: RayJobs,
        spec: Spec,
        files: Mapping[str, Path | bytes],
        how: How,
        wanted: tuple[str, ...],
        since: float | None = None,
    ) -> None:
        self._api, self._spec, self._how, self._wanted, self._since = api, spec, how, wanted, since
        own = {FILE: to_json(spec).encode(), entry.FILE: entry.script().encode()}
        packages = install.runtime_env(wanted) if wanted else {}
        self._packed = Packed(parcel.packed({**files, **own}), (parcel.headway(),), packages)
        self._asked = False
        self._lacks: dict[str, list[str | None]] = {}
        self._follower = Follower(api, spec, how.say, self._send, unheard_s=ANSWER_S, kept=self._kept)
        self._done = Submitted(spec.run, spec.submission, api.address, spec.runs, installed=wanted)

    def follow(self) -> Submitted:
        try:
            self._send()
            for tree in self._follower.told():
                if self._hear(tree):
                    return self._done
        except KeyboardInterrupt:
            if self._spec.kind == "check" and self._asked:
                with suppress(HeadwayError):
                    self._api.stop(self._spec.submission)
                sending.forget(self._api, self._spec.submission)
                raise
            if self._asked:
                raise Left(f"{self._spec.run}{options(self._api.address, self._spec.runs)}") from None
            raise
        raise self._silent()

    def _send(self) -> None:
        sent = sending.send(self._api, self._spec, self._packed, self._how.say, asking=self._note_asking)
        self._done = replace(self._done, sent_bytes=self._done.sent_bytes + sent)

    def _note_asking(self) -> None:
        self._asked = True

    def _hear(self, tree: Mapping[str, Any]) -> bool:
        """Take what was told; whether that is all that is wanted."""
        if self._since is not None:
            self._how.say(f"installed in {time.monotonic() - self._since:.0f} s")
            self._since = None
        match tree["told"]:
            case "note":
                self._how.say(str(tree["text"]))
            case "lacks":
                self._lacks |= tree["packages"]
            case "plan":
                plan = {name: each for name, each in tree.items() if name != "told"}
                self._done = replace(self._done, plan={**plan, "sent_bytes": self._done.sent_bytes})
                self._how.plan(self._done.plan)
            case "refused":
                refusal = self._refused(tree)
                raise _Lacking(self._lacks, refusal) if self._lacks else refusal
            case "began":
                return self._begun(tree)
            case "ended":
                self._ended(tree)
                return True
        return False

    def _refused(self, tree: Mapping[str, Any]) -> HeadwayError:
        """Nothing is left where what was asked for is to blame. Else Ray keeps the log, and its end is shown."""
        refusal = sending.refusal(tree)
        if isinstance(refusal, BadInput):
            sending.forget(self._api, self._spec.submission)
            return refusal
        for line in self._follower.tail:
            self._how.say(f"  {line}")
        self._how.say(f"Ray keeps all that it printed: job {self._spec.submission} on {self._api.address}")
        return refusal

    def _begun(self, tree: Mapping[str, Any]) -> bool:
        where, step = str(tree.get("where") or ""), tree.get("resumed_from")
        elsewhere = bool(tree.get("elsewhere"))
        self._done = replace(self._done, state="running", where=where, resumed_from=step, elsewhere=elsewhere)
        self._follower.has_begun = True
        self._follower.resend, self._follower.unheard_s = None, None  # it is not to be begun twice, nor given up
        if elsewhere and self._how.wait:
            self._ended(self._awaited())
            return True
        return not self._how.wait

    def _awaited(self) -> dict[str, Any]:
        """The end of a run that another job leads; of that nothing is told here, and its store knows it."""
        seen = time.monotonic()
        while (end := self._kept()) is None:
            if naming.Look(self._spec.runs, self._spec.run).found() is not None:
                seen = time.monotonic()
            elif time.monotonic() - seen > ANSWER_S:
                there = options(self._api.address, self._spec.runs)
                remedy = f"Ask again: headway status {self._spec.run}{there}."
                raise sending.Lost(f"{self._spec.run} is led by another job", "its store cannot be read here", remedy)
            time.sleep(sending.SLOW_LOOK_S)
        return end

    def _ended(self, tree: Mapping[str, Any]) -> None:
        if self._spec.kind == "check":
            sending.forget(self._api, self._spec.submission)
        state, message, code = str(tree["state"]), str(tree.get("message") or ""), int(tree.get("exit_code", 0))
        self._done = replace(self._done, state=state, message=message, exit_code=code)

    def _kept(self) -> dict[str, Any] | None:
        """How the run ended, as its store says: asked where Ray says nothing of one that had begun."""
        if self._done.state != "running":
            return None
        brief = naming.Look(self._spec.runs, self._spec.run).found()
        if brief is None or brief.unclosed or brief.state not in ends.OVER:  # that it is not heard of is no end
            return None
        code = ends.exit_code(brief.state, brief.cause)
        return {"told": "ended", "state": brief.state, "message": brief.message, "exit_code": code}

    def _silent(self) -> HeadwayError:
        """Nothing more is told, and the last word is missing."""
        found = self._follower.last
        if self._done.state == "running":
            return sending.silent_end(found, self._follower)
        sending.forget(self._api, self._spec.submission)
        if self._wanted and found is not None and found.exit_code is None:
            fact = f"{', '.join(self._wanted)} could not be installed on {self._api.address}"
            return BadInput(fact, install.failure(found.detail), "Install them there, then submit again.")
        return sending.silent_end(found, self._follower)
