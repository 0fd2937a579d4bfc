"""Whether a place honours the conditions of writes; some that speak S3 ignore them, and say nothing."""

from __future__ import annotations

from contextlib import suppress

from headway.errors import BadInput, HeadwayError
from headway.storage.commit import commit, nonce
from headway.storage.protocol import ABSENT, Absent, Conflict, Storage


def conditional(storage: Storage) -> bool:
    """Whether a write that must not succeed does not: found by trying, with an object that is removed again.

    Raises:
        OutOfReach, BadInput: it cannot be tried.
    """
    name = f"headway-probe-{nonce()}"
    try:
        first = commit(storage, name, b"1", ABSENT)
        if not _refused(storage, name, b"2", ABSENT):
            return False
        second = commit(storage, name, b"3", first)
        return second != first and _refused(storage, name, b"4", first)
    finally:
        with suppress(HeadwayError):
            storage.delete([name])


def demand_conditions(storage: Storage) -> None:
    """Refuse a place in which two could lead one run without a word.

    Raises:
        BadInput: writes with conditions are not honoured there.
        OutOfReach: it cannot be tried.
    """
    if conditional(storage):
        return
    reason = "it writes although the condition does not hold, so that two could lead one run and neither would know"
    remedy = "Keep runs in S3, Google's or Azure's storage, a newer version of this service, or a folder."
    raise BadInput(f"{storage.url} has no conditional writes", reason, remedy)


def _refused(storage: Storage, name: str, content: bytes, condition: Absent | str) -> bool:
    try:
        storage.put(name, content, condition)
    except Conflict:
        return True
    return False
