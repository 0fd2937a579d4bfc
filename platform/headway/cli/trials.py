"""A sweep among runs: one line of a listing, and the same words for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Line(Protocol):
    """Of a run or a sweep; see `headway.runs.Brief`."""

    @property
    def run(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def sweep(self) -> str: ...


L = TypeVar("L", bound=Line)


def without_trials(lines: Sequence[L]) -> list[L]:
    """The lines without those of trials whose sweep has a line."""
    sweeps = {line.run for line in lines if line.kind == "sweep"}
    return [line for line in lines if line.sweep not in sweeps]


@contextmanager
def or_sweep(name: str, runs: str | None, verb: Callable[[], None]) -> Iterator[None]:
    """What is done about a run; where there is none of that name, and a sweep is, the verb for sweeps."""
    from headway.errors import BadInput, HeadwayError

    try:
        yield
    except BadInput:
        from headway.runs import Place
        from headway.sweeps import folder

        try:
            sweep = folder.look(Place.of(runs), name)
        except HeadwayError:  # then the run's own error says why
            sweep = None
        if sweep is None:
            raise
        verb()
