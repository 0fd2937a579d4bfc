"""How long trials are, and where they are evaluated: by their settings, from their jobs and their data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headway import plan
from headway.errors import BadData, BadInput
from headway.sweeps.rules import Unfit, Way
from headway.sweeps.schedule.protocol import Lengths

if TYPE_CHECKING:
    from headway.carried.code import Source
    from headway.job import Job
    from headway.sweeps.events import Config
    from headway.sweeps.file import Sweep

_LENGTHS = ("data", "epochs", "lane", "steps")
"""Beginnings of keys on which a trial's length hangs."""


class Ways:
    """See the module. Data are looked at once for all settings that walk over them alike, and not at all where the job
    counts in steps.

    Args:
        sweep: whose trials they are.
        source: the copy of the task's code that the sweep keeps, where that is run; None: the code that the job names.
    """

    def __init__(self, sweep: Sweep, source: Source | None = None) -> None:
        self._sweep, self._source = sweep, source
        self._epochs: dict[str, int] = {}
        self._one = None if any(key.startswith(_LENGTHS) for key in sweep.space) else self.of(sweep.example)

    def __call__(self, config: Config) -> Way:
        """Of a trial.

        Raises:
            Unfit: its job cannot be, or not with these data.
            BadData: the data themselves cannot be used, or do not answer.
        """
        try:
            job = self._sweep.job_of(config)
            return self._one or self.of(job)
        except BadData:
            raise
        except BadInput as error:
            raise Unfit(error.fact, error.reason, error.remedy) from None

    def of(self, job: Job) -> Way:
        """The same of its job."""
        steps = job.steps or (job.epochs or 0) * self._epoch(job)
        return Way(steps, job.evaluate_every_steps or min(steps, self._epoch(job)))

    @property
    def lengths(self) -> Lengths:
        """Of a trial in the middle of the space."""
        way = self.of(self._sweep.example)
        return Lengths(way.length, way.every or way.length)

    def _epoch(self, job: Job) -> int:
        """Steps of an epoch."""
        walk = job.model_dump(mode="json", include={"data", "lanes", "lane_batch"})
        key = json.dumps(walk, sort_keys=True)
        if key not in self._epochs:
            self._epochs[key] = plan.walked(job, self._source)[1].steps_per_epoch
        return self._epochs[key]
