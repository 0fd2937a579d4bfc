"""The log of what was asked of runs and clusters, by whom and when: beside the runs, in their folder or store.

    PLACE/.audit/entries/000000000001.json    written if absent, never again
    PLACE/.audit/head.json                    number and digest of the newest, written if it is what was read

An entry's place in the chain is decided by its name, which one writer gets. One who is interrupted after that has
written it all the same: the next one moves the head for them.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.core import audit
from headway.core.audit import Act, Entry, Head, Verdict
from headway.durable import replace
from headway.errors import BadInput, HeadwayError
from headway.runs.place import Place, cache_folder, slug
from headway.runs.requests import this_person
from headway.storage.commit import commit, nonce
from headway.storage.folder import FolderStorage
from headway.storage.protocol import ABSENT, Conflict, OutOfReach, Storage

FOLDER, HEAD, ENTRIES = ".audit", "head.json", "entries/"
DIGITS = 12
PATIENCE_S = 15.0
"""So long a writer that others are always ahead of goes on; of `headway stop` that is time."""
LOOKS = 5
"""A log that grows while it is read is read again so often; then what it was at first counts."""
AT_ONCE = 16
KEPT = 200
"""So many heads this machine remembers of a log at most: the oldest and the newest since it was last seen whole."""
_NAME = re.compile(rf"{ENTRIES}(\d{{{DIGITS}}})\.json")


def note(
    place: Place,
    verb: str,
    on: str,
    *,
    by: str | None = None,
    details: Mapping[str, Any] | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> bool:
    """Write down what somebody is about to do. What is to be done is never stopped by this.

    Args:
        place: of the runs.
        verb: submit, train, sweep, stop, resume, resize, drain, up, down, add.
        on: the run's or the cluster's name.
        by: who; the user of this process where not given.
        details: more of it, as plain values: {"node": "10.0.0.3", "deadline_s": 120}. No secrets: all who may read the
            place read this.
        say: told, for people, that it could not be written.

    Returns:
        Whether it is written.
    """
    act = Act(verb, on, by or this_person(), time.time(), details or {}, nonce())
    try:
        head = append(_storage(place), act)
    except (HeadwayError, OSError) as error:
        say(f"the audit log of {place} does not have this {verb}: {error}")
        return False
    _remember(place, head)
    return True


def append(storage: Storage, act: Act, now: Callable[[], float] = time.monotonic) -> Head:
    """Add an act to a log; returns the head that it then had, or more.

    Raises:
        OutOfReach: it is not known whether it is written.
        BadInput: the store refuses, or the log is damaged.
    """
    deadline = now() + PATIENCE_S
    while True:
        head, version = _head(storage)
        entry = audit.following(head, act)
        content = entry.content()
        try:
            commit(storage, _name(entry.number), content, ABSENT)
        except Conflict:
            _move_over(storage, head, version)
            if now() > deadline:
                reason = f"others were ahead for {PATIENCE_S:g} s"
                raise OutOfReach(f"{storage.url} takes no entry", reason, "") from None
            time.sleep(random.uniform(0.0, 0.05))
            continue
        newest = audit.moved(entry, content)
        with suppress(HeadwayError, OSError):  # it is in the chain; the next writer moves the head
            _move(storage, newest, version)
        return newest


def verify(place: Place, kept: Sequence[str] = ()) -> Verdict:
    """Look at the whole log of a place, and at what this machine remembers of it.

    Args:
        kept: earlier heads, as `Head.said` gives them.

    Raises:
        BadInput: one of these is none; the place refuses.
        OutOfReach: it does not answer.
    """
    try:
        known = [audit.read_said(text) for text in kept]
    except ValueError as error:
        remedy = "Give what an earlier `headway audit verify` printed: its number, a colon and the digest."
        raise BadInput("--kept cannot be used", str(error), remedy) from None
    verdict = look(_storage(place), [*known, *_remembered(place)])
    if verdict.head is not None and not verdict.faults:
        _remember(place, verdict.head, whole=True)
    return verdict


def look(storage: Storage, known: Sequence[Head] = ()) -> Verdict:
    """Look at a whole log. Others may write meanwhile. Raises OutOfReach, BadInput."""
    for tries_left in reversed(range(LOOKS)):
        head = _get(storage, HEAD)
        names = [found.name for found in storage.list(ENTRIES)]
        quiet = _get(storage, HEAD) == head
        if quiet or not tries_left:
            break
    numbered = {int(found[1]): name for name in names if (found := _NAME.fullmatch(name))}
    strays = [name for name in names if not _NAME.fullmatch(name)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        contents = zip(numbered, pool.map(lambda name: _get(storage, name), numbered.values()), strict=True)
        there = {number: content for number, content in contents if content is not None}
    return audit.verify(head, there if quiet else audit.until(head, there), strays, known)


def entries(place: Place) -> tuple[Entry, ...]:
    """All that can be read, oldest first. Raises OutOfReach, BadInput."""
    return look(_storage(place)).entries


def _storage(place: Place) -> Storage:
    if place.url is None:
        return FolderStorage(place.folder.resolve()).at(f"{FOLDER}/")
    from headway.runs import far

    return far.storage_of(place.url, far.quick(far.settings())).at(f"{FOLDER}/")


def _name(number: int) -> str:
    return f"{ENTRIES}{number:0{DIGITS}d}.json"


def _get(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.get(name)
    except FileNotFoundError:
        return None


def _head(storage: Storage) -> tuple[Head, str | None]:
    """The head, and its version; of a log that has none, one before the first entry."""
    try:
        content, version = storage.look(HEAD)
    except FileNotFoundError:
        return Head(), None
    try:
        return audit.read_head(content), version
    except ValueError as error:
        remedy = "See what `headway audit verify` says of it; move it away to begin another log."
        raise BadInput(f"the audit log {storage.url} is damaged", f"{HEAD} is {error}", remedy) from None


def _move_over(storage: Storage, head: Head, version: str | None) -> None:
    """Move the head over the entry that somebody else has written behind it, if they have not."""
    content = _get(storage, _name(head.number + 1))
    entry = audit.follows(head, content) if content is not None else None
    if content is None or entry is None:
        if _head(storage)[0] != head:
            return  # it was moved meanwhile
        reason = f"entry {head.number + 1} does not come after the head"
        remedy = "See what `headway audit verify` says of it; move it away to begin another log."
        raise BadInput(f"the audit log {storage.url} is damaged", reason, remedy)
    _move(storage, audit.moved(entry, content), version)


def _move(storage: Storage, head: Head, version: str | None) -> None:
    with suppress(Conflict):  # somebody else has moved it there, or on
        commit(storage, HEAD, head.content(), version if version is not None else ABSENT)


def memory(place: Place) -> Path:
    """The file in which this machine remembers which heads it saw of a place's log. Raises BadInput."""
    name = place.url or str(place.folder.resolve())
    return cache_folder() / "audit" / f"{slug(name)}.json"


def _remember(place: Place, head: Head, whole: bool = False) -> None:
    """Keep a head on this machine: who writes all of a log anew cannot reach it here.

    Of what is there already nothing is let go before the log was seen `whole`: what is added meanwhile may have been
    added to another one.
    """
    with suppress(HeadwayError, OSError):
        before = _remembered(place)
        kept = [known for known in before if known.number > head.number] if whole else before
        said = list(dict.fromkeys(known.said for known in (*kept, head)))
        if len(said) > KEPT:
            said = [*said[: KEPT // 2], *said[-(KEPT // 2) :]]
        path = memory(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, json.dumps({"log": str(place), "heads": said}), 0o600)


def _remembered(place: Place) -> list[Head]:
    try:
        return [audit.read_said(said) for said in json.loads(memory(place).read_bytes())["heads"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HeadwayError):
        return []
