"""docs/first-run.md on a Ray: the same files train there, with what was fitted, and predict afterwards."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.unit.test_first_run_page import called
from tests.unit.test_init import people

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_what_init_wrote_trains_on_a_ray_too(tmp_path: Path) -> None:
    table = people(800).drop_columns(["reason"]).to_pandas()
    table.to_csv(tmp_path / "customers.csv", index=False)
    table.drop(columns="churned").head(20).to_csv(tmp_path / "new.csv", index=False)
    called(["init", "customers.csv", "--target", "churned"], tmp_path)
    called(["train", "job.yaml", "--name", "first", "--address", "local", "--set", "epochs=2"], tmp_path)
    called(["predict", "first", "new.csv", "--out", "predictions"], tmp_path)
    assert pq.read_table(tmp_path / "predictions").num_rows == 20
