"""What workers say reaches whoever started the run, once, and is kept with it; a loop that ends by itself is an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Project

import headway
from headway.driver.progress import Progress
from headway.errors import BadInput, UserCodeFailed
from headway.jobs import logs
from headway.runs import find

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected"), pytest.mark.slow]

LOOP = '''
import logging
import os
import subprocess
import sys
import warnings

import torch
from torch import nn

import headway

log = logging.getLogger(__name__)


class Tight(Exception):
    """Says nothing, and cannot be pickled."""

    def __str__(self):
        raise RuntimeError("no words")

    def __reduce__(self):
        raise TypeError("tight")


def loop(until, trouble=""):
    model = nn.Linear(64, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with headway.session(model, optimizer) as session:
        for step in session.steps():
            for batch in step.lanes():
                scores = model(batch["image"].flatten(1).float() / 255)
                step.backward(nn.functional.cross_entropy(scores, batch["label"]))
            warnings.warn(f"careful at step {step.number}")
            log.warning("odd rows: %d", step.number)
            print("printed", step.number, flush=True)
            print("to standard error", step.number, file=sys.stderr)
            os.write(2, b"native words\\n")
            if step.number == 1:
                subprocess.run(["echo", "from a child"])
            if step.number >= until:
                if trouble:
                    raise Tight from KeyError("the first cause")
                break
'''


def train(project: Project, folder: Path, name: str, **arguments: Any) -> tuple[headway.Report | None, list[str]]:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "own.py").write_text(LOOP)
    said: list[str] = []

    def watch(progress: Progress) -> None:
        said.extend(progress.messages)

    tree = project.tree(task=str(folder / "mine" / "own.py") + ":loop", arguments=arguments)
    tree["workers"] = {**tree["workers"], "min": 2}  # else one may have ended before the other began, on a busy machine
    tree.pop("validation", None)
    if name in [path.name for path in (folder / "runs").glob("*")]:
        again = {"runs_folder": folder / "runs", "watch": watch}
        with pytest.raises(BadInput, match=f"run {name} has finished early"):
            headway.resume(name, **again)
        return headway.resume(name, settings=[f"epochs={tree['epochs']}"], **again), said
    return headway.train(tree, name=name, runs_folder=folder / "runs", watch=watch), said


def test_what_workers_say_is_shown_once_and_kept_and_a_break_is_an_end(project: Project, tmp_path: Path) -> None:
    report, said = train(project, tmp_path, "r", until=4)
    assert report is not None
    assert (report.state, report.steps) == ("finished", 5)
    assert report.message == "early: the task's loop ended after step 5 of 64"
    assert [line for line in said if line.startswith("printed")] == [f"printed {step}" for step in range(5)]
    warned = sorted(line.partition(" warns: ")[2] for line in said if " warns: " in line)
    assert warned[0].startswith("UserWarning: careful at step 0 (own.py:")
    assert warned[1:] == ["WARNING own: odd rows: 0"], "each once over both workers, and nothing of ours or Ray's"
    for worker in ("w0", "w1"):
        kept = [line.text for line in logs("r", runs=tmp_path / "runs", worker=worker)]
        for line in ("printed 3", "to standard error 3", "native words", "from a child", "odd rows: 3"):
            assert line in kept, kept
        assert kept.count("printed 3") == 1

    report, said = train(project, tmp_path, "r")
    assert report is not None
    assert report.message == "early: the task's loop ended after step 6 of 64"
    assert any("ended after step 5 of 64; it is called again, and goes on from there" in line for line in said)


def test_whatever_the_loop_raises_is_shown_with_its_own_frames(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserCodeFailed) as found:
        train(project, tmp_path, "r", until=2, trouble="yes")
    shown = found.value.traceback
    assert "own.Tight: (its text cannot be made) in worker" in str(found.value)
    assert "KeyError: 'the first cause'" in shown
    assert str(tmp_path / "mine" / "own.py") in shown, "their file, not the copy"
    assert "headway/elastic" not in shown
    assert any("Traceback" in line.text for line in logs("r", runs=tmp_path / "runs"))
    assert not list((tmp_path / "runs" / "r").glob("fault-*")), "it is none of ours"
    assert find(tmp_path / "runs", "r").read()["state"] == "failed"
