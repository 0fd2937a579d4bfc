"""The try-out in its place: beside Ray's start, before a worker. Runs are started by the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import headway

pytestmark = pytest.mark.ray


def job(project: Any, folder: Path, text: str, **changes: Any) -> Path:
    """A job whose task is the project's with other methods."""
    (folder / "other.py").write_text("import torch\nfrom torch import nn\nimport digits\n\n\n" + text)
    for name in ("digits.py", "scale.py"):
        (folder / name).write_text((project.folder / name).read_text())
    tree = project.tree(task="other.py:Other", check={"limit_s": 300}, epochs=None, steps=3, **changes)
    (folder / "job.yaml").write_text(yaml.safe_dump(tree))
    return folder / "job.yaml"


def test_a_run_that_would_fail_is_refused_before_a_worker_starts(
    project: Any, headway: Callable[..., Any], tmp_path: Path
) -> None:
    file = job(project, tmp_path, "class Other(digits.Digits):\n    def loss(self, model, batch):\n        return {}\n")
    code, out, err = headway("train", file, "--name", "r").end()
    assert (code, out) == (2, "")
    assert "headway: task Other.loss() returned dict: a scalar tensor is needed." in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
@pytest.mark.slow
def test_lazy_layers_train_alike_on_one_worker_and_two(connected: None, project: Any, tmp_path: Path) -> None:
    text = """class Other(digits.Digits):
    def model(self):
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4))
    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["image"][:, None].float()), batch["label"])
"""
    weights = set()
    for workers in (1, 2):
        file = job(project, tmp_path, text, workers={"min": workers, "max": workers})
        report = headway.train(file, name=f"r{workers}", runs_folder=tmp_path / "runs")
        assert report.state == "finished"
        weights.add(report.weights_sha256)
    assert len(weights) == 1
