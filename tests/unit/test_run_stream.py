"""A run's records as a stream: what is done to the files of a folder is told, and done again gives the folder."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.runs import changes as changes_module
from headway.runs import working_copy
from headway.runs.changes import Changes
from headway.runs.folder import RunFolder
from headway.runs.replay import Files
from headway.runs.stream import (
    Append,
    Cut,
    Operation,
    Remove,
    Replace,
    Stored,
    decode,
    encode,
    is_record,
    pack,
    unpack,
)
from headway.testing.memory_storage import Memory

OPERATIONS: list[Operation] = [
    Append("steps.jsonl", 0, b""),
    Append("steps.jsonl", 0, b'{"step": 1}\n'),
    Replace("run.json", b"\x00\n{}\n"),
    Stored("code/big.py", "files/e000001-ab-cd", 100_000, "cd"),
    Cut("steps.jsonl", 4),
    Remove("code/old name.py"),
]


def test_operations_are_what_they_were() -> None:
    assert list(decode([encode(OPERATIONS)])) == OPERATIONS


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(0, 5))
def test_pieces_may_have_any_sizes(sizes: list[int], members: int) -> None:
    """Both of what is packed and of what is unpacked; several members behind each other are one stream."""
    raw = encode(OPERATIONS)
    packed = b"".join(pack(raw) for _ in range(members))
    pieces, at = [], 0
    while at < len(packed):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(packed[at : at + size])
        at += size
    assert list(decode(unpack(pieces))) == OPERATIONS * members


@pytest.mark.parametrize("end", [1, 20, 60, 75])
def test_a_stream_that_ends_too_early_is_none(end: int) -> None:
    with pytest.raises(ValueError, match=r"end|short"):
        list(decode([encode(OPERATIONS[1:3])[:-1][:end]]))
    with pytest.raises(ValueError, match="too early"):
        list(unpack([pack(encode(OPERATIONS))[:end]]))


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"1",
        b"not json",
        b'{"do": "run", "name": "a"}',
        b'{"do": "cut", "name": "a"}',
        b'{"do": "cut", "name": "a", "at": "4"}',
        b'{"do": "remove", "name": "../a"}',
        b'{"do": "remove", "name": "/etc/passwd"}',
        b'{"do": "remove", "name": "code/../../a"}',
        b'{"do": "remove", "name": "checkpoints/step-1/model.pt"}',
        b'{"do": "remove", "name": 3}',
    ],
)
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        list(decode([line + b"\n"]))


def test_which_files_are_records() -> None:
    yes = ["run.json", "job.yaml", "steps.jsonl", "code/a.py", "code/.headway.json", "code/poetry.lock", "fault-1.txt"]
    no = [
        "",
        ".",
        "..",
        "a/../b",
        "a//b",
        "./a",
        ".lock",
        ".copy.json",
        "tracking.lock",
        "steps.kept",
        "mlflow.db",
        "mlflow.db-wal",
        "keeper.json",
        "ray/x",
        "checkpoints/x",
        "logs/a.log",
        "leaders/epoch-1",
        "code/__pycache__/a.pyc",
        "code/../run.json",
        ".code.new/a.py",
        "a\0b",
    ]
    assert [name for name in yes if not is_record(name)] == []
    assert [name for name in no if is_record(name)] == []


class Twin:
    """A folder, and another that is told of it."""

    def __init__(self, tmp: Path) -> None:
        self.folder, self.other = tmp / "one", tmp / "other"
        self.folder.mkdir(exist_ok=True)
        self.other.mkdir(exist_ok=True)
        self.storage = Memory().client()
        self.changes = Changes(self.folder, {}, lambda sha256: f"files/{sha256}")
        self.files = Files(self.storage, self.other, {})

    def tell(self) -> list[Operation]:
        operations = list(self.changes.round())
        for operation in operations:
            if isinstance(operation, Stored):
                self.storage.put(operation.object, (self.folder / operation.name).read_bytes())
        for operation in decode([encode(operations)]):
            self.files.do(operation)
        self.files.finished()
        return operations

    def same(self) -> bool:
        return content(self.folder) == content(self.other)


def content(folder: Path) -> dict[str, bytes]:
    """Of a folder's records; of a file that grows up to the end of its last whole line."""
    found = {name: (folder / name).read_bytes() for name, _ in working_copy.walk(folder)}
    return {n: c[: c.rfind(b"\n") + 1] if n.endswith(".jsonl") else c for n, c in found.items()}


@pytest.fixture
def twin(tmp_path: Path) -> Twin:
    return Twin(tmp_path)


def test_lines_are_told_once_and_whole(twin: Twin) -> None:
    path = twin.folder / "steps.jsonl"
    path.write_bytes(b"1\n2\n3")
    assert twin.tell() == [Append("steps.jsonl", 0, b""), Append("steps.jsonl", 0, b"1\n2\n")]
    with path.open("ab") as file:
        file.write(b"3\n4\n")
    assert twin.tell() == [Append("steps.jsonl", 4, b"33\n4\n")]
    assert twin.tell() == []


def test_of_a_cut_only_the_cut_is_told(twin: Twin) -> None:
    run = RunFolder(twin.folder)
    lines = [json.dumps({"step": step, "loss": step / 3}) + "\n" for step in range(5000)]
    (twin.folder / "steps.jsonl").write_text("".join(lines))
    twin.tell()
    run.cut("steps", 4000)
    with (twin.folder / "steps.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4001, "loss": 7.0}) + "\n")
    told = twin.tell()
    assert sum(len(operation.content) for operation in told if isinstance(operation, Append)) < 200
    assert sum(isinstance(operation, Cut) for operation in told) == 1
    assert twin.same()


def test_a_file_that_lost_its_end_and_grew_again_is_told_anew(twin: Twin) -> None:
    path = twin.folder / "events.jsonl"
    path.write_bytes(b"1111\n2222\n")
    twin.tell()
    os.truncate(path, 5)
    with path.open("ab") as file:
        file.write(b"3333\n4444\n")
    assert twin.tell()[0] == Cut("events.jsonl", 0)
    assert twin.same()


def test_large_files_are_objects_of_their_own_and_told_when_they_change(twin: Twin) -> None:
    (twin.folder / "code").mkdir()
    big = twin.folder / "code/data.bin"
    big.write_bytes(b"a" * 70_000)
    (told,) = twin.tell()
    assert isinstance(told, Stored)
    assert twin.tell() == []
    big.touch()
    assert twin.tell() == []
    big.write_bytes(b"b" * 70_000)
    (told,) = twin.tell()
    assert isinstance(told, Stored)
    assert twin.same()
    big.write_bytes(b"small")
    assert twin.tell() == [Replace("code/data.bin", b"small")]


def test_a_file_written_twice_in_one_tick_of_its_time_is_seen(twin: Twin) -> None:
    path = twin.folder / "members.json"
    path.write_bytes(b"one")
    stat = path.stat()
    twin.tell()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    twin.tell()
    assert twin.same()


def test_what_is_gone_is_removed(twin: Twin) -> None:
    (twin.folder / "run.json").write_bytes(b"{}")
    (twin.folder / "steps.jsonl").write_bytes(b"1\n")
    twin.tell()
    (twin.folder / "run.json").unlink()
    (twin.folder / "steps.jsonl").unlink()
    assert twin.tell() == [Remove("run.json"), Remove("steps.jsonl")]
    assert twin.same()


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_done_to_a_folder_its_twin_follows(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "CHUNK_BYTES", 64)
    monkeypatch.setattr(changes_module, "INLINE_BYTES", 100)
    draw, twin = random.Random(seed), Twin(tmp_path)
    (twin.folder / "code").mkdir()
    growing = [twin.folder / f"{name}.jsonl" for name in ("steps", "metrics", "spool")]
    fixed = [twin.folder / name for name in ("run.json", "code/a.py", "members.json")]
    rounds = 0
    for number in range(120):
        match draw.randrange(9):
            case 0 | 1 | 2 | 3:
                with draw.choice(growing).open("ab") as file:
                    file.write(f"{number:04d}\n".encode() * draw.randrange(1, 40))
                    file.write(b"torn"[: draw.randrange(5)])
            case 4:
                path = draw.choice(growing)
                if path.exists():
                    kept = path.with_suffix(".kept")
                    kept.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size + 1)])
                    kept.replace(path)
            case 5:
                path = draw.choice(growing)
                if path.exists():
                    os.truncate(path, draw.randrange(path.stat().st_size + 1))
            case 6 | 7:
                draw.choice(fixed).write_bytes(draw.randbytes(draw.randrange(200)))
            case 8:
                draw.choice([*fixed, *growing]).unlink(missing_ok=True)
        if draw.random() < 0.4:
            twin.tell()
            rounds += 1
            a, b = content(twin.folder), content(twin.other)
            assert {n: (a.get(n), b.get(n)) for n in {*a, *b} if a.get(n) != b.get(n)} == {}, f"seed {seed}, {number}"
    assert rounds > 20
