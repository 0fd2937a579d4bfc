"""What stands in a run for the barrier of Ray Train's own workers."""

from __future__ import annotations

from typing import Any

SAID = (
    "ray.train.report and ray.train.collective cannot be used here: they wait for a fixed number of workers, and a "
    "run's come and go. Record with session.record, and save with session.save."
)


class NoBarrier:
    """In the place of the actor by which Ray Train's workers agree: that is a process, a second of CPU at every start,
    and takes for granted that their number does not change.

    Raises:
        RuntimeError: it is used after all, by `ray.train.report` or one of `ray.train.collective`.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # looked for by pickle and its like
            raise AttributeError(name)
        raise RuntimeError(SAID)
