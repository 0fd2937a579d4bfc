"""How a local cluster counts its nodes, without starting any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.cluster.local.cluster import LocalCluster, Shape
from headway.errors import BadInput


class Named:
    """Stands for a node."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        pass


class Growing(LocalCluster):
    """Its autoscaler adds a node before the first ones have been started."""

    begun: list[int]

    def _begin_head(self) -> None:
        self.begun = []
        self.add(Shape(cpus=1))

    def _launch(self, number: int, shape: Shape) -> Any:
        return Named(number)

    def _begin(self, node: Any, shape: Shape) -> dict[str, Any]:
        self.begun.append(node.number)
        return {}


@pytest.mark.parametrize("first", [0, 2])
def test_an_autoscaler_may_add_nodes_while_the_cluster_starts(first: int) -> None:
    with Growing([Shape(cpus=1)] * first) as cluster:
        assert [node.number for node in cluster.nodes] == list(range(1 + first))
        assert sorted(cluster.begun) == list(range(1 + first)), "each is begun once"
        folder = cluster.folder
    assert folder is not None
    assert not Path(folder).exists()
    with pytest.raises(BadInput, match="has been closed"):
        cluster.add(Shape(cpus=1))
