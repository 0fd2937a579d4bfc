"""`headway ui` ends its server with itself; `headway doctor` says what is wrong and how to mend it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import typer

from headway.cli import checks, doctor, ui
from headway.cli.checks import Finding
from headway.errors import BadInput
from headway.tracking.mlflow_writer import Writer
from headway.tracking.spool import Spool

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")


def test_ui_without_runs_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no records"):
        ui.ui(tmp_path, 0, "127.0.0.1")


def test_ui_on_a_taken_port_or_strange_host_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="in use"):
            ui.ui(tmp_path, taken.getsockname()[1], "127.0.0.1")
    with pytest.raises(BadInput, match=r"192\.0\.2\.1"):
        ui.ui(tmp_path, 0, "192.0.2.1")


@pytest.mark.parametrize("ending", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_ui_shows_the_runs_and_takes_its_server_with_it(tmp_path: Path, ending: signal.Signals) -> None:
    Spool(tmp_path / "seen" / "spool.jsonl").append({"kind": "state", "state": "finished", "message": ""})
    writer = Writer(tmp_path / "seen")
    writer.start()
    assert writer.close(60).error == ""
    verb = "import sys; from pathlib import Path; from headway.cli.ui import ui; ui(Path(sys.argv[1]), 0, '127.0.0.1')"
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  # a shell's `&` has it ignored
    process = subprocess.Popen(
        [sys.executable, "-c", verb, str(tmp_path)], stdout=subprocess.PIPE, text=True, preexec_fn=heard
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line
        experiments = f"{found[0]}/api/2.0/mlflow/experiments/get-by-name?experiment_name=headway"
        with urllib.request.urlopen(experiments, timeout=30) as answer:
            assert json.load(answer)["experiment"]["name"] == "headway"
        process.send_signal(ending)
        assert process.wait(20) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(found[1]))) != 0
    finally:
        process.kill()
        process.communicate()


def test_doctor_is_content_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.doctor(tmp_path / "runs", True)
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    names = {check["name"] for check in told["checks"]}
    assert {"python", "torch", "ray", "mlflow", "runs folder", "shared memory", "gloo", "ray cluster"} <= names
    assert not (tmp_path / "runs").exists()


def test_doctor_fails_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "package_version", lambda name: None if name == "torch" else "0.0.1")
    monkeypatch.setattr(checks, "loopback", lambda: iter([Finding("gloo", "fail", "broken", "mend it")]))
    monkeypatch.setattr(checks, "machine", lambda: 1 / 0)
    (tmp_path / "file").touch()
    with pytest.raises(typer.Exit) as end:
        doctor.doctor(tmp_path / "file" / "runs", False)
    assert end.value.exit_code == 1
    said = capsys.readouterr().out
    assert "FAIL  torch: not installed -> pip install" in said
    assert "FAIL  mlflow: 0.0.1 -> pip install" in said
    assert "FAIL  machine: ZeroDivisionError" in said
    assert "FAIL  runs folder" in said
    assert "FAIL  gloo: broken -> mend it" in said


def test_doctor_hides_a_secret_in_ray_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://me:secret@host:10001")
    found = list(checks.ray_runtime())[-1]
    assert found.level == "warn"
    assert "secret" not in found.found
