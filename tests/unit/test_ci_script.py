"""The CI script, with programs that do nothing or fail: what cannot be had is named, and the tiers run all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("bash", "dirname")
LOGS = 'echo "$(basename "$0") $*" >>"$LOG"'


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A copy of the script, beside an environment and a PATH of its own."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(found)
    program(tmp_path / "bin" / "id", "echo 0")
    program(tmp_path / "bin" / "mkdir", "exit 1")  # it writes nothing into this machine's /etc
    program(tmp_path / "bin" / "timeout", 'shift; exec "$@"')
    program(tmp_path / "bin" / "make", f"PATH=/usr/bin:/bin; {LOGS}")
    (tmp_path / "dashboards" / "render").mkdir(parents=True)
    (tmp_path / "dashboards" / "render" / "package-lock.json").touch()
    return tmp_path


def ran(ground: Path) -> tuple[str, list[str]]:
    """What it said to be missing, and what it called."""
    environ = {"PATH": str(ground / "bin"), "LOG": str(ground / "log"), "HOME": str(ground)}
    script = [str(ground / "bin" / "bash"), str(ground / ".ci" / "run")]
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr, (ground / "log").read_text().splitlines()


def test_without_a_registry_each_thing_is_named_and_both_tiers_run(ground: Path) -> None:
    for name in ("apt-get", "npm"):
        program(ground / "bin" / name, "exit 100")
    program(ground / ".venv" / "bin" / "python", "exit 1")
    said, called = ran(ground)
    assert called == ["make setup", "make test", "make slow"]
    missing = {line.removeprefix("not to be had: ") for line in said.splitlines() if line.startswith("not to be had: ")}
    assert {"chromium", "prometheus", "azurite", "the panels of Perses"} <= missing
    assert {f"the extras {name}" for name in ("dashboards", "pages", "servers")} <= missing
    assert any("nftables" in each for each in missing)


def test_what_is_there_is_not_asked_for_again(ground: Path) -> None:
    for name in ("nft", "ip", "unshare", "nsenter", "chromium", "prometheus", "promtool", "initdb", "azurite-blob"):
        program(ground / "bin" / name, "exit 0")
    program(ground / "bin" / "apt-get", f"PATH=/usr/bin:/bin; {LOGS}")
    program(ground / "bin" / "npm", f"PATH=/usr/bin:/bin; {LOGS}")
    program(ground / ".venv" / "bin" / "python", f"PATH=/usr/bin:/bin; {LOGS}")
    said, called = ran(ground)
    assert "not to be had" not in said
    assert not [each for each in called if each.startswith("apt-get")]
    assert [each.split(" --")[0] for each in called if each.startswith("npm")] == ["npm ci"]
    extras = [each.rpartition("[")[2].rstrip("]") for each in called if each.startswith("python")]
    assert extras == ["dashboards", "huggingface,lightning,metrics", "pages", "servers"]
    tests = [each for each in called if each.startswith("make")]
    assert tests == ["make setup", "make test", "make slow"]
    assert called.index("make test") < next(n for n, each in enumerate(called) if "[pages]" in each)


def test_the_extras_are_those_of_the_project() -> None:
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    text = (ROOT / ".ci" / "run").read_text()
    asked = {
        name for line in text.splitlines() if line.strip().startswith("extras ") for name in line.split()[1].split(",")
    }
    assert asked <= known
    assert {"dashboards", "pages", "servers"} <= asked
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
