"""What a cluster's autoscaler has learnt of its cloud, as it is told: what it waits for, and the latest events."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

NAMESPACE, KEY = b"headway-cluster", b"news"
"""Where Ray's internal store keeps it."""
MOST = 200
LONGEST = 600
"""Events that are kept, and characters of each."""

CHOSEN, REFUSED, BOOT, LISTING, ENDING = "chosen", "refused", "boot", "listing", "ending"
"""What events are about: a machine got, one refused, one that never joined, what the cloud tells, machines that end."""


@dataclass(frozen=True)
class Event:
    """Args:
    at: Unix seconds.
    kind: one of those above.
    text: what happened, for people.
    """

    at: float
    kind: str
    text: str


@dataclass(frozen=True)
class Waiting:
    """Machines of a type that are asked for, and cannot be had.

    Args:
        since: Unix seconds.
        machines: how many.
        reason: in words.
    """

    since: float
    machines: int
    reason: str


@dataclass(frozen=True)
class News:
    """Args:
    waiting: by the cluster file's node type.
    events: the latest, oldest first.
    at: Unix seconds of the newest change.
    """

    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    at: float = 0.0

    def encode(self) -> bytes:
        """For `decode`."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(data: bytes | None) -> News:
        """What was encoded; no news where there is none, or none that can be read."""
        try:
            read = json.loads(data or b"{}")
            waiting = {str(kind): Waiting(**each) for kind, each in read.get("waiting", {}).items()}
            events = tuple(Event(**each) for each in read.get("events", ()))
            return News(waiting, events, float(read.get("at", 0.0)))
        except (ValueError, TypeError, AttributeError):
            return News()


class Journal:
    """The news as they come in."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST)
        self._waiting: dict[str, dict[object, tuple[float, str]]] = {}
        self._told: News | None = None
        self._at = 0.0

    def note(self, at: float, kind: str, text: str) -> None:
        """Something happened. The same again, right after, is the same."""
        text = text[:LONGEST]
        if not self._events or (self._events[-1].kind, self._events[-1].text) != (kind, text):
            self._events.append(Event(at, kind, text))
            self._at = at

    def waits(self, who: object, kind: str, at: float, reason: str) -> None:
        """A machine of a type cannot be had now."""
        waiting = self._waiting.setdefault(kind, {})
        since = waiting[who][0] if who in waiting else at
        waiting[who] = (since, reason[:LONGEST])
        self._at = at

    def waits_no_more(self, who: object, kind: str, at: float) -> None:
        """It was got, or is not asked for any more."""
        if self._waiting.get(kind, {}).pop(who, None) is not None:
            self._at = at

    def news(self) -> News:
        """All of it."""
        waiting = {
            kind: Waiting(min(since for since, _ in each.values()), len(each), list(each.values())[-1][1])
            for kind, each in self._waiting.items()
            if each
        }
        return News(waiting, tuple(self._events), self._at)

    def untold(self) -> News | None:
        """The news, unless they are what `told` had last."""
        news = self.news()
        return None if news == self._told else news

    def told(self, news: News) -> None:
        """These have been written."""
        self._told = news
