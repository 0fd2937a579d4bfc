"""2.3: whose fault an exception is."""

from __future__ import annotations

import errno
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headway.elastic.wire import messages as wire
from headway.elastic.wire.place import Place
from headway.elastic.worker import main
from headway.elastic.worker.failures import raised
from headway.errors import BadData, HeadwayError
from headway.job import parse


def caused(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except type(error) as found:
        return found


IO = OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("error", "starting", "fault"),
    [
        (ValueError("no"), False, "user"),
        (KeyError("x"), True, "user"),
        (RuntimeError("shape mismatch"), False, "user"),
        (FileNotFoundError(errno.ENOENT, "x"), False, "user"),
        (PermissionError(errno.EACCES, "x"), False, "user"),
        (BadData("rows", "bad"), True, "user"),
        (FileNotFoundError(errno.ENOENT, "x"), True, "machine"),
        (PermissionError(errno.EACCES, "x"), True, "machine"),
        (ImportError("libcudart.so"), True, "machine"),
        (ImportError("libcudart.so"), False, "user"),
        (MemoryError(), False, "machine"),
        (torch.OutOfMemoryError("CUDA out of memory"), False, "machine"),
        (torch.AcceleratorError("uncorrectable ECC error encountered"), False, "machine"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, "machine"),
        *((OSError(code, "x"), False, "machine") for code in (errno.EIO, errno.ENOSPC, errno.ESTALE, errno.ENODEV)),
        *((OSError(code, "x"), False, "machine") for code in (errno.EROFS, errno.ETIMEDOUT)),
        (caused(HeadwayError("the cache", "cannot be written"), IO), False, "machine"),
        (caused(ValueError("the user's"), IO), False, "user"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_2_3_faults_of_machines_and_of_users(error: Exception, starting: bool, fault: str) -> None:
    assert raised(error, "worker 1, at step 3", starting).fault == fault


def test_2_3_what_is_told_fits_into_a_message_whatever_was_raised() -> None:
    def deep(depth: int) -> None:
        if depth == 0:
            raise ValueError("ü" * 10**6 + "\n" + "x" * 10**6)
        deep(depth - 1)

    try:
        deep(300)
    except ValueError as error:
        said = raised(error, "worker 1, at step 3", False)
    line = wire.encode(said)
    assert len(line) < wire.LINE_BYTES
    assert wire.from_worker(line) == said
    assert said.failure["kind"] == "task"
    assert said.failure["reason"].startswith("ValueError: ü")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives no variables; nothing else is asked of it."""
    import ray

    monkeypatch.setattr(ray, "get", lambda found: found)
    return SimpleNamespace(given=SimpleNamespace(remote=dict))


class _Told:
    """A line that keeps what is said."""

    def __init__(self, *arguments: Any) -> None:
        self.said: list[Any] = []

    def connect(self, address: str, stays: bool) -> None:
        pass

    def tell(self, message: Any) -> None:
        self.said.append(message)


def test_2_22_a_worker_whose_code_leaves_by_sys_exit_says_so(monkeypatch: pytest.MonkeyPatch, recorder: Any) -> None:
    """Its thread would end without a word, and its heart beat on."""
    line = _Told()
    job = parse({"name": "n", "task": "t.py:T", "data": {"train": "d"}, "lanes": 1, "lane_batch": 1, "steps": 1})
    context = SimpleNamespace(rank=0, at="step 3", journal=SimpleNamespace(close=lambda: None, warned=print), job=job)
    monkeypatch.setattr(main, "Line", lambda *arguments, **options: line)
    monkeypatch.setattr(main.place, "current", lambda: None)
    monkeypatch.setattr(main.code, "load", lambda source: None)
    monkeypatch.setattr(main, "_context", lambda *arguments: context)
    monkeypatch.setattr(main, "run", lambda job, found, source: sys.exit("not today"))
    main.main({"job": job.model_dump(mode="json"), "source": None, "recorder": recorder})
    (said,) = line.said
    assert (said.fault, said.failure["reason"]) == ("user", "SystemExit: not today")


def test_2_3_a_worker_that_reaches_nobody_says_why_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorder: Any
) -> None:
    """It has no line to say it over."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    ended: list[int] = []
    job = parse({"name": "n", "task": "t.py:T", "data": {"train": "d"}, "lanes": 1, "lane_batch": 1, "steps": 1})
    monkeypatch.setattr(main.place, "current", lambda: Place("w0", "127.0.0.1", port, port, "token"))
    monkeypatch.setattr(main.os, "_exit", ended.append)
    main.main({"job": job.model_dump(mode="json"), "source": None, "recorder": recorder})
    assert ended == [1]
    assert "ConnectionRefusedError" in capsys.readouterr().err
