"""The verbs of `headway cluster`, over a kind of cluster that costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headway.cli.app import app
from headway.cluster import known, verbs
from headway.cluster.file import ClusterFile
from headway.cluster.known import Known
from headway.cluster.local import orders
from headway.cluster.local import verbs as local
from headway.cluster.shown import Down, Node, Status
from headway.errors import BadInput, RunFailed
from headway.runs import Place, audit

TEXT = """\
cluster_name: two
provider: {type: this-machine}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  worker: {min_workers: 2, max_workers: 2, resources: {CPU: 1}}
"""


class Kind:
    """Stands for a module of a kind of cluster."""

    def __init__(self) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.state, self.leaks, self.fails = "up", [], None

    def up(self, file: ClusterFile, known: Known, say: Callable[[str], None]) -> Known:
        self.did.append(("up", file.name))
        say("starting")
        if self.fails is not None:
            raise self.fails
        return known.saved(address="h:1", jobs="http://h:2")

    def apply(self, file: ClusterFile, known: Known, say: Callable[[str], None]) -> list[str]:
        self.did.append(("apply", known.file.read_text()))
        if self.fails is not None:
            raise self.fails
        return ["more"]

    def down(self, known: Known, say: Callable[[str], None]) -> Down:
        self.did.append(("down", known.name))
        return Down(known.name, ["the head"], self.leaks, kept=["a bucket"])

    def status(self, known: Known) -> Status:
        if self.fails is not None:
            raise self.fails
        nodes = [
            Node("head", "head", "up"),
            Node("0", "worker", "up", "ab" * 28, "127.0.0.3", 0.0, "z spot", 0.5, "why"),
        ]
        return Status(known.name, known.kind, self.state, "h:1", "http://h:2", 5.0, 9e9, nodes, ["news"], "because")

    def drain(self, known: Known, node: str, deadline_s: float, say: Callable[[str], None]) -> str:
        self.did.append(("drain", known.name, node, deadline_s))
        return "drained"

    def add(self, known: Known, count: int, node_type: str | None, say: Callable[[str], None]) -> list[str]:
        self.did.append(("add", known.name, count, node_type))
        return ["added"]


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    made = Kind()
    monkeypatch.setenv(known.VARIABLE, str(tmp_path / "clusters"))
    monkeypatch.setattr(verbs, "_module", lambda kind: made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(TEXT)
    return path


def headway(*arguments: str | Path) -> tuple[int, str]:
    """Exit code, and what was said on both streams."""
    found = CliRunner().invoke(app, ["cluster", *map(str, arguments)])
    if isinstance(found.exception, BadInput | RunFailed):
        return found.exception.exit_code, str(found.exception)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.output


def test_up_says_how_to_go_on(kind: Kind, file: Path) -> None:
    code, said = headway("up", file)
    assert code == 0
    token = known.get("two").token_file
    assert f"RAY_AUTH_TOKEN_PATH={token} headway submit JOB --address http://h:2" in said
    assert "headway cluster down two" in said
    assert known.get("two").token not in said
    assert len(known.get("two").token) == 64


def test_as_json_for_programs(kind: Kind, file: Path) -> None:
    found = json.loads(CliRunner().invoke(app, ["cluster", "up", str(file), "--name", "x", "--json"]).stdout)
    assert (found["name"], found["address"], found["applied"]) == ("x", "h:1", None)
    found = json.loads(CliRunner().invoke(app, ["cluster", "status", "x", "--json"]).stdout)
    assert (found["state"], found["nodes"][1]["price_per_hour"]) == ("up", 0.5)
    found = json.loads(CliRunner().invoke(app, ["cluster", "status", "--json"]).stdout)
    assert [each["name"] for each in found["clusters"]] == ["x"]
    assert json.loads(CliRunner().invoke(app, ["cluster", "drain", "0", "--json"]).stdout)["said"] == "drained"
    assert json.loads(CliRunner().invoke(app, ["cluster", "add", "--json"]).stdout)["said"] == ["added"]
    assert json.loads(CliRunner().invoke(app, ["cluster", "down", "x", "--json"]).stdout)["leftovers"] == []


@pytest.mark.parametrize("error", [RunFailed("x", "y"), KeyboardInterrupt(), OSError("disk")])
def test_an_up_that_fails_or_is_interrupted_leaves_nothing(kind: Kind, file: Path, error: BaseException) -> None:
    kind.fails = error
    with pytest.raises(type(error)):
        verbs.up(file, None, print)
    assert known.find("two") is None
    assert known.every() == []
    kind.fails = None
    assert verbs.up(file, None, print).address == "h:1"


def test_a_file_that_is_wrong_starts_nothing(kind: Kind, file: Path) -> None:
    file.write_text(TEXT.replace("min_workers", "min_worker"))
    code, said = headway("up", file)
    assert code == 2
    assert "line 6: unknown key" in said
    assert kind.did == []
    assert known.every() == []


def test_a_second_up_says_so_or_follows_the_changed_file(kind: Kind, file: Path) -> None:
    verbs.up(file, None, print)
    code, said = headway("up", file)
    assert code == 2
    assert "cluster two is up already" in said
    changed = TEXT.replace("max_workers: 2", "max_workers: 3")
    file.write_text(changed)
    code, said = headway("up", file)
    assert (code, kind.did[-1]) == (0, ("apply", changed))
    assert "follows the changed file\n  more" in said
    assert known.get("two").file.read_text() == changed


def test_a_changed_file_that_cannot_be_followed_is_not_kept(kind: Kind, file: Path) -> None:
    verbs.up(file, None, print)
    kind.fails = None
    file.write_text(TEXT.replace("max_workers: 2", "max_workers: 3"))
    kind.apply = lambda *_: (_ for _ in ()).throw(BadInput("no", "way"))  # type: ignore[method-assign]
    with pytest.raises(BadInput, match="no: way"):
        verbs.up(file, None, print)
    assert known.get("two").file.read_text() == TEXT


def test_an_up_after_the_end_looks_for_what_was_left(kind: Kind, file: Path) -> None:
    verbs.up(file, None, print)
    first = known.get("two").id
    kind.state, kind.leaks = "down", ["machine i-1"]
    with pytest.raises(RunFailed, match="something is still there: machine i-1"):
        verbs.up(file, None, print)
    kind.leaks = []
    verbs.up(file, None, print)
    assert known.get("two").id != first
    kind.state = "unreachable"
    file.write_text(TEXT + "\n")
    with pytest.raises(BadInput, match="cluster two is unreachable: because"):
        verbs.up(file, None, print)


def test_the_same_name_of_another_kind(kind: Kind, file: Path) -> None:
    verbs.up(file, None, print)
    file.write_text(TEXT.replace("this-machine", "gcp"))
    with pytest.raises(BadInput, match="it is one of this-machine, and the file is for gcp"):
        verbs.up(file, None, print)


def test_down_names_what_leaks(kind: Kind, file: Path) -> None:
    verbs.up(file, None, print)
    kind.leaks = ["volume vol-1"]
    code, said = headway("down", "two")
    assert code == 3
    assert "STILL THERE: volume vol-1" in said
    kind.leaks = []
    code, said = headway("down", file)  # by its file, too; and what leaked can be asked for again
    assert code == 0
    assert "ended the head; nothing is left" in said
    assert "kept: a bucket" in said
    assert known.every() == []
    code, said = headway("down", "two")
    assert code == 2
    assert "no cluster 'two' is known here" in said


def test_what_is_said_to_the_only_cluster_needs_no_name(kind: Kind, file: Path) -> None:
    code, said = headway("drain", "0")
    assert (code, "none is known here" in said) == (2, True)
    verbs.up(file, None, print)
    assert headway("drain", "0", "--deadline", "2m") == (0, "drained\n")
    assert headway("add", "3", "--type", "worker") == (0, "added\n")
    assert kind.did[-2:] == [("drain", "two", "0", 120.0), ("add", "two", 3, "worker")]
    verbs.up(file, "other", print)
    code, said = headway("add")
    assert (code, "which cluster?: there are other, two" in said) == (2, True)
    assert headway("add", "-c", "other") == (0, "added\n")
    assert kind.did[-1] == ("add", "other", 1, None)
    code, said = headway("drain", "0", "--deadline", "soon", "-c", "two")
    assert (code, "no length of time" in said) == (2, True)


def test_status_shows_machines_and_hides_no_other(kind: Kind, file: Path) -> None:
    assert "No cluster is known here" in headway("status")[1]
    verbs.up(file, None, print)
    code, said = headway("status", "two")
    assert code == 0
    for part in ("two  this-machine  up  1 nodes", "0  worker  up  127.0.0.3  abababababab", "$0.5/h", "(why)", "news"):
        assert part in said
    assert "two  this-machine  up  1 nodes  jobs at http://h:2" in headway("status")[1]
    kind.fails = RunFailed("the cloud", "does not answer")
    assert "two  this-machine  unreachable  (the cloud: does not answer.)" in headway("status")[1]


def test_kinds_that_are_not_started_from_here(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(known.VARIABLE, str(tmp_path / "clusters"))
    file.write_text(TEXT.replace("this-machine", "azure"))
    with pytest.raises(BadInput, match="clusters of azure are not started from here"):
        verbs.up(file, None, print)
    assert known.every() == []


def test_what_is_asked_for_is_written_down(kind: Kind, file: Path, tmp_path: Path) -> None:
    verbs.up(file, None, print)
    verbs.drain(None, "0", 5.0, print)
    verbs.add(None, 2, "worker", print)
    file.write_text(TEXT + "max_workers: 3\n")
    verbs.up(file, None, print)
    verbs.down("two", print)
    log = Place.of(str(tmp_path / "clusters"))
    acts = [entry.act for entry in audit.entries(log)]
    assert [(act.verb, act.on) for act in acts] == [(verb, "two") for verb in ("up", "drain", "add", "up", "down")]
    assert acts[1].details == {"node": "0", "deadline_s": 5.0}
    runs = TEXT.replace("this-machine", f"this-machine, headway: {{runs: {tmp_path / 'runs'}}}")
    file.write_text(runs)
    verbs.up(file, None, print)
    assert [entry.act.verb for entry in audit.entries(Place.of(str(tmp_path / "runs")))] == ["up"]


def test_a_shell_is_told_which_cluster_it_means(kind: Kind, file: Path) -> None:
    verbs.up(file, None, print)
    one = known.get("two").saved(variables={"RAY_ADDRESS": "h:1", "A": "it's"})
    path = one.keep_environment()
    said = subprocess.run(["sh", "-c", f". {path} && env"], capture_output=True, text=True, check=True, env={}).stdout
    assert {"RAY_ADDRESS=h:1", "A=it's", "RAY_API_SERVER_ADDRESS=http://h:2"} <= set(said.splitlines())
    assert path.stat().st_mode & 0o777 == 0o600
    assert one.token not in path.read_text()


# A cluster of this machine, whose host is gone.


@pytest.fixture
def gone(kind: Kind, file: Path) -> Known:
    verbs.up(file, None, print)
    return known.get("two")


def test_down_after_the_host_was_killed(gone: Known, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "hw"
    place.mkdir()
    living, killed = [[11, 12], [11, 12], [12], []], []
    monkeypatch.setattr(local, "marked", lambda mark: living.pop(0) if mark.endswith(gone.id) else [99])
    monkeypatch.setattr(local.os, "kill", lambda pid, number: killed.append(pid))
    done = local.down(gone.saved(place=str(place)), print)
    assert (done.note, done.leftovers) == ("its host was gone", [])
    assert killed == [11, 12, 12]
    assert not place.exists()


def test_down_names_what_it_cannot_end(gone: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "marked", lambda mark: [11])
    monkeypatch.setattr(local, "GONE_S", 0.0)
    monkeypatch.setattr(orders, "ask", lambda *_: (_ for _ in ()).throw(TimeoutError()))
    done = local.down(gone, print)
    assert done.leftovers == ["process 11"]
    assert done.note == "its host did not answer, and was killed"


def test_status_without_a_host(gone: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "marked", lambda mark: [11])
    assert local.status(gone).state == "unreachable"
    assert "1 of its processes are there" in local.status(gone).why
    monkeypatch.setattr(local, "marked", lambda mark: [])
    assert (local.status(gone).state, local.status(gone).why) == ("down", "its host is gone")
    (gone.folder / orders.ENDED).write_text('{"why": "no job has run on it"}')
    assert local.status(gone).why == "no job has run on it"
    monkeypatch.setattr(orders, "ask", lambda *_: (_ for _ in ()).throw(TimeoutError()))
    assert local.status(gone).state == "unreachable"


def test_a_host_that_cannot_be_started_says_why(gone: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.cluster import file as files

    (gone.folder / known.KNOWN).write_text("{")  # what the host reads first
    with pytest.raises(RunFailed, match=r"cluster two did not come up: .*known\.json cannot be read"):
        local.up(files.load(gone.file), gone, print)


def test_one_that_is_interrupted_twice_stays_known(gone: Known) -> None:
    """Control-C, and again while it is ended: `down` must find what may be left."""

    class Slow:
        def wait(self, timeout: float) -> None:
            raise KeyboardInterrupt

    def say(text: str) -> None:
        if text == "starting":
            raise KeyboardInterrupt

    hears, tells = os.pipe()
    os.write(tells, b'{"say": "starting"}\n')
    os.close(tells)
    with pytest.raises(known.StillThere, match=r"cluster two may still be there: ending it was interrupted"):
        local._waited(Slow(), hears, gone, say)  # type: ignore[arg-type]


def test_what_a_host_starts_hears_the_signals_that_it_ignores() -> None:
    """A job of its cluster may be interrupted."""
    code = """if True:
        import os, signal, subprocess, sys
        from headway.cluster.local.host import ignore
        ignore(signal.SIGHUP, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        asks = "import signal; print(signal.getsignal(signal.SIGINT).__name__, signal.getsignal(signal.SIGHUP) == 0)"
        subprocess.run([sys.executable, "-c", asks])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "default_int_handler True\n"
