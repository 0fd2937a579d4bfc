"""What the clouds' metadata services say of a machine's end, and when it is believed.

A service may lie, hang, or answer nonsense; what it says costs a machine its work. So an answer counts only in the form
that its cloud documents, a notice only if it is heard twice in a row and its time makes sense, and no machine is given
up often. Nothing is asked for here, and no clock is read.

- https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
- https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html
- https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
- https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

DRAIN, RISK_KEY, AGENT = "drain/", "risk/", "agent/"
"""What agents keep in Ray's internal store begins with these, and a node's id follows: why it is drained, that it is at
risk, and how its agent is. Beside the news of `headway.core.news`."""
GOES: Final = "goes"
RISK: Final = "risk"
PAUSE: Final = "pause"
LATE_S = 60.0
"""A time that is past by more is no notice any more: the machine is still there."""
AHEAD_S = 900.0
"""A time that is farther away is waited for: nobody gives so much notice of what is certain."""
NEARER_S = 5.0
"""An end that comes nearer by more is told to Ray again."""
AGAIN_S = 600.0
"""The same doubt is told again after so long."""
OVERDUE_S = 60.0
"""So long after its time an end that was announced has not come."""
DRAINS = 3
WITHIN_S = 3600.0
"""No more than so many drains in so long: ends that are announced again and again, and do not come, are none."""
GCP_S = 30.0
"""Google gives no time: so long after its notice the machine is switched off."""
GCP_MAINTENANCE_S = 60.0
FREEZE_S = 20.0
"""A pause that Azure says will be shorter is sat out: a drained node is lost to Ray for good."""
QUOTED = 80
_NAME_CHARS = 200


@dataclass(frozen=True)
class Answer:
    """What a service said: `headers` by names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Notice:
    """What a cloud announces.

    Args:
        kind: `goes`: the machine will be taken away, or restarted; `risk`: it may be before long; `pause`: it stands
            still for a moment and goes on.
        id: tells it from others of its cloud.
        words: for people.
        left_s: seconds until then, by the service's own clock where it tells it.
        event: Azure's id, by which it is told that the machine may go at once.
    """

    kind: Literal["goes", "risk", "pause"]
    id: str
    words: str
    left_s: float
    event: str = ""


class Nonsense(ValueError):
    """The answer is none that this service gives, or not this machine's."""


def aws_action(answer: Answer, now: float) -> tuple[Notice, ...]:
    """Of `latest/meta-data/spot/instance-action`: 404 while there is nothing.

    Args:
        now: Unix seconds here, where the service does not tell its own.

    Raises:
        Nonsense: see there.
    """
    if answer.status == 404:
        return ()
    said = document(answer)
    action, at = said.get("action"), said.get("time")
    if action not in ("terminate", "stop", "hibernate"):
        raise Nonsense(f"no action of a spot machine: {_quoted(action)}")
    words = f"AWS takes this spot machine back ({action})"
    return (Notice(GOES, f"aws {action} {_quoted(at)}", words, _iso(at) - _there(answer, now)),)


def aws_rebalance(answer: Answer, now: float) -> tuple[Notice, ...]:
    """Of `latest/meta-data/events/recommendations/rebalance`: 404 while there is nothing. As `aws_action`."""
    if answer.status == 404:
        return ()
    at = document(answer).get("noticeTime")
    _iso(at)
    return (Notice(RISK, f"aws rebalance {_quoted(at)}", "AWS says that this spot machine may soon be taken", 0.0),)


def gcp_preempted(answer: Answer, now: float) -> tuple[Notice, ...]:
    """Of `instance/preempted`: TRUE or FALSE. As `aws_action`."""
    said = _google(answer)
    if said == "FALSE":
        return ()
    if said != "TRUE":
        raise Nonsense(f"neither TRUE nor FALSE: {_quoted(said)}")
    return (Notice(GOES, "gcp preempted", "Google takes this spot machine back", GCP_S),)


def gcp_maintenance(answer: Answer, now: float) -> tuple[Notice, ...]:
    """Of `instance/maintenance-event`. As `aws_action`."""
    said = _google(answer)
    if said == "NONE":
        return ()
    if said == "TERMINATE_ON_HOST_MAINTENANCE":
        return (Notice(GOES, "gcp maintenance", "Google ends this machine for its host's upkeep", GCP_MAINTENANCE_S),)
    if said == "MIGRATE_ON_HOST_MAINTENANCE":
        return (Notice(PAUSE, "gcp migration", "Google moves this machine to another host", GCP_MAINTENANCE_S),)
    raise Nonsense(f"no maintenance event: {_quoted(said)}")


def azure_events(answer: Answer, now: float, name: str) -> tuple[Notice, ...]:
    """Of `metadata/scheduledevents`: those that concern this machine. As `aws_action`.

    Args:
        name: Azure's, of this machine.
    """
    events = document(answer).get("Events")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise Nonsense("no list of events")
    return tuple(_azure(event, _there(answer, now)) for event in events if name in _resources(event))


_AZURE = {
    "Preempt": "takes this spot machine back",
    "Terminate": "ends this machine",
    "Reboot": "restarts this machine",
    "Redeploy": "moves this machine to another host, by a restart",
    "Freeze": "stops this machine for a moment",
}


def _azure(event: Mapping[str, Any], there: float) -> Notice:
    kind, key, status = event.get("EventType"), event.get("EventId"), event.get("EventStatus")
    if kind not in _AZURE or status not in ("Scheduled", "Started"):
        raise Nonsense(f"no event that is known: {_quoted(kind)}, {_quoted(status)}")
    if not isinstance(key, str) or not 0 < len(key) <= _NAME_CHARS:
        raise Nonsense(f"an event without an id: {_quoted(key)}")
    at = event.get("NotBefore")
    left_s = _http_date(at) - there if status == "Scheduled" else 0.0  # of what has begun Azure says no time
    means: Literal["goes", "pause"] = GOES
    if kind == "Freeze":
        lasts_s = event.get("DurationInSeconds", -1)
        if type(lasts_s) is not int:
            raise Nonsense(f"no seconds for a pause: {_quoted(lasts_s)}")
        means = PAUSE if lasts_s <= FREEZE_S else GOES
    return Notice(means, f"azure {key}", f"Azure {_AZURE[kind]} ({kind})", left_s, key)


def _resources(event: Mapping[str, Any]) -> list[Any]:
    found = event.get("Resources")
    return found if isinstance(found, list) else []


def document(answer: Answer) -> dict[str, Any]:
    """The JSON object of a good answer. Raises Nonsense."""
    _good(answer)
    try:
        tree = json.loads(answer.body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Nonsense(f"no JSON: {_quoted(answer.body)}") from error
    if not isinstance(tree, dict):
        raise Nonsense(f"no JSON object: {_quoted(answer.body)}")
    return tree


def _google(answer: Answer) -> str:
    _good(answer)
    if answer.headers.get("metadata-flavor") != "Google":
        raise Nonsense("the answer does not come from Google's metadata service")
    return answer.body.decode("ascii", "replace").strip()


def _good(answer: Answer) -> None:
    if 300 <= answer.status < 400:
        raise Nonsense(f"it points elsewhere ({answer.status}), which is not followed")
    if answer.status != 200:
        raise Nonsense(f"it answers {answer.status}: {_quoted(answer.body)}")


def _there(answer: Answer, now: float) -> float:
    """Unix seconds by the service's clock: this machine's own may be wrong."""
    said = answer.headers.get("date")
    if said is None:
        return now
    try:
        return _http_date(said)
    except Nonsense:
        return now


def _iso(said: Any) -> float:
    try:
        at = datetime.fromisoformat(said)
        return at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError) as error:
        raise Nonsense(f"no time: {_quoted(said)}") from error


def _http_date(said: Any) -> float:
    try:
        at = parsedate_to_datetime(said)
        return at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise Nonsense(f"no time: {_quoted(said)}") from error


def _quoted(said: Any) -> str:
    """What a service said, short and without what could harm a terminal or a log."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    kept = "".join(each if each.isprintable() else " " for each in text[:QUOTED])
    return kept + ("…" if len(text) > QUOTED else "")


def why(kept: bytes | None) -> str:
    """The reason in what an agent kept under DRAIN or RISK_KEY; "" where there is none, or nothing that can be read."""
    try:
        return _quoted(json.loads(kept or b"{}").get("why", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


@dataclass(frozen=True)
class Drain:
    """The node is to be drained: its machine goes in `left_s` seconds."""

    notice: Notice
    left_s: float


@dataclass(frozen=True)
class AtRisk:
    """Whoever works on the node is to be replaced, and then the node drained."""

    notice: Notice


@dataclass(frozen=True)
class Doubt:
    """Nothing is done, for this reason."""

    reason: str


Deed = Drain | AtRisk | Doubt


@dataclass
class _Known:
    """A notice that was heard: how often in a row, when its end is, and which end Ray was told of."""

    times: int = 0
    deadline: float = float("inf")
    told: float | None = None
    late: bool = False


@dataclass
class Judge:
    """Decides what to do about what is heard. Times are seconds of any clock that only goes forward.

    Args:
        rebalance: what is done for a machine at risk: nothing ("ignore"), or "replace".
        times: so often in a row a notice must be heard.
    """

    rebalance: Literal["ignore", "replace"] = "ignore"
    times: int = 2
    _known: dict[tuple[str, str], _Known] = field(default_factory=dict)
    _drains: list[float] = field(default_factory=list)
    _risk: float = float("-inf")
    _doubts: dict[str, float] = field(default_factory=dict)

    def unsure(self, source: str) -> bool:
        """Whether a source should be asked again at once."""
        return any(key[0] == source and 0 < known.times < self.times for key, known in self._known.items())

    def hear(self, source: str, notices: Sequence[Notice], now: float) -> list[Deed]:
        """What is to be done now that a source has answered, with all that it announces at present."""
        present = {notice.id for notice in notices}
        for key in [key for key in self._known if key[0] == source and key[1] not in present]:
            if self._known[key].told is None or self._known[key].late:
                del self._known[key]  # it was a glitch, or it was withdrawn; the next one of its name is another
        deeds: list[Deed] = []
        for notice in notices:
            known = self._known.setdefault((source, notice.id), _Known())
            known.times += 1
            known.deadline = min(known.deadline, now + notice.left_s)
            if known.times >= self.times:
                deeds += self._believe(notice, known, now)
        return deeds

    def look(self, now: float) -> list[Doubt]:
        """What is to be said of ends that were announced, and have not come."""
        late = [k for k in self._known.values() if k.told is not None and now > k.told + OVERDUE_S and not k.late]
        for known in late:
            known.late = True
        return [Doubt("the end that was announced has not come, and Ray takes no node back") for _ in late]

    def _believe(self, notice: Notice, known: _Known, now: float) -> list[Deed]:
        left_s = known.deadline - now
        if notice.kind == PAUSE:
            return self._doubt("pause", f"{notice.words}: it is sat out", now)
        if notice.kind == RISK:
            return self._at_risk(notice, now)
        if known.told is not None and known.deadline > known.told - NEARER_S:
            return []
        if left_s < -LATE_S:
            return self._doubt("past", f"{notice.words}, {-left_s:.0f} s ago: this machine is still here", now)
        if left_s > AHEAD_S:
            return self._doubt("ahead", f"{notice.words} in {left_s / 60:.0f} minutes: that is far away", now)
        self._drains = [at for at in self._drains if at > now - WITHIN_S]
        if len(self._drains) >= DRAINS:
            return self._doubt("often", f"{notice.words}: after {DRAINS} within an hour it is not believed", now)
        self._drains.append(now)
        known.told = known.deadline
        return [Drain(notice, max(0.0, left_s))]

    def _at_risk(self, notice: Notice, now: float) -> list[Deed]:
        if self.rebalance == "ignore":
            return self._doubt("risk", f"{notice.words}: nothing is done before it is taken", now)
        if now < self._risk + WITHIN_S:
            return []
        self._risk = now
        return [AtRisk(notice)]

    def _doubt(self, kind: str, reason: str, now: float) -> list[Deed]:
        """Said once in a while, however often it is heard."""
        if now < self._doubts.get(kind, float("-inf")) + AGAIN_S:
            return []
        self._doubts[kind] = now
        return [Doubt(reason)]
