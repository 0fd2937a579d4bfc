"""A run's folder on a disk that is full for a while: a real one, small, in memory. And on one that can only be read, as
after an error of its own, which no mount can be made to be while files are open on it: for that there is a stand-in."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.elastic.lead import recorder as recorders
from headway.elastic.lead.recorder import Recorder
from headway.errors import BadInput
from headway.runs import RunFolder
from headway.testing.disk import Disk, fill, free
from headway.tracking.spool import Spool
from headway.tracking.store import connect, default_uri

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
SOON_S, SENT_S = 60.0, 240.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with Disk(tmp_path / "disk", 16) as made:
            yield made.folder
    except BadInput as error:
        pytest.skip(str(error))


def only_read(disk: Path, still: bool) -> None:
    """Of a disk on which nothing is open."""
    subprocess.run(["mount", "-o", f"remount,{'ro' if still else 'rw'}", str(disk)], check=True)


class OnlyRead:
    """What is written below a folder is refused, as by a disk that can only be read, while `on` is True."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on, self._folder = False, str(folder)
        self._open, self._write = os.open, os.write
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "write", self.write)

    def open(self, path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._refuse(str(path))
        return self._open(path, flags, *arguments, **named)

    def write(self, file: int, data: Any) -> int:
        if self.on:
            self._refuse(str(Path(f"/proc/self/fd/{file}").readlink()))
        return self._write(file, data)

    def _refuse(self, path: str) -> None:
        if self.on and path.startswith(self._folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))


class Kit:
    """A recorder whose run is on the disk, and whose tracking store is beside it."""

    def __init__(self, disk: Path, beside: Path) -> None:
        self.run = RunFolder(disk / "run")
        self.run.path.mkdir()
        self.run.write({"run": "run", "created": time.time()})
        self.store = default_uri(beside)
        connect(self.store, beside)  # its tables take seconds to make
        first = {"kind": "run", "job": {"name": "n"}, "datasets": [], "environment": {}}
        self.recorder = Recorder(str(self.run.path), {"uri": self.store}, first, 1)
        self._count = 0
        self.push({"kind": "began", "total_steps": 100, "steps_per_epoch": 10}, 0)

    def push(self, record: dict[str, Any], step: int) -> dict[str, Any]:
        place = (1, step, f"{record['kind']}:{self._count}", 0)
        self._count += 1
        return self.recorder.push("w0", [{"time": time.time(), "place": place, "step": step, **record}])

    def step(self, number: int) -> None:
        told = {"kind": "step", "epoch": 0, "loss": 1.0, "lr": 0.1, "rows": 4, "samples": "00"}
        begun = time.monotonic()
        assert self.push(told, number)["accepted"]
        content = b64encode(b"x" * 1000).decode()
        about = {"thing": "text", "name": "note", "suffix": ".txt", "mime": "text/plain", "caption": ""}
        assert self.push({"kind": "logged", "content": content, **about}, number + 1)["accepted"]
        assert time.monotonic() - begun < 5.0, "nobody waits for the disk"

    def messages(self) -> list[str]:
        found: list[str] = self.recorder.progress(0)["messages"]
        return found

    def finish(self) -> dict[str, Any]:
        found = self.recorder.finish("finished", "", SENT_S)
        self.recorder.release()
        return found


@pytest.mark.parametrize("how", ["full", "only read"])
def test_what_cannot_be_written_waits_and_is_written_later(
    request: pytest.FixtureRequest, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "CLOSE_S", SOON_S)
    disk = request.getfixturevalue("disk") if how == "full" else tmp_path / "stand-in"
    disk.mkdir(exist_ok=True)
    kit = Kit(disk, tmp_path)
    stand_in = OnlyRead(disk, monkeypatch)
    for number in range(5):
        kit.step(number)
    assert kit.recorder._scribe.flush(SOON_S)
    stand_in.on = how != "full"
    if how == "full":
        fill(disk)
    try:
        for number in range(5, 60):
            kit.step(number)
        until(lambda: any("cannot be written" in said for said in kit.messages()), within_s=SOON_S)
        (said,) = [said for said in kit.messages() if "the records cannot be written" in said]
        assert ("No space left" if how == "full" else "Read-only") in said
        assert "training goes on" in said
        assert kit.recorder.failure() is None
    finally:
        stand_in.on = False
        free(disk)
    found = kit.finish()
    assert "unwritten" not in found
    assert (found["error"], found["waiting"]) == ("", 0)
    assert any("none was lost" in said for said in kit.messages())
    assert [line["step"] for line in kit.run.steps()] == list(range(60))
    assert [entry["step"] for entry in kit.run.logged()] == list(range(1, 61))
    losses = [e["step"] for e in Spool(kit.run.spool).events() if e["kind"] == "points" and "loss" in e["values"]]
    assert sorted(losses) == list(range(60))
    assert _steps(kit.store, found["run_id"]) == list(range(60)), "each once in MLflow, too"


def _steps(store: str, run: str) -> list[int]:
    from mlflow import MlflowClient

    return [metric.step for metric in MlflowClient(tracking_uri=store).get_metric_history(run, "loss")]


def test_a_run_is_not_begun_where_nothing_can_be_kept(disk: Path) -> None:
    from headway.job import parse
    from headway.runs import create

    tree = {"name": "n", "task": "t.py:T", "data": {"train": "x"}, "lanes": 1, "lane_batch": 1, "steps": 1}
    fill(disk)
    with pytest.raises(BadInput, match="No space left"):
        create(disk / "runs", "r", parse(tree))
    free(disk)
    only_read(disk, True)
    with pytest.raises(BadInput, match="Read-only"):
        create(disk / "runs", "r", parse(tree))
    only_read(disk, False)
    assert list((disk / "runs").glob("*")) == []
