"""A sweep as it goes, for who looks at it from another process: by what its place tells."""

from __future__ import annotations

import time
from contextlib import suppress

from headway.errors import BadInput, HeadwayError
from headway.jobs.look.history import FOLDER_S, STORE_S
from headway.jobs.look.tail import Tail
from headway.sweeps.conclusion import GONE
from headway.sweeps.folder import FarSweep, NearSweep
from headway.sweeps.seen import history
from headway.sweeps.seen.history import Reading
from headway.sweeps.seen.sight import Sight
from headway.sweeps.seen.view import Subject, View


class Following:
    """See the module. For one thread.

    Args:
        sweep: that is there.
    """

    def __init__(self, sweep: NearSweep | FarSweep) -> None:
        self._sweep = sweep
        self.every_s = FOLDER_S if sweep.far is None else STORE_S
        self._tail, self._reading = Tail(sweep.path / history.FILE), Reading()

    def look(self) -> View:
        """How it is now; or was, where its place does not answer."""
        with suppress(HeadwayError, OSError):
            self._sweep.refresh()
        lines = self._tail.more()
        if self._tail.anew:
            self._reading = Reading()
        for line in lines:
            self._reading.add(line)
        facts = {}
        with suppress(BadInput):
            facts = self._sweep.read()
        sight = self._reading.sight
        if sight is None:
            sight = Sight(Subject(self._sweep.name, str(facts.get("metric") or ""), str(facts.get("mode") or "min")))
        told = str(facts.get("state") or "running")
        if sight.state == "running" and told == "running" and not self._sweep.is_led():
            sight.over_unseen("interrupted", GONE)
        elif sight.state == "running" and told != "running":
            sight.over_unseen(told, str(facts.get("message") or ""))
        return sight.view(time.time() if sight.state == "running" else None)
