"""Errors of ours are not blamed on the task, nor the task's on us; and Ray's last line is not its reason."""

from __future__ import annotations

import ast
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions
import torch
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

import headway
from headway.cli import app
from headway.driver import ending
from headway.driver.leading import told_by_cause
from headway.elastic.wire import messages as wire
from headway.elastic.worker import loop
from headway.elastic.worker.failures import raised
from headway.errors import PLATFORM_FAILED, BadData, HeadwayError, HeadwayFault, RunFailed, UserCodeFailed
from headway.faults import blame, causes, internal
from headway.runs import RunFolder

THEIRS = """
import contextlib
import json
import torch


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Sealed(Exception):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


def fail(kind):
    if kind == "plain":
        raise ValueError("no")
    if kind == "in a library":
        json.loads("{")
    if kind == "in torch":
        torch.nn.functional.cross_entropy(torch.zeros(2, 3), torch.zeros(5))
    if kind == "chained":
        try:
            {}["x"]
        except KeyError as error:
            raise ValueError("no\\nsecond line") from error
    if kind == "group":
        raise ExceptionGroup("two", [ValueError("one"), KeyError("other")])
    if kind == "syntax":
        compile("def (", "theirs.py", "exec")
    if kind == "exit":
        raise SystemExit(3)
    if kind == "key":
        raise KeyboardInterrupt
    if kind == "silent":
        raise Silent
    if kind == "empty":
        raise ValueError
    if kind == "blank":
        raise ValueError("\\n\\n  what it is\\nand more")
    if kind == "huge":
        raise ValueError("x" * 10**7)
    if kind == "sealed":
        raise Sealed("tight")
    if kind == "through ours":
        torch.nn.Linear(2, 2)(torch.zeros(3))
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A module of a user's, in their own folder."""
    path = tmp_path_factory.mktemp("author") / "theirs.py"
    path.write_text(THEIRS)
    namespace: dict[str, Any] = {"__name__": "theirs"}
    exec(compile(THEIRS, str(path), "exec"), namespace)
    return namespace["fail"], str(path)


def caught(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def through_ours(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, from a function that seems to lie in Headway's package."""
    passed = in_engine("return call()")
    passed.__globals__["call"] = call
    return passed


REASONS = {
    "plain": "ValueError: no",
    "in a library": "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2",
    "in torch": "",
    "chained": "ValueError: no",
    "group": "ExceptionGroup: two (2 sub-exceptions): ValueError: one",
    "syntax": "SyntaxError: ",
    "exit": "SystemExit: 3",
    "key": "KeyboardInterrupt",
    "silent": "theirs.Silent: (its text cannot be made)",
    "empty": "ValueError",
    "blank": "ValueError: what it is",
    "huge": "ValueError: xxx",
    "sealed": "theirs.Sealed: tight",
    "through ours": "",
}


@pytest.mark.parametrize("kind", REASONS)
def test_whatever_a_task_raises_is_its_own_and_is_shown_with_its_frames_alone(theirs: Any, kind: str) -> None:
    fail, path = theirs
    error = caught(through_ours(lambda: fail(kind)))
    said = raised(error, "worker 0, at step 3", False)
    assert (said.fault, said.failure["kind"]) == ("user", "task")
    assert said.failure["reason"].startswith(REASONS[kind])
    assert "\n" not in said.failure["reason"]
    assert len(said.failure["reason"]) < 600
    assert path in said.failure["traceback"], "their frames"
    assert "engine.py" not in said.failure["traceback"], "and not ours"
    assert wire.from_worker(wire.encode(said)) == said


def test_what_it_was_raised_from_is_shown_too(theirs: Any) -> None:
    fail, _ = theirs
    shown = blame.users_traceback(caught(through_ours(lambda: fail("chained"))))
    assert "KeyError: 'x'" in shown
    assert "direct cause" in shown
    group = blame.users_traceback(caught(lambda: fail("group")))
    assert "ValueError: one" in group
    assert "KeyError: 'other'" in group


def in_engine(body: str) -> Callable[[], Any]:
    """A function with this body that seems to lie in the core."""
    file = str(Path(headway.__file__).parent / "elastic" / "worker" / "engine.py")
    namespace: dict[str, Any] = {"torch": torch, "ast": ast}
    exec(compile(f"def heal():\n    {body}\n", file, "exec"), namespace)
    found: Callable[[], Any] = namespace["heal"]
    return found


@pytest.mark.parametrize("body", ["{}['x']", "torch.zeros(2) + torch.zeros(3)", "ast.parse('(')", "assert False"])
def test_what_is_raised_in_our_code_is_ours_and_told_whole(body: str) -> None:
    said = raised(caught(in_engine(body)), "worker 0, at step 3", False)
    assert said.failure["kind"] == "internal"
    assert "engine.py" in said.failure["traceback"]
    assert said.failure["reason"].endswith("(elastic/worker/engine.py:2 in heal)")


def test_what_went_wrong_first_is_told(theirs: Any) -> None:
    """Our own trouble while the task's error was on its way is a consequence."""
    fail, path = theirs
    ours = in_engine("[][1]")

    def both(first: Callable[[], Any]) -> None:
        try:
            first()
        finally:
            ours()

    said = raised(caught(lambda: both(lambda: fail("plain"))), "worker 0, at step 3", False)
    assert (said.failure["kind"], said.failure["reason"]) == ("task", "ValueError: no")
    assert path in said.failure["traceback"]
    said = raised(caught(lambda: both(in_engine("{}['x']"))), "worker 0, at step 3", False)
    assert said.failure["kind"] == "internal"
    assert "IndexError" in said.failure["reason"]
    assert "KeyError" in said.failure["traceback"], "and what came before it"


def test_what_torch_raises_for_the_tasks_model_is_the_tasks() -> None:
    said = raised(caught(in_engine("torch.zeros(1).sum().backward()")), "worker 0, at step 3", False)
    assert said.failure["kind"] == "task"
    assert "does not require grad" in said.failure["reason"]


def test_a_method_of_other_arguments_is_the_tasks() -> None:
    class Task:
        def loss(self, model: Any) -> None: ...

    file = str(Path(loop.__file__))
    namespace: dict[str, Any] = {"task": Task()}
    exec(compile("def train_task():\n    task.loss(1, 2)\n", file, "exec"), namespace)
    said = raised(caught(namespace["train_task"]), "worker 0, at step 3", False)
    assert said.failure["kind"] == "task"
    assert "takes 2 positional arguments" in said.failure["reason"]


def test_the_doors_are_there() -> None:
    for file, function in blame.DOORS:
        tree = ast.parse((Path(headway.__file__).parent / file).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in names, f"{file} has no {function} any more: say in blame.DOORS where the task is called"


def test_what_a_process_of_a_dataloader_raised_is_told_as_python_would_have() -> None:
    text = (
        "Caught KeyError in DataLoader worker process 1.\nOriginal Traceback (most recent call last):\n"
        "  File \"/home/u/t.py\", line 3, in get\n    x\nKeyError: 'label'\n"
    )
    assert blame.reason(LookupError(text)) == "KeyError: 'label' (in DataLoader worker process 1)"


# -- what Ray wraps ---------------------------------------------------------------------------------------------------


def task_error(cause: BaseException, file: str, function: str = "work") -> ray.exceptions.RayTaskError:
    text = (
        "\x1b[36mray::f()\x1b[39m (pid=1, ip=127.0.0.1)\n"
        f'  File "{file}", line 3, in {function}\n    x\n{type(cause).__name__}: {cause}'
    )
    made = ray.exceptions.RayTaskError("f", text, cause, "ray::f", 1, "127.0.0.1")
    return pickle.loads(pickle.dumps(made))  # as it comes over the wire


OURS = "/tmp/ray/session/runtime_resources/py_modules_files/_ray_pkg_1234/headway/data/pipeline.py"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (task_error(ValueError("no\nmore"), "/home/u/mine.py"), "task", "ValueError: no"),
        (task_error(KeyError("rows"), OURS), "internal", "KeyError: 'rows'"),
        (task_error(ValueError("no"), "/home/u/mine.py").as_instanceof_cause(), "task", "ValueError: no"),
        (ControllerError(task_error(KeyError("x"), OURS)), "internal", "KeyError: 'x'"),
        (WorkerGroupError("many words", {0: ray.exceptions.OutOfMemoryError("m")}), "machines", "ran out of memory"),
        (
            ControllerError(ray.exceptions.RuntimeEnvSetupError("Failed to install\nno such package: torhc\n")),
            "machines",
            "no such package: torhc",
        ),
        (ray.exceptions.WorkerCrashedError(), "machines", "ended without a word"),
        (ray.exceptions.ActorDiedError(), "machines", "a process of Ray's ended"),
        (
            ray.exceptions.RayActorError(error_msg="x\nThe worker died. exit code 137"),
            "machines",
            "exit code 137",
        ),
        (ray.exceptions.NodeDiedError("x"), "machines", "a machine of the cluster is gone"),
        (ValueError("plain"), "machines", "ValueError: plain"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_the_cause_is_found_in_the_chain(error: BaseException, kind: str, words: str) -> None:
    found = causes.of(error)
    assert found.kind == kind
    assert words in found.reason
    assert "\n" not in found.reason
    if kind == "task":
        assert "/home/u/mine.py" in found.traceback


def test_an_error_of_ours_comes_through_as_it_is() -> None:
    error = BadData("shard 3", "is broken", "Make it again.")
    assert isinstance(causes.ours(task_error(error, OURS).as_instanceof_cause()), BadData)
    found = causes.ours(ControllerError(task_error(error, OURS)))
    assert isinstance(found, BadData)
    assert found.fact == "shard 3"
    failure = ending.of_ray(ControllerError(task_error(error, OURS)))
    assert (failure["kind"], failure["fact"], failure["remedy"]) == ("BadData", "shard 3", "Make it again.")


# -- the report -------------------------------------------------------------------------------------------------------


def test_a_fault_of_ours_is_kept_with_the_run_in_a_report_to_send(tmp_path: Path) -> None:
    failure = raised(caught(in_engine("[][1]")), "worker 0, at step 3", False).failure
    for number in (1, 2):
        told = ending.raised(failure, RunFolder(tmp_path))
        assert isinstance(told, HeadwayFault)
        path = tmp_path / f"fault-{number}.txt"
        assert str(path) in told.remedy
        assert f"headway resume {tmp_path.name}" in told.remedy
        assert told.traceback == "", "our frames are in the report"
        kept = path.read_text()
        assert "engine.py" in kept
        assert "IndexError" in kept
        assert '"torch"' in kept


def test_where_no_report_can_be_kept_the_frames_are_shown(tmp_path: Path) -> None:
    told = internal.fault("worker 0", "KeyError", "frames", tmp_path / "gone")
    assert told.traceback == "frames"
    assert "the traceback above" in told.remedy


def test_a_tasks_own_error_stays_the_tasks(tmp_path: Path) -> None:
    failure = {
        "kind": "task",
        "fact": "worker 0, at step 3",
        "reason": "ValueError: no",
        "remedy": "",
        "traceback": "theirs",
    }
    told = ending.raised(failure, RunFolder(tmp_path))
    assert isinstance(told, UserCodeFailed)
    assert not list(tmp_path.iterdir())


def test_the_command_line_tells_a_fault_of_ours_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(app, "app", in_engine("[][1]"))
    monkeypatch.setattr(sys, "argv", ["headway", "runs"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == PLATFORM_FAILED
    said = capsys.readouterr().err
    assert said.startswith(
        "headway: a fault of Headway's own, in `headway runs`: IndexError: list index out of range ("
    )
    assert "Traceback" not in said
    (report,) = tmp_path.glob("headway-fault-*.txt")
    assert str(report) in said
    assert "engine.py" in report.read_text()


# -- what is done after it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "goes_on", "kept"),
    [
        (ray.exceptions.NodeDiedError("x"), True, True),
        (ray.exceptions.RuntimeEnvSetupError("no such package"), False, True),
        (task_error(ValueError("no"), "/home/u/mine.py"), False, True),
        (task_error(BadData("shard 3", "is broken"), OURS), False, False),
    ],
    ids=["a lost machine", "an environment", "their code", "bad data"],
)
def test_that_the_same_command_goes_on_is_said_where_it_will(
    error: BaseException, goes_on: bool, kept: bool, tmp_path: Path
) -> None:
    from headway.data.prepare.stages import pipeline
    from headway.data.prepare.stages.journal import workplace

    with (
        pytest.raises(HeadwayError) as found,
        workplace(tmp_path / "set", "ab" * 32),
        pipeline.raising_ours(ray.exceptions.RayError),
    ):
        raise error
    assert ("The same command goes on where this one ended." in str(found.value)) is goes_on
    assert bool(list(tmp_path.glob(".set.*.partial"))) is kept
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ray.exceptions.ActorDiedError(), RunFailed, "Ray failed while the run was led: a process of Ray's ended."),
        (task_error(BadData("shard 3", "is broken"), OURS), BadData, "shard 3: is broken."),
        (task_error(KeyError("x"), OURS), HeadwayFault, "a fault of Headway's own, while the run was led: KeyError"),
    ],
    ids=["the recorder died", "an error of ours", "a fault of ours"],
)
def test_whoever_leads_a_run_hears_the_cause_of_rays_errors(
    error: Exception, kind: type[HeadwayError], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(kind) as found, told_by_cause():
        raise error
    assert str(found.value).startswith(words)
    with pytest.raises(ValueError, match="somebody's"), told_by_cause():
        raise ValueError("somebody's")
