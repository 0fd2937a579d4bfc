"""The contract of a place that holds runs: what `headway.storage.protocol.Storage` promises, as tests.

A backend supplies one fixture, `place`, and inherits every test:

    class TestMine(StorageContract):
        @pytest.fixture
        def place(self, tmp_path: Path) -> Place:
            return Place(partial(open_storage, tmp_path / "runs"))

The place is empty when a test begins, and `open` opens it once more, as another process would.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from headway.storage.commit import commit, nonce
from headway.storage.protocol import ABSENT, Absent, Buffer, Conflict, Storage

T = TypeVar("T")

THREADS, PROCESSES = 8, 4
LARGE = 20_000_001
"""Bytes of a large object: several parts, the last a short one."""
STRANGE = ["a b/ü+%.json", "a/b/c/d", "percent%20", "quota", "404", "q?x=1&y#z", "e003-(1)[2]{3}~'@=!,;$"]
"""Names that must be kept as they are."""


@dataclass(frozen=True)
class Place:
    """What a backend's fixture gives.

    Args:
        open: opens the place; to be pickled where `processes` is set.
        processes: whether other processes of this machine can open it.
    """

    open: Callable[[], Storage]
    processes: bool = True


class StorageContract:
    """Every test of the contract; a subclass supplies the fixture `place`."""

    def test_what_was_put_is_there(self, place: Place) -> None:
        storage, other = place.open(), place.open()
        for content in (b"", b"one", bytearray(b"two"), memoryview(b"three")):
            version = storage.put("a/b", content)
            assert other.get("a/b") == bytes(content)
            assert other.look("a/b") == (bytes(content), version)

    def test_what_is_not_there_is_said(self, place: Place) -> None:
        storage = place.open()
        for name in ("a", "a/b"):
            for ask in (storage.get, storage.look, lambda name: storage.read(name, 0, 1)):
                assert raises(FileNotFoundError, ask, name)
        storage.put("a/b/c", b"")
        assert raises(FileNotFoundError, storage.get, "a/b/d")

    def test_an_empty_place_is_empty(self, place: Place) -> None:
        storage = place.open()
        assert storage.list() == []
        assert storage.list("a/") == []
        assert storage.folders() == []
        assert storage.folders("a/") == []
        storage.delete(["a", "b/c"])
        storage.delete([])

    def test_it_is_made_only_if_absent(self, place: Place) -> None:
        storage, other = place.open(), place.open()
        version = storage.put("a/b", b"one", ABSENT)
        assert raises(Conflict, other.put, "a/b", b"two", ABSENT)
        assert storage.look("a/b") == (b"one", version)
        storage.delete(["a/b"])
        other.put("a/b", b"two", ABSENT)
        assert storage.get("a/b") == b"two"

    def test_it_is_swapped_only_if_it_is_what_was_read(self, place: Place) -> None:
        storage, other = place.open(), place.open()
        first = storage.put("head", b"one", ABSENT)
        second = other.put("head", b"two", first)
        assert second != first
        assert raises(Conflict, storage.put, "head", b"three", first)
        assert storage.look("head") == (b"two", second)
        third = storage.put("head", b"three", storage.look("head")[1])
        storage.put("head", b"four")
        assert raises(Conflict, storage.put, "head", b"five", third)
        storage.delete(["head"])
        assert raises(Conflict, storage.put, "head", b"five", third)
        assert raises(FileNotFoundError, storage.get, "head")
        assert raises(Conflict, storage.put, "never", b"five", third)

    def test_a_commit_knows_its_own(self, place: Place) -> None:
        storage = place.open()
        mine = uuid.uuid4().hex.encode()
        version = commit(storage, "head", mine, ABSENT)
        assert commit(storage, "head", mine, ABSENT) == version, "its answer was lost, and it is tried again"
        assert raises(Conflict, commit, storage, "head", b"other", ABSENT)
        assert storage.get("head") == mine

    def test_ranges(self, place: Place) -> None:
        storage = place.open()
        content = bytes(range(256)) * 40
        storage.put("a", content)
        size = len(content)
        for offset, length in ((0, 1), (0, size), (1000, 777), (size - 1, 1), (5, 0), (size, 0)):
            assert bytes(storage.read("a", offset, length)) == content[offset : offset + length]
        for offset, length in ((0, size + 1), (size, 1), (size + 9, 5)):
            assert raises(EOFError, storage.read, "a", offset, length)

    def test_listings(self, place: Place) -> None:
        storage = place.open()
        names = ["a", "a.b", "run-1/files/x", "run-1/files/y", "run-1/head", "run-10/head", "run-2/head", "z/z/z"]
        for name in reversed(names):
            storage.put(name, name.encode())
        found = storage.list()
        assert [each.name for each in found] == names
        assert [each.bytes for each in found] == [len(name) for name in names]
        assert len({each.version for each in found}) == len(names)
        assert all(0.0 <= each.age_s < 600.0 for each in found)
        assert [each.name for each in storage.list("run-1")] == [name for name in names if name.startswith("run-1")]
        assert [each.name for each in storage.list("run-1/")] == ["run-1/files/x", "run-1/files/y", "run-1/head"]
        assert [each.name for each in storage.list("run-1/files/x")] == ["run-1/files/x"]
        assert [each.name for each in storage.list("run-1/f")] == ["run-1/files/x", "run-1/files/y"]
        assert [each.version for each in storage.list("run")] == [each.version for each in found[2:7]]
        storage.put("run-2/head", b"something else")
        changed = [each.name for each, old in zip(storage.list(), found, strict=True) if each.version != old.version]
        assert changed == ["run-2/head"]
        assert storage.list("no/") == []
        assert storage.folders() == ["run-1", "run-10", "run-2", "z"]
        assert storage.folders("run-1/") == ["files"]
        assert storage.folders("z/z/") == []

    def test_many_are_listed(self, place: Place) -> None:
        storage = place.open()
        names = [f"run-{number:04d}/head" for number in range(1100)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: storage.put(name, b"x"), names))
        assert [each.name for each in storage.list()] == names
        assert storage.folders() == [name.partition("/")[0] for name in names]
        storage.delete(names)
        assert storage.list() == []

    def test_what_was_deleted_is_gone(self, place: Place) -> None:
        storage = place.open()
        for name in ("a/b/c", "a/b/d", "e"):
            storage.put(name, b"x")
        storage.delete(["never", "a/b/c", "a/b/e", "x/y/z"])
        assert [each.name for each in storage.list()] == ["a/b/d", "e"]
        storage.delete(["a/b/d"])
        assert storage.folders() == [], "a folder is there while something is in it"
        storage.put("a/b/c", b"again")
        assert storage.get("a/b/c") == b"again"

    def test_below_a_prefix(self, place: Place) -> None:
        storage = place.open()
        inner = storage.at("runs/one/")
        inner.put("head", b"1", ABSENT)
        inner.at("files/").put("x", b"2")
        assert storage.get("runs/one/head") == b"1"
        assert [each.name for each in storage.list()] == ["runs/one/files/x", "runs/one/head"]
        assert [each.name for each in inner.list()] == ["files/x", "head"]
        assert inner.folders() == ["files"]
        assert inner.url.rstrip("/") == f"{storage.url.rstrip('/')}/runs/one"
        inner.delete(["head"])
        assert [each.name for each in storage.list()] == ["runs/one/files/x"]

    def test_names_are_kept(self, place: Place) -> None:
        storage = place.open()
        for name in STRANGE:
            storage.put(name, name.encode(), ABSENT)
        assert [each.name for each in storage.list()] == sorted(STRANGE)
        for name in STRANGE:
            assert storage.get(name) == name.encode()
            assert bytes(storage.read(name, 0, 1)) == name.encode()[:1]
        storage.delete(STRANGE)
        assert storage.list() == []

    def test_names_that_are_none_are_refused(self, place: Place) -> None:
        storage = place.open()
        for name in ("", "/a", "a/", "a//b", "../a", "a/../b", "."):
            assert raises(ValueError, storage.put, name, b"x")
            assert raises(ValueError, storage.get, name)
        assert storage.list() == []

    def test_large_objects(self, place: Place) -> None:
        storage = place.open()
        content = numbers(LARGE)
        for size in (1 << 16, 3_333_333, LARGE):
            assert storage.upload("big", blocks(content, size)) == LARGE
            assert bytes(storage.read("big", 0, LARGE)) == content
            assert bytes(storage.read("big", LARGE - 7, 7)) == content[-7:]
            assert [each.bytes for each in storage.list()] == [LARGE]

    def test_small_uploads(self, place: Place) -> None:
        storage = place.open()
        assert storage.upload("none", iter(())) == 0
        assert storage.get("none") == b""
        assert storage.upload("some", [b"", b"ab", memoryview(b"c"), bytearray(b"d"), b""]) == 4
        assert storage.get("some") == b"abcd"

    def test_blocks_of_other_shapes_and_types(self, place: Place) -> None:
        import array

        storage = place.open()
        words = array.array("d", [1.0, 2.0, 3.0])
        matrix = memoryview(bytes(range(12))).cast("B", (3, 4))
        assert storage.upload("a", [memoryview(words), matrix]) == 36
        assert storage.get("a") == words.tobytes() + bytes(range(12))

    def test_a_block_may_be_used_again(self, place: Place) -> None:
        storage = place.open()
        one = bytearray(3 << 20)

        def again() -> Iterator[Buffer]:
            for number in range(12):
                one[:] = bytes([number]) * len(one)
                yield one

        storage.upload("big", again())
        content = storage.get("big")
        assert [content[number * len(one)] for number in range(12)] == list(range(12))
        assert all(len(set(content[at : at + len(one)])) == 1 for at in range(0, len(content), len(one)))

    def test_an_upload_that_breaks_off_leaves_nothing(self, place: Place) -> None:
        storage = place.open()
        kept = b"what was there"
        storage.put("kept", kept)

        def broken(after: int, error: BaseException) -> Iterator[Buffer]:
            for _ in range(after):
                yield bytes(1 << 20)
            raise error

        for after in (0, 2, 19):
            for error in (KeyError("of the caller"), FileNotFoundError("of the caller"), OSError(28, "of the caller")):
                for name in ("new", "kept"):
                    assert raises(type(error), storage.upload, name, broken(after, error))
        assert [each.name for each in storage.list()] == ["kept"]
        assert storage.get("kept") == kept

    def test_readers_see_all_or_none(self, place: Place) -> None:
        storage, other = place.open(), place.open()
        storage.put("a", bytes(200_000))
        over, torn = threading.Event(), []

        def look() -> None:
            while not over.is_set():
                content = other.get("a")
                if len(content) != 200_000 or len(set(content)) != 1:
                    torn.append(content)

        with ThreadPoolExecutor(2) as pool:
            looking = [pool.submit(look) for _ in range(2)]
            for number in range(1, 40):
                storage.put("a", bytes([number]) * 200_000)
            over.set()
            for each in looking:
                each.result()
        assert not torn

    def test_a_random_history_is_that_of_a_dictionary(self, place: Place) -> None:
        """Writes with and without conditions, right and stale, removals and listings, by two who share the place."""
        for seed in range(3):
            _history(random.Random(seed), place.open().at(f"history-{seed}/"), place.open().at(f"history-{seed}/"))

    def test_many_threads_read(self, place: Place) -> None:
        storage = place.open()
        content = numbers(1 << 20)
        storage.put("a", content)
        spans = [(offset, 8192) for offset in range(0, 1 << 20, 8192)]
        with ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(lambda span: bytes(storage.read("a", *span)), spans))
        assert b"".join(parts) == content

    def test_of_many_threads_one_makes_it(self, place: Place) -> None:
        opened = [place.open() for _ in range(THREADS)]
        for name in ("one", "two", "run/three"):
            won = together([partial(make, opened[number], name, number) for number in range(THREADS)])
            assert sum(won) == 1
            assert opened[0].get(name) == str(won.index(True)).encode()

    def test_threads_count_without_a_loss(self, place: Place) -> None:
        opened = [place.open() for _ in range(THREADS)]
        together([partial(count, storage, 10) for storage in opened])
        assert counted(opened[0]) == 10 * THREADS

    def test_processes_race(self, place: Place) -> None:
        if not place.processes:
            return
        context = multiprocessing.get_context("spawn")
        with context.Pool(PROCESSES) as pool:
            found = pool.map(_race, [(place.open, number) for number in range(PROCESSES)], chunksize=1)
        assert sum(found) == 1
        storage = place.open()
        assert storage.get("made") == str(found.index(True)).encode()
        assert counted(storage) == 10 * PROCESSES


def _history(draw: random.Random, *storages: Storage) -> None:
    names = ["a/b", "b/e", "b/c/d", "b/cc", "f"]
    known: dict[str, tuple[bytes, str]] = {}
    versions: dict[str, list[str]] = {name: [] for name in names}
    for number in range(60):
        storage, name, content = draw.choice(storages), draw.choice(names), f"{number}".encode()
        way = draw.choice(["put", "create", "swap", "stale", "delete", "look", "list"])
        if way == "delete":
            gone = draw.sample(names, 2)
            storage.delete(gone)
            known = {each: held for each, held in known.items() if each not in gone}
        elif way == "look":
            if name in known:
                assert storage.look(name) == known[name]
            else:
                assert raises(FileNotFoundError, storage.look, name)
        elif way == "list":
            prefix = draw.choice(["", "b", "b/", "b/c", "b/c/", "f"])
            wanted = sorted(each for each in known if each.startswith(prefix))
            assert [each.name for each in storage.list(prefix)] == wanted
            assert storage.folders() == sorted({each.partition("/")[0] for each in known if "/" in each})
        else:
            stale = [version for version in versions[name] if name not in known or version != known[name][1]]
            condition: Absent | str | None = None
            if way == "create":
                condition = ABSENT
            elif way == "swap" and name in known:
                condition = known[name][1]
            elif way == "stale" and stale:
                condition = draw.choice(stale)
            holds = condition is None or condition == (known[name][1] if name in known else ABSENT)
            if holds:
                known[name] = (content, storage.put(name, content, condition))
                versions[name].append(known[name][1])
            else:
                assert raises(Conflict, storage.put, name, content, condition)
    assert {each.name: storages[0].get(each.name) for each in storages[0].list()} == {n: h[0] for n, h in known.items()}


def _race(given: tuple[Callable[[], Storage], int]) -> bool:
    opener, number = given
    storage = opener()
    won = make(storage, "made", number)
    count(storage, 10)
    return won


def make(storage: Storage, name: str, number: int) -> bool:
    """Try to make an object; returns whether it was made."""
    try:
        storage.put(name, str(number).encode(), ABSENT)
    except Conflict:
        return False
    return True


def count(storage: Storage, times: int) -> None:
    """Add 1 to a counter so many times, whoever else does."""
    for _ in range(times):
        while True:
            condition: Absent | str = ABSENT
            value = 0
            try:
                content, condition = storage.look("counter")
                value = int(content.split()[0])
            except FileNotFoundError:
                pass
            try:
                commit(storage, "counter", f"{value + 1} {nonce()}".encode(), condition)
                break
            except Conflict:
                continue


def counted(storage: Storage) -> int:
    """What the counter says."""
    return int(storage.get("counter").split()[0])


def together(calls: list[Callable[[], T]]) -> list[T]:
    """All calls at once, each in a thread; their results in order."""
    barrier = threading.Barrier(len(calls))

    def call(each: Callable[[], T]) -> T:
        barrier.wait(30.0)
        return each()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def raises(kind: type[BaseException], call: Callable[..., Any], *arguments: Any) -> bool:
    """Whether it raises an error of just this kind."""
    try:
        call(*arguments)
    except kind as error:
        return type(error) is kind
    return False


def numbers(size: int) -> bytes:
    """So many bytes, of which no two pieces are alike."""
    return random.Random(size).randbytes(size)


def blocks(content: bytes, size: int) -> Iterator[Buffer]:
    """The content in pieces, as views."""
    view = memoryview(content)
    for at in range(0, len(content), size):
        yield view[at : at + size]
