"""What `prepare` is asked for: one section for the command line and Python, whose errors name options as given."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import headway.data
from headway.cli.app import app
from headway.data.prepare import whole
from headway.data.prepare.options import Options, as_arguments, as_command, checked
from headway.errors import BadInput

GIVEN: dict[str, tuple[list[str], Any]] = {
    "format": (["--format", "csv"], "csv"),
    "encoding": (["--encoding", "cp1252"], "cp1252"),
    "null_values": (["--null-values", "NA,-"], ["NA", "-"]),
    "label": (["--label", "y"], "y"),
    "transform": (["--transform", "m:f"], "m:f"),
    "batch_format": (["--transform", "m:f", "--batch-format", "numpy"], "numpy"),
    "filter": (["--filter", "a > 2"], "a > 2"),
    "dedup": (["--dedup", "a, b"], ("a", "b")),
    "split": (["--split", "a=0.5,b=0.5"], "a=0.5,b=0.5"),
    "split_by": (["--split", "a=0.5,b=0.5", "--split-by", "c"], ["c"]),
    "mask": (["--mask", "a=redact", "--mask", "b=redact"], ["a=redact", "b=redact"]),
    "pack": (["--pack", "12:text"], "12:text"),
    "shuffle": (["--shuffle"], True),
    "seed": (["--seed", "3"], 3),
    "image_size": (["--image-size", "2x3"], "2x3"),
    "row_group_rows": (["--row-group-rows", "7"], 7),
    "shard_rows": (["--shard-rows", "9"], 9),
    "append": (["--append"], True),
    "address": (["--address", "h:1"], "h:1"),
    "force": (["--force"], True),
}
BESIDE = {"batch_format": {"transform": "m:f"}, "split_by": {"split": "a=0.5,b=0.5"}}


class Asked(Exception):
    """Carries the options that the command made."""


@pytest.mark.parametrize("name", Options.model_fields)
def test_the_command_line_and_python_ask_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(src: Path, dst: Path, options: Options, *more: Any) -> None:
        raise Asked(options)

    monkeypatch.setattr(whole, "prepared", asked)
    words, value = GIVEN[name]
    found = CliRunner().invoke(app, ["data", "prepare", "src", "dst", *words]).exception
    assert isinstance(found, Asked), found
    with pytest.raises(Asked) as caught:
        headway.data.prepare("src", "dst", **{name: value}, **BESIDE.get(name, {}))
    assert caught.value.args == found.args
    assert getattr(caught.value.args[0], name) not in (None, False, (), 0)


def test_help_explains_every_option() -> None:
    text = " ".join(CliRunner().invoke(app, ["data", "prepare", "--help"], env={"COLUMNS": "200"}).output.split())
    for name, field in Options.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert field.description
        assert field.description.split()[0] in text


def test_what_bytes_do_not_depend_on_is_not_kept() -> None:
    options = checked({"dedup": ["a", "b"], "mask": "a=redact", "seed": 0, "append": True, "address": "x"}, as_command)
    assert options.kept == {"dedup": "a,b", "mask": ["a=redact"]}
    assert checked({"dedup": ["a,b", "c"]}, as_command).kept == {"dedup": ["a,b", "c"]}
    assert checked({"dedup": None, "mask": None, "label": None}, as_command) == Options()


@pytest.mark.parametrize(
    ("given", "command", "python"),
    [
        ({"shufle": True}, "--shufle: is no option. Did you mean 'shuffle'?", "shufle=True: is no option."),
        ({"row_group_rows": 0}, "--row-group-rows 0: must be at least 1", "row_group_rows=0: must be at least 1"),
        ({"seed": 2**63}, "must be at most 9223372036854775807", "must be at most"),
        ({"seed": True}, "is no value for it", "seed=True: is no value for it"),
        ({"seed": "x"}, "--seed x: must be a whole number", "seed='x': must be a whole number"),
        ({"label": 3}, "--label 3: must be text", "label=3: must be text"),
        ({"mask": 3}, "must be text, or several", "mask=3: must be text, or several"),
        ({"split_by": "a"}, "--split-by a: it does nothing without --split.", "without split. Give both, or none."),
        ({"batch_format": "numpy"}, "does nothing without --transform", "does nothing without transform"),
        (
            {"seed": -1, "shard_rows": 0},
            "2 options cannot be used: --seed -1 must be at least 0; --shard-rows 0 must be at least 1",
            "seed=-1 must be at least 0; shard_rows=0 must be at least 1",
        ),
    ],
)
def test_options_are_named_as_they_were_given(given: dict[str, Any], command: str, python: str) -> None:
    for said, message in ((as_command, command), (as_arguments, python)):
        with pytest.raises(BadInput) as caught:
            checked(given, said)
        assert message in str(caught.value)
        assert "pydantic" not in str(caught.value)


def test_prepare_is_a_package_that_can_be_called() -> None:
    module = importlib.import_module("headway.data.prepare")
    importlib.import_module("headway.data.prepare.stages.rows")
    assert headway.data.prepare is module.prepare
    with pytest.raises(BadInput, match="shufle=1: is no option"):
        headway.data.prepare("src", "dst", shufle=1)


def test_the_command_line_starts_without_arrow() -> None:
    code = "import sys, headway.cli.app; sys.exit(any(name in sys.modules for name in ('pyarrow', 'ray', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
