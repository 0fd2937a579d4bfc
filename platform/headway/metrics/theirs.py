"""Metrics of torchmetrics (1.x), which is not imported here: whoever gives one has it."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from headway.errors import BadInput

State = dict[str, dict[str, Any]]
"""By path of the metric inside the one that was given, and by name of the state."""


def is_one(metric: Any) -> bool:
    """Whether it is torchmetrics'."""
    library = sys.modules.get("torchmetrics")
    return library is not None and isinstance(metric, library.Metric)


def members(metric: Any) -> dict[str, Any] | None:
    """The metrics of a collection, by name; None: it is none."""
    library = sys.modules.get("torchmetrics")
    if library is None or not isinstance(metric, library.MetricCollection):
        return None
    return {str(name): member for name, member in metric.items(keep_base=False, copy_state=True)}


def check(name: str, metric: Any) -> None:
    """Raises BadInput where its states cannot be merged."""
    for path, part in _parts(metric):
        kind, shown = type(part).__name__, name if not path else f"{name}.{path}"
        library = sys.modules["torchmetrics"]
        own = type(part).merge_state is not library.Metric.merge_state
        if not own and (part.full_state_update is not False or part.dist_sync_on_step):
            each = f"full_state_update={part.full_state_update}"
            reason = "dist_sync_on_step=True" if part.dist_sync_on_step else each
            raise BadInput(
                f"the metric {shown} ({kind}) has {reason}",
                "its states cannot be merged, and every lane has one of its own",
                "Choose another metric; of a class of your own, set full_state_update = False if updates only add to "
                "its states, or write merge_state().",
            )
        odd = [state for state in part._defaults if not own and _is_odd(part, state)]
        if odd:
            raise BadInput(
                f"the metric {shown} ({kind}) has the state {odd[0]}, which is reduced by a mean, or not at all",
                "of lanes with different numbers of rows, that is no mean of the rows",
                "Let its states be sums (dist_reduce_fx='sum'), and divide in compute().",
            )


def fresh(metric: Any) -> Any:
    """A copy with nothing in it, which counts in float64."""
    made = copy.deepcopy(metric)
    made.reset()
    for _, part in _parts(made):
        part.compute_on_cpu, part.sync_on_compute, part._to_sync = True, False, False
        for state, default in part._defaults.items():
            if isinstance(default, torch.Tensor) and default.is_floating_point():
                part._defaults[state] = default.double()
                setattr(part, state, getattr(part, state).double())
    return made


def moved(metric: Any, arguments: Sequence[Any]) -> None:
    """To the device that its arguments are on."""
    device = next((value.device for value in arguments if isinstance(value, torch.Tensor)), None)
    parts = [part for _, part in _parts(metric)]
    if device is not None and any(part.device != device for part in parts):
        metric.to(device)


def state(metric: Any) -> State:
    """What is in it, in host memory. Lists that are put one after another in the end are so now."""
    return {path: {name: _hosted(part, name) for name in part._defaults} for path, part in _parts(metric)}


def loaded(metric: Any, state: State) -> Any:
    """A copy that has this state. metric: as it was given."""
    made = fresh(metric)
    made.to("cpu")
    for path, part in _parts(made):
        for name, value in state[path].items():
            setattr(part, name, value)
        part._update_count = 1
    made._update_count = max(1, made._update_count)  # of a wrapper, which has no state
    return made


def merge(made: Any, state: State) -> None:
    """Add another state to what is in it."""
    for path, part in _parts(made):
        part._update_count += 1
        part.merge_state(state[path])


def result(made: Any) -> Any:
    """What comes of what is in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without a row, say: the result tells
        return made.compute()


def _parts(metric: Any) -> Iterator[tuple[str, Any]]:
    """All metrics in it that have states of their own, by path; a wrapper's may be those of what it wraps."""
    kind = sys.modules["torchmetrics"].Metric
    found = {path: part for path, part in metric.named_modules() if isinstance(part, kind)}
    for path, part in found.items():
        inner = [
            each for below, each in found.items() if below != path and below.startswith(f"{path}." if path else "")
        ]
        if part._defaults and not any(part._defaults is each._defaults for each in inner):
            yield path, part


def _is_odd(part: Any, state: str) -> bool:
    reduced, default = part._reductions[state], part._defaults[state]
    return getattr(reduced, "__name__", "") == "dim_zero_mean" or (
        reduced is None and isinstance(default, torch.Tensor)
    )


def _hosted(part: Any, state: str) -> Any:
    value = getattr(part, state)
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    found = [each.detach().cpu() for each in value]
    if len(found) < 2 or getattr(part._reductions[state], "__name__", "") != "dim_zero_cat":
        return found
    alike = all(each.dim() and each.shape[1:] == found[0].shape[1:] for each in found)
    return [torch.cat(found)] if alike and len({each.dtype for each in found}) == 1 else found
