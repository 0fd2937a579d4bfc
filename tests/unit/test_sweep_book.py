"""The book of a sweep: every event is there again, whole, in order; what is torn or strange is told."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy
import pytest

from headway.errors import BadData, BadInput, RunFailed
from headway.sweeps import book as books
from headway.sweeps.book import Book, decode, encode, entries, read
from headway.sweeps.events import Again, Event, Failed, Halt, Reported, Spent, Suggested, Width

EVENTS: list[Event] = [
    Width(4),
    Suggested(1, {"optimizer.lr": 0.1, "arguments.width": 64, "optimizer.name": "sgd", "deep": [1, None, True]}),
    Suggested(2, None),
    Reported(1, 20, {"accuracy": 0.1 + 0.2, "loss": math.inf}, waits=True),
    Failed(1, 21, "task", "ValueError: no"),
    Again(1),
    Spent(12.5, 3.25),
    Halt("stopped by a@b", may_go_on=True),
]


def opened(path: Path, secured: list[int] | None = None, **terms: str) -> tuple[Book, list[books.Entry]]:
    found = Book(path, lambda: secured.append(1) if secured is not None else None, now=lambda: 1795700000.5)
    return found, found.begin(**{"sweep": "digits", "key": "k", "terms": "t", **terms})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a book with events in it."""
    found, before = opened(tmp_path / books.FILE)
    assert before == []
    for event in EVENTS:
        assert found.append(event).event == event
    found.secure()
    found.close()
    return tmp_path / books.FILE


def test_what_was_written_is_read(path: Path) -> None:
    found = list(entries(path))
    assert [entry.event for entry in found] == EVENTS
    assert [entry.number for entry in found] == list(range(1, len(EVENTS) + 1))
    assert {entry.at for entry in found} == {1795700000.5}


def test_who_goes_on_with_it_counts_on(path: Path) -> None:
    found, before = opened(path)
    assert [entry.event for entry in before] == EVENTS
    assert found.append(Width(1)).number == len(EVENTS) + 1
    found.close()
    assert [entry.event for entry in entries(path)] == [*EVENTS, Width(1)]


def test_nan_comes_back_and_numbers_of_numpy_are_plain(tmp_path: Path) -> None:
    found, _ = opened(tmp_path / books.FILE)
    values: dict[str, Any] = {"loss": numpy.float32("nan"), "accuracy": numpy.float64(0.1)}
    event = found.append(Reported(1, 2, values, waits=False)).event
    assert isinstance(event, Reported)
    assert math.isnan(event.values["loss"])
    assert event.values["accuracy"] == 0.1
    assert type(event.values["accuracy"]) is float
    found.close()


def test_a_torn_last_line_is_none_and_is_taken_back(path: Path) -> None:
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, len(whole) - 5, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert [entry.event for entry in entries(path)] == EVENTS[:-1]
        found, before = opened(path)
        assert len(before) == len(EVENTS) - 1
        found.append(EVENTS[-1])
        found.close()
        assert path.read_bytes() == whole


def test_damage_is_told_with_its_line(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    for damage in (b"{", b'{"at": 1.0}', b'{"at": 1.0, "event": "width"}', b'{"at": 1.0, "event": "huh", "trial": 1}'):
        path.write_bytes(b"\n".join([*lines[:3], damage, *lines[4:]]))
        with pytest.raises(BadData, match=r"book\.jsonl is damaged: line 4"):
            opened(path)


def test_a_book_of_another_layout_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"headway-sweep/1", b"headway-sweep/9", 1))
    with pytest.raises(BadData, match="this Headway reads 'headway-sweep/1'"):
        read(path)


def test_another_sweeps_book_is_refused(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"the book of another sweep \(digits\): it does not belong to words"):
        opened(path, key="another", sweep="words")
    with pytest.raises(BadInput, match="sweep digits is another one by now"):
        opened(path, terms="others")
    assert path.read_bytes() == before


def test_a_full_disk_takes_nothing_back_but_the_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = opened(path)
    whole, write = path.read_bytes(), os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 10:
            return write(file, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunFailed, match=r"cannot be written: No space left.*headway resume"):
        found.append(Width(3))
    monkeypatch.undo()
    found.append(Width(2))
    found.close()
    assert path.read_bytes().startswith(whole)
    assert [entry.event for entry in entries(path)] == [*EVENTS, Width(2)]


def test_it_is_on_the_disk_before_others_are_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    found = Book(path, lambda: done.append("others"))
    found.begin("digits", "k", "t")
    monkeypatch.setattr(os, "fsync", lambda _: done.append("disk"))
    found.append(Width(3))
    assert done == []
    found.secure()
    found.close()
    assert done == ["disk", "others"]


@pytest.mark.parametrize("event", EVENTS)
def test_events_are_plain_values(event: Event) -> None:
    assert decode({"at": 1.0, **encode(event)}) == event
