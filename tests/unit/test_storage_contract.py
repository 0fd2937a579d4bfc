"""The contract of storages, tested: for each promise that a storage breaks, a test of the suite fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest

from headway.storage.protocol import ABSENT, Absent, Buffer, Conflict, Found
from headway.testing.memory_storage import Memory, MemoryStorage
from headway.testing.storage import Place, StorageContract

SOUND = [name for name in vars(StorageContract) if name.startswith("test_")]


class IgnoresAbsent(MemoryStorage):
    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        return super().put(name, content, None if isinstance(only_if, Absent) else only_if)


class IgnoresVersions(MemoryStorage):
    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        return super().put(name, content, None if isinstance(only_if, str) else only_if)


class LooksThenWrites(MemoryStorage):
    """Its condition is looked at before, not as it writes."""

    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        import time

        held = self.store.objects.get(self._prefix + name)
        version = held[1] if held else ABSENT
        if only_if is not None and only_if != version:
            raise Conflict(name)
        time.sleep(0.01)  # in which others look too, on a busy machine as well
        return super().put(name, content)


class OneVersion(MemoryStorage):
    def list(self, prefix: str = "") -> list[Found]:
        return [Found(each.name, each.bytes, "1", each.age_s) for each in super().list(prefix)]


class Unsorted(MemoryStorage):
    def list(self, prefix: str = "") -> list[Found]:
        return super().list(prefix)[::-1]


class ByParts(MemoryStorage):
    """Lists by whole parts of names, as obstore does."""

    def list(self, prefix: str = "") -> list[Found]:
        found = super().list(prefix)
        return [each for each in found if not prefix or prefix.endswith("/") or each.name == prefix]


class ShortReads(MemoryStorage):
    def read(self, name: str, offset: int, length: int) -> Buffer:
        return self.get(name)[offset : offset + length]


class KeepsHalf(MemoryStorage):
    def upload(self, name: str, blocks: Iterable[Buffer]) -> int:
        content = b""
        try:
            for block in blocks:
                content += bytes(block)
        finally:
            self.put(name, content)
        return len(content)


class KeepsBlocks(MemoryStorage):
    """Looks at all blocks when the last has come."""

    def upload(self, name: str, blocks: Iterable[Buffer]) -> int:
        return super().upload(name, list(blocks))


class StopsAtTheMissing(MemoryStorage):
    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            if self._prefix + name not in self.store.objects:
                return
            super().delete([name])


class FirstPage(MemoryStorage):
    def list(self, prefix: str = "") -> list[Found]:
        return super().list(prefix)[:1000]


class AnyName(MemoryStorage):
    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        return self.store.put(self._prefix + name, bytes(content), only_if)


BROKEN: list[tuple[type[MemoryStorage], str]] = [
    (IgnoresAbsent, "test_it_is_made_only_if_absent"),
    (IgnoresAbsent, "test_of_many_threads_one_makes_it"),
    (IgnoresVersions, "test_it_is_swapped_only_if_it_is_what_was_read"),
    (IgnoresAbsent, "test_a_commit_knows_its_own"),
    (LooksThenWrites, "test_of_many_threads_one_makes_it"),
    (LooksThenWrites, "test_threads_count_without_a_loss"),
    (OneVersion, "test_listings"),
    (Unsorted, "test_listings"),
    (ByParts, "test_listings"),
    (ShortReads, "test_ranges"),
    (KeepsHalf, "test_an_upload_that_breaks_off_leaves_nothing"),
    (KeepsBlocks, "test_a_block_may_be_used_again"),
    (StopsAtTheMissing, "test_what_was_deleted_is_gone"),
    (FirstPage, "test_many_are_listed"),
    (AnyName, "test_names_that_are_none_are_refused"),
]


def place(kind: type[MemoryStorage]) -> Place:
    memory = Memory()
    model = memory.client()

    def opened() -> MemoryStorage:
        return kind(memory, model._client, model.url, "")

    return Place(opened, processes=False)


def run(name: str, kind: type[MemoryStorage]) -> None:
    test: Callable[[StorageContract, Place], None] = getattr(StorageContract, name)
    test(StorageContract(), place(kind))


@pytest.mark.parametrize(("kind", "name"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_promise_is_seen(kind: type[MemoryStorage], name: str) -> None:
    assert name in SOUND
    run(name, MemoryStorage)
    with pytest.raises(AssertionError):
        run(name, kind)
