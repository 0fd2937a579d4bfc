"""Metrics of torchmetrics, where it is installed: the same numbers and bits over any lanes and batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics")
pytestmark = pytest.mark.slow

from tests.unit.test_metrics import cut, of  # noqa: E402

from headway.errors import BadInput  # noqa: E402
from headway.metrics.merging import Measures  # noqa: E402
from headway.metrics.running import Running  # noqa: E402
from headway.metrics.shown import shown  # noqa: E402

ROWS = 101


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (ROWS,))
    return {
        "two": (torch.rand(ROWS), (labels > 0).long()),
        "three": (torch.randn(ROWS, 3).softmax(-1), labels),
        "tokens": (torch.randn(ROWS, 5, 7), torch.randint(0, 7, (ROWS, 5))),
        "numbers": (torch.randn(ROWS), torch.randn(ROWS)),
    }


def cases() -> list[tuple[str, Any]]:
    c = torchmetrics.classification
    return [
        ("two", c.BinaryAUROC()),
        ("two", c.BinaryF1Score()),
        ("two", c.BinaryAUROC(thresholds=20)),
        ("three", c.MulticlassAUROC(3)),
        ("three", c.MulticlassF1Score(3)),
        ("three", c.MulticlassAccuracy(3, average=None)),
        ("three", c.MulticlassConfusionMatrix(3)),
        ("tokens", torchmetrics.text.Perplexity()),
        ("numbers", torchmetrics.MeanSquaredError()),
        ("three", torchmetrics.ClasswiseWrapper(c.MulticlassRecall(3, average=None))),
    ]


@pytest.mark.parametrize("number", range(10))
def test_they_are_theirs_over_any_lanes_and_batches(rows: dict[str, tuple[torch.Tensor, ...]], number: int) -> None:
    kind, metric = cases()[number]
    whole = cases()[number][1]
    whole.update(*rows[kind])
    wanted = shown("m", whole.compute())
    found = [of(metric, cut(rows[kind], size), lanes) for size, lanes in ((ROWS, 1), (16, 4), (16, 2), (5, 8), (1, 3))]
    for each in found:
        assert each.values.keys() == wanted.values.keys()
        for name, value in wanted.values.items():
            assert each.values[name] == pytest.approx(value, rel=1e-6, abs=1e-7)
        assert len(each.tables) == len(wanted.tables)
    assert of(metric, cut(rows[kind], 16), 4) == found[1], "the metric that was given is as it was"


def test_a_collection_is_several(rows: dict[str, tuple[torch.Tensor, ...]]) -> None:
    c = torchmetrics.classification
    collection = torchmetrics.MetricCollection([c.MulticlassPrecision(3), c.MulticlassRecall(3)])
    found = of(collection, cut(rows["three"], 10), 3).values
    collection.update(*rows["three"])
    assert found == {f"m/{name}": pytest.approx(float(value)) for name, value in collection.compute().items()}


class Mean(torchmetrics.Metric):
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("mean", torch.zeros(()), dist_reduce_fx="mean")

    def update(self, values: torch.Tensor) -> None:
        self.mean = values.mean()

    def compute(self) -> torch.Tensor:
        return self.mean


class Undecided(torchmetrics.Metric):
    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, values: torch.Tensor) -> None:
        self.total = self.total + values.sum()

    def compute(self) -> torch.Tensor:
        return self.total


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (torchmetrics.PearsonCorrCoef(), "the metric m (PearsonCorrCoef) has full_state_update=True"),
        (Undecided(), "the metric m (Undecided) has full_state_update=None"),
        (Mean(), "the metric m (Mean) has the state mean, which is reduced by a mean"),
    ],
)
def test_one_that_cannot_be_merged_is_refused(metric: Any, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        Measures({"m": metric})
    assert said in str(caught.value)


@pytest.mark.parametrize("number", range(10))
def test_they_run_on_over_steps_and_come_back(rows: dict[str, tuple[torch.Tensor, ...]], number: int) -> None:
    """As metrics of training, whose states are kept after each second step."""
    kind, metric = cases()[number]
    whole = cases()[number][1]
    whole.update(*rows[kind])
    measures = Measures({"m": metric})
    kept, straight = Running(measures), Running(measures)
    for place, batch in enumerate(cut(rows[kind], 5)):
        lane: dict[str, Any] = {}
        measures.take(lane, "m", *batch)
        for running in (kept, straight):
            running.add([measures.states(lane)])
        if place % 2:
            state = kept.state()
            kept = Running(measures)
            kept.load(state)
    found, wanted = kept.recorded(), shown("train/m", whole.compute())
    again = straight.recorded()
    assert (found.values, found.tables) == (again.values, again.tables)
    assert found.values == pytest.approx(wanted.values, rel=1e-6, abs=1e-7)
    assert kept.state() == {}
