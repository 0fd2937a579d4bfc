"""The updates of a step: which optimiser moves which parameters, and the schedule of its rates.

Most loops have one, which has no name. Where there are several (the critic and the generator of a GAN), each has
parameters of its own, which alone are trained in a pass of its own over the step's lanes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from headway import optim
from headway.errors import BadInput, nearest

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

ONLY = ""
"""The name of the only update."""


@dataclass
class Update:
    """One of them.

    Args:
        name: of several; '' of the only one.
        optimizer: that makes it.
        schedule: of its rates, if there is one.
        rates: options of the optimiser's groups when the session began.
    """

    name: str
    optimizer: Optimizer
    schedule: LRScheduler | None = None
    rates: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def wants_closure(self) -> bool:
        """Whether its optimiser cannot be stepped without a function that evaluates the loss again, as LBFGS."""
        return wants_closure(self.optimizer)

    @property
    def num_groups(self) -> int:
        """That the optimiser had when the session began."""
        return len(self.rates)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def settle(self) -> None:
        """The optimiser is as the user's code builds it."""
        groups = self.optimizer.param_groups
        self.rates = [{key: value for key, value in group.items() if key != "params"} for group in groups]

    def check_groups(self) -> None:
        """Raises BadInput where the optimiser was given a group that its schedule knows nothing of."""
        groups, known = len(self.optimizer.param_groups), len(getattr(self.schedule, "base_lrs", ()))
        if known and groups > known:
            raise BadInput(
                f"the optimiser has {groups} groups of parameters, and its schedule was made for {known}",
                "add_param_group() was called after the schedule was made",
                "Make all groups at the beginning, with requires_grad_(False) on those that are to wait.",
            )

    def load(self, state: dict[str, Any], options: bool) -> None:
        """Take the optimiser's state; options: those of its groups stay this run's.

        Raises:
            ValueError, KeyError: it does not fit.
        """
        self.optimizer.load_state_dict(state)
        if options:
            for group, mine in zip(self.optimizer.param_groups, self.rates, strict=False):
                group.update(copy.deepcopy(mine))

    def load_schedule(self, state: Any, steps: int | None) -> None:
        """Take the schedule's state; steps: that of this run, after so many, see `Replica.load`."""
        if self.schedule and steps is not None and optim.is_recomputable(self.schedule):
            optim.advance(self.schedule, self.optimizer, self.rates, steps)
        elif self.schedule and state:
            self.schedule.load_state_dict(state)

    def regroup(self, groups: list[list[str]], named: Mapping[str, nn.Parameter]) -> None:
        """Have the groups, by their parameters' names, that the optimiser was given since the session began."""
        optimizer, first = self.optimizer, self.num_groups
        for group in optimizer.param_groups[first + len(groups) :]:
            for parameter in group["params"]:
                optimizer.state.pop(parameter, None)
        del optimizer.param_groups[first + len(groups) :]
        for names in groups[len(optimizer.param_groups) - first :]:
            optimizer.add_param_group({"params": [named[name] for name in names]})


class Updates:
    """All of a session's.

    Args:
        optimizers: one, or several by name.
        schedules: likewise.

    Raises:
        BadInput: there is none; a parameter is in two of them.
    """

    def __init__(
        self,
        optimizers: Optimizer | Mapping[str, Optimizer],
        schedules: LRScheduler | Mapping[str, LRScheduler | None] | None = None,
    ) -> None:
        self.several = isinstance(optimizers, Mapping)
        if isinstance(optimizers, Mapping):
            given = schedules if isinstance(schedules, Mapping) else {}
            self._all = {name: Update(name, each, given.get(name)) for name, each in optimizers.items()}
        else:
            assert not isinstance(schedules, Mapping)
            self._all = {ONLY: Update(ONLY, optimizers, schedules)}
        self.now = next(iter(self._all.values()))
        """Whose pass is under way."""
        self.passing = not self.several
        """Whether one is."""

    def __iter__(self) -> Iterator[Update]:
        return iter(self._all.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._all)

    @property
    def unlike_one(self) -> str:
        """What there is in place of one optimiser that makes one update a step; empty where that is it."""
        if self.several:
            return "several optimisers"
        return "an optimiser that evaluates the loss itself" if self.now.wants_closure else ""

    def named(self, name: str) -> Update:
        """Raises BadInput: there is none of that name."""
        if name not in self._all:
            known = [each for each in self.names if each]
            raise BadInput(
                f"there is no update {name!r}",
                "a step's updates have the names of the optimisers"
                if known
                else "there is one optimiser, without name",
                nearest(name, known) if known else "Leave the name out.",
            )
        return self._all[name]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of all optimisers, in their order."""
        return [p for each in self for p in each.parameters]

    def places(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter, with a name that says where it is in its optimiser."""
        for each in self:
            root = f"optimizer.{each.name}." if self.several else "optimizer."
            for number, group in enumerate(each.optimizer.param_groups):
                for place, parameter in enumerate(group["params"]):
                    yield f"{root}group{number}.{place}", parameter

    @contextmanager
    def only(self, name: str, parameters: list[nn.Parameter]) -> Iterator[None]:
        """A pass of one: of these parameters, those of other updates and of none are frozen meanwhile.

        Raises:
            BadInput: there is none of that name.
        """
        self.now = self.named(name)
        if not self.several:
            yield
            return
        own = {id(p) for p in self.now.parameters}
        frozen = [p for p in parameters if id(p) not in own and p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        self.passing = True
        try:
            yield
        finally:
            self.passing = False
            for parameter in frozen:
                parameter.requires_grad_(True)

    def settle(self) -> None:
        """What is there now is as the user's code builds it.

        Raises:
            BadInput: two optimisers have a parameter.
        """
        owner: dict[int, str] = {}
        for each in self:
            each.settle()
            for parameter in each.parameters:
                if owner.setdefault(id(parameter), each.name) != each.name:
                    raise BadInput(
                        f"the optimisers {owner[id(parameter)]!r} and {each.name!r} have a parameter of shape "
                        f"{tuple(parameter.shape)} both",
                        "each update trains parameters of its own",
                        "Give it to one of them, or leave both to one optimiser.",
                    )

    def step_schedules(self, sometimes: bool) -> None:
        """At a step's end; sometimes: there may be an optimiser that was not stepped in it, which is no mistake."""
        for each in self:
            if each.schedule is not None and not isinstance(
                each.schedule, ReduceLROnPlateau
            ):  # that goes by evaluations
                if sometimes or self.several:
                    each.optimizer._opt_called = True  # type: ignore[attr-defined]
                each.schedule.step()

    # State: of the only one as it is, of several by name.

    def map(self, look: Callable[[Update], Any]) -> Any:
        """What `look` finds of each by name; of the only one as it is."""
        return {each.name: look(each) for each in self} if self.several else look(self.now)

    def of(self, tree: Any, each: Update) -> Any:
        """One update's part of what `map` gave."""
        return tree[each.name] if self.several else tree

    def rates(self) -> list[float]:
        """Of all groups."""
        return [float(group.get("lr", 0.0)) for each in self for group in each.optimizer.param_groups]

    def states(self) -> Iterator[dict[str, Any]]:
        """Of the optimisers, in their order."""
        return (each.optimizer.state_dict()["state"] for each in self)

    def of_schedule(self, state: Any) -> Update | None:
        """The update whose optimiser a schedule of the user's own moves."""
        theirs = getattr(state, "optimizer", None)
        return next((each for each in self if each.optimizer is theirs), None)


def wants_closure(optimizer: Optimizer) -> bool:
    """Whether an optimiser cannot be stepped without a function that evaluates the loss again, as LBFGS."""
    try:
        closure = inspect.signature(optimizer.step).parameters.get("closure")
    except (TypeError, ValueError):  # a signature that nobody knows
        return isinstance(optimizer, torch.optim.LBFGS)
    return closure is not None and closure.default is inspect.Parameter.empty
