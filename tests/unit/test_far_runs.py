"""Runs in a store, as commands and drivers of several machines see them: made, led, found, listed, removed, copied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import waiting

from headway import report, runs
from headway.checkpoint.store import Store
from headway.cli import app, checks
from headway.driver.ending import explained
from headway.driver.progress import Progress
from headway.elastic.lead.recorder import Recorder
from headway.errors import BadData, BadInput, RunFailed
from headway.job import Checkpoint as Policy
from headway.job import Job, parse
from headway.logs.reading import Reader
from headway.report.redaction import redacted
from headway.report.story import tell
from headway.runs import Place, briefs, copying, epochs, far
from headway.runs.epochs import Superseded
from headway.runs.far import COPYING, FarRun, counting, fence, open_run
from headway.runs.head import HEAD
from headway.runs.pruning import prune
from headway.runs.remote import Clock, RemoteRun
from headway.storage.clients import keys_of
from headway.storage.folder import FolderStorage
from headway.storage.objects import Objects
from headway.storage.opener import open_storage
from headway.storage.options import Options
from headway.testing.s3 import S3, Faults

URL = "s3://runs/some/place"
until = partial(waiting.until, within_s=30.0)
JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3}
Machine = Callable[[str], Place]


def job() -> Job:
    return parse(JOB)


@pytest.fixture
def machine(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Be on the machine of that name from now on: with a home of its own."""
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "1")
    s3.make_bucket("runs")

    def on(name: str) -> Place:
        monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / name))
        return Place.of(f"{URL}-{tmp_path.name}")

    return on


def made(place: Place, name: str = "r", steps: int = 3, state: str = "finished") -> FarRun:
    """A run that was led to its end, with a checkpoint and a log."""
    run = runs.create(place, name, job())
    assert isinstance(run, FarRun)
    with run.led() as epoch:
        lines = [
            {"step": s, "epoch": 0, "loss": 1 / (s + 1), "lr": 0.1, "rows": 8, "samples": "x"} for s in range(steps)
        ]
        (run.path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run.path / "metrics.jsonl").write_text(json.dumps({"step": 3, "values": {"a": 1.5}}) + "\n")
        (run.path / "code").mkdir()
        (run.path / "code" / "t.py").write_text("# the task\n" * 10_000)
        run.write({**run.read(), "state": state, "steps": steps, "total_steps": 3})
        checkpoints(run, epoch).write(steps, {"model": {"w": torch.arange(5.0)}}, {"cursor": {}, "metrics": {"a": 1.5}})
        run.remote.storage.put("logs/worker-w0.log", b"said\n")
    return run


def checkpoints(run: FarRun, epoch: int) -> Store:
    return Store(run.checkpoint_root, "j" * 64, Policy(), epoch, run.counting)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_run_is_found_on_another_machine(machine: Machine) -> None:
    first = made(machine("first"))
    second = runs.find(machine("second"), "r")
    assert second.path != first.path
    for name in ("job.yaml", "run.json", "steps.jsonl", "metrics.jsonl", "code/t.py"):
        assert (second.path / name).read_bytes() == (first.path / name).read_bytes()
    told = report.load(second)
    assert told.path == f"{machine('second')}/r" == second.where
    assert (told.state, told.steps, told.metrics) == ("finished", 3, {"a": 1.5})
    (checkpoint,) = told.checkpoints
    assert checkpoint["path"].startswith(f"{told.path}/checkpoints/step-00000003/e000001-")
    assert runs.find(Place.of("runs"), told.path).path == second.path, "a run may be named by its URL"
    far.storage_of(str(machine("second").url)).put(".audit/head.json", b"{}")
    with pytest.raises(BadInput, match="no run 'q'") as none:
        runs.find(machine("second"), "q")
    assert "Known: r" in none.value.remedy or "'r'" in none.value.remedy
    assert "audit" not in none.value.remedy


def test_a_name_is_taken_once(machine: Machine) -> None:
    made(machine("first"))
    place = machine("second")
    with pytest.raises(BadInput, match="a run of that name is there"):
        runs.create(place, "r", job())
    assert names(place.folder) == []
    with pytest.raises(BadInput, match="letters, digits"):
        runs.create(place, "../r", job())
    assert runs.create(place, None, job()).name != "r"


def test_one_leads(machine: Machine) -> None:
    run = made(machine("first"))
    with run.led() as epoch:
        assert epoch == 2
        other = FarRun(machine("second").folder / "r", run.place)
        with pytest.raises(BadInput, match=rf"led elsewhere: by process {os.getpid()} on .*, since"), other.led():
            pass
        assert report.load(runs.find(machine("third"), "r")).state == "finished"
        run.write({**run.read(), "state": "running"})
    assert run.remote.head().released
    with runs.find(machine("second"), "r").led() as epoch:
        assert epoch == 3


def test_the_lead_is_handed_over_and_taken_back(machine: Machine) -> None:
    run = runs.create(machine("first"), "r", job())
    assert isinstance(run, FarRun)
    with run.led() as epoch:
        far_run = run.far
        with run.handed_over():
            from headway.elastic.lead.shipper import Shipper

            mirrors: list[Any] = []
            shipper = Shipper(far_run, run.path, epoch, 60.0, print, print)
            shipper.start(mirrors.append)
            (run.path / "events.jsonl").write_text('{"kind": "x"}\n')
            deadline = time.monotonic() + 20
            while not mirrors:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert mirrors[0].flush(20)
            assert shipper.close(20)
        (run.path / "fault-1.txt").write_text("by the driver\n")
        with pytest.raises(Superseded):
            fence(open_run(far_run), epoch + 1)
        fence(open_run(far_run), epoch)
    there = runs.find(machine("second"), "r").path
    assert (there / "events.jsonl").read_text() == '{"kind": "x"}\n'
    assert (there / "fault-1.txt").exists()
    assert run.remote.head().epoch == 1, "it was one lead, by several processes"


def test_a_driver_that_was_killed_is_waited_for(machine: Machine) -> None:
    place = machine("first")
    run = runs.create(place, "r", job())
    assert isinstance(run, FarRun)
    assert run._led.lease is not None  # and now it is killed
    said: list[str] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    listed = briefs(place)
    assert [brief.state for brief in listed] == ["running"]
    RemoteRun(far.storage_of(str(place.url)), "r", Clock(lambda: now[0], sleep)).claim(said.append).release()
    assert now[0] >= 30
    assert f"was led by process {os.getpid()}" in said[0]
    assert [brief.state for brief in briefs(place)] == ["interrupted"]


def test_a_listing_is_one_listing_and_a_read_of_each(machine: Machine, s3: S3) -> None:
    place = machine("first")
    for number in range(5):
        made(place, f"r{number}", steps=number)
    storage = far.storage_of(str(place.url))
    storage.put("stray/thing", b"")
    s3.faults = Faults()
    found = briefs(machine("second"))
    assert [(brief.run, brief.steps, brief.state) for brief in found] == [(f"r{n}", n, "finished") for n in range(5)]
    assert (found[3].loss, found[3].metrics, found[3].path) == (1 / 3, {"a": 1.5}, f"{place}/r3")
    assert s3.counts["GET"] == 1 + 6
    assert s3.counts["PUT"] == s3.counts["POST"] == 0


def test_runs_of_a_store_are_removed(machine: Machine) -> None:
    place = machine("first")
    a, b, c = (made(place, name) for name in "abc")
    with b.led():
        done = prune(place, keep=0, checkpoints_only=True)
        assert (sorted(done.removed), list(done.left)) == (["a", "c"], ["b"])
        assert "led elsewhere" in done.left["b"] or "another process leads it" in done.left["b"]
    assert [bool(report.load(run).checkpoints) for run in (a, b, c)] == [False, True, False]
    assert prune(place, ["a"]).removed == ["a"]
    assert prune(place, keep=1).removed == ["b"]
    assert [brief.run for brief in briefs(place)] == ["c"]
    storage = far.storage_of(str(place.url))
    assert storage.folders() == ["c"]
    assert "a" not in names(place.folder)


def test_a_run_goes_to_a_folder_and_back(machine: Machine, tmp_path: Path) -> None:
    place = machine("first")
    run = made(place)
    folder = Place.of(tmp_path / "folder")
    done = copying.copy(run, folder)
    copied = runs.find(folder, "r")
    assert done.files >= 9
    assert report.load(copied).model_dump(exclude={"path", "checkpoints"}) == report.load(run).model_dump(
        exclude={"path", "checkpoints"}
    )
    (checkpoint,) = [Store(copied.checkpoint_root, "j" * 64, Policy()).newest()[0]]
    assert checkpoint is not None
    assert torch.equal(checkpoint.load()["model"]["w"], torch.arange(5.0))
    assert (copied.logs / "worker-w0.log").read_text() == "said\n"
    with copied.led() as epoch:
        assert epoch > 1, "later than what the store knew"

    with pytest.raises(BadInput, match="a run of that name is there"):
        copying.copy(copied, place)
    back = copying.copy(copied, place, "back")
    assert back.path == f"{place}/back"
    again = runs.find(machine("second"), "back")
    assert isinstance(again, FarRun)
    assert again.read() == {**run.read(), "run": "back"}
    found, passed_over = checkpoints(again, 1).newest()
    assert (found is not None and found.step, passed_over) == (3, [])
    with again.led() as epoch:
        assert counting(again.remote, [f"checkpoints/{found.name}/manifest.json"]), "adopted by the next lead too"
    other = Place.of(f"{place}-other")
    assert copying.copy(again, other).path == f"{other}/back", "from bucket to bucket"
    assert [brief.run for brief in briefs(other)] == ["back"]


def test_a_copy_to_a_store_that_fails_leaves_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine("first")
    run = made(place)
    monkeypatch.setattr(copying, "_verified", lambda made: (_ for _ in ()).throw(RunFailed("it is full")))
    with pytest.raises(RunFailed, match="it is full"):
        copying.copy(run, place, "copy")
    assert far.storage_of(str(place.url)).folders() == ["r"]
    assert "copy" not in names(place.folder)


def test_a_copy_that_was_killed_is_no_run(machine: Machine) -> None:
    place = machine("first")
    half = FarRun(place.folder / "half", place)
    half.begin({"state": COPYING}).release()
    with pytest.raises(BadInput, match=r"no whole run.*headway runs prune half"):
        runs.find(place, "half")
    assert [brief.state for brief in briefs(place)] == ["broken"]
    assert prune(place, ["half"]).removed == ["half"]
    assert briefs(place) == []


def test_where_no_run_can_be_kept(machine: Machine, s3: S3) -> None:
    place = machine("first")
    cases = [
        (Place.of("s3://nowhere/runs"), Faults(), "nowhere"),
        (place, Faults(denied=("PUT",)), "denied"),
        (place, Faults(conditional=False), "no conditional writes"),
        (place, Faults(full=True), "."),
    ]
    for where, faults, said in cases:
        s3.faults = faults
        with pytest.raises(BadInput, match=rf"(?i){said}") as raised:
            runs.create(where, "r", job())
        assert raised.value.remedy, said
        s3.faults = Faults()
        assert names(where.folder) == [], said
    assert briefs(place) == []


def test_a_run_that_ends_before_it_began_is_as_if_it_had_not_been(machine: Machine) -> None:
    place = machine("first")
    run = runs.create(place, "r", job())
    with run.led():
        run.discard()
    assert far.storage_of(str(place.url)).list() == []
    assert "r" not in names(place.folder)
    assert runs.create(place, "r", job()).read()["run"] == "r"


def test_doctor_asks_the_store(machine: Machine, s3: S3) -> None:
    place = machine("first")
    assert [finding.level for finding in checks.store(place)] == ["ok"]
    assert far.storage_of(str(place.url)).list() == []
    s3.faults = Faults(conditional=False)
    (finding,) = checks.store(place)
    assert (finding.level, "no conditional writes" in finding.found) == ("fail", True)
    assert list(checks.store(Place.of("runs"))) == []


def test_runs_that_cannot_be_read(machine: Machine, s3: S3) -> None:
    run = made(machine("first"))
    place, storage = machine("second"), run.remote.storage
    s3.faults = Faults(denied=("GET",))
    with pytest.raises(BadInput) as raised:
        runs.find(place, "r")
    assert raised.value.remedy
    s3.faults = Faults()
    content = storage.get(HEAD)
    storage.put(HEAD, content.replace(b"headway-run/1", b"headway-run/9"))
    with pytest.raises(BadInput, match=r"layout 'headway-run/9'.*newer"):
        runs.find(place, "r")
    storage.put(HEAD, content.replace(b'"epoch": 1', b'"epoch": 7'))
    with pytest.raises(BadData, match="digest"):
        runs.find(place, "r")
    storage.put(HEAD, content)
    (large,) = [found.name for found in storage.list("files/")]
    storage.put(large, b"other" * 22_000)
    with pytest.raises(BadData, match="is damaged"):
        runs.find(place, "r")
    assert "r" not in names(place.folder), "no half of a working copy stays"


@pytest.mark.parametrize(
    "command",
    [["report", "r"], ["runs", "cp", "r", "there"], ["runs", "prune", "r"], ["resume", "r"], ["sync", "r"]],
    ids=lambda command: " ".join(command[:2]),
)
def test_commands_on_what_is_not_there(
    command: list[str],
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    place = machine("first")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for where, said in ((str(place), "no run 'r'"), ("s3://nowhere/runs", "nowhere")):
        monkeypatch.setattr(sys, "argv", ["headway", *command, "--runs", where])
        with pytest.raises(SystemExit) as ended:
            app.main()
        error = capsys.readouterr().err
        assert (ended.value.code, said in error, "Traceback" in error) == (2, True, False), error
    assert names(tmp_path / "work") == []
    assert names(tmp_path / "first") == []


def test_options_come_from_the_users_settings(machine: Machine, s3: S3) -> None:
    place = machine("first")
    run = FarRun(place.folder / "r", place)
    assert run.far is not None
    assert Options(**run.far["options"]).endpoint == s3.endpoint
    assert open_storage(URL, Options(**run.far["options"])).url == URL


def test_what_is_written_counts_when_the_store_has_it(machine: Machine, s3: S3) -> None:
    """A recorder on the driver's machine, through the handover, and while the store is away."""
    run = runs.create(machine("first"), "r", job())
    assert isinstance(run, FarRun)
    with run.led() as epoch, run.handed_over():
        recorder = Recorder(str(run.path), None, {}, 10, None, epoch, 60.0, {}, run.far)
        step = {"kind": "step", "epoch": 0, "loss": 1.0, "lr": 0.1, "rows": 8, "samples": "x", "time": 1.0}

        def push(number: int) -> dict[str, Any]:
            return recorder.push("w0", [{**step, "step": number}, {"kind": "sync", "time": 1.0}])

        first = push(0)
        until(lambda: run.last_step() == 0, "it is on the disk")
        assert recorder.push("w0", [])["written"] == 0, "but not where the run is"
        recorder.ship()
        until(lambda: recorder.push("w0", [])["written"] >= first["taken"], "shipped")
        assert run.remote.head().position > 0
        s3.faults = Faults(reset=1.0)
        second = push(1)
        until(lambda: recorder.push("w0", [])["error"], "it is said that the store does not answer")
        assert recorder.push("w0", [])["written"] < second["taken"]
        assert recorder.failure() is None, "training goes on"
        s3.faults = Faults()
        until(lambda: recorder.push("w0", [])["written"] >= second["taken"], "shipped, later")
        assert recorder.finish("finished", "", 1.0) == {}
        recorder._hold.close()
    there = runs.find(machine("second"), "r")
    assert [line["step"] for line in there.steps()] == [0, 1]
    assert there.read()["state"] == "finished"


def test_a_recorder_whose_run_is_led_elsewhere_says_so_and_writes_nothing(machine: Machine) -> None:
    run = runs.create(machine("first"), "r", job())
    assert isinstance(run, FarRun)
    with run.led() as epoch, run.handed_over():
        recorder = Recorder(str(run.path), None, {}, 10, None, epoch, 60.0, {}, run.far)
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        lease = RemoteRun(run.remote._place, "r", Clock(lambda: now[0], sleep)).claim()
        position = lease.head.position
        recorder.ship()
        until(recorder.failure, "it hears of it")
        failure = recorder.failure()
        assert failure is not None
        assert (failure["kind"], "another process leads" in failure["fact"]) == ("superseded", True)
        assert "unwritten" in recorder.finish("finished", "", 1.0)
        recorder._hold.close()
    assert run.remote.head().position == position
    lease.release()


PROGRAM = """
import json, os, signal, sys
from headway.elastic.worker.output import Output
far = json.loads(sys.argv[1])
kept = Output("worker-w7", far["url"], far["options"])
kept.start()
print("the first words", flush=True)
os.write(2, b"Fatal Python error: the last words\\n")
{end}
"""


@pytest.mark.parametrize("end", ["kept.close()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_a_worker_wrote_is_shipped_when_it_ends(end: str, machine: Machine, tmp_path: Path) -> None:
    run = made(machine("first"))
    command = [sys.executable, "-c", PROGRAM.format(end=end), json.dumps(run.far)]
    subprocess.run(command, timeout=60, capture_output=True)
    reader, said = Reader(run.remote.storage, ["worker-w7"]), []

    def whole() -> bool:
        said.extend(line.text for line in reader.news())
        return bool(said) and reader.ended

    until(whole, "it is in the store")
    assert said == ["the first words", "Fatal Python error: the last words"]
    failure = explained({"kind": "workers", "reason": "it ended", "remedy": ""}, run)
    assert failure["reason"].endswith("Fatal Python error: the last words (worker-w7)")
    assert f"headway logs {run.where}" in failure["remedy"]


def test_each_machine_sends_all_records_to_its_own_mlflow_and_a_server_gets_each_once(machine: Machine) -> None:
    from headway.tracking import mlflow_writer, progress

    run = made(machine("first"))
    spooled = [{"kind": "run", "job": {}, "datasets": [], "environment": {}, "time": 1.0}]
    spooled += [{"kind": "points", "step": s, "values": {"loss": 1.0}, "time": 2.0 + s} for s in range(3)]
    with run.led():
        run.spool.write_text("".join(json.dumps(event) + "\n" for event in spooled))
        assert mlflow_writer.sync(run.path).sent == 3
        sent = progress.Progress(offset=17)
        progress.save(run.path, "http://server", sent)
    there = runs.find(machine("second"), "r")
    assert mlflow_writer.sync(there.path).sent == 3, "beside this machine's working copies nothing was known"
    assert progress.load(there.path, "http://server").offset == 17
    again = runs.find(machine("first"), "r")
    assert mlflow_writer.sync(again.path).sent == 0


def test_who_looks_while_a_run_is_handed_over_takes_no_records(machine: Machine) -> None:
    place = machine("first")
    run = runs.create(place, "r", job())
    assert isinstance(run, FarRun)
    with run.led(), run.handed_over(), (run.path / "steps.jsonl").open("a") as file:
        for step in range(2):
            file.write(json.dumps({"step": step, "loss": 1.0, "rows": 8, "samples": "x"}) + "\n")
            file.flush()
            assert report.load(runs.find(place, "r")).steps == step + 1
    machine("second")
    assert report.load(runs.find(machine("second"), "r")).steps == 2


def test_a_run_of_another_place_is_not_taken_for_one_of_its_name(machine: Machine, tmp_path: Path) -> None:
    place = machine("first")
    other = Place.of(f"{place}-other")
    for where in (place, other):
        made(where)
    with pytest.raises(BadInput, match=rf"only those are removed.*--runs {other}"):
        prune(place, [f"{other}/r"])
    folders = [Place.of(tmp_path / name) for name in ("here", "there")]
    for folder in folders:
        runs.create(folder, "r", job())
    with pytest.raises(BadInput, match="only those are removed"):
        prune(folders[0], [str(folders[1].folder / "r")])
    assert [[brief.run for brief in briefs(where)] for where in (place, other, *folders)] == [["r"]] * 4
    assert prune(place, [f"{place}/r"]).removed == ["r"]
    assert prune(folders[1], [f"file://{folders[1].folder}/r"]).removed == ["r"]


@pytest.mark.parametrize("name", ["..", ".", "", "a/r", "../r", "r\n", "r\0", "x" * 300])
def test_what_can_be_no_runs_name_is_none(name: str, machine: Machine) -> None:
    place = machine("first")
    made(place)
    with pytest.raises(BadInput, match="no run"):
        runs.find(place, name)
    with pytest.raises(BadInput, match="no run"):
        prune(place, [name])
    assert names(place.folder) == [".machine", "r"]


def test_a_run_is_led_where_another_of_its_name_was(machine: Machine) -> None:
    run = made(machine("first"))
    for _ in range(2):
        with run.led():
            pass
    assert prune(machine("second"), ["r"]).removed == ["r"]
    made(machine("second"))
    run = runs.find(machine("first"), "r")
    with run.led() as epoch:
        assert epoch == 2
        epochs.verify(run.path, epoch)


def test_files_of_the_code_arrive_as_they_are(machine: Machine) -> None:
    files = {"t.py": b"", "words.jsonl": b'{"a": 1}\n{"b": 2}', "deep/empty.jsonl": b""}
    files["large.jsonl"] = b"[1]\n" * 40_000 + b"[2]"
    run = runs.create(machine("first"), "r", job())
    with run.led():
        for name, content in files.items():
            (run.code / name).parent.mkdir(parents=True, exist_ok=True)
            (run.code / name).write_bytes(content)
    other = runs.find(machine("second"), "r")
    assert {name: (other.code / name).read_bytes() for name in files} == files


def test_the_lead_is_given_back_however_it_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(machine("first"))
    with monkeypatch.context() as patch:
        patch.setattr(FarRun, "pull", lambda self, leads: (_ for _ in ()).throw(BadData("it is damaged")))
        with pytest.raises(BadData), run.led():
            pass
    assert run.remote.head().released
    with run.led(), run.handed_over():
        (run.path / ".copy.json").unlink()  # as a recorder leaves it that was killed
    assert run.remote.head().released
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "delete", lambda self, names: (_ for _ in ()).throw(BadInput("there is no right to it")))
        with pytest.raises(BadInput):
            run.remove(checkpoints_only=True)
    assert run.remote.head().released


def test_nothing_is_left_of_a_run_that_is_given_up_after_it_was_handed_over(machine: Machine) -> None:
    run = runs.create(machine("first"), "r", job())
    assert isinstance(run, FarRun)
    with run.led():
        with run.handed_over():
            pass
        run.discard()
    assert run.remote.storage.list() == []
    assert "r" not in names(run.place.folder)


@pytest.mark.parametrize("to", ["folder", "store"])
@pytest.mark.parametrize("how", ["missing", "short", "altered"])
def test_a_copy_leaves_a_damaged_checkpoint_out_and_says_so(
    how: str, to: str, machine: Machine, tmp_path: Path
) -> None:
    place = machine("first")
    run = made(place)
    with run.led() as epoch:
        checkpoints(run, epoch).write(2, {"model": {"w": torch.arange(5.0)}}, {"cursor": {}, "metrics": {"a": 1.5}})
    storage = run.remote.storage
    (chunk,) = [each.name for each in storage.list("checkpoints/step-00000002/") if "/00000-" in each.name]
    content = storage.get(chunk)
    storage.delete([chunk])
    if how != "missing":
        storage.put(chunk, b"x" * (len(content) if how == "altered" else 1))
    target = Place.of(tmp_path / "folder") if to == "folder" else place
    done = copying.copy(run, target, "copy")
    assert [chunk in why for why in done.left] == [True]
    copied = runs.find(target, "copy")
    assert [c["step"] for c in report.load(copied).checkpoints] == [3]
    root = copied.checkpoint_root
    there = root.list() if not isinstance(root, Path) else FolderStorage(root).list()
    assert not [each.name for each in there if "00000002" in each.name]


def test_what_else_lies_in_a_folder_stays_there(machine: Machine, tmp_path: Path) -> None:
    place, folder = machine("first"), Place.of(tmp_path / "folder")
    copying.copy(made(place), folder)
    run = runs.find(folder, "r")
    for name in (".DS_Store", "x.tmp", "mlruns/0/meta.yaml", "code/__pycache__/t.pyc"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("x")
    copying.copy(run, place, "back")
    back = runs.find(machine("second"), "back")
    assert (back.code / "t.py").read_bytes() == (run.code / "t.py").read_bytes()
    assert not (back.path / ".DS_Store").exists()


def test_a_copy_is_of_the_newest_and_not_of_a_run_that_went_on(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = made(machine("first")), Place.of(tmp_path / "folder")
    seen = runs.find(machine("second"), "r")
    with run.led():
        run.write({**run.read(), "more": 1})
    copying.copy(seen, folder, "newest")
    assert runs.find(folder, "newest").read()["more"] == 1
    before = copying._checkpoints

    def and_meanwhile(*arguments: Any) -> Any:
        run.remote.claim().release()
        return before(*arguments)

    monkeypatch.setattr(copying, "_checkpoints", and_meanwhile)
    for place in (folder, run.place):
        with pytest.raises(BadInput, match="began to lead it meanwhile"):
            copying.copy(seen, place, "torn")
        assert "torn" not in [brief.run for brief in briefs(place)]
    assert names(folder.folder) == ["newest"]


def test_one_damaged_head_spoils_no_listing(machine: Machine) -> None:
    place = machine("first")
    for name in ("bad", "good"):
        made(place, name)
    storage = far.storage_of(str(place.url))
    whole = json.loads(storage.get("bad/head.json"))
    damaged = [b"", b"\xff", b"null", b"[]", b"{}", b'{"head": []}']
    wrong = (None, [], {"steps": "x"}, {"loss": "y"}, {"metrics": [1]}, {"metrics": {"a": None}}, {"created": {}})
    damaged += [json.dumps({**whole, "head": {**whole["head"], "brief": brief}}).encode() for brief in wrong]
    for content in damaged:
        storage.put("bad/head.json", content)
        assert [brief.run for brief in briefs(place)] == ["good"], content
        with pytest.raises(BadInput):
            runs.find(place, "bad")


def test_where_no_working_copy_can_be(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = machine("first")
    made(place)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "file"))
    for verb in (lambda: runs.find(Place.of(place.url), "r"), lambda: runs.create(Place.of(place.url), "s", job())):
        with pytest.raises(BadInput, match=r"no working cop.*HEADWAY_CACHE"):
            verb()
    assert [brief.run for brief in briefs(Place.of(place.url))] == ["r"]
    assert prune(Place.of(place.url), ["r"]).removed == ["r"]


def test_a_user_without_a_home(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, under any number."""
    place = machine("first")
    for name in ("HOME", "HEADWAY_CACHE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    with pytest.raises(BadInput, match=r"no home folder.*HEADWAY_CACHE"):
        Place.of(place.url)
    monkeypatch.setenv("HEADWAY_CACHE", str(place.folder))
    runs.create(Place.of(place.url), "r", job())
    assert keys_of("s3") != {}
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert keys_of("s3") == {}


def test_a_run_that_was_named_by_its_url_has_its_report_when_it_fails(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = made(machine("first"))

    def fail(name: str, *, watch: Callable[[Progress], None], **_: object) -> None:
        watch(Progress("r", 0, 0, 0, None, 0.0, 0.0, 0, 0.0, {}, []))
        raise RunFailed("it failed")

    monkeypatch.setattr("headway.driver.run.resume", fail)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["headway", "resume", run.where, "--json"])
    with pytest.raises(SystemExit):
        app.main()
    told = capsys.readouterr()
    assert json.loads(told.out)["path"] == run.where
    assert "it failed" in told.err


def test_a_run_in_a_store_is_told_from_another_machine(machine: Machine) -> None:
    place = machine("one")
    run = made(place)
    with run.led():
        account = {"time": time.time(), "step": 3, "seconds": {"compute": 2.0, "idle": 2.0}}
        (run.path / "ledger.jsonl").write_text(json.dumps(account) + "\n")
        (run.path / "datasets.json").write_text(json.dumps({"train": {"name": "d", "schema": [["x", "int64"]]}}))
    place = machine("two")
    found = tell(runs.find(place, "r"))
    assert (found.run.state, found.headline.steps, found.headline.samples) == ("finished", 3, 24)
    assert found.run.path == place.place_of("r")
    assert [(saved.step, saved.metrics) for saved in found.checkpoints] == [(3, {"a": 1.5})]
    assert found.headline.goodput == 0.5
    assert found.ledger.over_time.causes == {"compute": [2.0], "idle": [2.0]}
    assert found.data[0].columns == [{"name": "x", "type": "int64"}]
    bucket = str(place.url).partition("://")[2].split("/")[0]
    assert f"//{bucket}" not in redacted(found).model_dump_json()
