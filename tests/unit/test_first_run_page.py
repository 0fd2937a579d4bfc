"""docs/first-run.md: who follows it with a CSV of their own has a model, a test AUC, predictions in five commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests import pages
from tests.unit.test_init import people

PAGE = Path(__file__).parents[2] / "docs" / "first-run.md"
COMMANDS = 5
OWN_LINES = 30


def called(words: list[str], folder: Path) -> str:
    """What a command prints. It is called as from a shell."""
    ours = str(Path(__file__).parents[2] / "platform")
    environ = {**os.environ, "PYTHONPATH": ours, "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", "from headway.cli.app import main; main()", *words]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"headway {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's folder: their table, and rows of which they want to know."""
    folder = tmp_path_factory.mktemp("customers")
    table = people(1500).drop_columns(["reason"]).to_pandas()
    table.to_csv(folder / "customers.csv", index=False)
    table.drop(columns="churned").head(50).to_csv(folder / "new.csv", index=False)
    return folder


def test_the_page_names_what_there_is() -> None:
    assert pages.strange(PAGE) == []
    assert pages.links(PAGE) == []


def test_a_table_of_ones_own_in_five_commands(customers: Path) -> None:
    first = pages.commands(PAGE)[:COMMANDS]
    assert [words[0] for words in first] == ["init", "train", "evaluate", "predict", "export"]
    said = [called([*words, *(["--set", "epochs=4"] if words[0] == "train" else [])], customers) for words in first]
    auc = re.search(r"auc:?\s+([0-9.]+)", said[2])
    assert auc is not None, said[2]
    assert float(auc[1]) > 0.8
    found = pq.read_table(customers / "predictions")
    assert found.num_rows == 50
    assert set(found["churned"].to_pylist()) == {"yes", "no"}
    assert any((customers / "model").rglob("*.safetensors"))
