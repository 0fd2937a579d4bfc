"""What a Python file says of paths and imports is read from its source, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.carried.reading import Reading, read


def reading(folder: Path, text: str, name: str = "a/b/task.py") -> Reading:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return read(file)


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        ("Path(__file__).parent / 'x.json'", "a/b/x.json"),
        ("pathlib.Path(__file__).resolve().parent / 'd' / 'x.json'", "a/b/d/x.json"),
        ("Path(__file__).absolute().parents[1] / 'x.json'", "a/x.json"),
        ("Path(__file__).parent.parent.joinpath('c', 'x.json')", "a/c/x.json"),
        ("Path(__file__).with_name('x.json')", "a/b/x.json"),
        ("os.path.join(os.path.dirname(__file__), 'x.json')", "a/b/x.json"),
        ("os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'x.json')", "a/x.json"),
        ("os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), 'x.json')", "a/x.json"),
        ("os.path.join(os.path.dirname(__file__), os.pardir, 'x.json')", "a/x.json"),
        ("os.path.dirname(__file__) + '/x.json'", "a/b/x.json"),
        ("f'{os.path.dirname(__file__)}/x.json'", "a/b/x.json"),
        ("str(Path(__file__).parent) + os.sep + 'x.json'", "a/b/x.json"),
        ("open(Path(__file__).parent / 'x.json').read()", "a/b/x.json"),
        ("ROOT / NAME", "a/x.json"),
    ],
)
def test_paths_are_put_together_as_the_file_would(tmp_path: Path, expression: str, place: str) -> None:
    text = f"ROOT: Path = Path(__file__).resolve().parent.parent\nNAME = 'x.json'\ndef go():\n    return {expression}\n"
    assert tmp_path / place in reading(tmp_path, text).named


@pytest.mark.parametrize(
    "expression",
    [
        "Path(name) / 'x'",
        "ROOT[name]",
        "Path(__file__).parents[99]",
        "1 / 0",
        "f'{name}/x'",
        "os.path.join()",
        "'a' / 'b'",
        "Path('/etc/hosts')",
        "os.path.join('/etc', 'hosts')",
        "Path.cwd() / 'x.json'",
        "Path('x.json')",
    ],
)
def test_what_is_not_known_is_left_alone(tmp_path: Path, expression: str) -> None:
    found = reading(tmp_path, f"ROOT = Path(__file__)\ndef go(name):\n    return {expression}\n")
    assert found.named <= {tmp_path / "a/b/task.py"}


def test_the_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = """
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append("../lib")
sys.path.extend([os.path.join(os.path.dirname(__file__), "one"), "/abs"])
site.addsitedir(os.path.dirname(__file__))
sys.path.append(unknown)
other.append("no")
"""
    found = reading(tmp_path, text).path
    places = [tmp_path / "a", tmp_path / "lib", tmp_path / "a/b/one", Path("/abs"), tmp_path / "a/b"]
    assert sorted(found) == sorted(places)


def test_imports(tmp_path: Path) -> None:
    text = "import a.b, c as d\nfrom . import e\nfrom ..f import g\ndef late():\n    from h.i import *\n"
    found = reading(tmp_path, text).imports
    assert {(0, "a.b"), (0, "c"), (1, "e"), (2, "f"), (2, "f.g"), (0, "h.i")} <= found


@pytest.mark.parametrize("text", ["def (", "\x00", "x = " + "(" * 500, "x = " + " / ".join(["a"] * 3000)])
def test_what_is_no_python_says_nothing(tmp_path: Path, text: str) -> None:
    assert not reading(tmp_path, text).named
    assert not read(tmp_path / "nowhere.py").imports
