"""A generation's members in few bytes: names in runs, and a membership as what became of the one before.

Workers are named in the order in which they are asked for, and ranks follow that order but for those who have left, so
that ten thousand names are a few runs: `w3*5` are w3 to w7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MOST = 1 << 20
"""Members that are believed in."""

Runs = tuple[tuple[int, int], ...]
"""Of whole numbers: (first, how many) of each."""


def runs(numbers: Iterable[int]) -> Runs:
    """Ascending numbers in runs."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][0] + found[-1][1]:
            found[-1][1] += 1
        else:
            found.append([number, 1])
    return tuple((first, count) for first, count in found)


def written(names: Sequence[str]) -> tuple[str, ...]:
    """Names in runs. Raises ValueError for a name with a star."""
    found: list[str] = []
    base, first, count = "", 0, 0

    def end() -> None:
        if count:
            found.append(f"{base}{first}*{count}" if count > 1 else f"{base}{first}")

    for name in names:
        if "*" in name:
            raise ValueError(f"{name!r} is no name of a worker")
        stem = name.rstrip("0123456789")
        digits = name[len(stem) :]
        if not digits.isascii() or str(int(digits or "-1")) != digits:  # none, or with leading zeros
            end()
            count = 0
            found.append(name)
        elif count and stem == base and int(digits) == first + count:
            count += 1
        else:
            end()
            base, first, count = stem, int(digits), 1
    end()
    return tuple(found)


def read(items: Sequence[str]) -> tuple[str, ...]:
    """The names again. Raises ValueError for what is none, or too many."""
    found: list[str] = []
    for item in items:
        run, star, many = item.rpartition("*")
        if not star:
            found.append(item)
            continue
        stem = run.rstrip("0123456789")
        if not (many.isascii() and many.isdigit() and run[len(stem) :]) or len(many) > 7 or len(run) > 64:
            raise ValueError(f"{item[:80]!r} is no run of names")
        first, count = int(run[len(stem) :]), int(many)
        if len(found) + count > MOST:
            raise ValueError(f"more than {MOST} members")
        found += [f"{stem}{number}" for number in range(first, first + count)]
    if len(found) > MOST:
        raise ValueError(f"more than {MOST} members")
    return tuple(found)


def change(before: Sequence[str], after: Sequence[str]) -> tuple[Runs, tuple[str, ...]] | None:
    """What became of a membership: ranks that are gone, and names that came to its end; None where others than those
    that stayed have moved, so that it must be told whole."""
    staying = set(after)
    kept = [name for name in before if name in staying]
    if len(kept) > len(after) or list(after[: len(kept)]) != kept:
        return None
    return runs(rank for rank, name in enumerate(before) if name not in staying), written(after[len(kept) :])


def changed(before: Sequence[str], gone: Runs, came: Sequence[str]) -> tuple[str, ...]:
    """The membership after a change. Raises ValueError where that is none of this membership."""
    found: list[str] = []
    at = 0
    for first, count in gone:
        if first < at or count < 1 or first + count > len(before):
            raise ValueError(f"ranks {first} to {first + count} of {len(before)} members cannot be gone")
        found += before[at:first]
        at = first + count
    return (*found, *before[at:], *read(came))
