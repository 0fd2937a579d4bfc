"""The tiers of tests, and how a tier's tests are shared among processes. CONTRIBUTING.md says what each tier holds."""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

SOAK = os.environ.get("HEADWAY_TIER") == "soak"
"""Whether this is `make soak`: the same tests, with many more examples and longer histories."""

FIRST = ("slow", "long", "ray")
"""Modules of these marks last longest; they begin first, so that no process is left with one at the end."""

TOGETHER = (
    *("tests/ray/", "tests/cloud/", "tests/recipes/", "tests/packaging/", "tests/contract/test_reader.py"),
    *("tests/browsing/", "tests/dashboards/", "tests/servers/"),
)
"""Where a module makes something dear for its tests (a Ray, a cluster, a run, a server): they stay in one process."""


AS_ONE = {
    "tests/ray/test_kept.py": "tests/ray/test_faults.py",
    "tests/ray/test_spares.py": "tests/ray/test_faults.py",
    "tests/ray/test_jobs_cluster.py": "tests/ray/test_jobs.py",
    "tests/ray/test_jobs_secrets.py": "tests/ray/test_jobs.py",
}
"""Modules that use another one's cluster, see `tests.dear`: they stay in its process."""


def examples(few: int, soak: int) -> int:
    """How many examples a property is tried with: few in CI, many in a soak."""
    return soak if SOAK else few


def arrange(items: list[pytest.Item], shared: pytest.StashKey[bool]) -> None:
    """Order the tests: what lasts longest first, modules that use the one Ray one after another.

    Args:
        items: what was collected; sorted in place.
        shared: where to note whether a test's module uses the one Ray.
    """
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(module_of(item.nodeid), []).append(item)
    place = {}
    for name, own in modules.items():
        uses = any("shared_ray" in getattr(item, "fixturenames", ()) for item in own)
        marks = {mark.name for item in own for mark in item.iter_markers()}
        place[name] = (next((i for i, mark in enumerate(FIRST) if mark in marks), len(FIRST)), uses)
        for item in own:
            item.stash[shared] = uses
    items.sort(key=lambda item: place[module_of(item.nodeid)])


def module_of(nodeid: str) -> str:
    """The path in a test's name."""
    return nodeid.partition("::")[0]


class Scheduling(LoadScopeScheduling):
    """Hands out tests in their order, one at a time but for those that stay together.

    Our own, because groups by mark have no effect with pytest 9.2: github.com/pytest-dev/pytest-xdist/issues/1386.
    """

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False  # it would begin with the modules that have most tests
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        module = module_of(nodeid)
        return AS_ONE.get(module, module) if nodeid.startswith(TOGETHER) else nodeid
