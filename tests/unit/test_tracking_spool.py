"""The spool keeps what was appended, whatever happened in between; URIs that can never work are refused at the door."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from headway.errors import BadInput, RunFailed
from headway.tracking import progress
from headway.tracking.environment import environment
from headway.tracking.spool import Spool
from headway.tracking.store import check_uri, redact


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "run" / "spool.jsonl")


def points(step: int, **values: float) -> dict[str, object]:
    return {"kind": "points", "step": step, "values": values}


def test_reads_back_in_order_and_from_an_offset(spool: Spool) -> None:
    for step in range(5):
        spool.append(points(step, loss=step / 2))
    events, offset = spool.read()
    assert [event["step"] for event in events] == [0, 1, 2, 3, 4]
    assert spool.read(offset) == ([], offset)
    spool.append(points(5, loss=1.0))
    assert [event["step"] for event in spool.read(offset)[0]] == [5]
    spool.close()


def test_nothing_written_is_nothing_to_read(spool: Spool) -> None:
    assert spool.read() == ([], 0)
    assert spool.size() == 0


def test_non_finite_numbers_survive_as_json(spool: Spool) -> None:
    spool.append(points(1, a=math.nan, b=math.inf, c=-math.inf))
    spool.close()
    assert "NaN" in spool.path.read_text()
    values = spool.read()[0][0]["values"]
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


def test_torn_last_line_waits_and_does_not_spoil_the_next(spool: Spool) -> None:
    spool.append(points(1, loss=1.0))
    spool.close()
    with spool.path.open("a") as file:
        file.write('{"kind":"points","st')
    events, offset = spool.read()
    assert [event["step"] for event in events] == [1]
    assert offset < spool.size()
    later = Spool(spool.path)
    later.append(points(2, loss=1.0))
    later.close()
    assert [event["step"] for event in later.read(offset)[0]] == [2]
    assert later.damaged == 1


@pytest.mark.parametrize(
    "rubbish", [b"{broken\n", b"\xff\xfe\x00\n", b"[1]\n", b'{"no":"kind"}\n', b"\x00" * 64 + b"\n"]
)
def test_corrupt_line_in_the_middle_is_skipped_and_counted(spool: Spool, rubbish: bytes) -> None:
    spool.append(points(1, loss=1.0))
    spool.close()
    with spool.path.open("ab") as file:
        file.write(rubbish)
    spool.append(points(2, loss=1.0))
    spool.close()
    assert [event["step"] for event in spool.read()[0]] == [1, 2]
    assert spool.damaged == 1


def test_reads_in_chunks_smaller_than_a_line(spool: Spool) -> None:
    for step in range(20):
        spool.append(points(step, loss=1.0))
    spool.close()
    seen, offset = [], 0
    while (found := spool.read(offset, max_bytes=7))[1] != offset:
        events, offset = found
        seen += [event["step"] for event in events]
    assert seen == list(range(20))
    assert [event["step"] for event in spool.events()] == seen


def test_a_spool_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot be written"):
        Spool(tmp_path / "file" / "spool.jsonl").append(points(1, loss=1.0))
    if Path("/dev/full").exists():
        with pytest.raises(RunFailed, match="No space left"):
            Spool("/dev/full").append(points(1, loss=1.0))


def test_progress_survives_and_is_kept_apart_by_store(tmp_path: Path) -> None:
    kept = progress.load(tmp_path, "a")
    kept.offset, kept.marks["loss"] = 7, (3, 1000, 0.5)
    progress.save(tmp_path, "a", kept)
    progress.save(tmp_path, "b", progress.Progress())
    assert progress.load(tmp_path, "a") == kept
    assert progress.load(tmp_path, "b").offset == 0
    (tmp_path / progress.FILE).write_text('{"stores": {"a"')
    assert progress.load(tmp_path, "a").offset == 0


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "htp://host",
        "http://",
        "http://host:99999",
        "http://user:secret@host",
        "mlruns",
        "file:///somewhere",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////dev/null/mlflow.db",
        "postgresql+nosuchdriver://host/db",
    ],
)
def test_uri_that_can_never_work_is_refused(uri: str) -> None:
    with pytest.raises(BadInput, match=r"tracking\.uri") as error:
        check_uri(uri)
    assert error.value.reason
    assert error.value.remedy
    assert "secret" not in str(error.value)


def test_uri_that_may_work_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_uri("http://127.0.0.1:9") == "http://127.0.0.1:9"
    assert check_uri("sqlite:///records/m.db") == f"sqlite:///{tmp_path}/records/m.db"
    assert redact("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_environment_tells_versions_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hush-hush")
    found = environment(tmp_path)
    assert found["packages"]["torch"]
    assert found["cpus"] >= 1
    assert found["git"] is None
    assert "hush-hush" not in str(found)


def test_what_was_drawn_is_found_past_events_that_are_none(spool: Spool) -> None:
    spool.append(points(7, loss=1.0))
    spool.append({"kind": "checkpoint", "step": 7, "held": {"loss": [[6, 1.5, 2.0]]}})
    spool.append({"kind": "points", "values": {"loss": 1.0}})
    spool.append({"kind": "checkpoint", "step": 8, "held": None})
    assert spool.drawn() == ({"loss": 7}, {"loss": [[6, 1.5, 2.0]]})
