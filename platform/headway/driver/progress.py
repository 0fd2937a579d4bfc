"""How far a run is, for whoever watches it from the driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headway import plan, runs


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        run: its name.
        step: committed steps.
        total_steps: asked for; 0 while not known.
        epoch: complete walks through the data.
        loss: of the newest step.
        samples_per_s: over the latest seconds.
        steps_per_s: likewise.
        workers: in the group; 0 while none has started.
        goodput: share of worker-seconds that ended in committed steps.
        metrics: the newest evaluation.
        messages: to show, each once.
        evaluated: step of the newest evaluation, if it is known.
        waits: why nobody trains, where that is known.
    """

    run: str
    step: int
    total_steps: int
    epoch: int
    loss: float | None
    samples_per_s: float
    steps_per_s: float
    workers: int
    goodput: float
    metrics: dict[str, float]
    messages: list[str]
    evaluated: int | None = None
    waits: str = ""

    @property
    def measured(self) -> int:
        """The step that `metrics` are of; the newest one where it is not known."""
        return self.step if self.evaluated is None else self.evaluated


Watch = Callable[[Progress], None]


def tell(watch: Watch | None, run: runs.RunFolder, checked: plan.Plan, messages: list[str]) -> None:
    """Messages from before the first worker starts."""
    if watch is not None:
        watch(Progress(run.name, 0, checked.total_steps, 0, None, 0.0, 0.0, 0, 0.0, {}, messages))
