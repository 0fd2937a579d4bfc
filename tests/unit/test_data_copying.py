"""A dataset at another place: the same files, or none that anybody takes for a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from headway.cli.app import app
from headway.data import copying, manifest
from headway.data.manifest import FILE
from headway.data.store.folder import Folder
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.errors import BadData, BadInput
from headway.job import Store
from headway.testing.s3 import KEYS, S3


def make(folder: Path, rows: int = 100, seed: int = 0) -> Path:
    table = pa.table({"x": np.random.default_rng(seed).random(rows)})
    write_dataset(folder, [table], name=folder.name, source="a test", sizes=Sizes(row_group_rows=10, shard_rows=30))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quiet(_: str) -> None:
    return


def test_to_a_bucket_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in KEYS.items():
        monkeypatch.setenv(variable, value)
    for part, rows in (("train", 100), ("test", 40)):
        make(tmp_path / "set" / part, rows)
    with S3() as s3:
        s3.make_bucket("bucket")
        for source, to in ((tmp_path / "set", "s3://bucket/a/set"), ("s3://bucket/a/set/", tmp_path / "back")):
            done = CliRunner().invoke(app, ["data", "cp", str(source), str(to), "--endpoint", s3.endpoint, "--json"])
            assert done.exit_code == 0, done.output
        assert manifest.load("s3://bucket/a/set/train", options=Store(endpoint=s3.endpoint)).rows == 100
    assert files(tmp_path / "back") == files(tmp_path / "set")


def test_a_copy_that_was_broken_off_is_no_dataset_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, to = make(tmp_path / "set"), tmp_path / "copy"
    write, written = Folder.write, []

    def fails(self: Folder, name: str, content: Any) -> None:
        if len(written) == 2:
            raise OSError("no room")
        written.append(name)
        write(self, name, content)

    monkeypatch.setattr(Folder, "write", fails)
    with pytest.raises(OSError, match="no room"):
        copying.copy(str(source), str(to), tell=quiet)
    assert not (to / FILE).exists()
    whole, damaged = (to / name for name in written)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")  # of the right size
    monkeypatch.setattr(Folder, "write", write)
    before = whole.stat().st_mtime_ns
    copying.copy(str(source), str(to), tell=quiet)
    assert files(to) == files(source)
    assert whole.stat().st_mtime_ns == before


def test_what_arrives_altered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, write = make(tmp_path / "set"), Folder.write

    def alters(self: Folder, name: str, content: Any) -> None:
        write(self, name, content)
        (self._folder / name).write_bytes(b"?" + (self._folder / name).read_bytes()[1:])

    monkeypatch.setattr(Folder, "write", alters)
    with pytest.raises(BadData, match="has been altered"):
        copying.copy(str(source), str(tmp_path / "copy"), tell=quiet)
    assert not (tmp_path / "copy" / FILE).exists()


def test_another_dataset_is_never_overwritten(tmp_path: Path) -> None:
    source, other = make(tmp_path / "set"), make(tmp_path / "other", seed=1)
    before = files(other)
    with pytest.raises(BadInput, match="another dataset is there"):
        copying.copy(str(source), str(other), tell=quiet)
    assert files(other) == before
    copying.copy(str(source), str(tmp_path / "copy"), tell=quiet)
    copying.copy(str(source), str(tmp_path / "copy"), tell=quiet)  # the same again is no other
