"""Looks whether jobs can be made of what a searcher suggests, before it is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from headway.errors import BadData, BadInput
from headway.job import Job
from headway.sweeps.events import Config, Suggested
from headway.sweeps.passing import passing, pause_s
from headway.sweeps.rules import Way
from headway.sweeps.settings import shown


class Vetting:
    """See the module. For one thread.

    Args:
        job: of a trial's run, by its settings and the number of the repeat.
        way: of a trial.
        say: takes a line for people.
        now: seconds on a clock that only goes on.
    """

    def __init__(
        self,
        job: Callable[[Config, int], Job],
        way: Callable[[Config], Way],
        say: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._job, self._way, self._say, self._now = job, way, say, now
        self._waiting: list[Suggested] = []
        self._tries, self._not_before = 0, now()

    def take(self, said: Suggested) -> None:
        """The searcher said that."""
        self._waiting.append(said)

    @property
    def waits(self) -> bool:
        """Whether there is something to be told yet."""
        return bool(self._waiting)

    def looked(self) -> list[Suggested]:
        """What was taken and can be told of, in order; with a fault where no job can be made of it. While the data do
        not answer there is nothing.

        Raises:
            BadData: they cannot be used.
        """
        found: list[Suggested] = []
        while self._waiting and self._now() >= self._not_before:
            try:
                found.append(self._vetted(self._waiting[0]))
            except Exception as error:
                if not passing(error):
                    raise
                self._tries += 1
                self._not_before = self._now() + pause_s(self._tries)
                if self._tries == 1:
                    self._say(f"no more trials begin for now: {error}")
            else:
                self._tries = 0
                del self._waiting[0]
        return found

    def _vetted(self, said: Suggested) -> Suggested:
        if said.config is None:
            return said
        try:
            self._job(said.config, 1)
            self._way(said.config)
        except BadData:
            raise  # that is wrong with all of them
        except BadInput as error:
            if passing(error):
                raise
            fault = f"{error.fact}: {error.reason}".rstrip(": ").rstrip(".")
            return replace(said, fault=f"{fault} (with {shown(said.config)})")
        return said
