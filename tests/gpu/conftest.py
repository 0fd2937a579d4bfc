"""What the tests on a device share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import make_dataset

from headway.testing.workers import Crew, crew


@pytest.fixture(scope="session", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """61 rows to train on and 23 to evaluate."""
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (20, 11), (30,))
    make_dataset(folder / "val", (23,))
    return str(folder)


@pytest.fixture(name="processes")
def _processes(tmp_path: Path) -> Crew:
    """Workers are processes over gloo, which brings their tensors through host memory."""
    (tmp_path / "crew").mkdir()
    return crew("gloo", tmp_path / "crew")
