"""What a keeper holds: of each run a shelf, with two slots of shared memory for its newest state.

Only Python's own library is imported, and xxhash where it is there, as in `keeper`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

SLOTS = 2
HEAD = struct.Struct("<QQ")
"""What a slot begins with: the number of its seal (0 while it is written), and how many read it."""
HEAD_BYTES = 64
TIGHT = 0.9
"""Share of the memory that may be in use with a keeper's; Ray ends workers from 0.95 on."""


class Digest:
    """By which damage is seen; it need not withstand malice."""

    def __init__(self) -> None:
        self._sum, self._fast = 0, None
        with contextlib.suppress(ImportError):
            import xxhash

            self._fast = xxhash.xxh3_64()

    def add(self, data: Any) -> None:
        if self._fast is not None:
            self._fast.update(data)
        else:
            self._sum = zlib.crc32(data, self._sum)

    def told(self) -> str:
        return f"crc32:{self._sum:08x}" if self._fast is None else f"xxh3:{self._fast.hexdigest()}"


def digest(data: memoryview) -> str:
    """Of bytes that are all there."""
    found = Digest()
    found.add(data)
    return found.told()


class Busy(OSError):
    """Somebody reads what is in a slot."""


class Slot:
    """Memory for one state."""

    def __init__(self) -> None:
        self.file = -1
        self.memory: mmap.mmap | None = None
        self.about: dict[str, Any] | None = None
        """Of what is sealed in it."""
        self.reading = 0

    def grow(self, size: int) -> None:
        """Have room for so many bytes behind the head.

        Raises:
            Busy: what is in it is needed.
            OSError: the machine has none.
        """
        if self.memory is not None and len(self.memory) >= HEAD_BYTES + size:
            return
        if self.reading:
            raise Busy("it is being read")
        whole = HEAD_BYTES + size
        lacking = shortage(whole - (len(self.memory) if self.memory is not None else 0))
        if lacking:
            raise OSError(lacking)
        self.about = None
        file = os.memfd_create("headway-state", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(file, 0, whole)
            memory = mmap.mmap(file, whole)
        except BaseException:  # raised again: nothing stays
            os.close(file)
            raise
        if self.file >= 0:
            os.close(self.file)
        self.file, self.memory, self.reading = file, memory, 0

    @property
    def bytes(self) -> int:
        """That it takes."""
        return len(self.memory) if self.memory is not None else 0

    def release(self) -> None:
        """Give its memory back, where nobody reads it."""
        if self.reading:
            return
        if self.file >= 0:
            os.close(self.file)
        self.file, self.memory, self.about = -1, None, None

    @property
    def number(self) -> int:
        """Of the seal, as the memory says; 0 while it is written."""
        return int(HEAD.unpack_from(self.memory)[0]) if self.memory is not None else 0

    def read(self, more: int) -> None:
        """So many more read it: whoever writes looks at that."""
        assert self.memory is not None
        self.reading += more
        struct.pack_into("<Q", self.memory, 8, self.reading)

    def content(self, size: int) -> memoryview:
        assert self.memory is not None
        return memoryview(self.memory)[HEAD_BYTES : HEAD_BYTES + size]


class Shelf:
    """What is kept of one run. Called with the keeper's lock, but where it says otherwise."""

    def __init__(self) -> None:
        self.slots = [Slot() for _ in range(SLOTS)]
        self.writer: object = None
        """The connection of whoever writes."""
        self.to: list[tuple[str, int]] = []
        """Keepers elsewhere that are to have a copy, the first of them."""
        self.copied: tuple[tuple[str, int], int] | None = None
        self.rests_since = time.monotonic()
        """When its writer went."""

    def states(self) -> list[dict[str, Any]]:
        """What is sealed, the newest first."""
        found = [slot.about for slot in self.slots if slot.about and slot.number == slot.about["number"]]
        return sorted(found, key=lambda about: -int(about["number"]))

    @property
    def newest(self) -> int:
        """The number of the newest; 0 without one."""
        return max((int(slot.about["number"]) for slot in self.slots if slot.about), default=0)

    @property
    def newest_slot(self) -> int:
        numbers = [slot.about["number"] if slot.about else 0 for slot in self.slots]
        return numbers.index(max(numbers))

    @property
    def newest_sound(self) -> int:
        return max((int(about["number"]) for about in self.states() if about.get("digest")), default=0)

    @property
    def bytes(self) -> int:
        return sum(slot.bytes for slot in self.slots)

    def rest(self) -> None:
        """Its writer has gone."""
        self.writer, self.to, self.rests_since = None, [], time.monotonic()

    def thin(self) -> None:
        """Hold the newest state alone: nobody writes to the other slot soon."""
        if self.newest_sound == self.newest:
            self.slots[1 - self.newest_slot].release()

    def let_go(self) -> None:
        for slot in self.slots:
            slot.release()

    @property
    def uncopied(self) -> bool:
        return bool(self.to) and self.newest_sound > 0 and self.copied != self.next_copy

    @property
    def next_copy(self) -> tuple[tuple[str, int], int]:
        return self.to[0], self.newest_sound


def shortage(size: int) -> str:
    """Why so many more bytes should not be taken of this machine's memory; empty where they may."""
    total, used = memory()
    if total and used + size > TIGHT * total:
        return f"{size / 1e6:,.0f} MB more would leave too little of {total / 1e6:,.0f} MB, {used / 1e6:,.0f} in use"
    return ""


def memory() -> tuple[int, int]:
    """Bytes there are, and that are in use, of the machine or of the container's limit; (0, 0) where not known."""
    found: list[tuple[int, int]] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        told = {line[0]: int(line[1]) * 1024 for line in lines if len(line) > 1}
        found.append((told["MemTotal:"], told["MemTotal:"] - told["MemAvailable:"]))
    for limit, used, stat, cache in _CGROUPS:
        with contextlib.suppress(OSError, ValueError, KeyError):
            pages = dict(line.split() for line in Path(stat).read_text().splitlines())
            found.append((int(Path(limit).read_text()), int(Path(used).read_text()) - int(pages[cache])))
    return min(found, default=(0, 0), key=lambda each: each[0] - each[1])


_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)
