"""Whether the stage is set for the next act, and how fast the run goes meanwhile: it must not end before the story."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from headway.runs import RunFolder
from headway.testing import inside
from headway.testing.faults import Fault, parse
from headway.testing.faults.drawing import lasts
from headway.testing.injector import Injector
from headway.testing.story.acts import Act

ACT_S = 60.0
"""For an act, until its machine is replaced, on a slow machine. It is much, for a run that is about to end does not
grow: another machine would not pay (see `headway.core.demand`). Once the story is over nothing is held back."""
SLOWEST_S = 2.0
LOOK_S = 0.5


class Stage:
    """Looked at by the drill and by its injector, each from a thread of its own.

    Args:
        acts: of the story.
        most: workers that may train.
        steps: of the run.
    """

    def __init__(self, acts: Sequence[Act], most: int, steps: int) -> None:
        self.carriers: dict[str, str] = {}
        """The node of every worker that ever was, by Ray's id."""
        self._acts, self._most, self._steps = {str(act.fault): act for act in acts}, most, steps
        self._members: frozenset[str] = frozenset()
        self._struck: set[str] = set()
        self._pace: float | None = None
        self._looked = 0.0

    def ready(self, fault: Fault) -> bool:
        """Whether the time of a fault has come, as far as the stage goes."""
        act = self._acts[str(fault)]
        names = list(self._acts)
        if act.after and not self._struck.issuperset(names[: names.index(str(fault))]):
            return False
        return not act.whole or self.whole

    @property
    def whole(self) -> bool:
        """Whether as many workers train as may, as was seen since the last act."""
        return len(self._members) >= self._most

    def look(self, run: RunFolder, injector: Injector) -> None:
        """See who trains, and set the run's pace."""
        if time.monotonic() - self._looked < LOOK_S or not run.path.is_dir():
            return
        self._looked = time.monotonic()
        self._see(run, injector)
        waiting = sum(str(fault) not in injector.refused for fault in injector.left)
        last = injector.done[-1]["fault"] if injector.done else ""
        over = waiting == 0 and (self.whole or not last or not lasts(parse(last)[0]))
        pace = pace_s(waiting + 1 if waiting or not over else 0, self._steps - 1 - injector.newest)
        if self._pace is None or (pace == 0.0) != (self._pace == 0.0) or abs(pace - self._pace) > 0.2 * self._pace:
            inside.set_pace(run.path, pace)
            self._pace = pace

    def _see(self, run: RunFolder, injector: Injector) -> None:
        """Who trains, without those whose machines the acts so far have taken: the run may not know of it yet."""
        struck = list(injector.done)
        try:
            found: list[dict[str, Any]] = json.loads((run.path / "members.json").read_text("utf-8"))["workers"]
        except (OSError, ValueError):
            return
        self.carriers |= {each["id"]: each["node_id"] for each in found}
        gone = {node for record in struck if lasts(parse(record["fault"])[0]) for node in _nodes(record["target"])}
        self._members = frozenset(
            each["id"] for each in found if each["phase"] == "member" and each["node_id"] not in gone
        )
        self._struck = {record["fault"] for record in struck} | set(injector.refused)


def _nodes(target: dict[str, Any]) -> list[str]:
    """Ray's ids of the nodes that a fault has hit."""
    return [target["node_id"]] if "node_id" in target else list(target.get("node_ids", ()))


def pace_s(acts: int, steps: int) -> float:
    """Seconds by which each step is held back, so that the steps that are left last for the acts that are left."""
    return 0.0 if not acts else min(SLOWEST_S, acts * ACT_S / max(1, steps))
