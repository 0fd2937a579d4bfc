"""A task given from Python that stands in no file: real workers get it by value, with what it imports beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ray.conftest import make_dataset

pytestmark = pytest.mark.ray

TYPED = """
import json
import headway
from torch import nn
from torch.nn import functional
from nets_beside import head

scale = 1 / 255

class Seen(headway.Task):
    def __init__(self, width):
        self.width = width
    def model(self):
        return nn.Sequential(nn.Flatten(), head(self.width))
    def loss(self, model, batch):
        return functional.cross_entropy(model(batch["image"].float() * scale), batch["label"])

job = {"name": "typed", "data": {"train": "train"}, "lanes": 2, "lane_batch": 16, "steps": 4, "workers": {"max": 2}}
job |= {"tracking": {"enabled": False}}
report = headway.train(job, task=Seen(4), name="r", address="local")
print(json.dumps([report.state, report.steps, report.workers[-1]["workers"]]))
"""


def test_what_was_typed_runs_on_workers_and_is_resumed_when_its_session_is_gone(tmp_path: Path) -> None:
    make_dataset(tmp_path / "train", 256, 1)
    (tmp_path / "nets_beside.py").write_text("from torch import nn\ndef head(width): return nn.Linear(64, width)\n")
    environment = {**os.environ, "HEADWAY_CACHE": str(tmp_path / "cache"), "RAY_USAGE_STATS_ENABLED": "0"}

    def run(text: str) -> list[object]:
        done = subprocess.run(
            [sys.executable, "-"],
            input=text,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[object] = json.loads(done.stdout.splitlines()[-1])
        return found

    assert run(TYPED) == ["finished", 4, 2]
    shutil.rmtree(tmp_path / "cache" / "by-value")
    (tmp_path / "nets_beside.py").unlink()
    again = "import headway, json\nreport = headway.resume('r', settings=['steps=6'], address='in-process')\n"
    assert run(f"{again}print(json.dumps([report.state, report.steps]))") == ["finished", 6]
