"""What is asked of a place that holds a run, near or far, and what can go wrong there.

Nothing is renamed, appended to or locked. An object is written whole, and readers see all of it or none; a write may
have a condition (the object is not there; it is the version that was read), and of several that have the same condition
one succeeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headway.errors import HeadwayError

Buffer = bytes | bytearray | memoryview


class OutOfReach(HeadwayError, OSError):
    """A place does not answer, or only with errors. What was asked may be tried again; whether it was done is not
    known."""


class Conflict(HeadwayError, OSError):
    """The condition of a write does not hold: somebody else's is there (or our own, whose answer was lost: see
    `headway.storage.commit`)."""


def named(name: str) -> str:
    """An object's name, if it is one: parts with "/" between them, none empty, none a way to somewhere else.

    Raises:
        ValueError: it is none.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name!r} is no name of an object")
    return name


@dataclass(frozen=True)
class Found:
    """An entry of a listing.

    Args:
        name: within the place.
        bytes: its size.
        version: opaque; another one whenever other content was written. Compare it with another listing's: what `look`
            gives may be of another kind.
        age_s: seconds since it was written, by the place's own clock where it tells one; for people, and for cleaning.
    """

    name: str
    bytes: int
    version: str
    age_s: float


class Absent:
    """The condition that there is no such object yet; use the instance `ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


class Storage(Protocol):
    """Objects by name ("a/b.json") in one place. Methods may be called from many threads; each process opens its own.

    Every method raises, beside what it names: OutOfReach; BadInput where trying again is of no use (no such bucket, no
    right to do it, expired keys that nobody renews, a full disk), in words that name the place and the remedy.
    """

    url: str
    """For people; without keys."""

    def get(self, name: str) -> bytes:
        """An object's content. Raises FileNotFoundError."""

    def look(self, name: str) -> tuple[bytes, str]:
        """An object's content, and its version, for a write on the condition that it is still this. Raises
        FileNotFoundError."""

    def read(self, name: str, offset: int, length: int) -> Buffer:
        """Bytes [offset, offset + length) of an object. Raises FileNotFoundError; EOFError where it is shorter."""

    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        """Write an object of at most some MiB in one request; durable when this returns.

        Args:
            only_if: `ABSENT`, or the version that must be there still; None for whatever is there.

        Returns:
            The new version.

        Raises:
            Conflict: the condition does not hold. A request that was tried again may meet itself.
        """

    def upload(self, name: str, blocks: Iterable[Buffer]) -> int:
        """Write a large object from blocks of any sizes, in parts and several at once, with at most some parts in
        memory; there whole or not at all, durable when this returns. Returns its bytes. Blocks may be used again as
        soon as the next is asked for. What `blocks` raises is raised, and nothing is there."""

    def folders(self, prefix: str = "") -> list[str]:
        """First parts of names below a prefix that ends with "/" (or is empty): ["run-1", "run-2"], sorted."""

    def list(self, prefix: str = "") -> list[Found]:
        """All objects whose names begin so, sorted by name."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are gone already."""

    def at(self, prefix: str) -> Storage:
        """The same place seen from below a prefix ("run-1/"); shares connections."""

    def close(self) -> None:
        """Nothing more will be asked for; who waits before another try is told so. What `at` gave is closed with what
        was opened, and alone is not."""
