"""What the user's code shows beside numbers. It may fail in any way: that is told once by name, and training goes on.

Each worker draws it, so that it is not lost with one; the leader's is kept. Of a name there is one in a step: the
first.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Protocol

from headway.elastic.worker.standing import Standing
from headway.logged import content
from headway.logged.content import Content

if TYPE_CHECKING:
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.replica import Replica

Key = tuple[str, str]
"""Kind and name."""


class Working(Protocol):
    """What is asked of the worker's engine."""

    standing: Standing
    left: bool
    start: int
    replica: Replica
    context: Context


class Logged:
    """Args:
    engine: of this worker.
    """

    def __init__(self, engine: Working) -> None:
        self._engine = engine
        self._told: set[Key] = set()
        self._at: tuple[int, int] = (-1, -1)
        """Start and step of which these were logged."""
        self._names: dict[str, str] = {}
        """The kind by name."""
        self._lanes_of = -1
        self._of_lanes: dict[Key, tuple[Content, str]] = {}
        """What was shown in the lanes of a step, which may have to be done again."""

    def add(self, kind: str, name: Any, thing: Any, caption: Any, lane_of: int | None = None) -> None:
        """Show it: at once, or from a lane with the lane's step.

        Args:
            kind: see `content.drawn`; thing: likewise.
            caption: a line for people.
            lane_of: the step of the lane whose body runs.
        """
        engine, key = self._engine, (kind, str(name))
        if engine.standing is Standing.OUTSIDE:
            self._tell(key, "it was logged before the session was entered (with session: ...)")
        elif engine.standing < Standing.ABREAST or engine.left:
            return  # the others have said it
        elif lane_of is not None:
            if lane_of != self._lanes_of:
                self._lanes_of = lane_of
                self._of_lanes.clear()
            if key not in self._of_lanes and (found := self._drawn(key, name, thing)) is not None:
                self._of_lanes[key] = found, caption
        elif self._is_first(key, engine.replica.step) and (found := self._drawn(key, name, thing)) is not None:
            self._keep(key, found, caption, engine.replica.step)

    def commit(self, number: int) -> None:
        """The step of that number is committed: what was shown in its lanes stays."""
        if self._lanes_of == number:
            for key, (found, caption) in self._of_lanes.items():
                if self._is_first(key, number + 1):
                    self._keep(key, found, caption, number + 1)
            self._of_lanes.clear()

    def _is_first(self, key: Key, step: int) -> bool:
        """Of its name in the step."""
        if (at := (self._engine.start, step)) != self._at:
            self._at = at
            self._names.clear()
        kind, name = key
        if (there := self._names.get(name, kind)) != kind:
            self._tell(key, f"a {there} of that name was logged in the same step")
        return name not in self._names

    def _drawn(self, key: Key, name: Any, thing: Any) -> Content | None:
        try:
            if not isinstance(name, str) or not name.strip():
                raise content.Unfit("that is no name")
            return content.drawn(key[0], name, thing)
        except Exception as error:  # of any library, and of the user's own objects
            words = str(error).strip().splitlines() or [""]
            self._tell(key, words[0] if isinstance(error, content.Unfit) else f"{type(error).__name__}: {words[0]}")
            return None

    def _tell(self, key: Key, reason: str) -> None:
        if key not in self._told:
            self._told.add(key)
            kind, name = key
            self._engine.context.journal.warned(f"the {kind} {name[:100]!r} is not kept: {reason[:300]}")

    def _keep(self, key: Key, found: Content, caption: Any, step: int) -> None:
        kind, name = key
        self._names[name] = kind
        about = {"suffix": found.suffix, "mime": found.mime, "caption": str(caption)[:1000]}
        self._engine.context.journal.logged(step, kind, name, b64encode(found.data).decode("ascii"), **about)
