"""The script that finds the Python of the cluster's Ray: by the library that a process above it has in memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import until

from headway.jobs import entry, told


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / entry.FILE
    path.write_text(entry.script())
    package = tmp_path / "modules" / "headway" / "jobs" / "there"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "main.py").write_text('import os\nprint("chosen", os.environ["CHOSEN"], os.environ["PYTHONSAFEPATH"])\n')
    return path


def environment(folder: Path, name: str, has_ray: bool = True) -> Path:
    """A folder like a virtual environment, whose Python says that it was chosen."""
    home = folder / name
    (home / "bin").mkdir(parents=True)
    check = "" if has_ray else 'test "$1" = -c && exit 1\n'
    for python in ("python", "python3"):
        path = home / "bin" / python
        path.write_text(f'#!/bin/sh\n{check}CHOSEN={name} exec {sys.executable} "$@"\n')
        path.chmod(0o755)
    library = home / "lib" / "python3.11" / "site-packages" / "ray" / "_raylet.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(bytes(mmap.PAGESIZE))
    return home


def begun(script: Path, library: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script, begun by a process that has a library in memory."""
    begin = (
        "import mmap, subprocess, sys\n"
        "library = open(sys.argv[1], 'rb')\n"
        "held = mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sys.exit(subprocess.run(['sh', '-c', f'{sys.argv[2]}; exit $?']).returncode)\n"
    )
    kept = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    modules = os.pathsep.join([str(script.parent / "modules"), kept.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", begin, str(library), f"sh {script}"],
        env={**kept, "PYTHONPATH": modules, **variables},
        capture_output=True,
        text=True,
    )


def library_of(home: Path) -> Path:
    return next(home.glob("lib/*/site-packages/ray/_raylet.so"))


def test_the_python_of_rays_environment_is_chosen_and_not_that_of_path(script: Path, tmp_path: Path) -> None:
    ray, other = environment(tmp_path, "rays"), environment(tmp_path, "other")
    found = begun(script, library_of(ray), PATH=f"{other / 'bin'}:{os.environ['PATH']}", VIRTUAL_ENV=str(other))
    assert found.stdout == "chosen rays 1\n", found.stderr


def test_an_environment_that_ray_made_for_this_job_comes_first(script: Path, tmp_path: Path) -> None:
    ray = environment(tmp_path, "rays")
    made = environment(tmp_path / "runtime_resources" / "uv", "made")
    assert begun(script, library_of(ray), VIRTUAL_ENV=str(made)).stdout == "chosen made 1\n"


def test_a_python_without_ray_is_passed_over(script: Path, tmp_path: Path) -> None:
    ray = environment(tmp_path, "rays")
    made = environment(tmp_path / "runtime_resources" / "uv", "made", has_ray=False)
    assert begun(script, library_of(ray), VIRTUAL_ENV=str(made)).stdout == "chosen rays 1\n"


def test_where_no_ray_is_above_it_says_so(script: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    (tmp_path / "path" / "ray").mkdir(parents=True)  # a folder of that name is no Ray, as /tmp/ray is none
    # Begun by nobody: its parent is gone before it looks, and this process may have a real Ray in memory.
    orphan = f"(while kill -0 $$ 2>/dev/null; do sleep 0.01; done; sh {script} > {said}; echo $? >> {said}) &"
    subprocess.run(["sh", "-c", orphan], check=True, env={**os.environ, "PYTHONPATH": str(tmp_path / "path")})
    until(lambda: said.exists() and len(said.read_text().splitlines()) == 2, "the script ended")
    line, code = said.read_text().splitlines()
    assert code == "2"
    (tree,) = told.read([line])
    assert tree["told"] == "refused"
    assert "Python" in tree["fact"]
    assert tree["exit_code"] == 2
