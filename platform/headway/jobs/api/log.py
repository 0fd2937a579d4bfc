"""Ray's own log of a run's driver: what is left where the run's place cannot be read. It goes with the head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from headway.errors import BadInput
from headway.jobs import told
from headway.jobs.api.client import RayJob, RayJobs, Unreachable
from headway.jobs.look import asking
from headway.logs.layout import DRIVER
from headway.logs.reading import Line

LOOK_S, SLOW_LOOK_S = 1.0, 10.0
LONG = 1 << 18
"""Ray sends all of a log each time, read anew by its head: a longer one is asked for seldom."""


class RayLog:
    """The log of the newest submission of a run.

    Args:
        address: of the cluster.
        run: its name.
        say: takes a line for people.
    """

    def __init__(self, address: str, run: str, say: Callable[[str], None]) -> None:
        self._api = replace(RayJobs.at(address, asking.PATIENCE_S), answer_s=asking.ANSWER_S)
        self._run, self._say = run, say
        self._job = ""
        self._first, self._lines = "", 0
        self._silent = False

    def lines(self, follow: bool) -> Iterator[Line]:
        """What it printed for people; each line once, and those of a submission that comes after it too.

        Raises:
            BadInput: Ray does not know of it any more; or, at the first look, cannot be asked.
        """
        looked = False
        while True:
            try:
                job = self._newest()
                text = self._api.logs(job.id) or ""
            except Unreachable as error:
                if not looked:
                    raise
                if not self._silent:
                    self._say(f"{self._api.address} could not be asked ({error.reason}); asking on")
                self._silent = True
                continue
            if self._silent:
                self._say(f"{self._api.address} answers again")
            looked, self._silent = True, False
            for line in self._new(job, text):
                if not told.is_told(line):
                    yield Line(DRIVER, None, line)
            if not follow:
                return
            if not job.alive:
                self._say(f"{self._run}: Ray says {job.status}")
                return
            time.sleep(LOOK_S if len(text) < LONG else SLOW_LOOK_S)

    def _newest(self) -> RayJob:
        of = [job for job in self._api.jobs() if job.run == self._run and job.kind in asking.LEADS]
        if not of:
            remedy = "What the run keeps itself is where runs are kept: --runs."
            reason = "its head was replaced, or somebody took the job from its list"
            raise BadInput(f"{self._api.address} knows nothing of {self._run} any more", reason, remedy)
        return max(of, key=lambda job: job.started or 0.0)

    def _new(self, job: RayJob, text: str) -> list[str]:
        lines = text.split("\n")
        if job.alive or not lines[-1]:
            lines.pop()
        first = lines[0] if lines else ""
        if job.id != self._job or (self._first and first != self._first) or len(lines) < self._lines:
            self._lines = 0  # the same submission, posted again to a head that knew nothing of it, has another log
        new, self._lines = lines[self._lines :], len(lines)
        self._job, self._first = job.id, first
        return new
