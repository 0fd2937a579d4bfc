"""What the task of a sweep is fitted to: once for all trials that would learn the same, again for other settings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from headway import plan, tryout
from headway.carried import fitted
from headway.job import Job
from headway.notation.values import canonical


@dataclass
class Fits:
    """See the module. For one thread.

    Args:
        has_fit: whether the task has one at all.
    """

    has_fit: bool = False
    _known: dict[str, bytes] = field(default_factory=dict)

    def know(self, job: Job, values: bytes | None) -> None:
        """A trial of this job was fitted to that."""
        if values is not None:
            self.has_fit = True
            self._known[_key(job)] = values

    def give(self, job: Job, checked: plan.Plan, copied: Path) -> dict[str, Any] | None:
        """Have what its task is fitted to beside a run's copy of its code. Returns what the run is to note of it; None
        where there is nothing, or it is there.

        Raises:
            BadInput: the task cannot be fitted with these settings.
        """
        if not self.has_fit or fitted.of(copied) is not None:
            return None
        values = self._known.get(_key(job))
        if values is None:
            with tryout.begun(job.model_copy(update={"check": None})) as trial:
                trial.ask(job, replace(checked, origin=None), copied)
                values = trial.answer().values
            self.know(job, values)
        return fitted.put(values, copied) if values is not None else None


def _key(job: Job) -> str:
    """Of all that `fit` may see."""
    seen = canonical(job.model_dump(include={"arguments", "seed", "data", "task"}))
    return sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()
