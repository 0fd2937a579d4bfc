"""What each process of a run has loaded before it does anything: a second of every start for each that is too many.

Not how long it takes, which a busy machine decides.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from headway import tryout
from headway.data.write.writer import write_dataset
from headway.job import load

DRIVER = ("headway.cli.train", "headway.driver.run", "headway.driver.leading", "headway.cli.live", "headway.cli.screen")
LEAD = ("headway.elastic.lead.controller", "headway.elastic.lead.trainer", "headway.elastic.lead.early")
COMPILER = ("torch._dynamo", "torch._inductor", "sympy")


def loaded(code: str) -> set[str]:
    """Names of the modules that a new process has loaded after this."""
    said = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return set(json.loads(said.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("who", "code", "without"),
    [
        ("driver, until its task is tried", f"import {', '.join(DRIVER)}", ("torch", "ray", "pandas", "mlflow")),
        ("controller", f"import {', '.join(LEAD)}", ("torch", "mlflow", "sklearn", "headway.elastic.worker")),
        ("recorder", "import headway.elastic.lead.recorder", ("torch", "pandas", "pyarrow", "mlflow", "ray.train")),
        (
            "worker",
            "from headway.elastic.worker.warm import warm; warm()",
            ("ray.train", "ray.data", "pandas", "mlflow", "sklearn", *COMPILER),
        ),
    ],
)
def test_what_a_process_imports_at_its_start(who: str, code: str, without: tuple[str, ...]) -> None:
    found = loaded(code)
    assert [name for name in without if name in found] == [], who


TASK = """
import json
import sys
from pathlib import Path

import torch

import headway


class Net(torch.nn.Linear):
    def state_dict(self, *arguments, **named):
        Path(self.told).write_text(json.dumps(sorted(sys.modules)))
        return super().state_dict(*arguments, **named)


class Small(headway.Task):
    def __init__(self, told):
        self.told = told

    def model(self):
        net = Net(1, 2)
        net.told = self.told
        return net

    def loss(self, model, batch):
        return torch.nn.functional.cross_entropy(model(batch["x"][:, None].float()), batch["y"])
"""


def test_a_task_is_tried_without_the_compiler(tmp_path: Path) -> None:
    """Model, optimiser, steps, and a checkpoint: none of it needs what torch.compile does."""
    rows = pa.table({"x": [0.5, 1.0, 1.5, 2.0], "y": [0, 1, 0, 1]})
    write_dataset(tmp_path / "set", [rows], name="s", source="")
    (tmp_path / "task.py").write_text(TASK)
    told = tmp_path / "loaded.json"
    fields = {"task": "task.py:Small", "arguments": {"told": str(told)}, "data": {"train": "set"}, "lanes": 2}
    job = {"name": "s", **fields, "lane_batch": 2, "steps": 2, "tracking": {"enabled": False}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    assert tryout.check(load(tmp_path / "job.yaml", None)).parameters == 4
    found = set(json.loads(told.read_text()))
    assert [name for name in ("ray", "pandas", "mlflow", *COMPILER) if name in found] == []


def test_a_commands_end_looks_for_no_garbage() -> None:
    """The interpreter's last collections went through all of Ray, pandas and pyarrow."""
    code = "import atexit, gc, sys; sys.argv = ['headway', '--help']; from headway.cli.app import main; "
    code += "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 1000)); main()"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert "frozen True" in said.stdout
