"""A table's rows as a server has them: only those that were ever updated take memory.

Row r of a table in n ranges is in range r % n, so that neighbours (often equally popular) are apart. The optimiser is
lazy: a step moves the rows that it used and their state, and no others, as torch's SparseAdam does. For SGD without
momentum or weight decay, and for Adagrad without weight decay, that is what the dense optimiser does too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from headway.core.clocks import Clocks
from headway.core.first_rows import first_rows
from headway.core.reduction import plan
from headway.errors import BadInput
from headway.strategies.kept import Tree
from headway.strategies.parameter_server.cut import is_elementwise
from headway.strategies.parameter_server.shard import copied, like

_FIRST_ROOM = 1024


@dataclass(frozen=True)
class Table:
    """An embedding that is served.

    Args:
        rows: how many there are.
        dim: values of each.
        seed: of their first values, see `first_rows`.
        std: of these.
    """

    rows: int
    dim: int
    seed: int = 0
    std: float = 1.0

    def first(self, ids: torch.Tensor) -> torch.Tensor:
        """First values of rows; float32, shape [ids, dim]."""
        return torch.from_numpy(first_rows(ids.numpy(), self.dim, self.seed, self.std))


class RowShard:
    """A range of a table. Not for several threads at a time.

    A push is int64 numbers of rows, each once, and then their float32 gradients, row by row. A pull is int64 numbers of
    rows, which may repeat, and gives their float32 values.

    Args:
        table: of all rows.
        place: of the range, and how many there are.
        optimizer: the user's.
        weight: what stands for the table in one of its groups, whose options are those of the updates.
        clocks: whose steps are in it.
        tree: to go on from, see `tree`.

    Raises:
        BadInput: the optimiser does not work row by row.
    """

    def __init__(
        self,
        table: Table,
        place: tuple[int, int],
        optimizer: Optimizer,
        weight: nn.Parameter,
        clocks: Clocks,
        tree: Tree | None = None,
    ) -> None:
        if not is_elementwise(optimizer) and type(optimizer) is not torch.optim.SparseAdam:
            raise BadInput(
                f"a served embedding has the optimiser {type(optimizer).__name__}",
                "its rows are updated one by one, wherever they are",
                "Use SGD, Adam, AdamW, Adagrad, RMSprop, Adadelta, Adamax, NAdam, RAdam or SparseAdam of torch.optim.",
            )
        groups = [n for n, group in enumerate(optimizer.param_groups) if any(p is weight for p in group["params"])]
        if not groups:
            raise BadInput(
                "a served embedding is in none of the optimiser's groups",
                "its rows would never be trained",
                "Give the optimiser all of the model's parameters.",
            )
        self._optimizer, self._weight, self._group = optimizer, weight, groups[0]
        self.table, self.clocks, self.version = table, clocks, 0
        self._range, self._ranges = place
        self._slots = torch.full((-(-table.rows // self._ranges),), -1, dtype=torch.int32)
        """Where a row is among those that are kept; -1: it is as at first."""
        self._count = 0
        self._ids = torch.empty(0, dtype=torch.int64)
        self._values = torch.empty(0, table.dim)
        self._rowwise: dict[str, torch.Tensor] = {}
        """The optimiser's state by row, shape [room, dim]."""
        self._common: dict[str, Any] = {}
        """And what is of the table as a whole (a count of steps)."""
        self._pending: tuple[torch.Tensor, float] | None = None
        if tree:
            self._load(tree)

    @property
    def count(self) -> int:
        """Rows that take memory."""
        return self._count

    def fits(self, size: int) -> bool:
        """Whether a push can have so many bytes."""
        return size % (8 + 4 * self.table.dim) == 0

    def read(self, content: torch.Tensor, room: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """What a pull gives. Rows that were never updated are drawn, and not kept.

        Raises:
            ValueError: they are no rows of this range.
        """
        if len(content) % 8:
            raise ValueError(f"{len(content)} bytes are no numbers of rows")
        ids = content.view(torch.int64)
        slots = self._slots_of(ids)
        found = room(len(ids) * self.table.dim).view(len(ids), self.table.dim)
        new = slots < 0
        if self._count:
            torch.index_select(self._values, 0, slots.clamp(min=0), out=found)
        if new.any():
            found[new] = self.table.first(ids[new])
        return found.view(-1)

    def apply(self, content: torch.Tensor, factor: float = 1.0) -> None:
        """Make an update.

        Args:
            content: of a push; uint8.
            factor: by which gradients are multiplied.

        Raises:
            ValueError: they are no rows of this range, or one is there twice; nothing has changed.
        """
        ids, gradients = self._split(content)
        if len(ids):
            self._step(self._kept(ids), gradients * factor if factor != 1.0 else gradients)
        self.version += 1

    # An update that is known and not yet applied

    def pend(self, content: torch.Tensor, factor: float = 1.0) -> None:
        """The next update, to be made by `settle`; as of `apply`."""
        self._split(content)
        self._pending = content, factor

    def settle(self, version: int) -> None:
        """There have been so many updates in all: the pending one is made if it was one of them, else forgotten."""
        pending, self._pending = self._pending, None
        if pending is not None and version == self.version + 1:
            self.apply(*pending)

    # To be kept

    def tree(self) -> Tree:
        """All of it, in the memory of what it is; rows in the order in which they came to be."""
        n = self._count
        return {
            "at": self.version,
            "ids": self._ids[:n],
            "values": self._values[:n],
            "rowwise": {name: value[:n] for name, value in self._rowwise.items()},
            "common": dict(self._common),
            "clocks": dict(self.clocks.done),
        }

    def _load(self, tree: Tree) -> None:
        self.version = int(tree["at"])
        self._ids, self._values = tree["ids"].clone(), tree["values"].clone()
        self._count = len(self._ids)
        self._rowwise = {name: value.clone() for name, value in tree["rowwise"].items()}
        self._common = {name: copied(value) for name, value in tree["common"].items()}
        self.clocks.done = {int(replica): int(step) for replica, step in tree["clocks"].items()}
        self._slots[self._ids // self._ranges] = torch.arange(self._count, dtype=torch.int32)

    # Inside

    def _split(self, content: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Raises ValueError."""
        if not self.fits(len(content)):
            raise ValueError(f"{len(content)} bytes are no rows of {self.table.dim} values")
        count = len(content) // (8 + 4 * self.table.dim)
        ids = content[: 8 * count].view(torch.int64)
        self._require(ids)
        if len(torch.unique(ids)) < count:
            raise ValueError("a row is there twice")
        return ids, content[8 * count :].view(torch.float32).view(count, self.table.dim)

    def _require(self, ids: torch.Tensor) -> None:
        """Raises ValueError."""
        if len(ids) and not bool(((ids >= 0) & (ids < self.table.rows) & (ids % self._ranges == self._range)).all()):
            raise ValueError(f"not all are of {self.table.rows} rows, or of range {self._range} of {self._ranges}")

    def _slots_of(self, ids: torch.Tensor) -> torch.Tensor:
        self._require(ids)
        return self._slots[ids // self._ranges].long()

    def _kept(self, ids: torch.Tensor) -> torch.Tensor:
        """Places of rows, which are there from now on."""
        slots = self._slots_of(ids)
        new = slots < 0
        if new.any():
            fresh = ids[new]
            first, last = self._count, self._count + len(fresh)
            self._make_room(last)
            self._ids[first:last] = fresh
            self._values[first:last] = self.table.first(fresh)
            for value in self._rowwise.values():
                value[first:last] = self._fill
            self._count = last
            slots[new] = torch.arange(first, last)
            self._slots[fresh // self._ranges] = torch.arange(first, last, dtype=torch.int32)
        return slots

    @property
    def _fill(self) -> float:
        """What a row's state begins with: Adagrad's alone is not nought."""
        return float(self._options.get("initial_accumulator_value", 0.0))

    @property
    def _options(self) -> dict[str, Any]:
        return self._optimizer.param_groups[self._group]

    def _make_room(self, rows: int) -> None:
        if rows <= len(self._ids):
            return
        room = min(len(self._slots), max(rows, _FIRST_ROOM, 3 * len(self._ids) // 2))
        self._ids = _grown(self._ids, room, self._count)
        self._values = _grown(self._values, room, self._count)
        self._rowwise = {name: _grown(value, room, self._count) for name, value in self._rowwise.items()}

    def _step(self, slots: torch.Tensor, gradients: torch.Tensor) -> None:
        shadow = nn.Parameter(self._values[slots])
        shadow.grad = gradients
        state: dict[str, Any] = {name: value[slots] for name, value in self._rowwise.items()}
        state |= self._common
        if not state and type(self._optimizer) is torch.optim.Adagrad:  # its constructor makes it
            state = {"step": torch.tensor(0.0), "sum": torch.full_like(shadow, self._fill)}
        served = self._served(shadow, state)
        served.step()
        self._values[slots] = shadow.detach()
        for name, value in served.state[shadow].items():
            if isinstance(value, torch.Tensor) and value.shape == shadow.shape:
                if name not in self._rowwise:
                    self._rowwise[name] = torch.full((len(self._ids), self.table.dim), self._fill, dtype=value.dtype)
                self._rowwise[name][slots] = value
            else:
                self._common[name] = value

    def _served(self, shadow: nn.Parameter, state: dict[str, Any]) -> Optimizer:
        if type(self._optimizer) is torch.optim.SparseAdam:  # it takes no dense gradients, and these rows are all
            options = {key: self._options[key] for key in ("lr", "betas", "eps", "maximize")}
            made: Optimizer = torch.optim.Adam([shadow], **options)
            if state:
                made.state[shadow] = state
            return made
        groups: list[list[nn.Parameter]] = [[] for _ in self._optimizer.param_groups]
        groups[self._group] = [shadow]
        return like(self._optimizer, groups, {shadow: state} if state else {})


def reranged(trees: Sequence[Tree], ranges: int, dim: int) -> list[Tree]:
    """A table's rows in another number of ranges, each as of `RowShard.tree`; the optimiser's common state is the
    newest of all.

    Args:
        trees: of all ranges that there were.
        ranges: that there are to be.
        dim: values of a row.
    """
    names = {name for tree in trees for name in tree["rowwise"]}
    filled = [tree for tree in trees if len(tree["ids"])]
    common: Tree = max((tree["common"] for tree in trees), key=_steps, default={})
    ids = torch.cat([tree["ids"] for tree in filled]) if filled else torch.empty(0, dtype=torch.int64)
    values = torch.cat([tree["values"] for tree in filled]) if filled else torch.empty(0, dim)
    rowwise = {name: torch.cat([tree["rowwise"][name] for tree in filled]) for name in names} if filled else {}
    found = []
    for part in range(ranges):
        here = (ids % ranges == part).nonzero()[:, 0]
        state = {name: value[here] for name, value in rowwise.items()}
        own = {"ids": ids[here], "values": values[here], "rowwise": state}
        found.append({"at": 0, **own, "common": copied(dict(common)), "clocks": {}})
    return found


def _steps(common: Mapping[str, Any]) -> float:
    return float(common.get("step", 0.0))


def packed(ids: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """What a push carries, see `RowShard`; uint8.

    Args:
        ids: int64, shape [rows], each once.
        gradients: float32, shape [rows, dim].
    """
    return torch.cat([ids.contiguous().view(torch.uint8), gradients.contiguous().view(-1).view(torch.uint8)])


def coalesced(ids: torch.Tensor, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row once, ascending, with the sum of its gradients in the order in which they stand."""
    each, where = torch.unique(ids, return_inverse=True)
    if len(each) == len(ids):
        order = torch.argsort(ids)
        return each, gradients[order]
    return each, torch.zeros(len(each), gradients.shape[1], dtype=gradients.dtype).index_add_(0, where, gradients)


def added(
    by_lane: Mapping[int, tuple[torch.Tensor, torch.Tensor]], lanes: int, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum over lanes, in the tree's order (`headway.core.reduction`). A row that a lane did not use counts as
    nought there, so that each row's sum is what a dense gradient's would be.

    Args:
        by_lane: of those that used rows: their numbers, each once, and gradients, shape [rows, dim].
        lanes: of the run.
        dim: values of a row.
    """
    present = sorted(lane for lane, (ids, _) in by_lane.items() if len(ids))
    if not present:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dim)
    union = torch.unique(torch.cat([by_lane[lane][0] for lane in present]))
    stack: list[torch.Tensor] = []
    for lane, merges in zip(present, plan((tuple(present),), lanes).own[0].merges, strict=True):
        ids, gradients = by_lane[lane]
        total = torch.zeros(len(union), dim)
        total[torch.searchsorted(union, ids)] = gradients
        for _ in range(merges):
            total = stack.pop().add_(total)
        stack.append(total)
    return union, stack[0]


def by_range(ids: torch.Tensor, ranges: int) -> Sequence[torch.Tensor]:
    """Of some rows' numbers, where in them those of each range are."""
    where = ids % ranges
    return [(where == number).nonzero().view(-1) for number in range(ranges)]


def _grown(value: torch.Tensor, room: int, count: int) -> torch.Tensor:
    made = torch.empty(room, *value.shape[1:], dtype=value.dtype)
    made[:count] = value[:count]
    return made
