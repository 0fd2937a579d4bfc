"""What the task imports and reads is with it where it runs; what is not is told by its name, with a true path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headway
from headway import plan, variables
from headway.carried import cargo, code
from headway.errors import BadInput
from headway.job import anchor, parse

IN_DRIVER = """
import pickle, sys
from pathlib import Path
from headway.carried import code
task, files, to = pickle.loads(bytes.fromhex(sys.argv[1]))
source = code.locate(task)
load = code.survey(source, files)
code.carry(source, Path(to), load)
print(code.load(source)())
print(*load.said(), sep="\\n")
"""

IN_WORKER = """
import pickle, sys
from pathlib import Path
from headway.carried import code
task, to = pickle.loads(bytes.fromhex(sys.argv[1]))
print(code.load(code.kept(task, Path(to)))())
"""


def lay(folder: Path, files: dict[str, str]) -> None:
    """Write files; '-> target' makes a link."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)


def python(script: str, given: Any, cwd: Path, path: tuple[Path, ...] = ()) -> str:
    import pickle

    ours = Path(headway.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ours, *path])), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", script, pickle.dumps(given).hex()]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def travel(
    project: Path, task: str, files: list[str] | None = None, path: tuple[str, ...] = (), inside: str = ""
) -> str:
    """What the task's function says from its copy, with the original out of reach; and that it says so at home too."""
    where = f"{project}/{task}" if task.partition(":")[0].endswith(".py") else task
    wanted = anchor({"files": files}, project)["files"] if files else None
    copy = project.with_name("run") / "code"
    copy.parent.mkdir()
    home = project / inside
    said = python(IN_DRIVER, (where, wanted, copy), home, tuple(project / each for each in path)).splitlines()
    project.rename(project.with_name("gone"))
    there = python(IN_WORKER, (where, copy), copy).splitlines()
    assert there == said[:1]
    return there[0]


READS = "def go(): return open({0!r}).read()"
BESIDE = "from pathlib import Path\ndef go(): return (Path(__file__).parent / {0}).read_text()"

TRAVELS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "a package called data": (
        "task.py",
        {
            "task.py": "from data.sets import WORD\ndef go(): return WORD",
            "data/__init__.py": "",
            "data/sets.py": "WORD = 'x'",
        },
        {},
    ),
    "packages called build, runs and dist": (
        "task.py",
        {
            "task.py": "import build.a, runs.b.c\nfrom dist import d\ndef go(): return build.a.X + runs.b.c.X + d.X",
            "build/__init__.py": "",
            "build/a.py": "X = 'a'",
            "runs/b/c.py": "X = 'b'",
            "dist/d.py": "X = 'c'",
        },
        {},
    ),
    "a package called data that another module imports, late": (
        "task.py",
        {
            "task.py": "import net\ndef go(): return net.late()",
            "net.py": "def late():\n    from data import sets\n    return sets.WORD",
            "data/sets.py": "from . import more\nWORD = more.WORD",
            "data/more.py": "WORD = 'x'",
        },
        {},
    ),
    "a linked package": (
        "home/task.py",
        {
            "home/task.py": "from shared.net import NET\ndef go(): return NET",
            "home/shared": "-> ../elsewhere/shared",
            "elsewhere/shared/__init__.py": "",
            "elsewhere/shared/net.py": "import os\nNET = open(os.path.dirname(__file__) + '/net.json').read()",
            "elsewhere/shared/net.json": "7",
        },
        {"inside": "home"},
    ),
    "a linked module, and a linked file": (
        "home/task.py",
        {
            "home/task.py": "import net\ndef go(): return net.NET + open(net.__file__[:-6] + 'word.txt').read()",
            "home/net.py": "-> ../elsewhere/the_net.py",
            "home/word.txt": "-> ../elsewhere/the_word.txt",
            "elsewhere/the_net.py": "NET = 'n'",
            "elsewhere/the_word.txt": "w",
        },
        {"inside": "home"},
    ),
    "links in a circle": (
        "task.py",
        {
            "task.py": "import parts.net\ndef go(): return parts.net.X",
            "parts/net.py": "X = 1",
            "parts/again": "-> ..",
            "me": "-> .",
        },
        {},
    ),
    "a task that is a link itself": (
        "home/task.py",
        {
            "home/task.py": "-> ../common/the_task.py",
            "home/scaling.json": "5",
            "common/the_task.py": f"import beside\n{BESIDE.format(repr('scaling.json'))} + beside.X",
            "common/beside.py": "X = 'b'",
        },
        {"inside": "home"},
    ),
    "settings beside it": ("task.py", {"task.py": BESIDE.format("'scaling.json'"), "scaling.json": "{}"}, {}),
    "settings opened from where the user stands": (
        "task.py",
        {"task.py": READS.format("scaling.json"), "scaling.json": "{}"},
        {},
    ),
    "a file below, whose name is made up": (
        "task.py",
        {"task.py": BESIDE.format("'vocab' / f'{\"en\"}.txt'"), "vocab/en.txt": "a b c"},
        {},
    ),
    "a file below data, named by the code": (
        "task.py",
        {"task.py": BESIDE.format("'data' / 'words.txt'"), "data/words.txt": "a", "data/other.txt": "b"},
        {},
    ),
    "a file below data, named whole": (
        "task.py",
        {"task.py": BESIDE.format("'data/words.txt'"), "data/words.txt": "a"},
        {},
    ),
    "a file of no known ending, named by the code": (
        "task.py",
        {"task.py": BESIDE.format("'net.weird'"), "net.weird": "w"},
        {},
    ),
    "a file of no ending, named by the code": ("task.py", {"task.py": BESIDE.format("'VERSION'"), "VERSION": "w"}, {}),
    "package data by importlib.resources": (
        "pkg.sub.task",
        {
            "pkg/__init__.py": "",
            "pkg/sub/__init__.py": "",
            "pkg/sub/task.py": "from importlib import resources\nfrom ..net import X\n"
            "def go(): return resources.files('pkg').joinpath('assets/words.txt').read_text() + X",
            "pkg/net.py": "X = 'x'",
            "pkg/assets/words.txt": "a",
        },
        {},
    ),
    "modules beside the package": (
        "pkg.task",
        {
            "pkg/__init__.py": "",
            "pkg/task.py": "import helpers\nfrom libs.deep import net\ndef go(): return helpers.X + net.X",
            "helpers.py": "X = 'h'",
            "libs/deep/net.py": "X = 'n'",
        },
        {},
    ),
    "a module of one file": ("one", {"one.py": "def go(): return 'one'", "two.py": "no python at all"}, {}),
    "a src layout on the path": (
        "pkg.task",
        {"src/pkg/__init__.py": "", "src/pkg/task.py": BESIDE.format("'a.toml'"), "src/pkg/a.toml": "t"},
        {"path": ("src",)},
    ),
    "a folder above put on the path": (
        "jobs/task.py",
        {
            "jobs/task.py": "import sys\nfrom pathlib import Path\n"
            "sys.path.insert(0, str(Path(__file__).resolve().parent.parent))\n"
            "from common.net import X\ndef go(): return X",
            "common/net.py": "from pathlib import Path\nX = (Path(__file__).parent / 'x.yaml').read_text()",
            "common/x.yaml": "y",
        },
        {"inside": "jobs"},
    ),
    "a folder beside, on the path by a relative name": (
        "jobs/task.py",
        {
            "jobs/task.py": "import sys\nsys.path.append('../lib')\nimport net\ndef go(): return net.X",
            "lib/net.py": "X = 'n'",
        },
        {"inside": "jobs"},
    ),
    "a file of a package that is on the path": (
        "lib/pkg/task.py",
        {
            "lib/pkg/__init__.py": "",
            "lib/pkg/task.py": "from pkg.net import X\nimport beside\ndef go(): return X + beside.X",
            "lib/pkg/net.py": "X = 'n'",
            "lib/pkg/beside.py": "X = 'b'",
        },
        {"path": ("lib",)},
    ),
    "a file deep in a package that is on the path": (
        "lib/pkg/deep/task.py",
        {
            "lib/pkg/__init__.py": "",
            "lib/pkg/deep/task.py": "from pkg.net import X\ndef go(): return X",
            "lib/pkg/net.py": "X = 'n'",
        },
        {"path": ("lib",)},
    ),
    "a folder below put on the path": (
        "task.py",
        {
            "task.py": "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n"
            "import net\ndef go(): return net.X",
            "lib/net.py": "X = 'n'",
        },
        {},
    ),
    "PYTHONPATH": (
        "jobs/task.py",
        {
            "jobs/task.py": "import net\ndef go(): return net.X",
            "lib/net.py": "import deep.x\nX = deep.x.X",
            "more/deep/x.py": "X = 1",
        },
        {"path": ("lib", "more")},
    ),
    "settings in the folder above": (
        "jobs/task.py",
        {
            "jobs/task.py": "from pathlib import Path\nROOT = Path(__file__).resolve().parents[1]\n"
            "def go(): return (ROOT / 'config.json').read_text() + (ROOT / 'more' / 'b.yaml').read_text()",
            "config.json": "c",
            "more/b.yaml": "b",
        },
        {},
    ),
    "what the job names": (
        "jobs/task.py",
        {
            "jobs/task.py": "from pathlib import Path\nROOT = Path(__file__).parent.parent\n"
            "def go(): return sorted(p.read_text() for p in (ROOT / 'weights').glob('*.x'))",
            "weights/a.x": "1",
            "weights/b.x": "2",
        },
        {"files": ["weights/*.x"]},
    ),
    "a folder that the job names": (
        "task.py",
        {
            "task.py": "import os\ndef go(): return sorted(os.listdir(os.path.dirname(__file__) + '/pics/deep'))",
            "pics/deep/a.png": "",
        },
        {"files": ["pics"]},
    ),
    "a module found by its name at run time": (
        "task.py",
        {
            "task.py": "import importlib\ndef go(): return importlib.import_module('nets.' + 'small').X",
            "nets/small.py": "X = 1",
        },
        {},
    ),
}


@pytest.mark.parametrize("case", TRAVELS)
def test_what_the_task_imports_and_reads_travels(tmp_path: Path, case: str) -> None:
    task, files, options = TRAVELS[case]
    project = tmp_path / "project"
    lay(project, files)
    assert travel(project, f"{task}:go", **options)


def surveyed(project: Path, files: list[str] | None = None) -> cargo.Cargo:
    wanted = anchor({"files": files}, project)["files"] if files is not None else None
    return code.survey(code.locate(f"{project}/task.py:go"), wanted)


def names(of: cargo.Cargo) -> list[str]:
    return sorted(str(path.relative_to(of.base)) for path in of.files)


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        ({"task.py": "import code", "code.py": ""}, "code.py"),
        ({"task.py": "import net", "net.py": "from queue import Queue", "queue/__init__.py": ""}, "queue/__init__.py"),
        ({"task.py": "import ray.train", "ray.py": ""}, "ray.py"),
        ({"task.py": "import code", "queue.py": "", "code/notes.txt": ""}, ""),
        ({"time.py": "import time"}, ""),
        ({"task.py": "import os, sys, time", "os.py": ""}, ""),
    ],
)
def test_a_name_that_is_taken_is_refused(tmp_path: Path, files: dict[str, str], refused: str) -> None:
    lay(tmp_path, files)
    module = next(iter(files)).removesuffix(".py")
    if not refused:
        cargo.survey(tmp_path, module, "")
        return
    with pytest.raises(BadInput, match="depends on what was imported before") as caught:
        cargo.survey(tmp_path, module, "")
    assert str(tmp_path / refused) in str(caught.value)


def test_what_stays_at_home(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "task.py": "import torch, json\nfrom net import X\n",
            "net.py": "",
            "data/rows.csv": "",
            "data/prepare.py": "",
            "sets/manifest.json": "{}",
            "sets/shard-00000.parquet": "",
            "runs/r/run.json": "{}",
            "runs/r/code/task.py": "",
            "old/run.json": "{}",
            "out/mine/run.json": "{}",
            "out/artifacts/model.yaml": "",
            "old/code/net.py": "",
            "env/pyvenv.cfg": "",
            "env/lib/x.py": "",
            ".git/config.py": "",
            ".env": "TOKEN=1",
            ".hidden.json": "",
            "__pycache__/net.cpython.py": "",
            "mlruns/0/meta.yaml": "",
            "client_secret.json": "",
            "credentials.json": "",
            "picture.png": "",
            "rows.parquet": "",
            "me.egg-info/top_level.txt": "",
            "tokenizer.json": "",
        },
    )
    found = surveyed(tmp_path)
    assert names(found) == ["net.py", "task.py", "tokenizer.json"]
    assert found.base == tmp_path
    (said,) = found.said()
    assert "client_secret.json (it looks like a secret)" in said
    assert "credentials.json" in said
    assert "`files:`" in said


def test_patterns_take_along_and_leave_behind(tmp_path: Path) -> None:
    lay(
        tmp_path, {"task.py": "", "a.json": "", "b.json": "", "w/a.bin2": "", "w/.b": "", "net.py": "", "x/y/z.png": ""}
    )
    assert names(surveyed(tmp_path, [])) == ["a.json", "b.json", "net.py", "task.py"]
    found = surveyed(tmp_path, ["!b.json", "!net.py", "w/*", "**/*.png", "w/.b"])
    assert names(found) == ["a.json", "task.py", "w/.b", "w/a.bin2", "x/y/z.png"]
    assert names(surveyed(tmp_path, ["w", "!w/.b", "!*.json"])) == ["net.py", "task.py", "w/a.bin2"]


def test_a_folder_with_stars_in_its_name(tmp_path: Path) -> None:
    project = tmp_path / "a[b]*"
    lay(project, {"task.py": "", "pic.png": ""})
    assert names(surveyed(project, ["pic.png"])) == ["pic.png", "task.py"]
    with pytest.raises(BadInput) as caught:
        surveyed(project, ["no.png"])
    assert f"{project}/no.png: there is no such file" in str(caught.value)


def test_what_is_too_large_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cargo, "LARGEST", 100)
    monkeypatch.setattr(cargo, "MOST_NAMED_BYTES", 150)
    monkeypatch.setattr(cargo, "LARGEST_TABLE", 10)
    big, huge = "x" * 101, "x" * 201
    lay(
        tmp_path,
        {"task.py": "OPENS = 'net.pt'\nTABLE = 'small.csv'", "net.pt": huge, "other.pt": big, "rows.csv": "x" * 11},
    )
    lay(tmp_path, {"small.csv": "x" * 50, "fine.json": "x"})
    found = surveyed(tmp_path)
    assert names(found) == ["fine.json", "small.csv", "task.py"]
    named, others = found.said()
    assert f"{tmp_path}/net.pt stays behind, though the task names it" in named
    assert "other.pt (0.0 MB), rows.csv (0.0 MB)" in others
    monkeypatch.setattr(cargo, "MOST_NAMED_BYTES", 250)
    assert names(surveyed(tmp_path, ["net.pt"])) == ["fine.json", "net.pt", "small.csv", "task.py"]
    assert not any("net.pt" in said for said in surveyed(tmp_path, ["net.pt"]).said())
    monkeypatch.setattr(cargo, "MOST_NAMED_BYTES", 100)
    with pytest.raises(BadInput, match=r"the largest .*net\.pt.*arguments"):
        surveyed(tmp_path, ["net.pt"])


def test_what_is_near_goes_first_and_many_alike_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cargo, "MOST_BYTES", 25)
    monkeypatch.setattr(cargo, "MOST_ALIKE", 5)
    lay(
        tmp_path,
        {"task.py": "N = 'named.json'", "a/b/named.json": "x" * 10, "a/deep.json": "x" * 10, "near.json": "x" * 10},
    )
    lay(tmp_path / "labels", {f"{n}.txt": "1" for n in range(6)})
    found = surveyed(tmp_path)
    assert names(found) == ["a/b/named.json", "near.json", "task.py"]
    said = " ".join(found.said())
    assert "a/deep.json (there are too many such files)" in said
    assert f"{tmp_path}/labels stays behind: its 6 files look like data" in said


def test_what_comes_from_elsewhere_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one's own on the path, as an editable install is on this machine only."""
    lay(
        tmp_path,
        {"home/task.py": "import editable_one\nimport torch\nimport headway", "lib/editable_one/__init__.py": ""},
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    found = surveyed(tmp_path / "home")
    assert found.said() == [f"editable_one travels too, from {tmp_path}/lib/editable_one"]
    assert names(found) == ["home/task.py", "lib/editable_one/__init__.py"]
    source = code.locate(f"{tmp_path}/home/task.py:go")
    code.carry(source, tmp_path / "run/code", found)
    copy = code.carried(source, tmp_path / "run/code")
    assert (copy.folder, copy.paths) == (tmp_path / "run/code/home", (tmp_path / "run/code/lib",))
    assert code.carried(copy, tmp_path / "run/code") == copy
    assert code.kept(f"{tmp_path}/home/task.py:go", tmp_path / "run/code") == copy
    assert code.survey(copy, ["/no/such"]).files == {}


def test_what_is_large_elsewhere_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cargo, "MAX_FILES", 3)
    lay(tmp_path / "lib/large_one", {f"{name}.py": "" for name in ("__init__", "a", "b", "c")})
    lay(tmp_path, {"home/task.py": "import large_one", "home/net.py": "", "home/a.json": ""})
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    found = surveyed(tmp_path / "home")
    assert names(found) == ["a.json", "net.py", "task.py"]
    (said,) = found.said()
    assert f"{tmp_path}/lib/large_one stays behind, though the task imports it" in said


def test_links_to_data_are_not_followed(tmp_path: Path) -> None:
    lay(tmp_path, {"big/1.json": "", "big/more/2.json": "", "named/3.json": "", "code/net.py": "", "code/4.json": ""})
    lay(
        tmp_path / "home",
        {"task.py": "FOLDER = 'wanted'", "pile": "-> ../big", "wanted": "-> ../named", "parts": "-> ../code"},
    )
    assert names(surveyed(tmp_path / "home")) == ["parts/4.json", "parts/net.py", "task.py", "wanted/3.json"]


def test_an_editable_install_is_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes by a finder, and is on no import path."""
    from importlib.machinery import PathFinder

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            return PathFinder.find_spec(name, [str(tmp_path / "lib")]) if name == "editable_two" else None

    lay(tmp_path, {"lib/editable_two/__init__.py": "", "lib/editable_two/task.py": "def go(): return 3"})
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    source = code.locate("editable_two.task:go")
    assert (source.folder, source.inside) == (tmp_path / "lib", "editable_two")
    assert names(code.survey(source)) == ["editable_two/__init__.py", "editable_two/task.py"]


def test_a_file_of_a_package_says_how_to_name_it(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "pkg/__init__.py": "",
            "pkg/relative_task.py": "from .net import X\ndef go(): return X",
            "pkg/net.py": "X = 1",
        },
    )
    with pytest.raises(BadInput) as caught:
        code.look(code.locate(f"{tmp_path}/pkg/relative_task.py:go"))
    assert f"name it pkg.relative_task:go, and run from {tmp_path}" in caught.value.remedy


def test_errors_name_the_users_own_files(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {"home/task.py": "", "home/big.bin2": "", "above.json": "", "run/code/task.py": "", "run/job.yaml": ""},
    )
    copy, home = tmp_path / "run/code", tmp_path / "home"

    def own(text: str) -> tuple[str, list[Path]]:
        return code.own_paths(text, copy, home)

    assert own(f'File "{copy}/task.py", line 3') == (f'File "{home}/task.py", line 3', [])
    text, left = own(f"FileNotFoundError: [Errno 2] No such file or directory: '{copy}/big.bin2'")
    assert f"'{home}/big.bin2'" in text
    assert left == [home / "big.bin2"]
    assert own(f"no '{copy}/nowhere.json'") == (f"no '{home}/nowhere.json'", [])
    assert own(f"no '{tmp_path}/run/above.json'") == (f"no '{tmp_path}/above.json'", [tmp_path / "above.json"])
    lay(tmp_path, {"home/with space.json": ""})
    text, left = own(f"no such file: '{copy}/with space.json'")
    assert text == f"no such file: '{home}/with space.json'"
    assert left == [home / "with space.json"]
    assert own(f"no '{copy}/../above.json'") == (f"no '{tmp_path}/above.json'", [tmp_path / "above.json"])
    for theirs in (f"'{tmp_path}/run/job.yaml'", f"'{tmp_path}/run/checkpoints/step-1'", "'/etc/passwd'", "job.yaml"):
        assert own(theirs) == (theirs, [])


def test_the_layout_of_earlier_runs_is_read(tmp_path: Path) -> None:
    lay(tmp_path, {"code/task.py": "", "code/pkg/task.py": ""})
    assert code.kept("/gone/task.py:T", tmp_path / "code") == code.Source(
        tmp_path / "code", "task", "T", "", (), copied=True, copy=tmp_path / "code"
    )
    assert code.kept("pkg.task:T", tmp_path / "code").inside == "pkg"


def test_what_travels_is_part_of_the_plan(tmp_path: Path, make_dataset: Any) -> None:
    make_dataset(tmp_path / "train", (30,))
    lay(tmp_path, {"task.py": "def go(): pass", "a.json": "{}", "my_secrets.json": "{}"})
    tree = {"name": "n", "task": f"{tmp_path}/task.py:go", "data": {"train": str(tmp_path / "train")}, "steps": 3}
    found = plan.check(parse(tree))
    assert found.shown()["carried"] == {"files": 2, "bytes": 16}
    assert any("my_secrets.json" in warning for warning in found.warnings)
    with pytest.raises(BadInput, match=r"files: .*nowhere.json: there is no such file"):
        plan.check(parse({**tree, "files": [f"{tmp_path}/nowhere.json"]}))


def test_files_that_hold_a_secret_of_the_job_stay_behind(tmp_path: Path) -> None:
    for name, content in {
        "task.py": "import headway\n",
        "job.yaml": "env: {MY_TOKEN: tok-4711, MODE: tok-none}\n",
        "notes.json": '{"mode": "tok-none"}',
        "keys.txt": "tok-0815",
    }.items():
        (tmp_path / name).write_text(content)
    tree = {"name": "n", "task": f"{tmp_path}/task.py:T", "data": {"train": "/d"}, "steps": 3}
    source = code.locate(f"{tmp_path}/task.py:T")
    everything = code.survey(source)
    given = parse({**tree, "env": {"MY_TOKEN": "tok-4711", "MODE": "tok-none"}})
    left = everything.without(variables.secrets(given))
    assert {path.name for path in left.files} == {"task.py", "notes.json", "keys.txt"}
    assert ["job.yaml" in said and "tok-4711" not in said for said in left.said()] == [True]
    named = parse({**tree, "env": ["MY_TOKEN", "PASSWORD"]})
    found = variables.secrets(named, {"MY_TOKEN": "tok-0815", "PASSWORD": "t"})
    assert found == ["tok-0815"], "and what is short is everywhere"
    assert {path.name for path in everything.without(found).files} == {"task.py", "job.yaml", "notes.json"}
    assert everything.without([]) is everything
