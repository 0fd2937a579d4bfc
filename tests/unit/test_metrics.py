"""Metrics that are no means: what they come to, and the same bits whoever did which lane, and whoever is lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiers import examples
from tests.unit.test_elastic_run import Exact
from tests.unit.test_hooks import calm, tree

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.errors import BadInput
from headway.job import parse
from headway.metrics import AUC, F1, ClassAccuracy, Confusion, Perplexity, merging
from headway.metrics.merging import Measures
from headway.metrics.shown import shown
from headway.runs import RunFolder
from headway.testing.elastic import Run, advance

pytestmark = pytest.mark.usefixtures("one_thread")


def of(metric: Any, batches: list[tuple[Any, ...]], lanes: int) -> Any:
    """What measures give of batches that are dealt to lanes."""
    measures = Measures({"m": metric})
    made: list[merging.Lane] = [{} for _ in range(lanes)]
    for number, batch in enumerate(batches):
        measures.update(made[number % lanes], "m", batch)
    return measures.results([measures.states(lane) for lane in made if lane])


def cut(arrays: tuple[torch.Tensor, ...], rows: int) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(part) for part in zip(*(a.split(rows) for a in arrays), strict=True)]


# -- against scikit-learn --------------------------------------------------------------------------------------------


@settings(max_examples=examples(40, 400), deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_auc_is_exact(seed: int, rows: int, batch: int, lanes: int, ties: bool) -> None:
    from sklearn import metrics as peer  # seconds, and every worker imports this file

    random = np.random.default_rng(seed)
    labels = torch.from_numpy(random.integers(0, 2, rows))
    labels[:2] = torch.tensor([0, 1])
    scores = torch.from_numpy(random.integers(0, 5, rows) / 4 if ties else random.normal(size=rows)).float()
    found = of(AUC(), cut((scores, labels), batch), lanes).values["m"]
    assert found == pytest.approx(peer.roc_auc_score(labels, scores), rel=1e-12)


def test_auc_of_two_columns_is_of_their_difference() -> None:
    from sklearn import metrics as peer  # seconds, and every worker imports this file

    logits = torch.tensor([[0.0, 1.0], [3.0, 2.0], [0.5, 0.0], [1.0, 4.0]])
    labels = torch.tensor([1, 0, 1, 1])
    assert of(AUC(), [(logits, labels)], 1).values["m"] == peer.roc_auc_score(labels, logits[:, 1] - logits[:, 0])


def test_auc_of_one_class_is_none() -> None:
    assert np.isnan(of(AUC(), [(torch.ones(3), torch.ones(3))], 1).values["m"])


@settings(max_examples=examples(40, 400), deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 40), st.integers(1, 7), st.integers(1, 4))
def test_classes_are_counted_as_scikit_learn_does(seed: int, classes: int, rows: int, batch: int, lanes: int) -> None:
    from sklearn import metrics as peer  # seconds, and every worker imports this file

    random = np.random.default_rng(seed)
    found, labels = (torch.from_numpy(random.integers(0, classes, rows)) for _ in range(2))
    batches = cut((found, labels), batch)
    every = list(range(classes))
    matrix = of(Confusion(classes), batches, lanes).tables["m"]
    assert matrix == peer.confusion_matrix(labels, found, labels=every).tolist()
    for average in ("macro", "micro", *(["binary"] if classes == 2 else [])):
        known = sorted({*found.tolist(), *labels.tolist()}) if average == "macro" else None
        wanted = peer.f1_score(labels, found, average=average, labels=known, zero_division=0)
        assert of(F1(classes, average), batches, lanes).values["m"] == pytest.approx(wanted, abs=1e-12)
    by_class = of(ClassAccuracy(classes), batches, lanes).values
    wanted = peer.recall_score(labels, found, average=None, labels=every, zero_division=np.nan)
    assert by_class == {f"m/{c}": pytest.approx(value) for c, value in enumerate(wanted) if value == value}


def test_classes_come_as_scores_and_have_names() -> None:
    scores, labels = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]]), torch.tensor([1, 0, 1])
    assert of(ClassAccuracy(["cat", "dog"]), [(scores, labels)], 1).values == {"m/cat": 1.0, "m/dog": 0.5}
    assert of(Confusion(2), [(scores[:, 1], labels)], 1).tables["m"] == [[1, 0], [1, 1]]


def test_perplexity_is_of_tokens_over_any_batches() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(40, 6, 11), torch.randint(0, 11, (40, 6))
    targets[::3, 4:] = -100
    loss = torch.nn.functional.cross_entropy(logits.double().reshape(-1, 11), targets.reshape(-1))
    for rows, lanes in ((40, 1), (7, 3), (1, 8)):
        found = of(Perplexity(), cut((logits, targets), rows), lanes).values["m"]
        assert found == pytest.approx(float(loss.exp()), rel=1e-6)


# -- what is refused -------------------------------------------------------------------------------------------------


class NoMerge:
    def update(self, values: torch.Tensor) -> None:
        pass

    def compute(self) -> float:
        return 0.0


class Words:
    """Gives what is no number."""

    def __init__(self) -> None:
        self.rows = 0

    def update(self, values: torch.Tensor) -> None:
        self.rows += len(values)

    def merge(self, other: Words) -> None:
        self.rows += other.rows

    def compute(self) -> Any:
        return "many"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([AUC()], "measures() returned a list"),
        ({"auc": AUC}, "measures() has 'auc' as the class AUC"),
        ({1: AUC()}, "measures() has the name 1"),
        ({"m": NoMerge()}, "the metric m (NoMerge) has no merge()"),
    ],
)
def test_what_is_no_metric_is_refused(given: Any, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        Measures(given)
    assert said in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("metric", "batch", "said"),
    [
        (AUC(), torch.ones(3), "metrics() gave 'm' as a Tensor"),
        (AUC(), (torch.ones(3), torch.ones(2)), "AUC was given 3 scores and 2 labels"),
        (AUC(), (torch.ones(3), torch.tensor([0, 1, 2])), "AUC was given the label 2"),
        (AUC(), (torch.ones(3, 4), torch.ones(3)), "AUC is of two classes"),
        (Confusion(3), (torch.tensor([0, 3]), torch.tensor([0, 0])), "Confusion was given the prediction 3"),
        (F1(3), (torch.tensor([0, 1]), torch.tensor([0, -1])), "F1 was given the label -1"),
        (Confusion(3), (torch.tensor([0]), torch.tensor([0, 1])), "1 predictions and 2 labels"),
        (Words(), (torch.ones(2),), "the metric m gave a str"),
    ],
)
def test_what_does_not_fit_is_named(metric: Any, batch: Any, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        of(metric, [batch], 1)
    assert said in str(caught.value)


def test_what_is_made_wrong_is_named() -> None:
    for make, said in (
        (lambda: Confusion(1), "Confusion(classes=1)"),
        (lambda: F1(2, "mikro"), "micro"),
        (lambda: F1(3, "binary"), "there are 3 classes"),
    ):
        with pytest.raises(BadInput) as caught:
            make()
        assert said in str(caught.value)


def test_states_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MOST_BYTES", 1000)
    measures = Measures({"auc": AUC(), "confusion": Confusion(2)})
    lane: merging.Lane = {}
    measures.update(lane, "auc", (torch.zeros(300), torch.zeros(300)))
    measures.update(lane, "confusion", (torch.zeros(300), torch.zeros(300)))
    with pytest.raises(BadInput, match="auc the most of it"):
        measures.check_size(merging.sizes([measures.states(lane)]))


def test_results_are_numbers_and_tables() -> None:
    nan = float("nan")
    assert vars(shown("m", 2)) == {"values": {"m": 2.0}, "tables": {}}
    assert vars(shown("m", torch.tensor([0.5, nan]))) == {"values": {"m/0": 0.5}, "tables": {"m": [0.5, None]}}
    assert vars(shown("m", {"a": 1, "b": (2.0, np.ones(1))})) == {
        "values": {"m/a": 1.0, "m/b/0": 2.0, "m/b/1": 1.0}, "tables": {},
    }  # fmt: skip
    assert vars(shown("m", torch.eye(2, dtype=torch.int64))) == {"values": {}, "tables": {"m": [[1, 0], [0, 1]]}}
    assert vars(shown("m", torch.zeros(101, 101))) == {"values": {}, "tables": {}}, "too large to be kept"
    assert len(shown("m", torch.zeros(101)).values) == 0, "too many curves"


# -- in a run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows: 4 full steps per epoch; 38 rows to evaluate, whose last batches differ."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (20, 18))
    return folder


class Spread:
    """A user's own, with a state of numbers and lists: the sum of the ids, and all of them in order."""

    def __init__(self) -> None:
        self.total = 0
        self.ids: list[int] = []

    def update(self, ids: torch.Tensor) -> None:
        self.total += int(ids.sum())
        self.ids += ids.tolist()

    def merge(self, other: Spread) -> None:
        self.total += other.total
        self.ids += other.ids  # in place

    def compute(self) -> dict[str, float]:
        weighed = sum(place * number for place, number in enumerate(self.ids))
        return {"total": self.total, "order": weighed}


def measured(context: Context, pace_s: float = 0.0) -> dict[str, Any]:
    model = Exact()
    training = Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None)
    found = []

    def metrics(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        time.sleep(pace_s)
        score = (batch["x"].double() @ module.weight).float()  # type: ignore[operator]
        return {
            "value": module(batch["x"]),
            "auc": (score, batch["y"]),
            "confusion": {"predictions": (score > 0).long(), "labels": batch["y"]},
            "spread": (batch["id"],),
        }

    with training:
        for step in training.steps():
            for batch in step.lanes():
                time.sleep(pace_s)
                step.backward(model(batch["x"]))
            advance(training.step)
            if step.last_of_epoch:
                measures = {"auc": AUC(), "confusion": Confusion(2), "spread": Spread()}
                training.evaluate(metrics, measures)
                found.append([training.step, dict(training.metrics), training.tables])
    return {"found": found, "weight": model.weight.tolist()}


def test_measures_are_the_same_through_a_loss_and_a_join(tmp_path: Path, data: Path) -> None:
    made = parse(tree(data, workers={"min": 3}))
    wanted = calm(made, tmp_path / "c", body=measured)
    assert [step for step, _, _ in wanted["found"]] == [4, 8, 12, 16, 20, 24]
    _, values, tables = wanted["found"][-1]
    assert set(values) == {"value", "auc", "spread/total", "spread/order"}
    assert values["spread/total"] == sum(range(38))
    assert sum(map(sum, tables["confusion"])) == 38
    with Run(tmp_path / "run", made, measured, 0.004) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 8)
        run.kill(run.members[0])  # in an evaluation, or near it
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    lasting = {step: (values, tables) for step, values, tables in wanted["found"]}
    assert outcome.evaluations == [
        {"step": step, "values": values, "tables": tables} for step, (values, tables) in lasting.items()
    ]
    for worker, found in outcome.results.items():
        assert found["weight"] == wanted["weight"], worker
        assert found["found"] == wanted["found"][-len(found["found"]) :], worker
    assert RunFolder(tmp_path / "run").evaluations()[-1]["tables"] == tables


def forgotten(context: Context, which: str) -> dict[str, Any]:
    model = Exact()
    training = Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None)
    with training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"]))
            training.evaluate(lambda m, b: {"loss": m(b["x"]), which: (b["x"][:, 0], b["y"])}, {"auc": AUC()})
    return {}


def test_a_name_that_is_wrong_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BadInput) as caught:
        calm(parse(tree(data)), tmp_path / "c", "acu", body=forgotten)
    assert "metrics() gave a tuple for 'acu'" in str(caught.value)
    assert "auc" in caught.value.remedy


def test_a_measure_that_is_never_updated_is_named(tmp_path: Path, data: Path) -> None:
    def body(context: Context) -> dict[str, Any]:
        model = Exact()
        training = Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None)
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    step.backward(model(batch["x"]))
                training.evaluate(lambda m, b: {"loss": m(b["x"])}, {"auc": AUC()})
        return {}

    with pytest.raises(BadInput, match=r"measures\(\) has the metric auc, and metrics\(\) never gave its arguments"):
        calm(parse(tree(data)), tmp_path / "c", body=body)
