"""Writes that decide something, and answers that are lost.

A conditional write may succeed and its answer be lost; tried again, it meets itself and is refused. So whoever decides
something by a write puts into it what nobody else would write (a nonce), and what is there is looked at before a
refusal is believed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from headway.storage.protocol import Absent, Buffer, Conflict, OutOfReach, Storage


def nonce() -> str:
    """A word that nobody else has."""
    return uuid.uuid4().hex


def commit(
    storage: Storage,
    name: str,
    content: Buffer,
    only_if: Absent | str,
    mine: Callable[[bytes], bool] | None = None,
) -> str:
    """Write an object on a condition, and know whether it was written.

    Args:
        storage: where.
        name: of the object.
        content: holds a nonce, so that nobody else writes the same.
        only_if: `ABSENT`, or the version that must be there still.
        mine: whether content that is found there is what is written here; when it is the same, where not given.

    Returns:
        The version that is there now.

    Raises:
        Conflict: somebody else has written it; what is written here is not there, and will not be.
        OutOfReach: nobody knows whether it is written. The same commit may be tried again, whatever became of this.
    """
    try:
        return storage.put(name, content, only_if)
    except (Conflict, OutOfReach) as error:
        try:
            found, version = storage.look(name)
        except FileNotFoundError:
            raise error from None
        if mine(found) if mine is not None else found == content:
            return version
        raise error from None
