"""The user's Python: found, imported, carried; and their own traceback when it raises."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.carried import cargo, code
from headway.errors import BAD_INPUT, BadInput

TASK = "import headway\n\nclass T(headway.Task):\n    who = {who!r}\n"


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """Imports of one test must not be seen by the next."""
    modules, path, folders = set(sys.modules), list(sys.path), set(code._folders)
    yield
    for name in set(sys.modules) - modules:
        if not name.startswith("headway."):
            del sys.modules[name]
    sys.path[:] = path
    code._folders.clear()
    code._folders.update(folders)


def file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def loaded(task: str) -> Any:
    return code.load(code.locate(task))


def refusal(task: str) -> BadInput:
    with pytest.raises(BadInput) as caught:
        loaded(task)
    assert caught.value.exit_code == BAD_INPUT
    assert caught.value.remedy
    return caught.value


def test_a_class_in_a_file(tmp_path: Path) -> None:
    file(tmp_path / "my_task.py", TASK.format(who="a"))
    assert loaded(f"{tmp_path}/my_task.py:T").who == "a"


def test_a_function_in_a_file(tmp_path: Path) -> None:
    file(tmp_path / "loop.py", "def train(x):\n    return x + 1\n")
    assert loaded(f"{tmp_path}/loop.py:train")(1) == 2


@pytest.mark.parametrize("name", ["time", "random", "json", "headway", "my-task", "two.dots", "conftest"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    file(tmp_path / f"{name}.py", "from headway.task import Task\nclass T(Task):\n    who = 'me'\n")
    assert loaded(f"{tmp_path}/{name}.py:T").who == "me"


def test_a_class_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "some_pkg/__init__.py", "")
    file(tmp_path / "some_pkg/deep/task.py", "from some_pkg.net import NAME\n" + TASK.format(who="p"))
    file(tmp_path / "some_pkg/net.py", "NAME = 'net'\n")
    monkeypatch.chdir(tmp_path)
    source = code.locate("some_pkg.deep.task:T")
    assert (source.folder, source.inside) == (tmp_path, "some_pkg")
    assert code.load(source).who == "p"  # type: ignore[attr-defined]


def test_a_missing_file_and_a_missing_module(tmp_path: Path) -> None:
    assert str(tmp_path / "no.py") in str(refusal(f"{tmp_path}/no.py:T"))
    assert "no module 'no_such_package'" in str(refusal("no_such_package.sub:T"))
    assert "does not exist" in str(refusal("~nobody-of-that-name/t.py:T"))


def test_a_missing_class_names_the_nearest(tmp_path: Path) -> None:
    file(tmp_path / "near.py", "import headway\nclass Images(headway.Task): pass\n")
    assert "Did you mean 'Images'?" in str(refusal(f"{tmp_path}/near.py:Image"))
    file(tmp_path / "none.py", "x = 3\n")
    assert "Subclass headway.Task" in str(refusal(f"{tmp_path}/none.py:T"))
    assert "no such class or function" in str(refusal(f"{tmp_path}/none.py:x"))


def test_a_class_that_is_no_task(tmp_path: Path) -> None:
    file(tmp_path / "plain.py", "class T: pass\n")
    assert "not a headway.Task" in str(refusal(f"{tmp_path}/plain.py:T"))


@pytest.mark.parametrize(
    ("body", "error", "line"),
    [
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'", "import no_such_thing"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero", "x = 1 / 0"),
        ("def f(:\n  pass", "SyntaxError", "def f(:"),
        ("import sys\nsys.exit(3)", "SystemExit: 3", "sys.exit(3)"),
    ],
)
def test_a_file_that_fails_to_import_shows_the_users_traceback(
    tmp_path: Path, body: str, error: str, line: str
) -> None:
    path = file(tmp_path / "headway_like_name.py", body)
    bad = refusal(f"{path}:T")
    assert error in str(bad)
    assert "headway_like_name" in bad.fact
    assert line in bad.traceback
    assert str(path) in bad.traceback
    assert f"{Path(code.__file__).parent}/" not in bad.traceback, "our frames are no news to the user"
    assert "importlib" not in bad.traceback


def test_a_failure_in_a_sibling_shows_both_files(tmp_path: Path) -> None:
    file(tmp_path / "outer.py", "import inner_broken\n")
    file(tmp_path / "inner_broken.py", "raise RuntimeError('deep')\n")
    shown = refusal(f"{tmp_path}/outer.py:T").traceback
    assert shown.index("outer.py") < shown.index("inner_broken.py")
    assert shown.endswith("RuntimeError: deep")


def test_a_file_can_be_mended_and_loaded_again(tmp_path: Path) -> None:
    path = file(tmp_path / "mended.py", "raise ValueError('not yet')\n")
    refusal(f"{path}:T")
    file(path, TASK.format(who="mended"))
    assert loaded(f"{path}:T").who == "mended"


def test_two_tasks_of_one_name_with_siblings_of_one_name(tmp_path: Path) -> None:
    for who in ("a", "b"):
        file(
            tmp_path / who / "task.py",
            f"import net\nfrom parts.one import X\n{TASK.format(who=who)}    net, x = net.NET, X\n",
        )
        file(tmp_path / who / "net.py", f"NET = 'net {who}'\n")
        file(tmp_path / who / "parts/one.py", f"X = 'x {who}'\n")
    found = [loaded(f"{tmp_path}/{who}/task.py:T") for who in ("a", "b", "a")]
    assert [f.who for f in found] == ["a", "b", "a"]
    assert [f.net for f in found] == ["net a", "net b", "net a"]
    assert [f.x for f in found] == ["x a", "x b", "x a"]


def test_the_carried_copy_is_what_runs(tmp_path: Path) -> None:
    """A resumed run uses its own copy, with its own siblings, even where the original was imported before."""
    folder = tmp_path / "home"
    file(folder / "task.py", f"import net\n{TASK.format(who='old')}    net = net.NET\n")
    file(folder / "net.py", "NET = 'old'\n")
    source = code.locate(f"{folder}/task.py:T")
    code.load(source)
    code.carry(source, tmp_path / "copy")
    file(folder / "net.py", "NET = 'new'\n")
    found = code.load(code.carried(source, tmp_path / "copy"))
    assert found.net == "old"  # type: ignore[attr-defined]
    assert sys.modules["net"].__file__ == str(tmp_path / "copy/net.py")


def test_what_is_carried(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    names = ["task.py", "net.py", "parts/one.py", "data/no.py", ".git/no.py", "env/no.py", "old-run/code/no.py"]
    for name in names:
        file(folder / name, "")
    file(folder / "env/pyvenv.cfg", "")
    file(folder / "old-run/run.json", "{}")
    file(folder / "picture.png", "x")
    to = folder / "new-run/code"
    to.parent.mkdir()
    code.carry(code.locate(f"{folder}/task.py:T"), to)
    carried = sorted(str(p.relative_to(to)) for p in to.rglob("*") if p.is_file())
    assert carried == ["net.py", "parts/one.py", "task.py"]


def test_carrying_again_leaves_nothing_of_before(tmp_path: Path) -> None:
    file(tmp_path / "home/task.py", "")
    file(tmp_path / "copy/stale.py", "")
    code.carry(code.locate(f"{tmp_path}/home/task.py:T"), tmp_path / "copy")
    assert [p.name for p in (tmp_path / "copy").iterdir()] == ["task.py"]


def test_a_package_is_carried_whole_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("carried_pkg/__init__.py", "carried_pkg/sub/task.py", "other.py", "one_file.py"):
        file(tmp_path / name, TASK.format(who="p"))
    monkeypatch.chdir(tmp_path)
    source = code.locate("carried_pkg.sub.task:T")
    code.carry(source, tmp_path / "copy")
    there = sorted(str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*.py"))
    assert there == ["carried_pkg/__init__.py", "carried_pkg/sub/task.py"]
    code.carry(code.locate("one_file:T"), tmp_path / "copy")
    assert [p.name for p in (tmp_path / "copy").iterdir()] == ["one_file.py"]


def test_what_is_installed_is_not_carried(tmp_path: Path) -> None:
    source = code.locate("torch.nn:Linear")
    assert source.inside is None
    code.carry(source, tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []


def test_too_much_to_carry_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cargo, "MAX_FILES", 2)
    for name in "abc":
        file(tmp_path / f"home/{name}.py", "")
    with pytest.raises(BadInput, match="over 2 Python files"):
        code.carry(code.locate(f"{tmp_path}/home/a.py:T"), tmp_path / "copy")


@pytest.mark.parametrize("fault", ["mkdir", "copy2", "rename"])
def test_2_17_code_that_cannot_be_carried_leaves_what_was_carried_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    file(tmp_path / "task/my_task.py", TASK.format(who="a"))
    source = code.locate(f"{tmp_path}/task/my_task.py:T")
    code.carry(source, tmp_path / "run/code")
    file(tmp_path / "task/my_task.py", TASK.format(who="b"))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shutil if fault == "copy2" else Path, fault, full)
        with pytest.raises(BadInput, match="No space left on device; what was there is there still"):
            code.carry(source, tmp_path / "run/code")
    assert "'a'" in (tmp_path / "run/code/my_task.py").read_text()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["code"]
    code.carry(source, tmp_path / "run/code")
    assert "'b'" in (tmp_path / "run/code/my_task.py").read_text()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["code"]


def test_2_17_code_moved_aside_by_one_that_was_killed_comes_back(tmp_path: Path) -> None:
    file(tmp_path / "task/my_task.py", TASK.format(who="a"))
    file(tmp_path / "run/.code.old/my_task.py", "")
    code.carry(code.locate(f"{tmp_path}/task/my_task.py:T"), tmp_path / "run/code")
    assert "'a'" in (tmp_path / "run/code/my_task.py").read_text()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["code"]
