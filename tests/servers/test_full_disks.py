"""A run's folder on a disk that is full, or can only be read, for a while: a real one, small, in memory."""

from __future__ import annotations

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
from headway.tracking.store import default_uri

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
SOON_S = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with Disk(tmp_path / "disk", 16) as made:
            yield made.folder
    except BadInput as error:
        pytest.skip(str(error))


def only_read(disk: Path, still: bool) -> None:
    subprocess.run(["mount", "-o", f"remount,{'ro' if still else 'rw'}", str(disk)], check=True)


class Kit:
    """A recorder whose run is on the disk, and whose tracking store is beside it."""

    def __init__(self, disk: Path, beside: Path) -> None:
        self.run = RunFolder(disk / "run")
        self.run.path.mkdir()
        self.run.write({"run": "run", "created": time.time()})
        self.store = default_uri(beside)
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
        found = self.recorder.finish("finished", "", SOON_S)
        self.recorder.release()
        return found


@pytest.mark.parametrize("how", ["full", "only read"])
def test_what_cannot_be_written_waits_and_is_written_later(
    disk: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "CLOSE_S", SOON_S)
    kit = Kit(disk, tmp_path)
    for number in range(5):
        kit.step(number)
    assert kit.recorder._scribe.flush(SOON_S)
    fill(disk) if how == "full" else only_read(disk, True)
    try:
        for number in range(5, 60):
            kit.step(number)
        until(lambda: any("cannot be written" in said for said in kit.messages()), within_s=SOON_S)
        (said,) = [said for said in kit.messages() if "the records cannot be written" in said]
        assert ("No space left" if how == "full" else "Read-only") in said
        assert "training goes on" in said
        assert kit.recorder.failure() is None
    finally:
        free(disk) if how == "full" else only_read(disk, False)
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
    assert not (disk / "runs").exists() or os.listdir(disk / "runs") == []
