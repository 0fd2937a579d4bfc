"""Metrics whose states are kept by lane and merged in the lanes' order: the same bits, whoever did which lane.

A metric is an object of torchmetrics, or has `update(...)`, `merge(other)` and `compute()`. It is copied for every
lane, as it was given; states are what the copies have in them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from headway.errors import BadInput, nearest
from headway.metrics import theirs
from headway.metrics.shown import Shown, shown

MOST_BYTES = 2**30
"""Of the states of all lanes together; more would not fit beside a model."""
VERBS = ("update", "merge", "compute")
EVERY = 64
"""Updates between two looks at how much a lane's states have grown."""

Lane = dict[str, Any]
"""A lane's copies, by name of the metric."""
State = Any
"""Of a copy: a tree of tensors in host memory and plain values."""


class Measures:
    """See the module.

    Args:
        given: metrics by name, as `Task.measures()` gives them.

    Raises:
        BadInput: one of them is none, or its states cannot be merged.
    """

    def __init__(self, given: Any) -> None:
        if not isinstance(given, Mapping):
            kind = type(given).__name__
            raise BadInput(f"measures() returned a {kind}", "metrics have names", "Return a dict of metrics by name.")
        self._metrics: dict[str, Any] = {}
        self._of: dict[str, list[str]] = {}
        """Metrics that are updated with the same arguments, by the name of these."""
        for name, metric in given.items():
            if not isinstance(name, str) or not name:
                raise BadInput(f"measures() has the name {name!r}", "names are text", "Name it by a str.")
            members = theirs.members(metric)
            each = {name: metric} if members is None else {f"{name}/{key}": one for key, one in members.items()}
            self._metrics |= {key: _checked(key, one) for key, one in each.items()}
            self._of[name] = list(each)
        self._updates = 0

    def __contains__(self, name: object) -> bool:
        return name in self._of

    def __bool__(self) -> bool:
        return bool(self._metrics)

    @property
    def names(self) -> list[str]:
        """Of the arguments that metrics() gives."""
        return sorted(self._of)

    def update(self, lane: Lane, name: str, arguments: Any) -> None:
        """Take a batch of a lane.

        Args:
            lane: its copies so far.
            name: of the metric.
            arguments: a tuple of those of its `update`, or a dict of them by name; tensors on any device.

        Raises:
            BadInput: something else is given.
        """
        if isinstance(arguments, tuple):
            self.take(lane, name, *arguments)
        elif isinstance(arguments, Mapping):
            self.take(lane, name, **arguments)
        else:
            kind = type(arguments).__name__
            raise BadInput(
                f"metrics() gave {name!r} as a {kind}",
                f"measures() has {name!r}: it is updated with what metrics() gives",
                "Give the tuple of the arguments of its update(), as (scores, labels).",
            )

    def take(self, lane: Lane, name: str, /, *arguments: Any, **more: Any) -> None:
        """Take a batch of a lane: the arguments of the metric's `update`."""
        places, named = tuple(map(_plain, arguments)), {key: _plain(value) for key, value in more.items()}
        for key in self._of[name]:
            metric = self._metrics[key]
            if key not in lane:
                lane[key] = theirs.fresh(metric) if theirs.is_one(metric) else copy.deepcopy(metric)
            if theirs.is_one(metric):
                theirs.moved(lane[key], [*places, *named.values()])
            lane[key].update(*places, **named)
        self._updates += 1

    def unknown(self, name: str) -> BadInput:
        """What is raised where metrics() gives arguments for a metric that there is not."""
        return BadInput(
            f"metrics() gave a tuple for {name!r}",
            f"measures() has no metric of that name: it has {', '.join(self.names) or 'none'}",
            nearest(name, self.names) if self._metrics else "Return the metric from measures(), by that name.",
        )

    def joined(self, whole: Lane, states: Mapping[str, State]) -> None:
        """Merge a lane's states into metrics of all lanes so far."""
        for name in self._metrics:
            if name in states:
                whole[name] = _joined(self._metrics[name], whole.get(name), states[name])

    def computed(self, whole: Lane) -> Shown:
        """What comes of such metrics. Raises BadInput: it cannot be shown."""
        found = Shown()
        for name in self._metrics:
            if name in whole:
                found.add(shown(name, _result(whole[name])))
        return found

    def states(self, lane: Lane) -> dict[str, State]:
        """A lane's states, by name."""
        return {name: _state(metric) for name, metric in lane.items()}

    def due(self) -> bool:
        """Whether it is time to look at how much there is."""
        return self._updates % EVERY == 0

    def check_size(self, sizes: Mapping[str, int]) -> None:
        """Raises BadInput where states are too large. sizes: bytes by name, of all lanes together."""
        if sum(sizes.values()) > MOST_BYTES:
            name = max(sizes, key=sizes.__getitem__)
            raise BadInput(
                f"the states of the metrics take {sum(sizes.values()) / 2**20:,.0f} MiB, {name} the most of it "
                f"({sizes[name] / 2**20:,.0f})",
                f"they are brought together to be merged, and may take {MOST_BYTES // 2**20:,} MiB",
                "Choose a metric with a state of fixed size (torchmetrics: thresholds=200), or a smaller validation "
                "set.",
            )

    def results(self, lanes: Sequence[Mapping[str, State]]) -> Shown:
        """The metrics of all lanes together, which have rows.

        Args:
            lanes: their states, in their order.

        Raises:
            BadInput: a metric was never updated; a result that cannot be shown.
        """
        found = Shown()
        for name in self._metrics:
            states = [lane[name] for lane in lanes if name in lane]
            if states:
                found.add(shown(name, _computed(self._metrics[name], states)))
            else:
                raise BadInput(
                    f"measures() has the metric {name}, and metrics() never gave its arguments",
                    "it was never updated",
                    f"Give {name!r} in metrics(), with the tuple of its arguments, or leave it out of measures().",
                )
        return found


def size(state: State) -> int:
    """Bytes of a state's tensors."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(size, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(size, state))
    return int(getattr(state, "nbytes", 0))


def sizes(states: Sequence[Mapping[str, State]]) -> dict[str, int]:
    """Bytes by name, of several lanes together."""
    found: dict[str, int] = {}
    for lane in states:
        for name, state in lane.items():
            found[name] = found.get(name, 0) + size(state)
    return found


def _checked(name: str, metric: Any) -> Any:
    if isinstance(metric, type):
        reason, remedy = "a metric is an instance", f"Write {metric.__name__}(...)."
        raise BadInput(f"measures() has {name!r} as the class {metric.__name__}", reason, remedy)
    if theirs.is_one(metric):
        theirs.check(name, metric)
        return metric
    lacks = [verb for verb in VERBS if not callable(getattr(metric, verb, None))]
    if lacks:
        kind = type(metric).__name__
        raise BadInput(
            f"the metric {name} ({kind}) has no {' and no '.join(f'{verb}()' for verb in lacks)}",
            "every lane has a state of its own, and they are merged in the lanes' order",
            f"Write {kind}.{lacks[0]}{_SIGNATURES[lacks[0]]}, or take one of headway.metrics or torchmetrics.",
        )
    return metric


_SIGNATURES = {"update": "(self, ...)", "merge": "(self, other)", "compute": "(self)"}


def _plain(value: Any) -> Any:
    """Half precision is widened: metrics add up."""
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _state(metric: Any) -> State:
    if theirs.is_one(metric):
        return theirs.state(metric)
    return _hosted(metric.state_dict() if _keeps(metric) else vars(metric))


def _computed(metric: Any, states: Sequence[State]) -> Any:
    """Of all states together, in their order; there is one at least."""
    whole = None
    for state in states:
        whole = _joined(metric, whole, state)
    return _result(whole)


def _joined(metric: Any, whole: Any, state: State) -> Any:
    """A metric that has this state too. whole: None of the first."""
    if whole is None and theirs.is_one(metric):
        return theirs.loaded(metric, state)
    if whole is None:
        return _loaded(metric, copy.deepcopy(state))  # it may be merged in place, and asked for once more
    if theirs.is_one(metric):
        theirs.merge(whole, state)
    else:
        whole.merge(_loaded(metric, state))
    return whole


def _result(whole: Any) -> Any:
    return theirs.result(whole) if theirs.is_one(whole) else whole.compute()


def _loaded(metric: Any, state: State) -> Any:
    made = copy.deepcopy(metric)
    if _keeps(metric):
        made.load_state_dict(state)
    else:
        vars(made).update(state)
    return made


def _keeps(metric: Any) -> bool:
    return callable(getattr(metric, "state_dict", None)) and callable(getattr(metric, "load_state_dict", None))


def _hosted(tree: Any) -> Any:
    """In host memory."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().cpu()
    if isinstance(tree, Mapping):
        return {key: _hosted(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_hosted(value) for value in tree)
    return tree


def is_measured(value: Any) -> bool:
    """Whether metrics() gave arguments rather than a number."""
    return isinstance(value, tuple | Mapping)
