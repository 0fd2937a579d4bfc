"""A folder as a storage: full disks, refusals, processes that end in mid-write; nothing half-written is ever seen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headway.errors import BadInput, HeadwayError
from headway.storage import folder as module
from headway.storage.folder import ABANDONED_S, FolderStorage
from headway.storage.protocol import ABSENT, Buffer, Conflict, OutOfReach


def files(folder: Path) -> list[str]:
    """All files but locks, hidden ones too."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(module.LOCK))


WRITES: dict[str, Callable[[FolderStorage], object]] = {
    "create": lambda storage: storage.put("a/new", b"new", ABSENT),
    "put": lambda storage: storage.put("a/old", b"new"),
    "swap": lambda storage: storage.put("a/old", b"new", storage.look("a/old")[1]),
    "upload": lambda storage: storage.upload("a/new", [b"n", b"ew"]),
}
CALLS = ("os.open", "os.write", "os.utime", "os.fsync", "fcntl.flock", "os.link", "pathlib.Path.replace")


def failing(monkeypatch: pytest.MonkeyPatch, call: str, at: int, number: int) -> list[int]:
    """Let the call with this number fail, of those that this thread makes (others may go on from tests before); returns
    a list that grows with each."""
    owner: Any = {"os": module.os, "fcntl": module.fcntl, "pathlib": Path}[call.partition(".")[0]]
    name = call.rpartition(".")[2]
    real, calls, here = getattr(owner, name), [], threading.get_ident()

    def fail(*arguments: Any, **named: Any) -> Any:
        if threading.get_ident() != here:
            return real(*arguments, **named)
        calls.append(0)
        if len(calls) == at + 1:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, fail)
    return calls


def attempt(write: Callable[[FolderStorage], object], storage: FolderStorage) -> HeadwayError | None:
    """What a write raises, if it does."""
    try:
        write(storage)
    except HeadwayError as error:
        return error
    return None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("way", WRITES)
def test_each_call_may_fail(tmp_path: Path, way: str, number: int) -> None:
    """What was there stays, nothing is left beside it, and what passes is told from what lasts."""
    wanted = BadInput if number in (errno.EACCES, errno.EROFS) else OutOfReach
    failed = 0
    for call in CALLS:
        for at in range(4):
            folder = tmp_path / f"{call}-{at}"
            storage = FolderStorage(folder)
            storage.put("a/old", b"old")
            with pytest.MonkeyPatch.context() as patch:
                calls = failing(patch, call, at, number)
                raised = attempt(WRITES[way], storage)
            assert isinstance(raised, wanted if len(calls) > at else type(None)), (call, at)
            if raised is None:
                break
            assert f"cannot be written: {os.strerror(number)}" in str(raised)
            failed += 1
            assert files(folder) in (["a/old"], ["a/new", "a/old"])
            for name in files(folder):
                assert storage.get(name) in (b"old", b"new")
            again = attempt(WRITES[way], storage)
            assert again is None or (isinstance(again, Conflict) and storage.get("a/new") == b"new"), (call, at)
    assert failed >= 6


def test_a_full_disk_may_have_room_later(small_disk: Path) -> None:
    storage = FolderStorage(small_disk)
    storage.put("old", b"old")
    with pytest.raises(OutOfReach, match=r"new cannot be written: No space left on device\. Make room"):
        storage.upload("new", [bytes(1 << 18)] * 5)
    assert files(small_disk) == ["old"]
    assert storage.upload("new", [bytes(1 << 18)] * 2) == 1 << 19


_CRASHES = """
import itertools, os, sys
from pathlib import Path
from headway.storage import folder as module
from headway.storage.folder import FolderStorage
from headway.storage.protocol import ABSENT, Conflict

def dying(owner, name, at):
    real, calls = getattr(owner, name), itertools.count()
    def call(*arguments, **named):
        number = next(calls)
        if number == 2 * at:
            os._exit(7)  # before it
        result = real(*arguments, **named)
        if number == 2 * at - 1:
            os._exit(7)  # after one
        return result
    setattr(owner, name, call)

writes = [
    lambda storage: storage.put("a/new", b"new" * 1000, ABSENT),
    lambda storage: storage.put("a/old", b"new" * 1000),
    lambda storage: storage.put("a/old", b"new" * 1000, storage.look("a/old")[1]),
    lambda storage: storage.upload("b/c/new", [b"new"] * 1000),
    lambda storage: storage.delete(["a/old"]),
]
calls = [(os, name) for name in ("open", "write", "utime", "fsync", "close", "link", "unlink")]
calls += [(module.fcntl, "flock"), (Path, "replace"), (Path, "mkdir"), (Path, "rmdir"), (Path, "unlink")]
root, died = Path(sys.argv[1]), 0
for number, write in enumerate(writes):
    for owner, name in calls:
        for at in range(3):
            where = root / f"{number}-{name}-{at}"
            FolderStorage(where).put("a/old", b"old" * 1000)
            child = os.fork()
            if not child:
                dying(owner, name, at)
                write(FolderStorage(where))
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, 7), (number, name, at, code)
            died += code == 7
            storage = FolderStorage(where)
            for found in storage.list():
                content = storage.get(found.name)
                assert content in (b"old" * 1000, b"new" * 1000), (number, name, at)
            try:
                write(storage)
            except Conflict:  # it was made, and its maker could not tell
                assert storage.get("a/new") == b"new" * 1000
            storage.delete([found.name for found in storage.list()])
            assert storage.list() == []
print(died)
"""


def test_a_process_may_end_at_each_call(tmp_path: Path) -> None:
    """Before or after it: readers see the old, the new or nothing; and the next one goes on."""
    command = [sys.executable, "-c", _CRASHES, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 50


def test_what_the_dead_have_left_goes_with_its_folder(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "runs")
    storage.put("run/step-1/part", b"x")
    left = tmp_path / "runs" / "run" / "step-1" / f"{module.NEW}1-abc"
    left.write_bytes(b"half")
    assert [found.name for found in storage.list()] == ["run/step-1/part"]
    storage.delete(["run/step-1/part"])
    assert left.exists(), "somebody may be writing it"
    old = time.time() - ABANDONED_S - 1.0
    os.utime(left, (old, old))
    storage.delete(["run/step-1/part"])
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_emptied_folder_goes_and_comes_again(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "runs")
    storage.put("run/step-1/part", b"x")
    storage.put("run/head", b"x")
    storage.delete(["run/step-1/part"])
    assert [path.name for path in (tmp_path / "runs" / "run").iterdir() if path.is_dir()] == []
    storage.at("run/").put("step-1/part", b"y", ABSENT)
    assert storage.get("run/step-1/part") == b"y"
    inner = FolderStorage(tmp_path / "runs" / "run" / "step-1")
    inner.delete(["part"])
    assert (tmp_path / "runs" / "run" / "step-1").is_dir(), "the folder that was opened stays"


def test_makers_and_removers_get_along(tmp_path: Path) -> None:
    """A folder is removed as it is found empty, while others write into it."""
    storage, over, wrong = FolderStorage(tmp_path / "runs"), threading.Event(), []

    def write(number: int) -> None:
        for turn in range(150):
            name = f"a/b/{number}"
            try:
                storage.put(name, str(turn).encode())
                if storage.get(name) != str(turn).encode():
                    wrong.append(name)
                storage.delete([name])
            except BaseException as error:  # told below
                wrong.append(repr(error))
                raise

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    over.set()
    assert not wrong
    assert storage.list() == []
    assert storage.folders() == []


def test_the_same_content_twice_is_two_versions(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "runs")
    first = storage.put("a", b"same")
    versions = {first, *(storage.put("a", b"same") for _ in range(50))}
    assert len(versions) == 51
    with pytest.raises(Conflict):
        storage.put("a", b"other", first)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the lock of the folder `runs`."""
    FolderStorage(tmp_path / "runs").put("a", b"1")
    script = f"import fcntl, os, sys, time; file = open({str(tmp_path / 'runs' / module.LOCK)!r}); "
    script += "fcntl.flock(file, fcntl.LOCK_EX); print('locked', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    yield holder
    holder.kill()
    holder.wait()
    holder.stdout.close()


def test_who_waits_for_the_lock_of_a_dead_one_gets_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    storage = FolderStorage(tmp_path / "runs")
    version = storage.look("a")[1]
    killing = threading.Timer(0.2, holder.kill)
    killing.start()
    storage.put("a", b"2", version)
    assert holder.wait(10.0) != 0, "it was held until then"
    killing.join()


def test_nobody_waits_for_ever(tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCKED_S", 0.2)
    storage = FolderStorage(tmp_path / "runs")
    with pytest.raises(OutOfReach, match=r"runs cannot be written: another process has held its lock for 0\.2 s"):
        storage.put("a", b"2")
    with pytest.raises(OutOfReach):
        storage.delete(["a"])
    assert storage.get("a") == b"1"
    assert files(tmp_path) == ["runs/a"]
    assert holder.poll() is None


def test_a_blocks_own_error_is_its_own(tmp_path: Path) -> None:
    """Not taken for the disk's, whatever it is."""
    storage = FolderStorage(tmp_path / "runs")

    def broken() -> Iterator[Buffer]:
        yield b"x"
        raise OSError(errno.ENOSPC, "of the caller")

    with pytest.raises(OSError, match="of the caller") as caught:
        storage.upload("a", broken())
    assert not isinstance(caught.value, HeadwayError)
    assert files(tmp_path) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for storage in (FolderStorage(tmp_path / "file"), FolderStorage(tmp_path)):
        name = "a" if storage.url.endswith("file") else "file/a"
        with pytest.raises(BadInput, match="cannot be written"):
            storage.put(name, b"x")
    with suppress(BadInput):
        assert FolderStorage(tmp_path / "file").list() == []
    with pytest.raises(FileNotFoundError):
        FolderStorage(tmp_path).get("file/a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError):
        FolderStorage(tmp_path).get("folder")


def test_a_disk_that_knows_no_second_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    storage = FolderStorage(tmp_path)
    storage.put("a/b", b"1", only_if=ABSENT)
    with pytest.raises(Conflict):
        storage.put("a/b", b"2", only_if=ABSENT)
    assert storage.get("a/b") == b"1"
    assert [found.name for found in storage.list()] == ["a/b"]
    assert not list(tmp_path.rglob(".new-*"))
