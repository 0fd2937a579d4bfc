"""`fit` on a cluster: the same bits as in one process, and a whole run that begins with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from tests.unit.test_fitting import GOOD, job

import headway
from headway.fitting import Dataset, pieces, work
from headway.fitting.dataset import here
from headway.fitting.spread import Spread

pytestmark = pytest.mark.ray


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[pieces.RowGroups]:
    found = pieces.of(job(tmp_path))
    yield found
    found.close()


def test_what_ray_data_counts_has_the_same_bits(connected: None, rows: pieces.RowGroups) -> None:
    alone, spread = Dataset(rows, here), Dataset(rows, Spread({}))
    for name in ("age", "income", "y", "since"):
        assert (alone.mean(name), alone.std(name)) == (spread.mean(name), spread.std(name))
        assert (alone.min(name), alone.max(name)) == (spread.min(name), spread.max(name))
    assert list(alone.value_counts("colour").items()) == list(spread.value_counts("colour").items())
    asked = {"batch_size": 7, "batch_format": "pyarrow", "columns": ["income", "place"]}
    one, other = (pa.concat_tables(each.iter_batches(**asked)) for each in (alone, spread))  # type: ignore[arg-type]
    assert one.equals(other)


@pytest.mark.long
def test_a_large_training_set_is_fitted_to_on_the_cluster(
    connected: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(tmp_path, GOOD, tracking={"enabled": False})
    facts = []
    for name, most in (("alone", work.HERE_BYTES), ("spread", 10)):
        monkeypatch.setattr(work, "HERE_BYTES", most)
        report = headway.train(asked, name=name, runs_folder=tmp_path / "runs")
        assert report.state == "finished"
        facts.append((report.weights_sha256, json.loads((tmp_path / "runs" / name / "run.json").read_text())["fitted"]))
    assert facts[0] == facts[1]
