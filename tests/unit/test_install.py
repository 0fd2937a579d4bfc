"""What a run needs on the cluster, and how it is brought there."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from headway.carried import code
from headway.errors import BadInput
from headway.jobs.send import install
from headway.jobs.there import needs


def test_what_headway_needs_is_what_its_metadata_demands(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["ray[data,train]==2.60.*", "pydantic<3,>=2.10", "PyYAML>=6", "boto3>=1; extra == 'dev'", "obstore>=0.12"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    found = install.needed(tracked=False, stores=True)
    assert found["ray"] == "==2.60.*"
    assert found["pydantic"] == "<3,>=2.10"
    assert found["pyyaml"] == ">=6"
    assert found["obstore"] == ">=0.12"
    assert found["torch"] == importlib.metadata.version("torch"), "no demand is known: this machine's release"
    assert {"mlflow", "boto3", "rich", "typer"} & set(found) == set()
    assert "mlflow" in install.needed(tracked=True, stores=False)


def test_what_headway_needs_is_here() -> None:
    wanted = install.needed(tracked=True, stores=True)
    assert len(wanted) == 9
    assert needs.lacking(wanted) == {}


@pytest.mark.parametrize(
    ("here", "wanted", "fits"),
    [
        ("2.13.1", "2.13.0", True),
        ("2.14.0", "2.13.0", False),
        ("2.13.0+cu126", "2.13.2", True),
        ("2.13.0+cpu", "==2.13.*", True),
        ("2.1.3", "==2.13.*", False),
        ("2.10", ">=2.10,<3", True),
        ("2.9.9", ">=2.10,<3", False),
        ("3.0rc1", "<3,>=2.10", False),
        ("6.0.2", ">=6", True),
        ("6", ">=6.0.0", True),
        ("1.4.5", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("1.4", "!=1.4.0", False),
        ("1.4", "", True),
        ("2024.1", "2024.1.1", True),
    ],
)
def test_a_version_that_will_do(here: str, wanted: str, fits: bool) -> None:
    assert needs.fits(here, wanted) is fits


def test_what_a_task_cannot_be_imported_without(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import os\nimport numpy as np\nimport helper\nfrom near import deep\nfrom headway import Task\n"
        "try:\n    import pandas\nexcept ImportError:\n    pandas = None\n"
        "def later():\n    import mlflow\n"
    )
    (tmp_path / "helper.py").write_text("import yaml\nfrom typing import TYPE_CHECKING\nimport unheard_of_here\n")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "__init__.py").write_text("")
    (tmp_path / "near" / "deep.py").write_text("from . import other\nfrom .other import X\n")
    (tmp_path / "near" / "other.py").write_text("import pyarrow.parquet\nX = 1\n")
    (tmp_path / "unrelated.py").write_text("import pydantic\n")
    found = install.of_task(code.locate(f"{tmp_path}/task.py:Digits"))
    assert sorted(found) == ["numpy", "pyarrow", "pyyaml"]
    assert found["numpy"] == importlib.metadata.version("numpy")


def test_what_is_installed_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "version_of", {"torch": "2.13.0+cpu"}.get)
    lacks = {"torch": ["==2.13.*", None], "timm": ["1.0.3", "0.9"], "pydantic": ["<3,>=2.10", "1.10"]}
    assert install.requirements(lacks) == ["pydantic<3,>=2.10", "timm==1.0.3", "torch==2.13.0"]
    with pytest.raises(BadInput, match="no Ray that can be seen"):
        install.requirements({"ray": ["==2.60.*", None]})


def test_an_installers_words_are_found_in_rays() -> None:
    message = (
        "runtime_env setup failed: Failed to set up runtime environment.\nTraceback (most recent call last):\n"
        "  File x\n  \u00d7 No solution found when resolving dependencies:\n"
        "  \u2570\u2500\u25b6 Because there is no version of torch==9\n"
        "      and you require torch==9, your requirements are unsatisfiable.\n."
    )
    assert "No solution found" in install.failure(message)
    assert install.failure("") == "Ray says no more"
    assert install.failure("a\nb\n.") == "b"
