"""The wheel: holds the package whole, and runs where nothing of this checkout is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return next(out.glob("headway-*.whl"))


def test_it_holds_every_module(wheel: Path) -> None:
    there = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    package = ROOT / "platform"
    expected = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert there == expected


def test_it_finds_the_dashboards_in_itself(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; from pathlib import Path; from headway.dashboards import files, scraping; "
        "tree = scraping.configuration(Path('runs'), []); print(files.folder(), *tree['rule_files']); "
        "print(*files.export(Path(sys.argv[1])))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=env, cwd=tmp_path)
    folder, *rules = done.stdout.splitlines()[0].split()
    assert folder == str(tmp_path / "headway" / "dashboards")
    assert all(Path(rule).is_file() for rule in rules)
    written = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*")}
    top, kinds = ROOT / "dashboards", ("grafana", "perses", "prometheus")
    made = {path.relative_to(top) for kind in kinds for path in (top / kind).glob("*.*")}
    assert written == made


def test_it_holds_what_a_page_is_made_of(wheel: Path) -> None:
    there = set(zipfile.ZipFile(wheel).namelist())
    package, folder = ROOT / "platform", ROOT / "platform" / "headway" / "report" / "page"
    parts = [path for name in ("web", "vendor") for path in (folder / name).iterdir()]
    assert len(parts) > 8
    assert {str(path.relative_to(package)) for path in parts} <= there


def test_importing_it_is_light(tmp_path: Path) -> None:
    code = (
        "import sys, headway.cli.app, headway.task, headway.job; "
        "heavy = {'torch', 'ray', 'mlflow', 'pyarrow', 'pandas'} & set(sys.modules); print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_it_installs_in_a_clean_environment_and_trains(wheel: Path, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "RAY_", "MLFLOW_"))}
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    for what in ([torch], ["-c", str(ROOT / "constraints.txt"), str(wheel)]):
        # Of what is installed an eighth is imported, which Python compiles by itself.
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *what]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "job.yaml").write_text(JOB)
    headway = str(tmp_path / "venv" / "bin" / "headway")

    def run(*arguments: str) -> str:
        done = subprocess.run([headway, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("data", "get", "python-source")
    report = json.loads(run("train", "job.yaml", "--json"))
    assert report["state"] == "finished"
    assert report["losses"][-1] < report["losses"][0]


TASK = """
import torch
from torch import nn

import headway


class Bytes(headway.Task):
    def model(self):
        return nn.Sequential(nn.Embedding(256, 32), nn.Linear(32, 256))

    def transform(self, table, random, training):
        from headway.data.arrays import arrays

        (name,) = table.column_names[:1]
        return {"text": next(a for a in arrays(table.select([name])).values()).astype("int64")}

    def loss(self, model, batch):
        text = batch["text"]
        return nn.functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
"""

JOB = """
name: bytes
task: task.py:Bytes
data: {train: data/python-source/train}
lanes: 4
lane_batch: 8
steps: 20
workers: {max: 2}
optimizer: {name: adamw, lr: 1e-2}
"""
