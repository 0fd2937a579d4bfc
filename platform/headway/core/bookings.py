"""The queue's book: its entries, rules and answers, and what becomes of them by what somebody wishes. Pure.

A wish is applied once: the book knows by its id that it was, and what was answered, as long as the wish lies in the
store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from headway.core import enqueued
from headway.core.enqueued import Entry
from headway.core.queued import Quota, Rules
from headway.core.quotas import contradictions

PREPARED = 1
"""Jobs that wait and are prepared, unless somebody says otherwise: each has processes on the head, and takes no CPU."""
KEPT_OVER = 100
"""So many entries that are over stay in the book."""
KEPT_ANSWERS = 500
RULES = ("most_running", "fair", "snooze_s", "held_for_s", "raised_s")
"""Rules that may be set, beside the quotas."""


@dataclass(frozen=True)
class Wish:
    """What somebody asks of the queue.

    Args:
        id: nobody else's.
        do: submit, set, move, rm, rules.
        by: who, for people; at: Unix seconds, likewise.
        what: by `do`: {"entry": ...}; {"run", "priority", "user", "team"}; {"run", "before" or "last"}; {"run"};
            {"rules": ...}.
    """

    id: str
    do: str
    by: str
    at: float
    what: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What became of a wish: done, or an error's three sentences. run: that was put into the queue by it."""

    said: str = ""
    fact: str = ""
    reason: str = ""
    remedy: str = ""
    run: str = ""

    @property
    def refused(self) -> bool:
        return bool(self.fact)


@dataclass(frozen=True)
class Book:
    """The queue at one moment.

    Args:
        entries: by run, in the order of their submission.
        rules: see `headway.core.queued.Rules`.
        answers: by the ids of wishes.
        prepared: so many that wait have all ready but their workers.
        waits: why each that waits does, by run, in the order in which they will be looked at.
        cluster: whose queue this is.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    prepared: int = PREPARED
    answers: Mapping[str, Answer] = field(default_factory=dict)
    waits: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""

    def put(self, entry: Entry) -> Book:
        """With this entry as it is now."""
        return replace(self, entries={**self.entries, entry.run: entry})

    def answered(self, wish: Wish, answer: Answer) -> Book:
        return replace(self, answers={**self.answers, wish.id: answer})

    @property
    def alive(self) -> list[Entry]:
        """Those that are not over."""
        return [entry for entry in self.entries.values() if not entry.over]

    @property
    def parcels(self) -> set[str]:
        """What must be kept of what travels."""
        return {name for entry in self.alive for name in entry.parcels}


def apply(book: Book, wish: Wish, now: float) -> Book:
    """The book with a wish's answer, and what that came to. One that was applied before changes nothing."""
    if wish.id in book.answers:
        return book
    try:
        match wish.do:
            case "submit":
                return _submitted(book, wish, now)
            case "rules":
                rules = admitted(rules_of(wish.what["rules"]))
                many = int(wish.what["rules"].get("prepared", book.prepared))
                return replace(book, rules=rules, prepared=many).answered(wish, Answer("the queue's rules are changed"))
            case "set" | "move" | "rm":
                entry = book.entries.get(str(wish.what["run"]))
                if entry is None or entry.over:
                    return book.answered(wish, _nobody(book, str(wish.what["run"])))
                return _changed(book, entry, wish, now)
        return book.answered(wish, Answer(fact=f"the queue cannot {wish.do}", remedy=_RELEASE))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return refused(book, wish, error)


def refused(book: Book, wish: Wish, error: Exception) -> Book:
    """The book as it was, with the answer that nothing can be done by this wish."""
    return book.answered(wish, Answer(fact=f"a wish of {wish.by} cannot be granted", reason=str(error) or repr(error)))


_RELEASE = "Use the release of Headway that the queue's keeper is of, or end the keeper: headway queue restart."


def _submitted(book: Book, wish: Wish, now: float) -> Book:
    entry = enqueued.from_tree(wish.what["entry"])
    there = book.entries.get(entry.run)
    if there is not None and not there.over:
        reason = f"{there.by or 'somebody'} submitted it, and it is {there.state}"
        remedy = "Look at it (headway queue ls), take it off (headway queue rm), or choose another --name."
        return book.answered(wish, Answer(fact=f"{entry.run} is in the queue", reason=reason, remedy=remedy))
    at = wish.at if math.isfinite(wish.at) else now
    new = replace(entry, at=at, rank=entry.rank or at, since=now, state="waiting", workers=0, starts=0)
    rest = {run: each for run, each in book.entries.items() if run != entry.run}
    return replace(book, entries=rest).put(new).answered(wish, Answer(f"{entry.run} is in the queue", run=entry.run))


def _changed(book: Book, entry: Entry, wish: Wish, now: float) -> Book:
    what = wish.what
    if wish.do == "rm":
        gone = enqueued.left(entry, now, wish.by)
        after = "" if gone.over else ", after a checkpoint"
        return book.put(gone).answered(wish, Answer(f"{entry.run} is taken off the queue{after}"))
    if wish.do == "set":
        kinds: dict[str, Callable[[Any], Any]] = {"priority": int, "user": str, "team": str}
        new = {name: read(what[name]) for name, read in kinds.items() if what.get(name) is not None}
        changed = replace(entry, **new)
        told = ", ".join(f"{name} {value}" for name, value in new.items())
        return book.put(changed).answered(wish, Answer(f"{entry.run} has {told}"))
    ranks = sorted(each.rank for each in book.alive if each.run != entry.run)
    before = what.get("before")
    if before:
        other = book.entries.get(str(before))
        if other is None or other.over or other.run == entry.run:
            return book.answered(wish, _nobody(book, str(before)))
        ahead = [rank for rank in ranks if rank < other.rank]
        rank = (ahead[-1] + other.rank) / 2 if ahead else other.rank - 1.0
        told = f"{entry.run} is before {other.run}"
        if other.priority != entry.priority:
            told += f", as far as their priorities allow ({entry.priority} and {other.priority})"
    elif what.get("last"):
        rank, told = (ranks[-1] + 1.0 if ranks else entry.rank), f"{entry.run} is the last of its priority"
    else:
        rank, told = (ranks[0] - 1.0 if ranks else entry.rank), f"{entry.run} is the first of its priority"
    return book.put(replace(entry, rank=rank)).answered(wish, Answer(told))


def _nobody(book: Book, run: str) -> Answer:
    known = ", ".join(sorted(each.run for each in book.alive)) or "nobody"
    there = book.entries.get(run)
    reason = f"it is {there.state}" if there is not None else f"there is {known}"
    return Answer(fact=f"{run} is not in the queue", reason=reason, remedy="headway queue ls shows who is.")


def tidied(book: Book, wishes: set[str]) -> Book:
    """Without what nobody needs any more. wishes: ids of those that lie in the store still."""
    over = sorted((each for each in book.entries.values() if each.over), key=lambda each: each.since)
    gone = {each.run for each in over[: max(0, len(over) - KEPT_OVER)]}
    old = [name for name in book.answers if name not in wishes]
    forgotten = set(old[: max(0, len(old) - KEPT_ANSWERS)])
    if not gone and not forgotten:
        return book
    entries = {run: each for run, each in book.entries.items() if run not in gone}
    return replace(
        book, entries=entries, answers={name: each for name, each in book.answers.items() if name not in forgotten}
    )


def rules_of(tree: Mapping[str, Any]) -> Rules:
    """Raises ValueError, TypeError, KeyError: it is damaged."""
    quotas = tuple(_quota(quota) for quota in tree.get("quotas", ()))
    told = {name: tree[name] for name in RULES if tree.get(name) is not None}
    return Rules(quotas=quotas, **{name: _RULES[name](value) for name, value in told.items()})


_RULES: Mapping[str, Callable[[Any], Any]] = {
    "most_running": int,
    "fair": str,
    "snooze_s": float,
    "held_for_s": float,
    "raised_s": float,
}


def _quota(tree: Mapping[str, Any]) -> Quota:
    kinds: dict[str, Callable[[Any], Any]] = {"user": str, "team": str, "workers": int, "jobs": int}
    told: dict[str, Any] = {n: None if value is None else kinds.get(n, float)(value) for n, value in tree.items()}
    return Quota(**told)


def admitted(rules: Rules) -> Rules:
    """Raises ValueError: nothing can be decided by them."""
    found = contradictions(rules.quotas)
    if found:
        raise ValueError(f"{found[0].fact}: {found[0].reason}")
    if rules.fair not in (None, "user", "team"):
        raise ValueError(f"fair={rules.fair}: shares are among users or teams")
    if rules.most_running is not None and rules.most_running < 1:
        raise ValueError(f"most_running={rules.most_running}: nobody would ever run")
    for name in ("snooze_s", "held_for_s", "raised_s"):
        value = getattr(rules, name)
        if not 0 <= value < math.inf or (name == "raised_s" and value == 0):
            raise ValueError(f"{name}={value:g}: {'it is a time, and more than 0' if value == 0 else 'it is no time'}")
    return rules


def rules_tree(rules: Rules) -> dict[str, Any]:
    """As plain values."""
    usual = Quota()
    quotas = [
        {
            each.name: getattr(quota, each.name)
            for each in fields(Quota)
            if getattr(quota, each.name) != getattr(usual, each.name)
        }
        for quota in rules.quotas
    ]
    return {"quotas": quotas, **{name: getattr(rules, name) for name in RULES}}


def to_tree(book: Book) -> dict[str, Any]:
    """As plain values."""
    return {
        "kind": "queue",
        "cluster": book.cluster,
        "entries": [enqueued.to_tree(entry) for entry in book.entries.values()],
        "rules": {**rules_tree(book.rules), "prepared": book.prepared},
        "answers": {
            name: [each.said, each.fact, each.reason, each.remedy, each.run] for name, each in book.answers.items()
        },
        "waits": dict(book.waits),
    }


def from_tree(tree: Mapping[str, Any]) -> Book:
    """Raises ValueError: it is damaged."""
    try:
        entries = [enqueued.from_tree(each) for each in tree.get("entries", ())]
        return Book(
            {entry.run: entry for entry in entries},
            rules_of(tree.get("rules", {})),
            int(tree.get("rules", {}).get("prepared", PREPARED)),
            {str(name): Answer(*map(str, each)) for name, each in tree.get("answers", {}).items()},
            {str(run): str(why) for run, why in tree.get("waits", {}).items()},
            str(tree.get("cluster", "")),
        )
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"a damaged book ({error})") from None
