"""Who gossips with whom."""

from __future__ import annotations

import numpy as np
import pytest

from headway.core import graphs


@pytest.mark.parametrize("graph", graphs.GRAPHS)
@pytest.mark.parametrize("count", range(1, 18))
def test_the_mean_stays_and_all_come_to_it(graph: str, count: int) -> None:
    matrix = np.zeros((count, count))
    for replica in range(count):
        for other, weight in graphs.weights(graph, replica, count).items():
            matrix[replica, other] = weight
    assert np.allclose(matrix.sum(0), 1)
    assert np.allclose(matrix.sum(1), 1)
    start = np.arange(count, dtype=float)
    assert np.allclose(np.linalg.matrix_power(matrix, 400) @ start, start.mean())


def test_neighbours_by_hand() -> None:
    assert graphs.neighbours("ring", 0, 5) == [0, 1, 4]
    assert graphs.neighbours("exponential", 0, 8) == [0, 4, 6, 7]
    assert graphs.neighbours("complete", 1, 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="no graph 'star'"):
        graphs.neighbours("star", 0, 3)


def test_what_passes_between_workers_passes_once() -> None:
    assert graphs.needs("ring", 4, ((0, 1), (2, 3))) == [(0, 0, 1), (1, 0, 1), (2, 1, 0), (3, 1, 0)]
    assert graphs.needs("ring", 4, ((0, 1, 2, 3),)) == []
    assert graphs.needs("complete", 3, ((0, 1), (2,))) == [(0, 0, 1), (1, 0, 1), (2, 1, 0)]
