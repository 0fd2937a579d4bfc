"""From rows of the user's own to a batch: by the task's `collate`, else by torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from headway.core.keys import key
from headway.data.own.seeding import lent
from headway.data.read.aligned import aligned
from headway.data.read.reader import Collate
from headway.errors import BadInput
from headway.faults import blame


def collated(rows: list[Any], numbers: Sequence[int], use: str) -> Any:
    """A batch by torch's `default_collate`: of tuples a list, of mappings a mapping; tensors with a first dimension.

    Raises:
        BadInput: the rows are not alike, or hold what no tensor can be made of.
    """
    from torch.utils.data import default_collate

    refuse_unlike(rows, numbers, use)
    try:
        return nest(default_collate(rows), aligned)
    except (TypeError, RuntimeError, ValueError) as error:  # torch's words for shapes and types
        raise BadInput(
            f"rows of {use} cannot be put together: {fields_told(rows[0])}",
            blame.reason(error),
            "Return tensors or numbers of one shape from __getitem__, or write `collate(self, rows)` in the task.",
        ) from None


def collated_by(collate: Collate, rows: list[Any], place: tuple[int, int, int, int]) -> Any:
    """A batch by the task's own `collate`. place: seed, epoch, step and lane; by these what it draws is seeded.

    Raises:
        Exception: of the user's code.
    """
    with lent() as seeded:
        seeded(key("collate", *place))
        return nest(collate(rows), aligned)


def refuse_unlike(rows: list[Any], numbers: Sequence[int], use: str) -> None:
    """Raises BadInput: rows are of different kinds, or have different names."""
    first = rows[0]
    for number, row in zip(numbers, rows, strict=True):
        if type(row) is not type(first) or (isinstance(row, dict) and row.keys() != first.keys()):
            raise BadInput(
                f"row {number} of {use} has {fields_told(row)}, and row {numbers[0]} has {fields_told(first)}",
                "rows of one batch must be alike",
                "Return the same names from __getitem__ for every row, or write `collate(self, rows)` in the task.",
            )


def fields_told(row: Any) -> str:
    """What a row holds, in words."""
    from headway.data.own.rows import fields_of

    return f"({', '.join(f'{name}: {kind}' for name, kind in fields_of(row))})"


def nest(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same nest of mappings, lists and tuples, with what `change` makes of each tensor or array in it."""
    if isinstance(tree, dict):
        made = {name: nest(part, change) for name, part in tree.items()}
        return made if type(tree) is dict else like(tree, made)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(nest(part, change) for part in tree))
    if type(tree) in (list, tuple):
        return type(tree)(nest(part, change) for part in tree)
    return change(tree) if hasattr(tree, "shape") and hasattr(tree, "dtype") else tree


def like(tree: Any, made: dict[Any, Any]) -> Any:
    """A mapping of a kind of its own (Hugging Face's BatchEncoding, say), with other parts."""
    import copy

    found = copy.copy(tree)
    for name, part in made.items():
        found[name] = part
    return found
