"""Where a run goes, and why a cluster did not take it: without a cluster."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from headway.driver import attach, embedded, rayjob
from headway.driver.attach import Where
from headway.errors import BadInput


@pytest.mark.parametrize(
    ("address", "named", "goes", "said"),
    [
        (None, None, None, ""),
        (None, "", None, ""),
        (None, "10.0.0.1:6379", "10.0.0.1:6379", "RAY_ADDRESS=10.0.0.1:6379"),
        (None, "local", None, "RAY_ADDRESS=local"),
        (None, "auto", "auto", "RAY_ADDRESS=auto"),
        ("local", "10.0.0.1:6379", None, "--address local"),
        ("auto", "10.0.0.1:6379", "10.0.0.1:6379", "RAY_ADDRESS=10.0.0.1:6379"),
        ("auto", None, "auto", "--address auto"),
        ("head:6379", "10.0.0.1:6379", "head:6379", "--address head:6379"),
        ("[::1]:6379", None, "[::1]:6379", "--address [::1]:6379"),
    ],
)
def test_an_address_else_ray_address_else_local(address: str, named: str, goes: str, said: str) -> None:
    environ = {} if named is None else {"RAY_ADDRESS": named}
    assert attach.where(address, environ) == Where(goes, said)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ray://me:secret@head:10001", "Ray's client"),
        ("http://head:8265", "takes jobs"),
        ("head", "no HOST:PORT"),
        ("head:", "no HOST:PORT"),
        ("head:70000", "no HOST:PORT"),
        ("", "no HOST:PORT"),
    ],
)
def test_an_address_of_another_kind_is_refused_for_what_it_is(address: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        attach.where(address, {})
    assert "secret" not in str(caught.value)
    assert caught.value.remedy


@pytest.fixture
def server() -> Iterator[Any]:
    """Starts a server on the loopback that says a text to whoever connects, or nothing; gives its address."""
    opened: list[tuple[socket.socket, threading.Thread]] = []

    def start(text: bytes | None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with listener, ExitStack() as taken, suppress(OSError):  # the listener is shut down
                while True:
                    connection = taken.enter_context(listener.accept()[0])
                    if text is not None:
                        connection.sendall(text)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        opened.append((listener, thread))
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener, thread in opened:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_another_server_is_told_from_a_head(server: Any) -> None:
    with pytest.raises(BadInput, match="not the head of a Ray cluster"):
        attach.knock(server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "--address here")


def test_a_head_that_says_nothing_is_told_of_in_seconds(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "ANSWER_S", 0.5)
    with pytest.raises(BadInput, match="no answer came within"):
        attach.knock(server(None), "--address here")


def test_auto_with_nobody_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_address: str) -> None:
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(BadInput, match="no Ray runs on this machine"):
        attach.find(Where("auto", "--address auto"))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(free_address)
    with pytest.raises(BadInput, match=f"at {free_address}, does not answer"):
        attach.find(Where("auto", "--address auto"))


def test_auto_passes_over_a_cluster_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_address: str, server: Any
) -> None:
    from ray._private import services

    there = server(None)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {there})
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(free_address)
    assert attach.find(Where("auto", "--address auto")) == there


@pytest.fixture
def free_address() -> Iterator[str]:
    """Nobody listens there, nor can another test take it meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def wrapped(cause: Exception) -> Exception:
    """As Ray raises it: two errors around the one that counts."""
    try:
        try:
            raise cause
        except Exception as error:
            raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from error
    except ConnectionError as error:
        return error


VERSIONS = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.1
This process on node 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.12.1
"""


def test_each_refusal_has_its_name() -> None:
    from ray.exceptions import AuthenticationError, RpcError, RuntimeEnvSetupError

    setup = "Failed to set up runtime environment.\nTraceback:\n  File 'x'\nRuntimeError: pip cannot find nosuch\n"
    for error, words in (
        (RuntimeError(VERSIONS), "the cluster runs Ray 2.59.0, and this is Ray 2.60.0. Start it from"),
        (RuntimeEnvSetupError(setup), "RuntimeError: pip cannot find nosuch"),
        (RpcError("RPC error: Unauthenticated: token"), "wants a token"),
        (AuthenticationError("no token was found"), "wants a token"),
        (TimeoutError("Timed out after 30 s"), "did not answer in time"),
        (RuntimeError("Package size 600MiB exceeds the maximum"), "could not be handed to the cluster"),
        (OSError("Connection refused"), "no Ray cluster answers there (Connection refused)"),
    ):
        refused = attach.refused("--address 10.0.0.1:6379", wrapped(error))
        assert words in str(refused), str(refused)
        assert refused.exit_code == 2
        assert refused.remedy


def test_a_token_is_looked_for_where_ray_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def said() -> str:
        return str(attach._no_entry("--address there"))

    assert "there is none here" in said()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    assert "the one of ~/.ray/auth_token is not its" in said()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "y")
    assert "the one of RAY_AUTH_TOKEN is not its" in said()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "RAY_AUTH_MODE=disabled sends none" in said()


def test_a_short_folder_is_taken_for_a_long_tmpdir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert embedded.temporary() == (None, "")
    monkeypatch.setenv("TMPDIR", f"/scratch/{'x' * 60}")
    monkeypatch.setattr(embedded, "SHORT", (str(tmp_path),))
    folder, note = embedded.temporary()
    assert folder == tmp_path / f"headway-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    assert "TMPDIR=/scratch/" in note
    folder.chmod(0o777)
    assert embedded.temporary()[0] == folder
    assert folder.stat().st_mode & 0o077 == 0
    folder.rmdir()
    folder.symlink_to("/tmp")  # somebody else's work
    with pytest.raises(BadInput, match="too long a path for Ray"):
        embedded.temporary()


def test_the_jobs_runtime_environment_is_kept() -> None:
    ours = {"py_modules": ["/here/headway"], "working_dir": "/runs/r/code"}
    assert rayjob.merged(ours, {}) == ours
    jobs = {"working_dir": "gcs://a.zip", "py_modules": ["gcs://b.zip"], "pip": ["x"]}
    assert rayjob.merged(ours, jobs) == {"py_modules": ["gcs://b.zip", "/here/headway"]}
    assert rayjob.runtime_env({rayjob.CONFIG: json.dumps({"runtime_env": jobs})}) == jobs
    for odd in ("{}", "[]", "no json", json.dumps({"runtime_env": None})):
        assert rayjob.runtime_env({rayjob.CONFIG: odd}) == {}


def test_runs_of_a_ray_job_outlive_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passing = tmp_path / "working_dir_files" / "_ray_pkg_1" / "below"
    passing.mkdir(parents=True)
    monkeypatch.chdir(passing)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert rayjob.runs_folder("runs", {}) == (Path("runs"), "")
    job = {rayjob.CONFIG: "{}"}
    lasting, note = rayjob.runs_folder("runs", job)
    assert lasting == tmp_path / "home" / "headway-runs"
    assert str(lasting) in note
    assert rayjob.runs_folder(tmp_path / "mine", job) == (tmp_path / "mine", "")
    for asked in ("mine", passing / "runs"):
        with pytest.raises(BadInput, match="goes with this job"):
            rayjob.runs_folder(asked, job)
    monkeypatch.chdir(tmp_path)
    assert rayjob.runs_folder("runs", job) == (Path("runs"), "")
