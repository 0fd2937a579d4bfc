"""What takes long to make and serves several modules: a cluster, a run whose outcome is the same wherever it is made.

`tests.tiers` sees to it that modules which share a cluster follow one another in one process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Generic, TypeVar

import pytest
from filelock import FileLock

T = TypeVar("T")
_all: list[Dear[Any]] = []


class Dear(Generic[T]):
    """Made when it is first asked for, and ended before the first test that does without it.

    Args:
        fixture: name of the fixture by which tests ask for it.
    """

    def __init__(self, fixture: str) -> None:
        self._fixture = fixture
        self._left = ExitStack()
        self._there: T | None = None
        _all.append(self)

    def get(self, make: Callable[[], AbstractContextManager[T]]) -> T:
        if self._there is None:
            self._there = self._left.enter_context(make())
        return self._there

    def end(self, asked: Collection[str] = ()) -> None:
        """End it, unless the fixture is among those that are asked for."""
        if self._fixture not in asked:
            self._there = None
            self._left.close()


def end_others(asked: Collection[str]) -> None:
    """End what none of these fixtures is."""
    for each in _all:
        each.end(asked)


def once(temporary: pytest.TempPathFactory, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, made by one of the processes of these tests for all of them.

    Args:
        temporary: pytest's, whose folder has a part for each process.
        name: by which it is known.
        make: called by who comes first, while others wait; its result is kept as JSON.
    """
    folder = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    file = folder / f"once-{name}.json"
    with FileLock(folder / f"once-{name}.lock"):
        if not file.exists():
            file.write_text(json.dumps(make()))
        return dict(json.loads(file.read_text()))
