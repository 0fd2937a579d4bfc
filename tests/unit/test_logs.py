"""What is printed is kept with the run: in order, once, in bounds, whatever becomes of disks and stores."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest
from tests.waiting import until

from headway.logs import layout, lines, sinks, writer
from headway.logs.layout import Segment, middle, new_stream, next_of, outlived, segment, streams_of
from headway.logs.lines import Lines, Waiting
from headway.logs.reading import Reader
from headway.logs.writer import Writer
from headway.storage.folder import FolderStorage
from headway.storage.protocol import OutOfReach, Storage
from headway.testing.memory_storage import Memory, Troubles


def kept(storage: Storage, source: str) -> list[str]:
    """The lines of a source's streams, read as plainly as can be."""
    found = [segment(each.name, each.bytes) for each in storage.list(f"logs/{source}/")]
    text = b""
    for stream in sorted({each.stream for each in found if each}):
        mine, at = [each for each in found if each and each.stream == stream], 0
        while (each := next_of(mine, at)) is not None:
            text += storage.get(each.name)[max(0, at - each.begin) :]
            at = each.end
    return [line[layout.STAMP :].decode() for line in text.splitlines()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "HEAD_BYTES", 1000)
    monkeypatch.setattr(sinks, "TAIL_BYTES", 2000)
    monkeypatch.setattr(sinks, "BLOCK_BYTES", 500)
    monkeypatch.setattr(sinks, "PIECES", 4)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SOON_S", 0.001)
    monkeypatch.setattr(writer, "AGAIN_S", 0.001)
    monkeypatch.setattr(writer, "FOLDER_EVERY_S", 0.001)


def test_what_is_written_is_in_the_folder_soon_and_marked_as_ended(tmp_path: Path) -> None:
    kept_by = Writer("driver")
    kept_by.write(b"before there is a run\nhalf a l")
    assert not (tmp_path / "logs").exists()
    kept_by.open(str(tmp_path))
    kept_by.write(b"ine\n")
    storage = FolderStorage(tmp_path)
    until(lambda: kept(storage, "driver") == ["before there is a run", "half a line"], "it is there meanwhile")
    kept_by.write(b"no end")
    assert kept_by.close()
    assert kept(storage, "driver") == ["before there is a run", "half a line", "no end"]
    (only,) = storage.list("logs/")
    found = segment(only.name, only.bytes)
    assert found is not None
    assert (found.source, found.begin, found.last) == ("driver", 0, True)


def test_of_what_never_became_a_run_nothing_is_left(tmp_path: Path) -> None:
    kept_by = Writer("driver")
    kept_by.write(b"x\n" * 1_000_000)
    assert not kept_by.close()
    assert list(tmp_path.iterdir()) == []
    assert len(kept_by._waiting.take(0.0)) < 2 << 20, "and memory is bounded"


class Away:
    """A sink that cannot be reached, until it can."""

    def __init__(self) -> None:
        self.tries, self.back = 0, threading.Event()
        self.kept = b""

    def begin(self) -> int:
        return 0

    def add(self, data: bytes) -> None:
        self.tries += 1
        if not self.back.is_set():
            raise OutOfReach("away", "for a while")
        self.kept += data

    def finish(self) -> None:
        """Nothing to do."""


def test_who_closes_is_not_kept_waiting_by_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "AGAIN_S", 3600.0)
    away = Away()
    kept_by = Writer("driver")
    kept_by.ship(lambda: away, 0.0)
    kept_by.write(b"last words\n")
    until(lambda: kept_by.error == "for a while")
    assert away.tries == 1
    away.back.set()
    assert kept_by.close(20.0), "it is tried at once"
    assert away.kept.endswith(b" last words\n")


def drained(reader: Reader) -> list[str]:
    return [line.text for line in reader.news()]


def test_lines_and_the_last_state_of_bars() -> None:
    now = [0.0]
    found = Lines(lambda: now[0])
    assert found.take(b"before\n\r 1%\r 2%\r 3%") == [b"before"]
    assert found.late() == [], "not at once"
    assert found.take(b"\r100%\n\n") == [b"100%", b""]
    assert found.take(b"windows\r\n\rhalf") == [b"windows"]
    now[0] += lines.PARTIAL_S
    assert found.late() == [b"half"]
    now[0] += 10 * lines.PARTIAL_S
    assert found.take(b"cut by a read") == found.late() == [], "it has only begun"
    now[0] += lines.PARTIAL_S - 1
    assert found.take(b" in two\nnext") == [b"cut by a read in two"]
    assert found.take(b", and") == found.late() == []
    now[0] += lines.PARTIAL_S
    assert found.late() == [b"next, and"]
    assert found.take(b"x" * 200_000) == [b"x" * (64 << 10)], "a line without an end does not grow"
    assert [len(line) for line in found.take(b"y" * 150_000 + b"\n")] == [65536, 65536, 18928]
    assert found.take(b"rest") == found.late() == []
    assert found.late(end=True) == [b"rest"]


def test_what_waits_is_the_first_and_the_newest_and_what_is_dropped_is_counted() -> None:
    waiting = Waiting(10, 12)
    for number in range(100):
        waiting.add(b"%05d\n" % number)
    said = waiting.take(0.0, "the store is away")
    assert said == (
        b"00000\n00001\n1970-01-01T00:00:00.000Z ... 576 bytes could not be kept: the store is away ...\n00098\n00099\n"
    )
    assert not waiting
    waiting.add(b"next\n")
    assert waiting.take(0.0) == b"next\n"


def test_segments_are_known_by_their_names_and_the_longest_is_taken() -> None:
    folder = layout.folder_of("worker-w3", new_stream(0.0))
    assert folder.startswith("logs/worker-w3/19700101T000000.000000Z-")
    whole = segment(folder + layout.fixed_name(0, 30), 30)
    early, late = segment(folder + layout.growing_name(10), 5), segment(folder + layout.fixed_name(40, 50, True), 10)
    assert whole is not None
    assert early is not None
    assert late is not None
    assert (whole.source, whole.end, early.end, late.last, whole.last) == ("worker-w3", 30, 15, True, False)
    assert next_of([early, whole, late], 12) == whole
    assert next_of([early, whole, late], 30) == late, "what is between is not kept"
    assert next_of([early, whole, late], 50) is None
    assert segment("logs/worker-w3.log", 5) is segment("records/0-e1", 5) is segment(f"{folder}x.log", 1) is None


def test_the_beginning_and_the_newest_are_kept() -> None:
    blocks = [(at, at + 10) for at in range(0, 100, 10)]
    assert middle(blocks, 20, 35) == [(20, 30), (30, 40), (40, 50), (50, 60)]
    assert middle(blocks[:5], 20, 35) == middle([], 1, 1) == []


def test_the_oldest_make_room_but_for_those_that_live() -> None:
    found = [(Segment("w0", f"{number}", 0, 10, True, f"{number}"), 0.0) for number in range(4)]
    streams = streams_of(found, 60.0)
    assert [each.stream for each in outlived(streams, "w0", 20, 1000)] == ["0", "1"]
    assert outlived(streams, "w1", 20, 1000) == outlived(streams, "w0", 40, 40) == []
    first = (Segment("driver", "-1", 0, 10, False, "d"), 30.0)

    def gone(quiet_s: float) -> list[str]:
        return [each.stream for each in outlived(streams_of([first, *found], quiet_s), "w1", 20, 25)]

    assert gone(60.0) == ["0", "1", "2"], "the driver lives"
    assert gone(20.0) == ["-1", "0", "1"], "it was not heard of"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["folder", "store"])
def test_a_log_is_bounded_and_says_what_it_has_not(kind: str, tmp_path: Path) -> None:
    store = Memory()
    storage: Storage = FolderStorage(tmp_path) if kind == "folder" else store.client()
    for start in range(3):
        stream = new_stream()
        sink: sinks.Sink = sinks.Files(tmp_path, "driver", stream)
        if kind == "store":
            sink = sinks.Objects(store.client(), "driver", stream)
        sink.begin()
        for number in range(1000):
            sink.add(lines.stamped([b"%05d" % number], 1e9 + 1e4 * start + number))
        sink.finish()
    mine = [line for line in Reader(storage).news() if line.time and line.time >= 1e9 + 2e4]
    texts = [line.text for line in mine]
    gap = texts.index(next(text for text in texts if "bytes are not kept" in text))
    assert texts[:gap] == [f"{number:05}" for number in range(gap)]
    assert gap * (layout.STAMP + 6) >= 1000
    assert texts[gap + 1 :] == [f"{number:05}" for number in range(1000 - len(texts[gap + 1 :]), 1000)]
    assert [line.note for line in mine] == [text == texts[gap] for text in texts]
    found = storage.list("logs/")
    assert sum(each.bytes for each in found) < 3 * (1000 + 2000 + 2 * 500)
    assert len(found) < 3 * 12
    assert Reader(storage).ended is True, "nothing was heard of"
    reader = Reader(storage)
    drained(reader)
    assert reader.ended


class Ship:
    """A sink that is written to as `Writer` does, and what was given to it."""

    def __init__(self, store: Memory, draw: random.Random, source: str, number: int) -> None:
        self.draw, self.source = draw, source
        self.troubles = Troubles()
        self.client = store.client(self.troubles)
        self.sink = sinks.Objects(self.client, source, f"{number:03}")
        self.number, self.held, self.written, self.begun = number, b"", 0, False
        self.closed = False

    def step(self) -> None:
        """One try of whatever comes next, which may fail."""
        request, chance = self.client._client.number, self.draw.random()
        if chance < 0.15:
            self.troubles.lost_answers = frozenset({request + 1})
        elif chance < 0.3:
            self.troubles.late = {request + 1: self.draw.randrange(1, 12)}
        try:
            if not self.begun:
                self.sink.begin()
                self.begun = True
            if not self.held and not self.closed:
                count = self.draw.randrange(1, 9)
                texts = [f"{self.source} {self.number} {self.written + at}".encode() for at in range(count)]
                self.held = lines.stamped(texts, 1e9 + self.number)
                self.written += count
            if self.held:
                self.sink.add(self.held)
            self.held = b""
            if self.closed:
                self.sink.finish()
        except OutOfReach:
            pass

    def close(self) -> None:
        self.closed = True
        self.troubles.late, self.troubles.lost_answers = {}, frozenset()
        for _ in range(3):
            self.step()
            self.draw = random.Random(1)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_becomes_of_requests_and_processes_no_line_is_lost_or_read_twice(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "BLOCK_BYTES", 700)
    monkeypatch.setattr(sinks, "PIECES", 5)
    draw, store = random.Random(seed), Memory()
    ships = [Ship(store, draw, source, 0) for source in ("driver", "worker-w0", "worker-w1")]
    everyone, said, at = list(ships), [], 0
    clients = Troubles()
    reader = Reader(store.client(clients))
    reading = False

    def between() -> None:
        """While somebody reads, others write."""
        nonlocal reading
        if reading and draw.random() < 0.5:
            reading = False
            draw.choice(ships).step()
            reading = True

    store.between = between
    for _ in range(300):
        chance = draw.random()
        if chance < 0.6:
            draw.choice(ships).step()
        elif chance < 0.65:
            at = draw.randrange(len(ships))  # a kill: what it held is gone, and another takes its name
            ships[at] = Ship(store, draw, ships[at].source, ships[at].number + 1)
            everyone.append(ships[at])
        else:
            reading = True
            if draw.random() < 0.2:
                clients.lost_answers = frozenset({reader._storage._client.number + draw.randrange(1, 6)})  # type: ignore[attr-defined]
            try:
                for line in reader.news():
                    said.append(line)  # noqa: PERF402  (what came before a failure counts)
            except OutOfReach:
                pass
            reading = False
    for ship in ships:
        ship.close()
    clients.lost_answers = frozenset()
    said += list(reader.news())
    assert [line.text for line in said if line.note] == []
    for ship in everyone:
        mine = [line.text for line in said if line.text.startswith(f"{ship.source} {ship.number} ")]
        least = ship.written - (9 if ship.held else 0)
        assert mine == [f"{ship.source} {ship.number} {number}" for number in range(len(mine))], f"seed {seed}"
        assert least <= len(mine) <= ship.written, f"seed {seed}"
    whole = [(line.source, line.text) for line in Reader(store.client()).news()]
    assert sorted(whole) == sorted((line.source, line.text) for line in said), "who reads at the end reads the same"


def test_a_listing_in_which_something_is_missing_is_not_believed_at_once() -> None:
    """Pages of a listing are of different moments: what was put together between them is in none."""
    store = Memory()
    storage = store.client()
    folder = layout.folder_of("driver", "0")
    for number in range(3):
        line = lines.stamped([b"%d" % number], 1e9)
        storage.put(folder + layout.fixed_name(number * len(line), (number + 1) * len(line)), line)
    listed, whole = storage.list, storage.list("logs/")
    looks = iter([[whole[0], whole[2]]])
    storage.list = lambda prefix="": next(looks, None) or listed(prefix)  # type: ignore[method-assign]
    assert drained(Reader(storage)) == ["0", "1", "2"]
    storage.delete([whole[1].name])
    notice = "... 27 bytes are not kept: the beginning of a log is, and the newest ..."
    assert drained(Reader(storage)) == ["0", notice, "2"]


@pytest.mark.usefixtures("quick")
def test_what_a_full_disk_took_by_half_is_not_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = os.write, [3]

    def full(file: int, data: bytes) -> int:
        if left[0] and os.readlink(f"/proc/self/fd/{file}").startswith(str(tmp_path)):  # noqa: PTH115
            left[0] -= 1
            write(file, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(sinks.os, "write", full)
    kept_by = Writer("driver")
    kept_by.open(str(tmp_path))
    kept_by.write(b"".join(b"%d\n" % number for number in range(100)))
    assert kept_by.close()
    assert left == [0]
    assert drained(Reader(FolderStorage(tmp_path))) == [str(number) for number in range(100)]


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_a_process_whose_log_made_room_for_others_is_kept_again(kind: str, tmp_path: Path) -> None:
    store = Memory()
    storage: Storage = FolderStorage(tmp_path) if kind == "folder" else store.client()
    sink: sinks.Sink = (
        sinks.Files(tmp_path, "driver", "0") if kind == "folder" else sinks.Objects(storage, "driver", "0")
    )
    for text in (b"one", b"two"):
        sink.add(lines.stamped([text], 1e9))
    storage.delete([found.name for found in storage.list("logs/")])
    for text in (b"three", b"four"):
        sink.add(lines.stamped([text], 1e9))
    sink.finish()
    assert drained(Reader(storage))[-2:] == ["three", "four"]


@pytest.mark.usefixtures("quick")
def test_what_could_not_wait_is_counted_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "HEAD_BYTES", 100)
    monkeypatch.setattr(writer, "MOST_BYTES", 100)
    away = Away()
    kept_by = Writer("driver")
    kept_by.ship(lambda: away, 0.0)
    kept_by.write(b"first\n")
    until(lambda: kept_by.error)
    for number in range(50):
        kept_by.write(b"%d\n" % number)
    away.back.set()
    assert kept_by.close()
    said = [line[layout.STAMP :] for line in away.kept.decode().splitlines()]
    assert said[0] == "first"
    (notice,) = [text for text in said if text.startswith("...")]
    numbers = [int(text) for text in said if text.isdigit()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 49
    dropped = sum(layout.STAMP + len(f"{number}\n") for number in range(50) if number not in numbers)
    assert notice == f"... {dropped:,} bytes could not be kept: for a while ..."
