"""What is replaced on a disk is whole at every moment, whatever fails: on a disk that is really full, where one can be
made, and with each call failing in turn."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headway.durable import Lines, last_line, replace


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filler


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    for content in ("first", b"second"):
        replace(path, content)
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_2_17_on_a_full_disk_a_file_stays_what_it_was(small_disk: Path) -> None:
    path = small_disk / "job.yaml"
    replace(path, "before")
    filler = fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        replace(path, "x" * 100_000)
    assert path.read_text() == "before"
    assert sorted(p.name for p in small_disk.iterdir()) == ["filler", "job.yaml"]
    filler.unlink()
    replace(path, "after")
    assert path.read_text() == "after"


@pytest.mark.parametrize("fault", ["os.fsync", "pathlib.Path.open", "pathlib.Path.replace"])
def test_2_17_whatever_fails_a_file_stays_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    path = tmp_path / "job.yaml"
    replace(path, "before")
    owner, _, name = fault.rpartition(".")

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os if owner == "os" else Path, name, full)
        with pytest.raises(OSError, match="No space left"):
            replace(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_go_on_behind_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_bytes(b"one\ntwo\nthr")
    lines = Lines(path)
    lines.append(b"three\n")
    lines.sync()
    lines.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert last_line(path) == b"three"
    assert last_line(tmp_path / "none") == b""


def test_a_last_line_of_any_length_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a\n" + b"b" * 200_000 + b"\ntorn" + b"c" * 100_000)
    assert last_line(path) == b"b" * 200_000


def test_2_5_a_line_that_did_not_fit_is_taken_back(small_disk: Path) -> None:
    lines = Lines(small_disk / "steps.jsonl")
    lines.append(b"first\n")
    filler = fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        lines.append(b"x" * 100_000 + b"\n")
    assert (small_disk / "steps.jsonl").read_bytes() == b"first\n"
    filler.unlink()
    lines.append(b"x" * 100_000 + b"\n")
    lines.close()
    assert (small_disk / "steps.jsonl").stat().st_size == 100_007
