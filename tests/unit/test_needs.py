"""What must be on a machine of the cluster, said by Python's own library alone."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import headway
from headway.jobs.there import needs

HOME = Path(headway.__file__).parent
FIRST = ("__init__", "jobs/__init__", "jobs/there/__init__", "jobs/there/main", "jobs/there/needs", "jobs/told")
FIRST = (*FIRST, "jobs/spec", "jobs/there/telling")
"""What is run before it is known that Python is new enough."""


@pytest.mark.parametrize("name", FIRST)
def test_what_says_that_python_is_too_old_is_read_by_an_old_python(name: str) -> None:
    ast.parse((HOME / f"{name}.py").read_text(), feature_version=(3, 8))


def test_what_begins_there_imports_only_pythons_own_library() -> None:
    allowed = {"headway", *sys.stdlib_module_names}
    for name in FIRST:
        tree = ast.parse((HOME / f"{name}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
            if isinstance(node, ast.ImportFrom):
                assert str(node.module).partition(".")[0] in allowed
                if str(node.module).startswith("headway"):
                    names = {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
                    ours = {f"headway.{each}".replace("/", ".").removesuffix(".__init__") for each in FIRST}
                    assert names & ours, (name, names)


def test_what_is_not_there_or_another_is_lacking() -> None:
    here = version("numpy")
    major, minor = needs.release(here)
    assert needs.lacking({"numpy": here}) == {}
    assert needs.lacking({"numpy": f"{major}.{minor}.999"}) == {}
    assert needs.lacking({"numpy": f"{major}.{minor + 1}.0"}) == {"numpy": [f"{major}.{minor + 1}.0", here]}
    assert needs.lacking({"no-such-distribution": "1.2"}) == {"no-such-distribution": ["1.2", None]}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2.13.0", "2.13.1+cpu", True),
        ("2.13.0+cu128", "2.13.0+cpu", True),
        ("2.13", "2.14", False),
        ("6", "6.0", False),
    ],
)
def test_a_patch_is_no_other_release(one: str, other: str, same: bool) -> None:
    assert (needs.release(one) == needs.release(other)) is same


def test_a_refusal_names_packages_and_the_way_out() -> None:
    said = needs.refusal({"torch": ["2.13.0", None], "mlflow": ["3.17.2", "3.1.0"]}, "the cluster's head")
    assert said["fact"] == "the cluster's head lacks mlflow 3.17.2 (it has 3.1.0), torch 2.13.0"
    assert "--install" in said["remedy"]
    assert said["exit_code"] == 2


def test_another_ray_cannot_be_installed_for_a_run() -> None:
    said = needs.refusal({"ray": ["2.60.0", "2.55.1"], "torch": ["2.13.0", None]}, "the cluster's head")
    assert "ray 2.60.0 (it has 2.55.1)" in said["fact"]
    assert "--install" not in said["remedy"]


def test_python_that_is_too_old_is_refused_and_another_is_told() -> None:
    assert needs.python_refusal("the head", (3, 11)) is None
    said = needs.python_refusal("the head", (3, 9))
    assert said is not None
    assert said["fact"] == "the head runs Python 3.9"
    assert needs.python_note(sys.version_info[:2]) == ""
    assert "submitted from Python 3.10" in needs.python_note((3, 10))
