"""WebDataset tars as samples: members that share a name up to its first dot, wherever they lie in the tar.

A plain tar is gone through by its headers first, and each sample is then read where its members lie. A compressed one
cannot be: it is read as a stream, a sample at a time, and one whose samples are not together is refused.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from headway.data.prepare.sources.listing import unreadable
from headway.errors import BadData

SAMPLE_BYTES = 512 << 20
"""The most that a sample may take: it is held in memory whole, several times over while it is encoded. A compressed or
sparse tar of a few KB may claim any size."""
HEADER_BYTES = 1 << 20
"""The most that a long name or an extended header may take: tarfile reads it whole."""
CHUNK_BYTES = 1 << 20
LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
PACKED: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))
ZSTD = b"\x28\xb5\x2f\xfd"
Sample = dict[str, bytes]


class _Member(tarfile.TarInfo):
    """A tar's member. Python's own takes a header that is damaged, or cut short, for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise EOFError(f"{error}, before its end mark") from None

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in LONG_HEADERS and self.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes, more than {HEADER_BYTES:,}")
        return super()._proc_member(tar)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a member's bytes lie in a plain tar; `sparse` if it is not one run of bytes."""

    offset: int
    size: int
    sparse: tarfile.TarInfo | None


@dataclass
class Passed:
    """What of a tar belongs to no sample.

    Args:
        names: of such members: files whose name has no ending.
    """

    names: list[str] = field(default_factory=list)


def samples(path: Path, passed: Passed | None = None) -> Iterator[tuple[str, Sample]]:
    """Samples of a tar in the order of their first members: pairs of (key, members by their ending).

    Args:
        path: of the tar; it may be packed by gzip, bzip2 or xz, whatever its name.
        passed: is told what is left out.

    Raises:
        BadData: naming the tar, and the member where a sample has two of one ending or is too large.
    """
    passed = passed if passed is not None else Passed()
    try:
        with path.open("rb") as plain:
            begin = plain.read(8)
            plain.seek(0)
            if not begin:
                raise BadData(
                    f"{path} cannot be read", "it is empty, and not a tar without members", "Mend or remove it."
                )
            if begin.startswith(ZSTD):
                raise BadData(f"{path} is packed by zstd", "this is not read", "Unpack it, or use gzip.")
            unpack = next((unpack for magic, unpack in PACKED if begin.startswith(magic)), None)
            if unpack is None:
                yield from _found(path, plain, passed)
                return
            with unpack(plain) as stream:
                yield from _streamed(path, cast("IO[bytes]", stream), passed)
    except (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise unreadable(path, error) from None


def _found(path: Path, file: IO[bytes], passed: Passed) -> Iterator[tuple[str, Sample]]:
    """The samples of a plain tar."""
    found: dict[str, dict[str, _Place]] = {}
    with _tar(file) as tar:
        for key, ending, member in _members(path, tar, passed):
            places = found.setdefault(key, {})
            if ending in places:
                raise _twice(path, member)
            places[ending] = _Place(member.offset_data, member.size, member if member.issparse() else None)
        _refuse_rest(path, file, tar.offset)
        for key, places in found.items():
            _refuse_large(path, key, {ending: place.size for ending, place in places.items()})
            yield key, {ending: _read(tar, file, place) for ending, place in places.items()}


def _streamed(path: Path, file: IO[bytes], passed: Passed) -> Iterator[tuple[str, Sample]]:
    """The samples of a packed tar."""
    key, sizes, sample, seen = "", dict[str, int](), Sample(), set[str]()
    with _tar(file) as tar:
        for found, ending, member in _members(path, tar, passed):
            if found != key and sample:
                yield key, sample
                seen.add(key)
                sizes, sample = {}, {}
            key = found
            if key in seen:
                reason = f"other members of {key} lie further up, and a packed tar is read from beginning to end"
                raise BadData(f"{path}: {member.name} lies apart", reason, "Unpack the tar.")
            if ending in sample:
                raise _twice(path, member)
            sizes[ending] = member.size
            _refuse_large(path, key, sizes)
            content = tar.extractfile(member)
            assert content is not None
            sample[ending] = content.read()
        if sample:
            yield key, sample
        _refuse_rest(path, file, None)  # also has it unpacked to its end, where its check sum is


def _tar(file: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r:", tarinfo=_Member)


def _members(path: Path, tar: tarfile.TarFile, passed: Passed) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Members that belong to a sample: (key, ending in lower case, member)."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # a tar keeps all that it has seen
        if member.size > SAMPLE_BYTES:  # also of what is passed over: it would be unpacked all the same
            raise _too_large(path, member.name, member.size)
        folder, _, name = member.name.rpartition("/")
        stem, dot, ending = name.partition(".")
        if member.isdir() or not stem:  # .DS_Store, ._0001.jpg
            continue
        if not dot:
            passed.names.append(member.name)
            continue
        if member.issym() or member.islnk():
            reason = f"it says that its bytes are those of {member.linkname}"
            raise BadData(
                f"{path}: {member.name} is a link", reason, "Pack files: tar --dereference --hard-dereference."
            )
        if not member.isfile():
            passed.names.append(member.name)
            continue
        while folder.startswith("./"):
            folder = folder[2:]
        yield stem if folder in ("", ".") else f"{folder}/{stem}", ending.lower(), member


def _read(tar: tarfile.TarFile, file: IO[bytes], place: _Place) -> bytes:
    if place.sparse is not None:
        content = tar.extractfile(place.sparse)
        assert content is not None
        return content.read()
    file.seek(place.offset)
    found = file.read(place.size)
    if len(found) < place.size:
        raise EOFError("it is cut short")
    return found


def _refuse_rest(path: Path, file: IO[bytes], offset: int | None) -> None:
    """Raise if something comes after the end mark: a tar that was hung on to another."""
    if offset is not None:
        file.seek(offset)
    while block := file.read(CHUNK_BYTES):
        if block.count(0) != len(block):
            reason = "as if tars had been joined by cat; what comes after would not be read"
            raise BadData(f"{path} goes on after its end mark", reason, "Take them apart, or pack anew.")


def _refuse_large(path: Path, key: str, sizes: dict[str, int]) -> None:
    if sum(sizes.values()) > SAMPLE_BYTES:
        raise _too_large(path, f"{key} up to its {list(sizes)[-1]}", sum(sizes.values()))


def _twice(path: Path, member: tarfile.TarInfo) -> BadData:
    return BadData(f"{path} has {member.name} twice", "a sample has one of each", "Mend the tar.")


def _too_large(path: Path, name: str, size: int) -> BadData:
    reason = f"a sample is held in memory whole, and may take {SAMPLE_BYTES:,}"
    return BadData(f"{path}: {name} takes {size:,} bytes", reason, "Leave it out of the tar, or cut it up.")
