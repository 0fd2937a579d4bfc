"""An embedding whose table may be served: then a worker only ever has the rows that a batch uses."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Protocol

import torch
from torch import nn

from headway.errors import BadInput, nearest
from headway.strategies.parameter_server.rows import Table
from headway.weights import plain


class Source(Protocol):
    """Where served rows are."""

    def pull(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """Values of rows, each once; float32, shape [ids, dim]."""

    def push(self, name: str, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        """A lane's gradient of rows that were pulled."""


_here = threading.local()


@contextmanager
def served() -> Iterator[None]:
    """Embeddings that this thread makes meanwhile have no table of their own."""
    before, _here.served = getattr(_here, "served", False), True
    try:
        yield
    finally:
        _here.served = before


class ServedEmbedding(nn.Module):
    """In place of `torch.nn.Embedding`, for tables that are too large for a worker. Where nobody serves it, it is a
    plain one, which begins with the same values.

    A job says which are served: `strategy: {kind: parameter_server, sparse: ["*.weight"]}`.

    Args:
        num_embeddings: rows of the table.
        embedding_dim: values of each.
        mode: None: a row for each number; sum or mean: over the numbers in the last dimension (a bag).
        std: standard deviation of the first values.
        seed: of them; two tables need two.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, mode: str | None = None, std: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        if mode not in (None, "sum", "mean"):
            raise BadInput(f"ServedEmbedding(mode={mode!r})", "there is no such mode", "Choose None, 'sum' or 'mean'.")
        self.table = Table(num_embeddings, embedding_dim, seed, std)
        self.mode = mode
        self.served = bool(getattr(_here, "served", False))
        self.name = ""
        self.source: Source | None = None
        rows = 0 if self.served else num_embeddings
        self.weight = nn.Parameter(torch.empty(rows, embedding_dim))
        if rows:
            with torch.no_grad():
                self.begin(self.weight)

    def begin(self, weight: torch.Tensor) -> None:
        """Put the table's first values into a tensor of shape [rows, dim]."""
        for first in range(0, len(weight), 1 << 16):
            ids = torch.arange(first, min(len(weight), first + (1 << 16)))
            weight[ids] = self.table.first(ids).to(weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of a batch.

        Args:
            ids: int64, any shape.

        Returns:
            float32, shape [*ids.shape, dim]; with a mode [*ids.shape[:-1], dim].

        Raises:
            IndexError: a number is none of the table's.
        """
        if not self.served:
            found = nn.functional.embedding(ids, self.weight)
        else:
            found = self._pulled(ids)
        if self.mode is None:
            return found
        return found.sum(-2) if self.mode == "sum" else found.mean(-2)

    def extra_repr(self) -> str:
        return f"{self.table.rows}, {self.table.dim}" + (", served" if self.served else "")

    def _pulled(self, ids: torch.Tensor) -> torch.Tensor:
        source = self.source
        if source is None:
            raise RuntimeError(f"the served embedding {self.name!r} is used outside of a run")
        each, where = torch.unique(ids, return_inverse=True)
        wanted = each.to("cpu", torch.int64)
        if len(wanted) and not 0 <= int(wanted[0]) <= int(wanted[-1]) < self.table.rows:
            raise IndexError(f"numbers from {int(wanted[0])} to {int(wanted[-1])} in a table of {self.table.rows} rows")
        rows = source.pull(self.name, wanted).to(self.weight.device)
        if torch.is_grad_enabled() and self.weight.requires_grad:
            rows.requires_grad_(True)
            name = self.name

            def ready(leaf: torch.Tensor) -> None:
                gradient, leaf.grad = leaf.grad, None
                if gradient is not None:
                    source.push(name, wanted, gradient.detach().to("cpu", torch.float32))

            rows.register_post_accumulate_grad_hook(ready)
        return nn.functional.embedding(where, rows)


def tables(model: nn.Module, patterns: Sequence[str]) -> dict[str, ServedEmbedding]:
    """The embeddings that a job's `strategy.sparse` names, by the names of their weights.

    Args:
        model: of the run.
        patterns: names of parameters, or patterns as of file names.

    Raises:
        BadInput: one of them matches no parameter, or one that is not a ServedEmbedding's; a ServedEmbedding was made
            to be served, and none matches it.
    """
    modules = dict(model.named_modules())
    names = [name for name, _ in model.named_parameters()]
    found: dict[str, ServedEmbedding] = {}
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise BadInput(f"strategy.sparse names {pattern!r}", "no parameter matches it", nearest(pattern, names))
        for name in matched:
            module = modules[name.rpartition(".")[0]]
            if not isinstance(module, ServedEmbedding):
                kind = type(module).__name__
                raise BadInput(
                    f"strategy.sparse names {name!r}, which is a {kind}'s",
                    "every worker has all of it"
                    + (", and its gradient is dense" if not getattr(module, "sparse", False) else ""),
                    "Use headway.ServedEmbedding there, or leave the name out.",
                )
            found[name] = module
    for name, module in modules.items():
        weight = f"{name}.weight" if name else "weight"
        if isinstance(module, ServedEmbedding) and module.served and weight not in found:
            raise BadInput(
                f"no pattern of strategy.sparse matches {weight!r}",
                "it has no table, and would be served by nobody",
                f"Add {weight!r} to strategy.sparse.",
            )
    for name, module in found.items():
        module.name = name
    return found


def filled(state: Mapping[str, Any], trees: Iterable[Mapping[str, Any]], model: nn.Module) -> dict[str, Any]:
    """A model's state with the tables that were served while it was trained.

    Args:
        state: by name, as of `state_dict`, of plain names; such a table has no rows there.
        trees: what a checkpoint has of tables' ranges (table, ids, values).
        model: for whom it is, built with all of its tables.

    Raises:
        IndexError: the model's table has fewer rows.
    """
    found, modules = dict(state), {plain(name): module for name, module in model.named_modules()}
    begun: set[str] = set()
    for tree in trees:
        name = str(tree.get("table", ""))
        module = modules.get(plain(name).rpartition(".")[0])
        key = name if name in found else plain(name)
        if key not in found or not isinstance(module, ServedEmbedding) or module.served:
            continue
        if key not in begun:
            begun.add(key)
            found[key] = torch.empty(module.table.rows, module.table.dim)
            module.begin(found[key])
        found[key][tree["ids"]] = tree["values"]
    return found
