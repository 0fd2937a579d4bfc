"""Runs in the process of a script or a command: breakpoints, signals, kills, and what is imported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_dataset
from tests.pages import links, strange
from tests.unit.in_process import STEPS, Ground, command
from tests.waiting import until

from headway import report
from headway.cli.train import train
from headway.errors import BadInput
from headway.jobs.look.stopping import stop
from headway.runs import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows: 4 full steps per epoch."""
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


@pytest.fixture
def ground(tmp_path: Path, data: Path) -> Ground:
    return Ground(tmp_path, data)


SCRIPT = """
import os, sys, headway
if __name__ == "__main__":
    print("at", os.environ.get("WHERE"))
    report = headway.train({job!r}, runs_folder={runs!r}, address="in-process", name="r")
    print("END", report.state, report.weights_sha256)
    print("LOADED", sorted({{"ray", "mlflow", "torch._dynamo", "sympy"}} & set(sys.modules)))
"""


def started(words: list[str], **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def test_neither_ray_nor_mlflow_nor_the_compiler_is_imported(ground: Ground) -> None:
    """Before the first step: each takes longer than that may. Of a run that is not tracked: see the next test."""
    seen = "print('FIRST', sorted({'ray', 'mlflow', 'torch._dynamo', 'sympy'} & set(sys.modules)))"
    job = ground.job(seen) | {"tracking": {"enabled": True}, "steps": 1, "evaluate_every_steps": None}
    (ground.folder / "script.py").write_text(SCRIPT.format(job=job, runs=str(ground.runs)))
    done = subprocess.run([sys.executable, "script.py"], cwd=ground.folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "FIRST []" in done.stdout
    assert "LOADED ['mlflow']" in done.stdout
    assert RunFolder(ground.runs / "r").read()["tracking"]["waiting"] == 0


@pytest.mark.parametrize("quits", [False, True])
def test_a_breakpoint_in_the_loss_stops_there(ground: Ground, quits: bool) -> None:
    """As under `python script.py`: the debugger has the terminal, the frame is the author's, and the run goes on."""
    job = ground.job("if self.calls == 9: breakpoint()")
    (ground.folder / "script.py").write_text(SCRIPT.format(job=job, runs=str(ground.runs)))
    told = "p self.calls\np loss.requires_grad\nw\n" + ("q\n" if quits else "c\n")
    done = subprocess.run(
        [sys.executable, str(ground.folder / "script.py")], input=told, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 9" in done.stdout
    assert "(Pdb) True" in done.stdout
    assert f"> {ground.folder / 'task.py'}(" in done.stdout
    assert f"END {'interrupted' if quits else 'finished'}" in done.stdout
    assert "LOADED []" in done.stdout
    if quits:
        ground.job()
        assert ground.resume("r").state == "finished"


OF_ITS_OWN = """
import headway
from torch import nn

class Small(headway.Task):
    def __init__(self, hidden=8):
        self.hidden, self.calls = hidden, 0

    def model(self):
        return nn.Linear(4, 2)

    def loss(self, model, batch):
        self.calls += 1
        if self.calls == 9:
            breakpoint()
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

if __name__ == "__main__":
    for task in {tasks}:
        report = headway.train({job!r}, task=task, runs_folder={runs!r}, address="in-process")
        print("END", report.state)
"""


def test_a_breakpoint_in_a_task_of_the_script_itself(ground: Ground) -> None:
    """A class at the top of it, which it names by its file, and an object, which goes by value."""
    job = {key: value for key, value in ground.job().items() if key != "task"}
    script = ground.folder / "script.py"
    script.write_text(OF_ITS_OWN.format(tasks="(Small, Small(hidden=4))", job=job, runs=str(ground.runs)))
    told = "p self.hidden\nw\nc\n" * 2
    done = subprocess.run([sys.executable, str(script)], input=told, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 8" in done.stdout
    assert "(Pdb) 4" in done.stdout
    assert done.stdout.count("END finished") == 2
    assert done.stdout.count('-> return nn.functional.cross_entropy(model(batch["x"]), batch["y"])') >= 2


def test_the_command_line_prints_one_object_and_lets_the_task_print(ground: Ground) -> None:
    job = ground.file(ground.job("print('here')"))
    words = ["train", str(job), "--runs", str(ground.runs), "--local"]
    done = subprocess.run(command(*words, "--json"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"
    assert "here" in done.stderr
    with pytest.raises(BadInput, match="it is one or the other"):
        train(job, local=True, address="auto")


HELD = """
def held(calls):
    try:
        return calls > int(open({hold!r}).read())
    except (OSError, ValueError):
        return False
"""


def test_an_interrupt_ends_it_after_the_step_and_a_kill_loses_what_no_checkpoint_has(ground: Ground) -> None:
    whole = ground.train(ground.job(), name="whole")
    hold = ground.folder / "hold"  # so many calls a process comes to, and no further, while that is there
    hold.write_text("32")
    top = HELD.format(hold=str(hold))
    slow = "import time\n        while held(self.calls): time.sleep(0.01)"
    run = RunFolder(ground.runs / "r")
    job = ground.file(ground.job(slow, top=top))
    words = ["train", str(job), "--runs", str(ground.runs), "--local", "--name", "r"]

    def done(steps: int) -> bool:
        return (run.path / "run.json").exists() and run.last_step() >= steps

    def kept() -> int:
        return int(run.read().get("checkpoint", {}).get("step", 0))

    def heard() -> None:
        until(lambda: [event["kind"] for event in run.events()].count("stop") == 2, "it is heard, too", 60)
        hold.unlink(missing_ok=True)

    with started(command(*words)) as process:  # records are there while it goes, and in order
        until(lambda: (done(7) and kept() == 5) or process.poll() is not None, "steps, and a checkpoint", 120)
        assert [step["step"] for step in run.steps()] == list(range(8))
        assert run.is_led()
        process.kill()
    assert report.load(run).state == "interrupted"
    hold.write_text("20")
    words = ["resume", "r", "--runs", str(ground.runs), "--local"]
    with started(command(*words)) as process:
        until(lambda: done(9) or process.poll() is not None, "steps", 120)
        process.send_signal(signal.SIGINT)
        hold.rename(ground.folder / "held")
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Go on with: headway resume r" in said
    assert "--local" in said
    facts = run.read()
    assert facts["state"] == "interrupted"
    assert facts["checkpoint"]["step"] == run.last_step() + 1
    (ground.folder / "held").rename(hold)
    with started(command(*words)) as process:  # and `headway stop`, in another shell
        until(lambda: done(14) or process.poll() is not None, "steps", 120)
        found = stop("r", runs=ground.runs, say=lambda text: heard())
        process.communicate(timeout=60)
    assert (process.returncode, found.state) == (4, "stopped")
    assert found.checkpoint == run.last_step() + 1
    ground.job()
    again = ground.resume("r")
    assert (again.state, again.weights_sha256) == ("finished", whole.weights_sha256)
    assert [step["step"] for step in run.steps()] == list(range(STEPS))
    assert run.read()["recoveries"] == 0


def test_an_interrupt_that_a_debugger_has_taken_is_the_debuggers(ground: Ground) -> None:
    takes = "import time, signal as s; s.signal(s.SIGINT, lambda *_: None)"
    again = "for _ in range(3): os.kill(os.getpid(), 2); time.sleep(0.3)"
    job = ground.job(f"if self.calls == 9:\n            {takes}\n            {again}")
    (ground.folder / "script.py").write_text(SCRIPT.format(job=job, runs=str(ground.runs)))
    done = subprocess.run([sys.executable, "script.py"], cwd=ground.folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "END finished" in done.stdout


def test_its_page_names_what_there_is() -> None:
    page = Path(__file__).parents[2] / "docs" / "in-process.md"
    assert (strange(page), links(page)) == ([], [])


def test_asked_twice_it_ends_at_once(ground: Ground) -> None:
    stuck = "open('stuck', 'w').close(); import time; time.sleep(600)"
    words = ["train", str(ground.file(ground.job(stuck))), "--runs", str(ground.runs), "--local", "--name", "r"]
    with started(command(*words), cwd=ground.folder) as process:
        until(lambda: (ground.folder / "stuck").exists() or process.poll() is not None, "steps", 120)
        until(lambda: _ended_by_another(process), "it ends", 60)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "as asked twice" in said


def _ended_by_another(process: subprocess.Popen[str]) -> bool:
    """Signals that come close together are one request: this one comes some time after the one before."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        return False
    return True
