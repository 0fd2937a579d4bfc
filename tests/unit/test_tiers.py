"""How a tier's tests are shared among processes: what a module has made once is used in one process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests import dear
from tests.tiers import AS_ONE, Scheduling

ROOT = Path(__file__).parents[2]

CONFTEST = """
import pytest
from tests.tiers import Scheduling, arrange

USES = pytest.StashKey()

@pytest.fixture(scope="session")
def shared_ray():
    return 1

@pytest.fixture(scope="module")
def connected(shared_ray):
    return 1

def pytest_collection_modifyitems(items):
    arrange(items, USES)

def pytest_runtest_setup(item):
    with open("ran", "a") as file:
        print(item.config.workerinput["workerid"], item.name, item.stash[USES], file=file)

def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)
"""

MODULES = {
    "unit/test_a": "def test_free(): pass",
    "ray/test_b": "def test_uses(connected): pass\n\ndef test_beside(): pass\n\ndef test_third(): pass",
    "ray/test_c": "import pytest\n\n@pytest.mark.ray\n@pytest.mark.parametrize('i', range(4))\ndef test_first(i): pass",
}


def test_what_a_module_makes_stays_in_one_process_and_what_lasts_longest_begins(tmp_path: Path) -> None:
    for name, text in {"conftest": CONFTEST, **{f"tests/{name}": text for name, text in MODULES.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\nmarkers = ray\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    found = [tuple(line.split()) for line in (tmp_path / "ran").read_text().splitlines()]
    by = {name: worker for worker, name, _ in found}
    assert len(by) == 8
    assert len({by[f"test_first[{i}]"] for i in range(4)}) == 1
    assert by["test_uses"] == by["test_beside"] == by["test_third"]
    assert {name for _, name, uses in found if uses == "True"} == {"test_uses", "test_beside", "test_third"}
    assert next(name for worker, name, _ in found if worker == by["test_first[0]"]) == "test_first[0]"


def test_the_others_go_wherever_there_is_room() -> None:
    scopes = [Scheduling._split_scope(Scheduling, name) for name in ("tests/unit/a.py::b", "tests/ray/a.py::b[c]")]  # type: ignore[arg-type]
    assert scopes == ["tests/unit/a.py::b", "tests/ray/a.py"]


def test_who_has_a_browser_or_servers_of_a_module_is_in_one_process() -> None:
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if "tests/unit" not in path.as_posix()]
    dear_ones = ("chromium: Browser", "with Postgres()", "runs_seen(")
    own = [path.relative_to(ROOT).as_posix() for path in found if any(word in path.read_text() for word in dear_ones)]
    assert len(own) >= 3
    assert [Scheduling._split_scope(Scheduling, f"{name}::a[b]") for name in own] == own  # type: ignore[arg-type]


def test_who_uses_anothers_cluster_is_in_its_process() -> None:
    names = [*AS_ONE, *AS_ONE.values()]
    assert all((ROOT / name).exists() for name in names)
    assert len({Scheduling._split_scope(Scheduling, f"{name}::a") for name in names}) == len(set(AS_ONE.values()))  # type: ignore[arg-type]


def test_what_is_dear_is_made_once_and_ends_before_who_does_without() -> None:
    happened: list[str] = []

    @contextmanager
    def make() -> Iterator[str]:
        happened.append("made")
        yield "it"
        happened.append("ended")

    one = dear.Dear[str]("one")
    try:
        for asked in (["one"], ["one", "other"], ["other"], [], ["one"]):
            dear.end_others(asked)
            if "one" in asked:
                assert one.get(make) == "it"
        assert happened == ["made", "ended", "made"]
    finally:
        one.end()
        dear._all.remove(one)


def test_what_is_the_same_wherever_it_is_made_is_made_by_one_process(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "import os\nfrom pathlib import Path\nimport pytest\nfrom tests.dear import once\n\n"
        "def make():\n    with open('made', 'a') as file:\n        print(os.getpid(), file=file)\n"
        "    return {'by': os.getpid()}\n\n"
        "@pytest.mark.parametrize('i', range(4))\ndef test_it(i, tmp_path_factory):\n"
        "    found = once(tmp_path_factory, 'it', make)\n    Path(f'found-{i}').write_text(str(found['by']))\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/temp"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    (made,) = (tmp_path / "made").read_text().split()
    assert {(tmp_path / f"found-{i}").read_text() for i in range(4)} == {made}


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_tier_of_few_files_looks_into_all_that_have_its_tests() -> None:
    """The Makefile finds them by the words of the mark, which have to stand in the file itself."""
    done = subprocess.run(
        ["make", "-n", "slow", "STAMP=Makefile"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    of_slow, alone = (line for line in done.stdout.splitlines() if "pytest" in line)
    for line, mark in ((of_slow, "slow"), (alone, "alone")):
        find = re.search(r"\$\((.*)\)", line)
        assert find is not None, line
        found = subprocess.run(find[1], cwd=ROOT, shell=True, capture_output=True, text=True, check=True).stdout.split()
        by_name = {path for path in (ROOT / "tests").rglob("*.py") if re.search(rf"\bmark\.{mark}\b", path.read_text())}
        assert {ROOT / name for name in found} == by_name, "none in a helper or a conftest"
        assert by_name


@pytest.mark.parametrize(("tier", "number"), [("", 3), ("soak", 1000)])
def test_examples_of_a_soak(tier: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "from tests.tiers import examples; print(examples(3, 1000))"]
    monkeypatch.setenv("HEADWAY_TIER", tier)
    assert int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) == number
