"""A log that shows what was done to it: each entry holds the digest of the one before, a head that of the last.

What is changed, removed, exchanged or put between shows when the log is read from its head backwards. Who can write all
of it can write all of it anew: that shows only to somebody who kept an earlier head (`Head.said`), and asks for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

FORMAT = 1
BEGINNING = hashlib.sha256(b"headway audit 1").hexdigest()
"""What the first entry holds as the digest of the one before."""
DETAILS_CHARS = 2000
"""Of what an entry tells beside who did what to which; more is cut, so that an entry is always small."""
_SAID = re.compile(r"(\d+):([0-9a-f]{64})")


@dataclass(frozen=True)
class Act:
    """Something that somebody does.

    Args:
        verb: submit, stop, resume, resize, up, down, add, drain.
        on: what it is done to: a run's or a cluster's name.
        by: who, as the system they used knows them.
        at: Unix seconds, by that system's clock.
        details: more of it, as plain values: the job, the node, the size asked for.
        nonce: tells this act from another that is alike.
    """

    verb: str
    on: str
    by: str
    at: float
    details: Mapping[str, Any] = field(default_factory=dict)
    nonce: str = ""


@dataclass(frozen=True)
class Entry:
    """An act in the log.

    Args:
        number: from 1.
        before: digest of the entry before.
    """

    number: int
    before: str
    act: Act

    def content(self) -> bytes:
        """As it is kept."""
        act = {"verb": self.act.verb, "on": self.act.on, "by": self.act.by, "at": self.act.at}
        more = {"details": dict(self.act.details), "nonce": self.act.nonce}
        tree = {"format": FORMAT, "number": self.number, "before": self.before, **act, **more}
        return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Head:
    """The newest entry: its number, 0 before the first, and its digest."""

    number: int = 0
    digest: str = BEGINNING

    @property
    def said(self) -> str:
        """For people to keep."""
        return f"{self.number}:{self.digest}"

    def content(self) -> bytes:
        """As it is kept."""
        return json.dumps({"format": FORMAT, "number": self.number, "digest": self.digest}).encode()


@dataclass(frozen=True)
class Fault:
    """What is wrong with a log. number: of the entry; 0 of the head itself."""

    number: int
    what: str


@dataclass(frozen=True)
class Verdict:
    """What a log was found to be.

    Args:
        head: as it is kept; None where there is none, or none that can be read.
        entries: that can be read, in order.
        faults: empty for a log that nobody touched.
        pending: the entry after the head, of somebody who was interrupted as they wrote, or is about to move the head.
    """

    head: Head | None
    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...] = ()
    pending: Entry | None = None


def digest(content: bytes) -> str:
    """Of an entry, as it is kept."""
    return hashlib.sha256(content).hexdigest()


def following(head: Head, act: Act) -> Entry:
    """The entry that comes after a head; of long details it keeps the beginning."""
    return Entry(head.number + 1, head.digest, replace(act, details=_small(act.details)))


def moved(entry: Entry, content: bytes) -> Head:
    """The head when an entry is the newest. content: of it, as it is kept."""
    return Head(entry.number, digest(content))


def follows(head: Head, content: bytes) -> Entry | None:
    """The entry that this is, if it comes directly after the head; else None."""
    try:
        entry = read_entry(content)
    except ValueError:
        return None
    return entry if (entry.number, entry.before) == (head.number + 1, head.digest) else None


def read_entry(content: bytes) -> Entry:
    """Raises ValueError for what is no entry, or is not written as one is."""
    try:
        tree = json.loads(content)
        if tree["format"] != FORMAT:
            raise ValueError(f"format {tree['format']!r} is not known here")
        act = Act(tree["verb"], tree["on"], tree["by"], tree["at"], tree["details"], tree["nonce"])
        entry = Entry(tree["number"], tree["before"], act)
        sound = type(entry.number) is int and entry.content() == content
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an entry: {error}") from None
    if not sound:
        raise ValueError("not as it was written")
    return entry


def read_head(content: bytes) -> Head:
    """Raises ValueError for what is no head."""
    try:
        tree = json.loads(content)
        head = Head(tree["number"], tree["digest"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a head: {error}") from None
    if tree.get("format") != FORMAT or type(head.number) is not int or _SAID.fullmatch(head.said) is None:
        raise ValueError("not a head")
    return head


def read_said(text: str) -> Head:
    """A head that somebody kept, see `Head.said`. Raises ValueError."""
    found = _SAID.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not like 12:0123abcd...")
    return Head(int(found[1]), found[2])


def verify(
    head: bytes | None, kept: Mapping[int, bytes], strays: Sequence[str] = (), known: Sequence[Head] = ()
) -> Verdict:
    """Look at a whole log.

    Args:
        head: as it is kept; None where there is none.
        kept: entries as they are kept, by the number in the object's name.
        strays: names of other objects among them.
        known: earlier heads, from elsewhere.
    """
    faults = [Fault(0, f"inserted: {name} is no entry's name") for name in sorted(strays)]
    if head is None:
        if kept and _pending(None, kept) is None:
            faults.append(Fault(0, "missing: there are entries, and no head"))
        top, newest = None, max(kept, default=0)
    else:
        try:
            top = read_head(head)
            newest = top.number
        except ValueError:
            faults.append(Fault(0, "changed: the head cannot be read"))
            top, newest = None, max(kept, default=0)
    faults += [Fault(number, "inserted: entries begin at 1") for number in kept if number < 1]
    kept = {number: content for number, content in kept.items() if number >= 1}
    read = {number: _read(content) for number, content in kept.items()}
    pending = _pending(top, kept)
    beyond = [number for number in kept if number > newest and (pending is None or number != pending.number)]
    faults += [Fault(number, "inserted: it is behind the head, and was not written after it") for number in beyond]
    faults += _backwards(top, newest, kept, read)
    faults += [found for each in known if (found := _differs(each, top, newest, pending, kept, read)) is not None]
    entries = tuple(entry for _, entry in sorted(read.items()) if isinstance(entry, Entry))
    return Verdict(top, entries, tuple(sorted(faults, key=lambda fault: fault.number)), pending)


def until(head: bytes | None, kept: Mapping[int, bytes]) -> dict[int, bytes]:
    """What may have been there when this was the head: of a log that grew while it was read."""
    try:
        top = read_head(head) if head is not None else Head()
    except ValueError:
        return dict(kept)
    return {number: content for number, content in kept.items() if number <= top.number + 1}


def _backwards(
    top: Head | None, newest: int, kept: Mapping[int, bytes], read: Mapping[int, Entry | str]
) -> list[Fault]:
    """From the head down: each sound entry vouches for the one before it."""
    faults: list[Fault] = []
    vouched = top.digest if top is not None else None
    last = max((number for number in kept if number <= newest), default=0)
    if last < newest:
        several = f"{last + 1} to {newest} are" if newest - last > 1 else f"{newest} is"
        faults.append(Fault(last + 1, f"truncated: the head is at {newest}, and {several} not there"))
        vouched = None
    places = {digest(content): number for number, content in kept.items()}
    for number in range(last, 0, -1):
        content = kept.get(number)
        sound = content is not None and digest(content) == vouched
        at = number if vouched is None or sound else places.get(vouched)
        entry = read.get(at) if at is not None else None  # what was written as this one, as far as that is known
        if content is None:
            faults.append(Fault(number, "missing"))
        elif at is None:
            faults.append(Fault(number, _altered(number, read[number])))
        elif at != number:
            faults.append(Fault(number, f"reordered: what was entry {number} is at {at}"))
        elif not isinstance(entry, Entry):
            faults.append(Fault(number, f"changed: {entry}"))
        elif entry.number != number:
            faults.append(Fault(number, f"reordered: it was written as entry {entry.number}"))
        vouched = entry.before if isinstance(entry, Entry) and entry.number == number else None
    if vouched is not None and vouched != BEGINNING:
        faults.append(Fault(1, "missing: entries were before it"))
    return faults


def _altered(number: int, found: Entry | str) -> str:
    """What became of an entry that is not what is vouched for, which is nowhere."""
    if isinstance(found, str):
        return f"changed: {found}"
    if found.number != number:
        return f"reordered: it was written as entry {found.number}"
    return "changed: it is not what the next one, or the head, saw"


def _pending(top: Head | None, kept: Mapping[int, bytes]) -> Entry | None:
    """The entry behind the head, if it may well be there."""
    behind = top if top is not None else None if any(number != 1 for number in kept) else Head()
    return follows(behind, kept[behind.number + 1]) if behind is not None and behind.number + 1 in kept else None


def _differs(
    known: Head,
    top: Head | None,
    newest: int,
    pending: Entry | None,
    kept: Mapping[int, bytes],
    read: Mapping[int, Entry | str],
) -> Fault | None:
    """Where the log is not the one that somebody saw earlier."""
    if known.number > newest + (pending is not None):
        return Fault(known.number, f"truncated: it was there when its digest was kept, and the log ends at {newest}")
    if known.number == 0:
        return None
    content, after = kept.get(known.number), read.get(known.number + 1)
    found = digest(content) if content is not None else after.before if isinstance(after, Entry) else None
    if known.number == newest and top is not None:
        found = top.digest
    return None if found == known.digest else Fault(known.number, "rewritten: its digest was another when it was kept")


def _read(content: bytes) -> Entry | str:
    """An entry; else why it is none."""
    try:
        return read_entry(content)
    except ValueError as error:
        return str(error)


def _small(details: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry keeps of details: plain values, and not too much of each."""
    text = json.dumps(dict(details), sort_keys=True, ensure_ascii=False, default=str)
    if len(text) <= DETAILS_CHARS:
        plain: dict[str, Any] = json.loads(text)
        return plain
    return {"cut": text[:DETAILS_CHARS]}
