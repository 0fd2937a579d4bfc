"""Processes that are there before they are wanted: on which nodes, and what becomes of their places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headway.driver.names import Names
from headway.elastic.lead import early, group


def nodes(**cpus: float) -> list[dict[str, Any]]:
    return [{"NodeID": name, "Alive": many >= 0, "Resources": {"CPU": abs(many)}} for name, many in cpus.items()]


class Actor:
    """Notes what it is told to execute."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.execute = SimpleNamespace(remote=lambda *words: self.told.append(words))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Actor]]:
    found: list[tuple[str, str, Actor]] = []

    def standing(names: Names, name: str, node: str, cpus: int, env: dict[str, Any]) -> Actor:
        found.append((name, node, Actor()))
        return found[-1][2]

    monkeypatch.setattr(early, "standing", standing)
    monkeypatch.setattr(early, "get_env_vars_to_propagate", dict)
    return found


def warm() -> None:
    """Of a test."""


def test_those_that_stand_by_are_spread_over_nodes_that_can_hold_a_worker(
    monkeypatch: pytest.MonkeyPatch, made: list[tuple[str, str, Actor]]
) -> None:
    monkeypatch.setattr(early.ray, "nodes", lambda: nodes(head=0, a=2, dead=-4, small=1, b=4))
    found = early.stand_by(Names("r"), {"CPU": 2.0}, 2, 3, warm)
    assert [node for node, _ in found] == ["a", "b", "a"]
    assert [name for name, _, _ in made] == ["standing-0", "standing-1", "standing-2"]
    assert all(actor.told == [(early.readied, warm)] for _, _, actor in made)


def test_none_stands_by_where_a_worker_takes_a_gpu_or_finds_no_node(
    monkeypatch: pytest.MonkeyPatch, made: list[tuple[str, str, Actor]]
) -> None:
    monkeypatch.setattr(early.ray, "nodes", lambda: nodes(a=2))
    assert early.stand_by(Names("r"), {"CPU": 1.0, "GPU": 1.0}, 1, 2, warm) == []
    assert early.stand_by(Names("r"), {"CPU": 3.0}, 3, 2, warm) == []
    assert made == []


def test_a_run_that_is_to_be_smaller_before_it_began_gives_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(early, "remove_placement_group", removed.append)
    there: early.Early = {f"w{number}": (f"group {number}", None) for number in range(12)}
    early.give_up(there, 10)
    assert (sorted(there), removed) == (sorted(f"w{n}" for n in range(10)), ["group 10", "group 11"])
    early.give_up(there, 10)
    assert len(removed) == 2
    early.give_up(there, 1)
    assert list(there) == ["w0"]


def test_who_gets_a_place_works_in_a_process_that_stands_by_on_that_node(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    monkeypatch.setattr(group.ray, "kill", killed.append)
    monkeypatch.setattr(
        group.ray.util, "placement_group_table", lambda node: {"bundles_to_node_id": {0: node}}, raising=False
    )
    workers = group.ElasticWorkerGroup.__new__(group.ElasticWorkerGroup)
    workers.stand_by([("a", "first"), ("b", "second"), ("a", "third")])
    assert workers._stood_by("a") == "first"
    assert workers._stood_by("c") is None
    assert workers._stood_by("a") == "third"
    assert workers._stood_by("a") is None
    workers.let_go()
    assert killed == ["second"]
    workers.let_go()
    assert killed == ["second"]
