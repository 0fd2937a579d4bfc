"""Datasets of formats before this one, as the code of then made them: read, checked, and the same to a run.

`tests/golden/format-2/people` is of 40 rows and 12 appended ones, split, masked and without duplicates; `pictures` of
images by class; `lines` of nested columns; `kinds` of Arrow's rarer types. What appending to them does is in
tests/ray/test_prepare_steps.py.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headway.cli.app import app
from headway.data.manifest import FORMAT, load, quick_check, verify, verify_versions, write

GOLDEN = Path(__file__).parents[1] / "golden" / "format-2"
DIGESTS = {
    ("people/train", 1): (28, "d6bb6a3ead8c0975cd6d1b8cfd47af9dd7e3ba08133e6adb77f83392ded1cfb7"),
    ("people/train", 2): (38, "9846a18c6b8622a038c11532ee37d359dc797c0edcf8f5f2a0c71980ee896586"),
    ("people/test", 1): (12, "c99fb36993d4636c8c6a5cfd2bc119c0d18e30bdea93e5fea6133b9750c491e6"),
    ("people/test", 2): (14, "d8e8d843dafbf789afec55c113277d80909e6aa37c02a246dc7168edfcf261f4"),
    ("lines", 1): (6, "c2067864a7e5bc39b73054d5234dde97c9949ac7066299efe8224888df113d09"),
    ("kinds", 1): (3, "90c89eb6ac9d434339cd4e492e93dfe1b0dabb5d40d93a294565fc94e0c242a1"),
    ("pictures", 1): (12, "0adf1c2401e4ede5cb191c393419e25b88f20f0760fa929e41dfd75f3ed0c16b"),
}


@pytest.mark.parametrize(("name", "version"), DIGESTS)
def test_the_digest_by_which_runs_resume_is_what_it_was(name: str, version: int) -> None:
    manifest = load(GOLDEN / name, version)
    assert (manifest.rows, manifest.digest) == DIGESTS[name, version]
    assert manifest.rules == 2


@pytest.mark.parametrize("name", ["people/train", "people/test", "lines", "kinds", "pictures"])
def test_old_sets_are_read_and_checked(name: str) -> None:
    manifest = load(GOLDEN / name)
    quick_check(GOLDEN / name, manifest)
    verify(GOLDEN / name, manifest)
    verify_versions(GOLDEN / name, manifest)
    assert sum(pq.read_metadata(GOLDEN / name / shard.path).num_rows for shard in manifest.shards) == manifest.rows


def test_every_command_takes_them() -> None:
    for command, *more in (("check",), ("stats",), ("stats", "--versions"), ("head",)):
        found = CliRunner().invoke(app, ["data", command, str(GOLDEN / "people" / "train"), *more])
        assert found.exit_code == 0, found.output


def test_a_next_version_is_of_this_format_and_follows_the_old_rules(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "pictures", tmp_path / "set")
    before = load(tmp_path / "set")
    write(tmp_path / "set", replace(before, version=2))
    found = load(tmp_path / "set")
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["format"] == FORMAT == "headway-dataset/3"
    assert (found.rules, found.version, found.digest) == (2, 2, before.digest)
    verify_versions(tmp_path / "set", found)
