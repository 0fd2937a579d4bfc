"""What happened to a run, told for people: what it was, who or what did it, and what was done.

Events are as they stand in `events.jsonl`, from any release: what one lacks is left out, and a kind that is not known
is told as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]

CAUSES = {
    "process_died": "its process ended",
    "node_died": "its node is gone",
    "link_cut": "the link to it is cut",
    "stopped": "its process stands still",
    "hung": "its training thread hangs",
    "diverged": "its replica differed again and again",
    "start_failed": "it could not be started",
    "connection_lost": "the workers' connections broke",
    "parted": "the others cannot reach it",
    "hardware": "its machine is ill",
    "unreachable": "it cannot be reached",
    "stuck": "all waited for each other, and nobody got on",
}
RESUMABLE = ("stopped", "interrupted", "failed")
NAMED = 8
"""So many workers are told by name."""


@dataclass(frozen=True)
class Entry:
    """Something that happened.

    Args:
        what: it was.
        cause: who or what did it; empty where that is not known, or said already.
        done: what was done; empty where that is nothing, or said already.
    """

    what: str
    cause: str = ""
    done: str = ""

    @property
    def text(self) -> str:
        """In a line."""
        head = f"{self.what}: {self.cause}" if self.cause else self.what
        return f"{head}; {self.done}" if self.done else head


def tell(event: Event) -> Entry:
    """What happened."""
    kind = str(event.get("kind", ""))
    try:
        return _WORDS[kind](event)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # of another release
        rest = "  ".join(f"{name}={value}" for name, value in event.items() if name not in ("kind", "time"))
        return Entry(f"{kind}: {rest}" if rest else kind)


def live(event: Event) -> str:
    """The line that is said while the run is followed; nothing for what is of no concern then."""
    return tell(event).text if _concerns(event) else ""


def _concerns(event: Event) -> bool:
    kind = event["kind"]
    if event.get("quiet"):
        return False
    if kind == "raised":
        return bool(event["starting"]) or event["fault"] == "machine"
    if kind == "slow":
        return bool(event["factor"] > 1.0)
    return kind in LIVE


LIVE = frozenset(
    (
        *("recovery", "restart", "pause", "drain", "head_drain", "at_risk", "doubt", "stop", "resize"),
        *("crowded", "rounding", "refused", "replica", "quarantine", "policy", "foreseen"),
    )
)
"""Kinds of which all are said while a run is followed."""
QUIET = frozenset({"workers", "stake"})
"""Kinds that are for those who count."""


def _start(event: Event) -> Entry:
    again, by = event["step"] > 0, event.get("by")
    what = f"started on {event['host']}" + (f" again, with {_steps(event['step'])} recorded" if again else "")
    return Entry(what, f"submitted by {by}" if by else "")


def _generation(event: Event) -> Entry:
    members = list(event["members"])
    named = ", ".join(members[:NAMED]) + (", ..." if len(members) > NAMED else "")
    since = f" from step {event['step']} on" if event["step"] >= 0 else ""
    verb = "trains" if len(members) == 1 else "train"
    return Entry(f"{_count(len(members), 'worker')} {verb}{since} ({named})", str(event["reason"]))


def _workers(event: Event) -> Entry:
    return Entry(f"{_count(event['workers'], 'worker')} from step {event['step']} on")


def _recovery(event: Event) -> Entry:
    who = " and ".join(event["workers"])
    pause = f"{event['pause_s']:.2f} s"
    cause = event["cause"]
    if cause == "joined":
        return Entry(f"{who} joined before step {event['step']} (a pause of {pause})")
    if cause in ("drained", "resized"):
        return Entry(f"{who} left after step {event['step'] - 1} (a pause of {pause})")
    if cause == "rebalanced":
        return Entry(f"lanes are shared anew since step {event['step'] - 1}")
    why = CAUSES.get(cause, str(cause))
    if event.get("kept"):
        done = "nobody was left, and training went on from a state that was kept in memory"
    elif event.get("lost_steps"):
        done = f"nobody was left, and training went on from a checkpoint ({event['lost_steps']} steps back)"
    else:
        done = f"the others went on with step {event['step'] - 1} after {pause}, nothing was lost"
    return Entry(f"lost {who}", why, done)


def _restart(event: Event) -> Entry:
    lost = event["lost_steps"]
    if not event.get("kept"):
        return Entry(f"going on from the checkpoint of step {event['from_step']}", f"{lost} steps are done again")
    again = f"{lost} steps are done again" if lost else "nothing is done again"
    return Entry(f"going on from the state of step {event['from_step']} that a keeper held", again)


def _gone(event: Event) -> Entry:
    why = CAUSES.get(event["cause"], str(event["cause"]))
    return Entry(f"{event['worker']} is gone before it trained", why, "another is asked for")


def _lost(event: Event) -> Entry:
    peers = ", ".join(event.get("peers") or ())
    done = "the others tell whether anybody is gone"
    return Entry(f"{event['worker']} lost {peers or 'the others'} in the middle of a step", str(event["reason"]), done)


def _drain(event: Event) -> Entry:
    what = f"{event['worker']}'s machine is taken away in {event['deadline_s']:.0f} s"
    return Entry(what, event.get("reason", ""), "its lanes move on")


def _head_drain(event: Event) -> Entry:
    what = f"the machine that leads the run is taken away in {event['deadline_s']:.0f} s"
    return Entry(what, event.get("reason", ""))


def _at_risk(event: Event) -> Entry:
    what = f"{event['worker']}'s machine may be taken away before long"
    return Entry(what, str(event["reason"]), "it leaves when another has taken its place")


def _lingered(event: Event) -> Entry:
    return Entry(f"{event['worker']} was let go, and had not ended {event['seconds']:.0f} s later", done="it is ended")


def _doubt(event: Event) -> Entry:
    if event["reason"]:
        return Entry("nobody is given up for silence now", str(event["reason"]))
    return Entry("workers are heard again")


def _raised(event: Event) -> Entry:
    told = f"{event['fact']}: {event['reason']} (node {event['node_id'][:8]})"
    if event["starting"] or event["fault"] == "machine":
        return Entry(f"{event['worker']} {'could not start' if event['starting'] else 'leaves'}", told)
    return Entry(f"the task raised on {event['worker']}", told)


def _crowded(event: Event) -> Entry:
    return Entry(f"there is no room for a spare ({event['worker']})", "training goes on without, until there is")


def _rounding(event: Event) -> Entry:
    does = "it is not taken" if event["refused"] else "it is taken all the same"
    return Entry(f"{event['worker']}'s machine rounds otherwise than the others", does)


def _refused(event: Event) -> Entry:
    counts = ", ".join(f"{number} {why}" for why, number in event["counts"].items())
    return Entry("refused on the run's ports so far", counts)


def _replica(event: Event) -> Entry:
    what = f"the replica of {event['worker']} differed before step {event['step']}, and took the majority's state"
    return Entry(what)


def _quarantine(event: Event) -> Entry:
    return Entry(f"{event['rows']} rows of {event['source']} are set aside", str(event["reason"]))


def _slow(event: Event) -> Entry:
    if event["factor"] > 1.0:
        return Entry(f"{event['worker']} takes {event['factor']:.1f} times as long per lane as the others")
    return Entry(f"{event['worker']} is as fast as the others again")


def _warned(event: Event) -> Entry:
    return Entry(f"{event['worker']} warns", str(event["text"]))


def _checkpoint(event: Event) -> Entry:
    return Entry(f"the checkpoint of step {event['step']} is written ({_size(event['bytes'])})")


def _checkpoint_failed(event: Event) -> Entry:
    return Entry("a checkpoint could not be written", str(event["error"]), "training goes on, and tries again")


def _pause(event: Event) -> Entry:
    return Entry("training pauses", str(event["reason"]))


def _stop(event: Event) -> Entry:
    how = "at once, without a checkpoint" if event["now"] else "after a checkpoint"
    return Entry(f"{event['by'] or 'a signal'} asks the run to end {how}", str(event.get("why") or ""))


def _resize(event: Event) -> Entry:
    least = f", at least {event['min']}" if event["min"] < event["max"] else ""
    return Entry(f"{event['by']} asks for {_count(event['max'], 'worker')}{least}")


def _demand(event: Event) -> Entry:
    return Entry(f"machines are asked for, for {_count(event['workers'], 'worker')} in all", str(event["reason"]))


def _policy(event: Event) -> Entry:
    number, on_demand = event["workers"], event["on_demand"]
    where = " on demand" if on_demand == number else f", {on_demand} of them on demand"
    where = "" if on_demand is None else where if on_demand else " on spot machines"
    what = f"{_count(number, 'worker')}{where}"
    return Entry(what, str(event["reason"]), f"{event['spent']:.4f} dollars so far")


def _foreseen(event: Event) -> Entry:
    return Entry("no longer foreseen" if event["over"] else "foreseen", str(event["text"]))


def _purchase(event: Event) -> Entry:
    """A machine: it costs, costs something else, or is gone."""
    machine = f"machine {event['machine']}"
    if "until" in event:
        return Entry(f"{machine} costs {'something after all' if event['until'] is None else 'nothing any more'}")
    if "per_worker" in event:
        price = f"${event['per_worker']:g} for an hour of each worker on it"
    else:
        price = "it has no price" if event.get("unpriced") else f"${event['per_hour']:g} an hour"
    if "since" not in event:
        return Entry(f"{machine} costs {price} now")
    where = f" in {event['zone']}" if event.get("zone") else ""
    kind = f"{event['type']}{where}{', spot' if event.get('spot') else ''}{', the head' if event.get('head') else ''}"
    return Entry(f"{machine} is paid for ({kind})", price)


def _stake(event: Event) -> Entry:
    """What the run has of a machine, or stores."""
    if "share" in event:
        return Entry(f"the run pays {event['share']:.1%} of machine {event['machine']}")
    if "workers" in event:
        return Entry(f"machine {event['machine']} carries {_count(event['workers'], 'worker')} of the run")
    if "stored_gb" in event:
        return Entry(f"{event['stored_gb']:g} GB are stored for the run")
    return Entry(f"a gigabyte costs ${event['storage']:g} a month")


def _end(event: Event) -> Entry:
    state, message = event["state"], str(event.get("message") or "")
    after = f" after step {event['step']}"
    what = state if after in message else f"{state}{after}"
    if event.get("cause"):
        what += " by the task's fault" if event["cause"] == "task" else " by the platform's fault"
    if event.get("closed_by"):
        message = f"{message} (found by {event['closed_by']})".strip()
    return Entry(what, message, "headway resume goes on with it" if state in RESUMABLE else "")


def _submission(event: Event) -> Entry:
    message = str(event.get("message") or "").partition(LOGS_OF_RAY)[0].partition("\n")[0]
    said = f"{event['status']}: {message}" if message else str(event["status"])
    if not event["ended"]:
        return Entry("submitted to the cluster", f"by {event['by']}" if event.get("by") else "", str(event["id"]))
    return Entry(f"Ray says that {event['id']} has ended", said)


def _steps(number: int) -> str:
    return _count(number, "step")


def _size(number: int) -> str:
    return f"{number / 1e6:,.1f} MB" if number >= 1e5 else f"{number / 1e3:,.1f} kB"


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


_WORDS: dict[str, Callable[[Event], Entry]] = {
    "start": _start,
    "generation": _generation,
    "workers": _workers,
    "recovery": _recovery,
    "restart": _restart,
    "gone": _gone,
    "lost": _lost,
    "drain": _drain,
    "head_drain": _head_drain,
    "at_risk": _at_risk,
    "lingered": _lingered,
    "pause": _pause,
    "doubt": _doubt,
    "raised": _raised,
    "crowded": _crowded,
    "rounding": _rounding,
    "refused": _refused,
    "replica": _replica,
    "quarantine": _quarantine,
    "slow": _slow,
    "warned": _warned,
    "checkpoint": _checkpoint,
    "checkpoint_failed": _checkpoint_failed,
    "stop": _stop,
    "resize": _resize,
    "demand": _demand,
    "policy": _policy,
    "foreseen": _foreseen,
    "purchase": _purchase,
    "stake": _stake,
    "end": _end,
    "submission": _submission,
}
LOGS_OF_RAY = ", last available logs"
"""Behind which Ray's message of a job that failed has the end of what it printed."""
KINDS = frozenset(_WORDS)
"""That are known."""
