"""`headway evaluate`: the numbers of the run, on whatever rows; classes against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tests.unit.trained import TASK, points, trained

import headway
from headway.errors import BadInput
from headway.models import kept
from headway.runs import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunFolder:
    return trained(tmp_path_factory.mktemp("run"), TASK, data)


def labelled(count: int = 200) -> pa.Table:
    chance = np.random.default_rng(9)
    a, b = chance.normal(size=(2, count))
    return pa.table({"a": a, "b": b, "y": (a > 0).astype(np.int64)})


@pytest.mark.parametrize("batch", [None, 5])
def test_the_validation_set_gives_what_the_run_recorded(run: RunFolder, data: Path, batch: int | None) -> None:
    for known in kept.there(run):
        found = headway.evaluate(run.path, data / "val", step=known.step, batch=batch)
        assert found.metrics == pytest.approx(known.metrics, abs=1e-6)
        assert found.rows == 24


def test_classes_are_as_scikit_learn_has_them(run: RunFolder) -> None:
    table = labelled()
    found = headway.evaluate(run.path, table, label="y")
    said = headway.predict(run.path, table).table
    assert said is not None
    truth, said = table["y"].to_numpy(), said["class"].to_numpy()
    assert found.confusion == confusion_matrix(truth, said).tolist()
    precision, recall, f1, rows = precision_recall_fscore_support(truth, said, zero_division=0.0)
    assert [each.rows for each in found.classes] == rows.tolist()
    assert [each.precision or 0.0 for each in found.classes] == pytest.approx(precision.tolist())
    assert [each.recall for each in found.classes] == pytest.approx(recall.tolist())
    assert [each.f1 for each in found.classes] == pytest.approx(f1.tolist())
    assert found.metrics["accuracy"] == pytest.approx((truth == said).mean())


def test_a_label_that_is_missing_is_named(run: RunFolder, tmp_path: Path) -> None:
    csv.write_csv(labelled().drop_columns(["y"]), tmp_path / "new.csv")
    with pytest.raises(BadInput, match=r"new\.csv has no column 'y'"):
        headway.evaluate(run.path, tmp_path / "new.csv")
    with pytest.raises(BadInput, match="Did you mean 'y'"):
        headway.evaluate(run.path, labelled(), label="yy")
    with pytest.raises(BadInput, match=r"predicted='scores'.*no classes"):
        headway.evaluate(run.path, labelled(), label="y", predicted="scores")
    with pytest.raises(BadInput, match="Did you mean 'class'"):
        headway.evaluate(run.path, labelled(), predicted="clas")


def test_rows_without_a_label_are_left_out_with_a_word(run: RunFolder) -> None:
    table = labelled()
    holes = table.set_column(2, "y", pa.array([None, *table["y"].to_pylist()[1:]]))
    found, whole = headway.evaluate(run.path, holes), headway.evaluate(run.path, table.slice(1))
    assert found.metrics == pytest.approx(whole.metrics)
    assert (found.rows, found.confusion) == (199, whole.confusion)
    assert "1 rows without a y are left out" in found.notes
    none = table.set_column(2, "y", pa.nulls(200, pa.int64()))
    with pytest.raises(BadInput, match="no row with a y"):
        headway.evaluate(run.path, none)


def test_a_task_that_says_no_class_has_its_metrics(tmp_path: Path, data: Path) -> None:
    plain = trained(tmp_path, TASK.replace('"class": scores.argmax(1), ', ""), data)
    found = headway.evaluate(plain.path, data / "val")
    assert found.metrics.keys() == {"loss", "accuracy"}
    assert not found.classes
    assert "predict gives no class" in found.notes[0]


MEASURED = (
    TASK.replace(
        '(scores.argmax(1) == batch["y"]).float().mean()}',
        '(scores.argmax(1) == batch["y"]).float().mean(), "auc": (scores[:, 1] - scores[:, 0], batch["y"])}',
    )
    + """
    def measures(self):
        return {"auc": headway.metrics.AUC()}
"""
)


def test_metrics_that_are_no_means_are_those_of_the_run(tmp_path: Path, data: Path) -> None:
    measured = trained(tmp_path, MEASURED, data)
    for known in kept.there(measured):
        found = headway.evaluate(measured.path, data / "val", step=known.step, batch=7)
        assert "auc" in found.metrics
        assert found.metrics == pytest.approx(known.metrics, abs=1e-6)
