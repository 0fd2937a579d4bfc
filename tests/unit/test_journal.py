"""What is kept of a work that was interrupted, and what of it is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headway.data.prepare.stages import journal as journals
from headway.data.prepare.stages.assembly import PartWriter
from headway.data.prepare.stages.journal import Journal, Spill, workplace
from headway.data.write.encode import encoded
from headway.data.write.sizing import Sizes
from headway.errors import BadData, BadInput


def test_records_come_back_but_for_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    first.note("group", part=0, rows=3)
    first.note("group", part=1, rows=4)
    with path.open("a") as file:
        file.write('{"kind": "gro')
    again = Journal(path)
    assert [record["rows"] for record in again.of("group")] == [3, 4]
    again.note("group", part=2, rows=5)
    again.drop(lambda record: record["part"] == 0)
    assert [record["rows"] for record in again.of("group")] == [4]
    assert [record["rows"] for record in Journal(path).of("group")] == [4, 5]


def spilled(folder: Path, pieces: range) -> Spill:
    spill = Spill(folder / "files", 4, Journal(folder / "journal.jsonl"), "rows")
    assert spill.pieces == pieces.start
    for piece in pieces:
        for index in range(4):
            spill.add(index, bytes([piece] * 10 * index))
        spill.done(piece)
    return spill


@pytest.mark.parametrize("damage", [None, "more", "less", "another"])
def test_a_spill_goes_on_behind_its_last_whole_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str | None
) -> None:
    monkeypatch.setattr(journals, "NOTED_BYTES", 1)
    path = spilled(tmp_path, range(0, 3)).path(2)
    content = path.read_bytes()
    path.write_bytes(
        {"more": content + b"x", "less": content[:-1], "another": b"x" + content[1:]}.get(damage or "", content)
    )
    begin = 0 if damage in ("less", "another") else 3
    spill = spilled(tmp_path, range(begin, 6))
    for index in range(4):
        expected = b"".join(bytes([piece] * 10 * index) for piece in range(6))
        found = spill.path(index).read_bytes() if spill.path(index).exists() else b""
        assert found == expected


def test_work_stays_after_an_interruption_only(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt), workplace(target, "a" * 64) as place:  # noqa: PT012
        place.journal.note("group")
        raise KeyboardInterrupt
    with pytest.raises(BadData), workplace(target, "a" * 64) as place:  # noqa: PT012
        assert place.journal.of("group")
        raise BadData("x")
    assert not list(tmp_path.iterdir())


def test_other_work_on_the_same_destination(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with workplace(target, "a" * 64):
        for identity in ("a" * 64, "b" * 64):
            with pytest.raises(BadInput, match="another process works"), workplace(target, identity):
                pass
    with pytest.raises(KeyboardInterrupt), workplace(target, "a" * 64):
        raise KeyboardInterrupt
    with workplace(target, "b" * 64):  # nobody is at it any more, and this is another command
        assert len(list(tmp_path.iterdir())) == 1


def test_work_for_another_name_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), workplace(tmp_path / "visits.may", "a" * 64):
        raise KeyboardInterrupt
    with workplace(tmp_path / "visits", "b" * 64):
        assert len(list(tmp_path.iterdir())) == 2


def test_what_is_complete_stays_though_publishing_fails(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), workplace(tmp_path / "set", "a" * 64) as place:  # noqa: PT012
        place.finish()
        raise OSError("full")
    with workplace(tmp_path / "set", "a" * 64) as place:
        assert place.complete


def test_a_shard_that_was_full_at_a_crash_is_not_filled_further(tmp_path: Path) -> None:
    """The process was killed behind the record of the row group that filled it, before the shard's own."""
    tables = [pa.table({"x": np.arange(10 * i, 10 * i + 10)}) for i in range(4)]
    path = tmp_path / "journal.jsonl"

    def writer(name: str) -> PartWriter:
        part = PartWriter(tmp_path / name, 0, 0, tables[0].schema, Sizes(10, 20), None, Journal(path))
        part.restore()
        return part

    journal = Journal(path)
    journal.note("measured", part=0, width=8.0)
    journal.note("streaming", part=0)
    quiet = writer("set")
    quiet.write(encoded(tables), [(0, 10 * i + 10) for i in range(4)])
    assert [shard.rows for shard in quiet.shards.done] == [20, 20]
    bytes_of_first = (tmp_path / "set" / "shard-00000.parquet").read_bytes()
    lines = path.read_text().splitlines()
    cut = next(number for number, line in enumerate(lines) if '"kind": "shard"' in line)
    path.write_text("\n".join(lines[:cut]) + "\n")
    again = writer("set")
    assert again.upto == (0, 20)
    again.write(encoded(tables[2:]), [(0, 30), (0, 40)])
    assert [shard.rows for shard in again.shards.done] == [20, 20]
    assert again.shards.done == quiet.shards.done
    assert (tmp_path / "set" / "shard-00000.parquet").read_bytes() == bytes_of_first
