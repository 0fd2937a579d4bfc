"""`headway doctor --address`: what is found from here, what machines say of themselves, and that nothing is left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer

from headway.cli import doctor as cli
from headway.core.health import Finding
from headway.errors import BadInput
from headway.jobs import doctor
from headway.jobs.send import examining, sending
from headway.jobs.there import examine, machine
from headway.jobs.there.machine import Examiner
from headway.testing.rayjobs import MONITOR_S, DoubleJob, RayJobsDouble

TOKEN = "a-token-of-the-cluster"
PASSWORD = "s3cr3t-0815-word"


@pytest.fixture(autouse=True)
def nobody_elses_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "LOOK_S", 0.01)
    monkeypatch.setattr(sending, "SETTLE_S", MONITOR_S + 0.05)  # sooner, what is removed comes back
    for name in (*os.environ,):
        if name.startswith(("RAY_", "MLFLOW_", "HEADWAY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADWAY_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def well(job: DoubleJob) -> None:
    """A driver that finds two things."""
    job.tell("found", name="ray", level="ok", found="2.60.0", remedy="", reason="", where=["a", "b"])
    job.tell("found", name="runs", level="fail", found="no room", remedy="Make some.", reason="it is full", where=["b"])
    job.tell("ended", state="examined", message="", exit_code=1)
    job.end(1)


def found(**given: Any) -> list[tuple[str, str]]:
    return [(each.name, each.level) for each in doctor(**given)]


def test_what_is_told_on_the_cluster_comes_as_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    heard: list[Finding] = []
    with RayJobsDouble(well, token=TOKEN) as ray:
        every = doctor(address=ray.address, found=heard.append)
        assert heard == every
        assert every[-2:] == [
            Finding("ray", "ok", "2.60.0", where=("a", "b")),
            Finding("runs", "fail", "no room", "Make some.", "it is full", ("b",)),
        ]
        assert [(each.name, each.level) for each in every[:-2]] == [("address", "ok"), ("token", "ok"), ("clock", "ok")]
        assert ray.jobs == {}, "nothing is left in Ray's list"
        assert len(ray.taken) == 1


def test_what_is_asked_for_says_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def script(job: DoubleJob) -> None:
        asked.append(job)
        well(job)

    with RayJobsDouble(script) as ray:
        doctor(address=ray.address, tracking=f"postgresql://me:{PASSWORD}@host/db")
        (job,) = asked
        sent = json.dumps(job.request).encode() + b"".join(job.working_dir.values())
        assert job.spec.kind == "doctor"
        assert job.spec.packages == {}, "what is lacking is to be found, not refused"
        assert "torch" in json.loads(job.spec.settings[0])["packages"]
        assert b"postgresql://me:***@host/db" in sent
        assert PASSWORD.encode() not in sent
        assert all(PASSWORD.encode() not in content for content in ray.packages.values())


def test_a_cluster_that_is_open_to_all_is_warned_of() -> None:
    with RayJobsDouble(well) as ray:
        assert ("token", "warn") in found(address=ray.address)


@pytest.mark.parametrize("token", [None, "another"])
def test_who_is_not_let_in_is_told_why(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if token is not None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with RayJobsDouble(well, token=TOKEN) as ray:
        (finding,) = doctor(address=ray.address)
        assert (finding.name, finding.level) == ("token", "fail")
        assert finding.reason
        assert "RAY_AUTH_TOKEN" in finding.remedy
        assert ray.taken == []


def test_a_token_file_that_cannot_be_had_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert found(address="http://127.0.0.1:1") == [("token", "fail")]


def test_a_token_that_others_can_read_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = tmp_path / "token"
    held.write_text(TOKEN)
    held.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(held))
    with RayJobsDouble(well, token=TOKEN) as ray:
        every = doctor(address=ray.address)
        assert [each.remedy for each in every if each.level == "warn"] == [f"chmod 600 {held}"]
        held.chmod(0o600)
        assert [each for each in doctor(address=ray.address) if each.level == "warn"] == []


@pytest.mark.parametrize(
    ("address", "clear"),
    [
        ("http://10.0.0.1:8265", True),
        ("http://head.example.org:8265", True),
        ("https://head.example.org", False),
        ("http://127.0.0.1:8265", False),
        ("http://[::1]:8265", False),
        ("http://localhost:8265", False),
    ],
)
def test_a_token_that_goes_in_clear_is_seen(address: str, clear: bool) -> None:
    assert examining.in_clear(address) is clear


def test_that_a_token_goes_in_clear_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(examining, "in_clear", lambda _: True)
    with RayJobsDouble(well, token=TOKEN) as ray:
        every = doctor(address=ray.address)
    assert [each.found for each in every if each.level == "warn"] == [f"it goes to {ray.address} in clear"]


def test_nobody_there_and_another_ray_are_findings() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        assert found(address=f"http://127.0.0.1:{taken.getsockname()[1]}") == [("address", "fail")]
    with RayJobsDouble(well, version="2.10.0") as ray:
        (finding,) = doctor(address=ray.address)
        assert "2.10.0" in finding.reason
        assert ray.taken == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "10.0.0.1:6379"}, "no address of a Ray cluster's job API"),
        ({"address": "http://127.0.0.1:1", "runs": "runs"}, "it is a folder of this machine"),
    ],
)
def test_what_is_no_address_and_no_place_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        doctor(**given)


def test_a_driver_that_ends_without_a_word_is_a_finding() -> None:
    with RayJobsDouble(lambda job: job.end(1)) as ray:
        assert found(address=ray.address)[-1] == ("cluster", "fail")
        assert ray.jobs == {}


def test_a_driver_that_is_refused_is_a_finding() -> None:
    def script(job: DoubleJob) -> None:
        job.tell("refused", fact="Python 3.8", reason="too old", remedy="Newer.", traceback="", exit_code=2)
        job.end(2)

    with RayJobsDouble(script) as ray:
        last = doctor(address=ray.address)[-1]
        assert (last.name, last.found, last.reason, last.remedy) == ("cluster", "Python 3.8", "too old", "Newer.")


def test_findings_come_while_the_cluster_is_still_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = threading.Event()

    def script(job: DoubleJob) -> None:
        job.tell("found", name="ray", level="ok", found="2.60.0", remedy="", reason="", where=[])
        heard.wait(20)
        well(job)

    with RayJobsDouble(script) as ray:
        every = doctor(address=ray.address, found=lambda each: heard.set() if each.name == "ray" else None)
        assert heard.is_set()
        assert len([each for each in every if each.name == "ray"]) == 2


def test_a_head_that_is_replaced_meanwhile_is_a_finding() -> None:
    def script(job: DoubleJob) -> None:
        job.stop_asked.wait(20)

    with RayJobsDouble(script) as ray:

        def replace(finding: Finding) -> None:
            if finding.name == "clock":
                ray.replace_head()

        last = doctor(address=ray.address, found=replace)[-1]
        assert (last.name, last.level) == ("cluster", "fail")
        assert "replaced" in last.reason


def test_a_clock_that_is_wrong_is_seen_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = RayJobsDouble.let

    def wrong(ray: RayJobsDouble, name: str) -> None:
        ray.jobs[name].started += 1000.0  # before anybody can ask
        begin(ray, name)

    monkeypatch.setattr(RayJobsDouble, "let", wrong)
    with RayJobsDouble(well) as ray:
        assert ("clock", "fail") in found(address=ray.address)


def test_the_command_ends_with_1_where_something_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with RayJobsDouble(well) as ray:
        with pytest.raises(typer.Exit) as ended:
            cli.doctor(None, True, ray.address, None)
        assert ended.value.exit_code == 1
        tree = json.loads(capsys.readouterr().out)
        assert tree["ok"] is False
        assert tree["checks"][-1]["where"] == ["b"]
        with pytest.raises(typer.Exit):
            cli.doctor(None, False, ray.address, None)
        assert "FAIL  runs on b: no room: it is full -> Make some.\n" in capsys.readouterr().out


def test_many_machines_are_a_number() -> None:
    many = Finding("ray", "ok", "2.60.0", where=tuple(map(str, range(9))))
    assert cli.line(many) == "ok    ray on 9 machines: 2.60.0"


def test_a_machine_says_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tmp_path / "home" / ".ray" / "auth_token"
    ours.parent.mkdir(parents=True)
    ours.write_text(TOKEN)
    ours.chmod(0o644)
    noted = tmp_path / "ray" / "ray_current_cluster"
    noted.parent.mkdir()
    noted.write_text("127.0.0.1:1\n")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for folder in (ours.parent, ours.parent.parent, tmp_path):
        folder.chmod(0o755)
    facts = Examiner().facts(["torch", "nobody-has-this"], str(tmp_path))
    assert facts["packages"]["torch"]
    assert facts["packages"]["nobody-has-this"] is None
    assert (str(noted), "127.0.0.1:1", False) in facts["clusters"]
    assert facts["memory"] > 0
    assert all(0 < free <= size for free, size in facts["disks"].values())
    assert TOKEN not in json.dumps(facts)
    seen = list(facts["readable"])
    closed = any(not above.stat().st_mode & 0o011 for above in tmp_path.parents)
    assert seen == ([] if closed else [str(ours)])


@pytest.fixture
def two() -> tuple[Examiner, Examiner]:
    return Examiner(), Examiner()


def test_machines_see_what_each_other_wrote_and_leave_nothing(tmp_path: Path, two: tuple[Examiner, Examiner]) -> None:
    place = tmp_path / "new" / "runs"
    for number, one in enumerate(two):
        assert one.leave(str(place), {}, "n", f"m{number} (head)")["took_s"] >= 0
    assert [sorted(one.seen("n")) for one in two] == [["m0 (head)", "m1 (head)"]] * 2
    assert two[0].conditional() == {}
    for one in two:
        one.clear()
    for one in two:
        one.clear()  # the first could not take away what the second's lay in
    assert not (tmp_path / "new").exists()


def test_what_was_there_stays_there(tmp_path: Path, two: tuple[Examiner, Examiner]) -> None:
    (tmp_path / "runs").mkdir()
    two[0].leave(str(tmp_path / "runs"), {}, "n", "m")
    two[0].clear()
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = Examiner().leave(str(tmp_path / "file" / "runs"), {}, "n", "m")
    assert said["fact"]
    assert "took_s" not in said
    Examiner().clear()  # without a place it has nothing to do


def test_gpus_are_counted_whole_or_by_their_parts() -> None:
    told = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n"
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-1)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-2)\n"
    )
    parts = ["NVIDIA H100 80GB HBM3 MIG 3g.40gb"] * 2
    assert machine.listed_gpus(told) == ["NVIDIA H100 80GB HBM3", *parts]
    assert machine.listed_gpus("No devices found.\n") == []


def test_two_nodes_on_one_machine_have_names_of_their_own() -> None:
    assert examine.names(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]


def test_the_examiner_begins_with_pythons_own_library_alone() -> None:
    """A machine that lacks packages is to say so, not to fail."""
    program = (
        "import sys; before = set(sys.modules)\n"
        "import headway.jobs.there.examine\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names) - {'headway'}))"
    )
    path = str(Path(machine.__file__).parents[3])
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (said.stdout.strip(), said.stderr) == ("", "")
