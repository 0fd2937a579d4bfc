"""What Ray says of machines' nodes, as its control store answers."""

from __future__ import annotations

import pytest
from ray.core.generated.autoscaler_pb2 import (  # type: ignore[attr-defined]
    ClusterResourceState,
    GetClusterResourceStateReply,
    NodeStatus,
)

from headway.cluster import ray_side
from headway.core.inventory import Draining


class Store:
    """Answers as Ray's client of its control store does."""

    def __init__(self, nodes: list[tuple[bytes, str, str]], draining_ms: dict[str, int] | None) -> None:
        self.state, self.draining_ms = ClusterResourceState(), draining_ms
        for node, machine, status in nodes:
            self.state.node_states.add(node_id=node, instance_id=machine, status=NodeStatus.Value(status))

    def get_cluster_resource_state(self) -> bytes:
        reply: bytes = GetClusterResourceStateReply(cluster_resource_state=self.state).SerializeToString()
        return reply

    def get_draining_nodes(self, timeout: float) -> dict[str, int]:
        assert self.draining_ms is not None, "nobody needs to ask"
        return self.draining_ms


def standings(monkeypatch: pytest.MonkeyPatch, store: Store) -> object:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray_side, "_client", lambda address: store)
    return ray_side.standings()


def test_what_drains_is_told_with_its_announced_end(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [(b"\xaa", "i-1", "DRAINING"), (b"\xbb", "i-2", "DRAINING"), (b"\xcc", "i-3", "IDLE")]
    nodes += [(b"\xdd", "i-4", "DEAD"), (b"\xee", "", "RUNNING")]
    found = standings(monkeypatch, Store(nodes, {"aa": 1_800_500, "bb": 0}))
    assert found == {"i-1": Draining(until=1800.5), "i-2": Draining(), "i-3": "alive", "i-4": "dead"}


def test_where_nothing_drains_no_more_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [(b"\xaa", "i-1", "DEAD"), (b"\xbb", "i-1", "RUNNING")]
    assert standings(monkeypatch, Store(nodes, None)) == {"i-1": "alive"}


def test_where_ray_cannot_be_asked_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert standings(monkeypatch, Store([(b"\xaa", "i-1", "DRAINING")], None)) is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert ray_side.standings() is None
