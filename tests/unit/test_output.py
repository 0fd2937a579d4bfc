"""What a worker's process writes is kept, by whoever, in whatever end; what it warns of is told once."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.driver.ending import explained
from headway.elastic.worker.ears import Ears
from headway.elastic.worker.main import _Forwarded
from headway.faults.last_words import last_words
from headway.logs import sinks
from headway.logs.reading import Reader
from headway.runs import RunFolder
from headway.storage.folder import FolderStorage

PROGRAM = """
import faulthandler, os, signal, subprocess, sys, time
from headway.elastic.worker.output import Output
faulthandler.enable()
kept = Output("worker-w0", sys.argv[1])
kept.start()
{body}
"""


def worker(run: Path, body: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(body=body), str(run)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True)


def lines_of(run: Path) -> list[str]:
    return [line.text for line in Reader(FolderStorage(run)).news()]


def text_of(run: Path) -> str:
    return "\n".join(lines_of(run))


ALL = """
print("from python", flush=True)
print("an error", file=sys.stderr)
os.write(1, b"from native code\\n")
subprocess.run(["echo", "from a child"])
if os.fork() == 0:
    print("from a fork", flush=True)
    os._exit(0)
os.wait()
"""


def test_all_that_a_process_writes_is_kept_and_goes_where_it_went(tmp_path: Path) -> None:
    ended = worker(tmp_path, f"{ALL}\nkept.close()\nprint('after')")
    assert ended.returncode == 0, ended.stderr
    for words in ("from python", "an error", "from native code", "from a child", "from a fork"):
        assert words in lines_of(tmp_path)
        assert words in ended.stdout, "handed on"
    assert "after" not in text_of(tmp_path)
    assert "after" in ended.stdout


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("import ctypes; ctypes.string_at(0)", "Segmentation fault"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "last words"),
        ("os.killpg(0, signal.SIGKILL)", "last words"),
        ("os.abort()", "Aborted"),
        ("os._exit(3)", "last words"),
        ("raise ValueError('at the end')", "ValueError: at the end"),
    ],
)
def test_the_last_words_of_a_process_that_dies_are_kept(tmp_path: Path, end: str, words: str) -> None:
    worker(tmp_path, f"os.write(2, b'last words\\n')\n{end}")
    until(lambda: words in text_of(tmp_path))
    assert "last words" in lines_of(tmp_path)


def test_nobody_waits_for_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in the way")
    ended = worker(tmp_path, "print('x' * 10_000_000)\nprint('through')\nkept.close()")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("through\n")


def test_where_the_keeper_is_killed_the_process_goes_on(tmp_path: Path) -> None:
    body = "os.kill(kept._keeper._process.pid, signal.SIGKILL)\nwhile kept._before: time.sleep(0.01)\n"
    body += "print('x' * 3_000_000)\n"
    ended = worker(tmp_path, f"{body}\nprint('through')\nkept.close()")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("through\n")


def test_a_keeper_ends_with_the_last_that_can_write(tmp_path: Path) -> None:
    body = (
        "print(kept._keeper._process.pid, file=open(sys.argv[1] + '/pid', 'w'))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    worker(tmp_path, body)
    keeper = int((tmp_path / "pid").read_text())

    def gone() -> bool:
        try:
            return Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True

    until(gone)


def test_a_flood_is_read_as_fast_as_it_comes_and_kept_in_bounds(tmp_path: Path) -> None:
    flood = "for n in range(400_000): print(n)\nprint('through')\nkept.close()"
    ended = worker(tmp_path, flood)
    assert ended.stdout.endswith("through\n"), ended.stderr
    kept = lines_of(tmp_path)
    assert (kept[0], kept[-1]) == ("0", "through")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.log")) < sinks.HEAD_BYTES + 2 * sinks.TAIL_BYTES
    holes = [text for text in kept if text.startswith("...")]
    assert holes, "and says so"


def test_why_a_worker_crashed_is_found_in_its_log(tmp_path: Path) -> None:
    worker(tmp_path, "print('fine')\nimport ctypes; ctypes.string_at(0)")
    until(lambda: "Segmentation" in text_of(tmp_path))
    assert last_words(FolderStorage(tmp_path)) == "Fatal Python error: Segmentation fault (worker-w0)"
    assert last_words(FolderStorage(tmp_path), ["worker-w1"]) == last_words(FolderStorage(tmp_path / "nowhere")) == ""
    failure = {"kind": "workers", "fact": "4 workers died at one step", "reason": "unknown", "remedy": ""}
    told = explained(failure, RunFolder(tmp_path))
    assert "Segmentation fault (worker-w0)" in told["reason"]
    assert f"headway logs {tmp_path}" in told["remedy"]


class _Printed:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def printed(self, text: str) -> None:
        self.lines.append(text)


def test_print_is_shown_line_by_line_and_standard_output_is_what_it_was(tmp_path: Path) -> None:
    journal = _Printed()
    with (tmp_path / "out").open("w") as through:
        out: Any = _Forwarded(through, journal)  # type: ignore[arg-type]
        print("one\ntwo", end="", file=out)
        print(" and more", file=out)
        for percent in range(0, 101, 20):
            out.write(f"\r{percent} %")
        out.write("\n")
        out.write("x" * 100_000)
        assert len(out._line) <= 10_000, "a bar without an end does not grow"
        out.flush()
        out.reconfigure(line_buffering=True)
        out.buffer.write(b"bytes")
        assert out.fileno() == through.fileno()
        assert not out.isatty()
    assert journal.lines == ["one", "two and more", "100 %"]


def test_a_child_that_was_forked_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = _Printed()
    with (tmp_path / "out").open("w") as through:
        out = _Forwarded(through, journal)  # type: ignore[arg-type]
        monkeypatch.setattr(out, "_process", -1)
        print("from the child", file=out)
    assert journal.lines == []
    assert (tmp_path / "out").read_text() == "from the child\n"


def test_nobody_stops_training_for_a_line_that_cannot_be_kept() -> None:
    class Full:
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = _Printed()
    out = _Forwarded(Full(), journal)  # type: ignore[arg-type]
    print("x", file=out, flush=True)
    assert journal.lines == ["x"]


# -- what it warns of -------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Python would show of warnings."""
    found: list[Any] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: found.append(message))
    return found


@pytest.fixture
def heard(shown: list[Any]) -> Iterator[list[str]]:
    found: list[str] = []
    ears = Ears(found.append)
    before = warnings.filters[:]
    warnings.simplefilter("always")
    ears.open()
    try:
        yield found
    finally:
        ears.close()
        warnings.filters[:] = before  # type: ignore[index]


def test_warnings_and_logging_are_heard_once_each(heard: list[str], shown: list[Any]) -> None:
    log = logging.getLogger("theirs.module")
    for step in range(100):
        warnings.warn("of the task's", UserWarning, stacklevel=1)
        log.warning("loss %s at step %d", step / 7, step)
    log.error("broken\nand more")
    log.info("not this")
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("it failed")
    assert heard[0].startswith("UserWarning: of the task's (test_output.py:")
    assert heard[1].startswith("WARNING theirs.module: loss 0.0 at step 0")
    assert heard[2:4] == ["ERROR theirs.module: broken", "ERROR theirs.module: it failed (KeyError: 'x')"]
    assert [text for text in heard[4:] if "loss" not in text] == []
    assert len(heard) <= 5
    assert len(shown) == 100, "Python shows what it would show without us"


def test_a_thread_that_died_is_heard(heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ears = threading.excepthook.__self__  # type: ignore[attr-defined]
    monkeypatch.setattr(ears, "_ended", lambda ended: None)

    def die() -> None:
        raise ValueError("in a thread")

    thread = threading.Thread(target=die, name="prefetch")
    thread.start()
    thread.join()
    assert heard == ["prefetch ended with ValueError: in a thread"]


def test_our_own_and_rays_are_not_for_the_author(heard: list[str]) -> None:
    for name in ("headway.elastic.worker.journal", "ray.data", "mlflow"):
        logging.getLogger(name).warning("ours")
    assert heard == []


def test_nothing_that_goes_wrong_in_hearing_ends_what_warns() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    def fail(text: str) -> None:
        logging.getLogger("theirs").warning("again")
        raise RuntimeError

    ears = Ears(fail)
    ears.open()
    try:
        logging.getLogger("theirs").warning("first")
        logging.getLogger("theirs").makeRecord("theirs", logging.WARNING, "f", 1, Broken(), (), None)
    finally:
        ears.close()


def test_a_logging_that_they_set_up_works_as_without_us(shown: list[Any]) -> None:
    before = (list(logging.getLogger().handlers), logging.getLogRecordFactory(), threading.excepthook)
    ears = Ears(lambda text: None)
    ears.open()
    try:
        assert logging.getLogger().handlers == before[0], "with a handler of ours logging.basicConfig would do nothing"
    finally:
        ears.close()
    assert (list(logging.getLogger().handlers), logging.getLogRecordFactory(), threading.excepthook) == before
