"""Tasks given from Python: by file where they have one, else by value; what cannot travel is refused by name."""

from __future__ import annotations

import functools
import io
import json
import linecache
import queue
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.conftest import make_dataset
from tests.unit import loops

import headway
from headway import plan, tryout
from headway.carried import asked, cargo, code, value
from headway.data.tensors import column
from headway.data.write.writer import write_dataset
from headway.elastic.worker import context as contexts
from headway.elastic.worker.context import Context
from headway.errors import BadInput
from headway.jobs.send.submitting import code_of
from headway.testing.elastic import Run
from headway.tryout.small import Tried, try_out

CELL = """
import functools, threading
import headway, torch
from torch import nn

scale = 2.0

def scaled(x):
    return scale * x

class T(headway.Task):
    def __init__(self, width=2):
        self.width = width
    def model(self):
        return nn.Linear(4, self.width)
    def loss(self, model, batch):
        return nn.functional.cross_entropy(scaled(model(batch["x"])), batch["y"])

def loop(lr=0.1):
    pass
"""


def cell(text: str = CELL) -> dict[str, Any]:
    """What a notebook's cell defines: there is no file, and the module is __main__."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec"), names)
    return names


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def job(tmp_path: Path, cache: Path) -> dict[str, Any]:
    make_dataset(tmp_path / "train", (30, 20), (50,))
    data = {"train": str(tmp_path / "train")}
    return {"name": "n", "data": data, "lanes": 3, "lane_batch": 8, "epochs": 2, "workers": {"max": 2}}


def tried(job: dict[str, Any], task: Any, folder: Path) -> Tried:
    """What its trial finds of a task that is carried as to a worker."""
    given = asked.job_of(job, task)
    checked = plan.check(given)
    room = Path(tempfile.mkdtemp(dir=folder))
    code.carry(checked.source, room / "code", checked.cargo)
    return try_out(given, code.carried(checked.source, room / "code"), checked.total_steps, room)


def test_a_class_of_a_cell_an_object_and_a_partial_are_tasks(tmp_path: Path, job: dict[str, Any]) -> None:
    task = cell()["T"]
    assert tried(job, task, tmp_path).parameters == 10
    assert tried({**job, "arguments": {"width": 3}}, task, tmp_path).parameters == 15
    assert tried(job, task(4), tmp_path).parameters == 20
    assert tried(job, functools.partial(task, width=5), tmp_path).parameters == 25
    assert tried({**job, "arguments": {"width": 6}}, functools.partial(task), tmp_path).parameters == 30


def test_functions_are_loops_of_their_own(tmp_path: Path, job: dict[str, Any]) -> None:
    loop = cell()["loop"]

    def closure(lr: float) -> None:
        loop(lr)

    for given in (loop, closure, lambda lr: loop(lr), functools.partial(loop)):
        assert "a loop of its own" in tried({**job, "arguments": {"lr": 0.2}}, given, tmp_path).notes[0]
        with pytest.raises(BadInput, match=r"arguments=\{'rl': 0.2\}"):
            tried({**job, "arguments": {"rl": 0.2}}, given, tmp_path)


def test_the_digest_is_of_what_was_given_and_decides_the_jobs(job: dict[str, Any]) -> None:
    first, again, other = cell()["T"], cell()["T"], cell(CELL.replace("2.0", "3.0"))["T"]
    names = [asked.name_of(each) for each in (first, again, other)]
    assert names[0] == names[1] != names[2]
    digests = [plan.check(asked.job_of(job, each)).digest for each in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_what_is_given_stays_as_it_is(tmp_path: Path) -> None:
    """Made anew in the very process that it was taken from, it is another: the author's own is left alone."""
    names = cell()
    loss = names["T"].loss
    made = value.task(value.put(value.take(names["T"], "task"), tmp_path))
    assert made is not names["T"]
    assert names["T"].loss is loss
    task = names["T"](7)
    task.kept = torch.ones(2)
    found = value.task(value.put(value.take(task, "task"), tmp_path))
    one, two = found(), found()
    one.kept.add_(1)
    assert (task.kept.tolist(), two.kept.tolist(), two.width) == ([1, 1], [1, 1], 7)


def test_what_stands_in_a_file_is_taken_from_there(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks_here.py").write_text(CELL + "made = functools.partial(T)\n")
    (tmp_path / "package_here").mkdir()
    (tmp_path / "package_here" / "__init__.py").touch()
    (tmp_path / "package_here" / "inner.py").write_text(CELL)
    monkeypatch.syspath_prepend(tmp_path)
    import package_here.inner  # type: ignore[import-not-found]
    import tasks_here  # type: ignore[import-not-found]

    assert asked.name_of(tasks_here.T) == f"{tmp_path}/tasks_here.py:T"
    assert asked.name_of(tasks_here.loop) == f"{tmp_path}/tasks_here.py:loop"
    assert asked.name_of(package_here.inner.T) == "package_here.inner:T"
    assert not cache.exists()
    assert cargo.is_by_value(asked.name_of(tasks_here.T()).partition(":")[0])
    assert cargo.is_by_value(asked.name_of(tasks_here.made).partition(":")[0])


def test_modules_of_ones_own_travel_with_it(
    tmp_path: Path, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "project"
    beside.mkdir()
    (beside / "nets_here.py").write_text(
        "import torch\nimport parts_here\n\ndef net():\n    return parts_here.part()\n"
    )
    (beside / "parts_here.py").write_text("from torch import nn\n\ndef part():\n    return nn.Linear(4, 9)\n")
    monkeypatch.syspath_prepend(beside)
    text = CELL.replace("nn.Linear(4, self.width)", "nets_here.net()").replace(
        "import headway", "import nets_here, headway"
    )
    given = asked.job_of(job, cell(text)["T"])
    checked = plan.check(given)
    assert {"nets_here.py", "parts_here.py"} <= {path.name for path in checked.cargo.files}
    code.carry(checked.source, tmp_path / "code", checked.cargo)
    for path in beside.glob("*.py"):
        path.unlink()
    for name in ("nets_here", "parts_here"):
        del sys.modules[name]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(beside)])
    found = code.load(code.kept(given.task, tmp_path / "code"))
    assert found().model().out_features == 9


UNFIT: list[tuple[str, Callable[[], Any], str]] = [
    ("an open file", lambda: io.FileIO("/etc/hosts"), "task.things['a'][1] is an open file"),
    ("a lock", threading.Lock, "task.things['a'][1] is a lock"),
    ("an event", threading.Event, "task.things['a'][1] is a lock"),
    ("a socket", socket.socket, "task.things['a'][1] is a socket"),
    ("a queue", queue.Queue, "task.things['a'][1] is a queue"),
    ("a thread", threading.Thread, "task.things['a'][1] is a thread"),
    ("a generator", lambda: (each for each in ()), "task.things['a'][1] is a generator"),
    (
        "a database",
        lambda: sqlite3.connect(":memory:"),
        "task.things['a'][1] is a sqlite3.Connection: it cannot be pickled",
    ),
    ("a frame", sys._getframe, "task.things['a'][1] is a frame"),
]


@pytest.mark.parametrize(("make", "said"), [each[1:] for each in UNFIT], ids=[each[0] for each in UNFIT])
def test_what_cannot_travel_is_named_by_its_path(cache: Path, make: Callable[[], Any], said: str) -> None:
    task = cell()["T"]()
    thing = make()
    task.things = {"a": [1, thing]}
    with pytest.raises(BadInput) as caught:
        asked.name_of(task)
    assert said in caught.value.fact + ": " + caught.value.reason
    assert "model()" in caught.value.remedy
    assert not cache.exists()
    close = getattr(thing, "close", None)
    if close is not None:
        close()


def test_what_cannot_travel_is_found_where_code_uses_it() -> None:
    names = cell(
        CELL + "\nheld = threading.Lock()\nclass U(T):\n    def loss(self, model, batch):\n        held.acquire()\n"
    )
    with pytest.raises(BadInput, match=r"held, which U.loss uses, is a lock"):
        value.take(names["U"], "task")
    lock = threading.Lock()
    with pytest.raises(BadInput, match=r"lock, which task uses, is a lock"):
        value.take(lambda: lock, "task")
    with pytest.raises(BadInput, match=r"task.keywords\['lock'\] is a lock"):
        value.take(functools.partial(names["loop"], lock=lock), "task")
    task = names["T"]()
    task.net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    task.net[0].note = lock
    with pytest.raises(BadInput, match=r"task.net.0.note is a lock"):
        value.take(task, "task")
    task.net[0].note = io.BytesIO(b"held in memory")
    assert value.take(task, "task").digest


def test_an_object_that_fails_to_be_pickled_is_told_by_its_own_words(cache: Path) -> None:
    text = CELL + "\nclass Stubborn:\n    def __getstate__(self):\n        raise RuntimeError('not me')\n"
    names = cell(text)
    task = names["T"]()
    task.net = names["Stubborn"]()
    with pytest.raises(BadInput, match=r"task.net is a __main__.Stubborn: it cannot be pickled \(not me\)"):
        asked.name_of(task)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.nn.Linear(2, 2), "task is a torch.nn.modules.linear.Linear: that is no task"),
        (3, "task is an int"),
        (torch.nn.Linear, "task=Linear: the class is not a headway.Task"),
        (headway.Task, "task=Task"),
    ],
)
def test_what_is_no_task_is_refused(given: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        asked.name_of(given)


def test_an_object_takes_no_arguments(job: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="the task is an object of T, which was made already"):
        asked.job_of({**job, "arguments": {"width": 3}}, cell()["T"]())


def test_a_secret_in_it_is_refused(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "hidden-words-1")
    task = cell()["T"]()
    task.key = "hidden-words-1"
    with pytest.raises(BadInput, match="holds the value of a secret variable"):
        plan.check(asked.job_of({**job, "env": ["MY_KEY"]}, task))


def test_another_python_or_torch_is_refused_before_anything_starts(tmp_path: Path, job: dict[str, Any]) -> None:
    given = asked.job_of(job, cell()["T"])
    checked = plan.check(given)
    code.carry(checked.source, tmp_path / "code", checked.cargo)
    (about,) = (tmp_path / "code").rglob("by_value_*.json")
    had = json.loads(about.read_text())
    mine = value.versions()
    for key, name, here in (("python", "Python", mine[0]), ("torch", "torch", mine[1])):
        about.write_text(json.dumps({**had, key: "2.1"}))
        with pytest.raises(BadInput, match=rf"T was given by value under {name} 2.1, and this is {name} {here}"):
            plan.check(given, code.kept(given.task, tmp_path / "code"))
    about.write_text(json.dumps(had))
    plan.check(given, code.kept(given.task, tmp_path / "code"))
    content = about.with_suffix(".pkl")
    content.write_bytes(content.read_bytes() + b"x")
    with pytest.raises(BadInput, match="is not whole: its digest is another"):
        code.load(code.kept(given.task, tmp_path / "code"))


def test_an_error_shows_the_authors_lines(tmp_path: Path, job: dict[str, Any]) -> None:
    text = CELL.replace("return nn.Linear(4, self.width)", "return nn.Linear(4, self.widths)  # a slip")
    lines = text.splitlines(keepends=True)
    linecache.cache["<cell>"] = (len(text), None, lines, "<cell>")
    try:
        taken = asked.job_of(job, cell(text)["T"])
    finally:
        linecache.cache.clear()
    with tryout.begun(taken) as trial:
        trial.ask(taken, plan.check(taken))
        with pytest.raises(BadInput) as caught:
            trial.answer()
    assert "T.model() failed: AttributeError" in str(caught.value)
    assert 'File "<cell>", line ' in caught.value.traceback
    assert "self.widths)  # a slip" in caught.value.traceback


LOOP = """
import os, time
import headway, torch
from torch import nn
from headway.testing.elastic import advance

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)
    def forward(self, x):
        return self.inner(x)

def loop(gate):
    model = Net()
    session = headway.session(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with session:
        for step in session.steps():
            for batch in step.lanes():
                time.sleep(0.01 if os.path.exists(gate) else 0.4)
                step.backward(nn.functional.cross_entropy(session.model(batch["x"].float()), batch["y"]))
            advance(session.step)
    return {name: value.tolist() for name, value in model.state_dict().items()}
"""


def worked(context: Context, source: code.Source, gate: str) -> Any:
    """What a worker does with a loop of the user's own, which takes its time until that file is there."""
    contexts.enter(context)
    torch.manual_seed(context.job.seed)
    return code.load(source)(gate)


def test_a_loop_by_value_through_a_lost_and_a_joining_worker(tmp_path: Path, cache: Path) -> None:
    data = loops.rows(tmp_path)
    given = asked.job_of(loops.job(data), cell(LOOP)["loop"])
    checked = plan.check(given)
    code.carry(checked.source, tmp_path / "code", checked.cargo)
    source = code.carried(checked.source, tmp_path / "code")
    shutil.rmtree(cache)
    calm = loops.Undisturbed(given, tmp_path / "calm", partial(worked, source=source, gate=str(tmp_path)))
    gate = tmp_path / "gate"
    with Run(tmp_path / "run", given, worked, source, str(gate), places=2) as run:
        run.wait_until(lambda: len(run.members) == 2 and run.step >= 1)
        run.kill(run.members[1])  # another takes its place
        run.wait_until(lambda: "w2" in run.members)
        gate.touch()
        outcome = run.result()
    loops.check(outcome, calm)
    assert "w2" in outcome.results


def test_a_task_of_a_cell_is_trained_and_resumed_in_this_process(tmp_path: Path, job: dict[str, Any]) -> None:
    runs, given = tmp_path / "runs", {**job, "reproducible": "bitwise", "tracking": {"enabled": False}}
    where: dict[str, Any] = {"runs_folder": runs, "address": "in-process"}
    text = CELL.replace(
        "loss(self, model, batch):", "loss(self, model, batch):\n        batch['x'] = batch['x'].float()"
    )
    task = cell(text)["T"]
    (tmp_path / "by_file.py").write_text(text)
    wanted = headway.train({**given, "task": f"{tmp_path}/by_file.py:T"}, name="file", **where)
    report = headway.train({**given, "epochs": 1}, task=task, name="value", **where)
    assert report.state == "finished"
    shutil.rmtree(tmp_path / "cache")
    again = headway.resume("value", settings=["epochs=2"], **where)
    assert (again.state, again.weights_sha256) == ("finished", wanted.weights_sha256)
    model, loaded = headway.load_model(runs / "value", step="last")
    assert type(loaded).__name__ == "T"
    assert isinstance(model, torch.nn.Linear)
    (about,) = (runs / "value" / "code").rglob("by_value_*.json")
    about.write_text(json.dumps({**json.loads(about.read_text()), "python": "2.7"}))
    with pytest.raises(BadInput, match=r"given by value under Python 2\.7"):
        headway.resume("value", settings=["epochs=3"], **where)


SCRIPT = """
import sys
import headway
from torch import nn

class T(headway.Task):
    def model(self):
        return nn.Linear(4, 2)
    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"].float()), batch["y"])

def start():
    report = headway.train(JOB, task=T, runs_folder=RUNS, address="in-process")
    print(report.state, report.path)
"""
GUARD = 'if __name__ == "__main__":'


def run_script(folder: Path, job: dict[str, Any], text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it as a file, or with `-` from standard input."""
    path, given = folder / "script.py", {**job, "tracking": {"enabled": False}}
    path.write_text(text.replace("JOB", repr(given)).replace("RUNS", repr(str(folder / "runs"))))
    command, feed = [sys.executable, *(words or [str(path)])], path.read_text() if words else None
    return subprocess.run(command, input=feed, capture_output=True, text=True, timeout=120, check=False)


def test_a_script_trains_its_own_class(tmp_path: Path, job: dict[str, Any]) -> None:
    found = run_script(tmp_path, job, f"{SCRIPT}\n{GUARD}\n    start()\n")
    assert found.stdout.startswith("finished "), found.stderr
    (kept,) = (tmp_path / "runs").glob("*/code/*.py")
    assert kept.name == "script.py"


def test_a_script_that_trains_whenever_it_is_imported_is_told_so(tmp_path: Path, job: dict[str, Any]) -> None:
    found = run_script(tmp_path, job, f"{SCRIPT}\nstart()\n")
    assert found.returncode == 1
    assert "script.py calls headway.train whenever it is imported" in found.stderr
    assert GUARD in found.stderr
    assert not list((tmp_path / "runs").glob("*"))


def test_a_class_under_the_guard_and_one_from_standard_input_go_by_value(tmp_path: Path, job: dict[str, Any]) -> None:
    ask = "\nfrom headway.carried import asked\nprint(asked.name_of(T))\n"
    indented = SCRIPT.replace("\nclass T", f"\n{GUARD}\n class T").replace("\n    ", "\n     ")
    found = run_script(tmp_path, job, indented + ask)
    assert "/by_value_" in found.stdout, found.stderr
    found = run_script(tmp_path, job, SCRIPT + ask)
    assert found.stdout.strip() == f"{tmp_path}/script.py:T"
    found = run_script(tmp_path, job, SCRIPT + ask + "start()\n", "-")
    assert "/by_value_" in found.stdout, found.stderr
    assert "finished " in found.stdout, found.stderr


def test_it_is_submitted_as_any_task_is(tmp_path: Path, job: dict[str, Any]) -> None:
    given = asked.job_of(job, cell()["T"])
    for name, content in code_of(given, code.locate(given.task), tmp_path / "scratch").items():
        target = tmp_path / "sent" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    (file,) = (tmp_path / "sent").rglob("by_value_*.py")
    shutil.rmtree(tmp_path / "cache")
    found = code.load(code.delivered(given.task, file.parent))
    assert found().model().out_features == 2


PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_page_runs(tmp_path: Path, cache: Path) -> None:
    """Its script, on images of noise, and from standard input, where there is no file."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    chance = np.random.default_rng(0)
    for use in ("train", "test"):
        columns = {"image": column(chance.integers(0, 256, (64, 28, 28), np.uint8)), "label": pa.array([*range(8)] * 8)}
        write_dataset(
            tmp_path / "data" / "fashion-mnist" / use, [pa.table(columns)], name=use, source="made", label="label"
        )
    (tmp_path / "digits.py").write_text(block)
    for words, text in ((["digits.py"], None), (["-"], block)):
        command = [sys.executable, *words]
        found = subprocess.run(
            command, input=text, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert found.stdout.startswith("finished {'loss': "), found.stderr
