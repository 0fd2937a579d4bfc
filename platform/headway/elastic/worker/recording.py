"""What the user's loop records and measures in the lanes of a step."""

from __future__ import annotations

from typing import Any

import torch

from headway.elastic.worker import recompute, records
from headway.elastic.worker.passes import Pass
from headway.errors import BadInput, nearest

MOST_NAMES = 1000
"""Of records in a step's exchange."""


class Recording(Pass):
    """The part of a `Step` that takes numbers. Of lanes that are computed for nothing it takes none."""

    def record(self, name: str, value: torch.Tensor | float) -> None:
        """Record a number of the user's own, in the report and in MLflow: the mean over the step's rows, of the lanes
        that record it. Call it in the loop over `lanes()`, once for a name and a batch, before or after `backward`. It
        rides on the step's exchange, so that it is the same for every number of workers.

        Args:
            name: under which it is kept, as it is.
            value: scalar, the mean over the batch's rows; a tensor is read when the step is done.

        Raises:
            BadInput: called outside the loop; twice; no text for a name; no scalar for a value.
        """
        if recompute.under_way():
            return
        if self._open is None:
            raise BadInput(
                f"step.record({name!r}, ...) was called outside the loop over step.lanes()",
                "it is the mean over a batch, and there is none",
                "Call it in the loop, or session.record({name: value}) outside of it.",
            )
        number = records.number("step.record", name, value)
        if len(self._engine.tail.names) + len(self._engine.tail.unnamed) > MOST_NAMES:
            raise BadInput(
                f"step.record() was given more than {MOST_NAMES} names",
                "every name takes room in every step's exchange",
                "Leave what changes from step to step out of the name.",
            )
        try:
            if self._trial is not None:
                return
            if self._whole and not self._part:
                for lane in self._group:  # of equal values the mean by rows is that value
                    self._engine.tail.record(lane, name, number)
            elif self._part in self._parts.setdefault(name, {}):
                raise ValueError(name)
            else:
                self._parts[name][self._part] = number, self._part_rows
        except ValueError:
            raise BadInput(
                f"step.record({name!r}, ...) was called twice for one batch in step {self.number}",
                "a batch has one value of a name",
                "Call it once, or choose another name.",
            ) from None

    def measure(self, name: str, /, *arguments: Any, **named: Any) -> None:
        """Update a metric of the session's `measures` with a batch. Call it in the loop over `lanes()`. Each lane has a
        state of its own; they are merged in the lanes' order when the step is done, and what comes of all steps of an
        epoch (of `evaluate_every_steps`, if the job says so) is recorded after its last as train/NAME.

        Args:
            name: of the metric.
            arguments: of its `update`, as are those that are named; tensors on any device, no gradients are kept.

        Raises:
            BadInput: called outside the loop; the session has no such metric.
        """
        if recompute.under_way():
            return
        if self._open is None:
            raise BadInput(
                f"step.measure({name!r}, ...) was called outside the loop over step.lanes()",
                "a metric is updated with a batch, and there is none",
                "Call it in the loop.",
            )
        measures = self._engine.replica.measured.measures
        if name not in measures:
            raise BadInput(
                f"step.measure() was given the name {name!r}",
                f"there is no metric of that name: there is {', '.join(measures.names) or 'none'}",
                nearest(name, measures.names)
                if measures
                else "Give it to headway.session(..., measures={...}); in a Task, return it from measures().",
            )
        if self._trial is not None:
            return
        lane = self._engine.tail.measured.setdefault(self._open, {})
        with torch.no_grad(), torch.autocast(self._engine.replica.device.type, enabled=False):
            measures.take(lane, name, *arguments, **named)
