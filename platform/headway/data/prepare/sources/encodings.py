"""Text files as UTF-8, whatever packs them or encodes them; those that are something else refused for what they are."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.data.prepare.sources.listing import unreadable
from headway.data.prepare.sources.pixels import FETCH, POINTER
from headway.errors import BadData

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_TEXT = (
    (POINTER, *FETCH),
    (b"\x1f\x8b", "it is packed by gzip", "Let its name end in .gz."),
    (b"\x28\xb5\x2f\xfd", "it is packed by zstd", "Let its name end in .zst."),
    (b"PK\x03\x04", "it is a zip, as Excel's files are", "Unpack it, or save it as CSV."),
    (b"PAR1\x15", "it is a Parquet file", "Let its name end in .parquet."),
)
"""How files begin that have the name of a text file and are none: what they are, and what helps."""
LOOKED_BYTES = 4096
SHOWN = 24


def opened(path: str | Path, encoding: str | None) -> Any:
    """A stream of the file's text in UTF-8, unpacked by its ending. A mark of UTF-8 stays; Arrow's readers skip it.

    Args:
        path: of the file.
        encoding: None for UTF-8, or what its byte order mark says.

    Raises:
        OSError: as the file system says.
        BadData: it is no UTF-8, or no text, as its first bytes show.
    """
    if encoding is None:
        with pa.input_stream(str(path), compression="detect") as stream:
            begin = stream.read(LOOKED_BYTES)
        odd = next((told for mark, *told in NO_TEXT if begin.startswith(mark)), None)
        if odd is not None:
            raise BadData(f"{path} cannot be read", *odd)
        encoding = next((name for mark, name in MARKS if begin.startswith(mark)), None)
        if encoding is None and begin.count(0) > len(begin) // 4:
            likely = "utf-16-le" if begin[1::2].count(0) > begin[::2].count(0) else "utf-16-be"
            raise BadData(f"{path} is not UTF-8", "every other byte is zero", f"Say --encoding {likely} if it is that.")
    stream = pa.input_stream(str(path), compression="detect")
    if encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        return stream
    return pa.transcoding_input_stream(stream, encoding, "utf-8")


def misencoded(path: str | Path, encoding: str | None) -> BadData:
    """The error for a file whose bytes are not of the encoding: in which line, and what they could be."""
    found = "UTF-8" if encoding is None else encoding
    number = 1
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for line in _lines(stream):
                line.decode(found)
                number += 1
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        where = f"line {number:,} has the byte 0x{byte:02X}"
        return BadData(f"{path} is not {found}", *_likely(error.object, error.start, where))
    except (OSError, EOFError) as error:
        return unreadable(path, error)
    return BadData(f"{path} is not {found}", "its text cannot be decoded", "Say what it is with --encoding.")


def _likely(line: bytes, at: int, where: str) -> tuple[str, str]:
    """Reason and remedy: cp1252 gives no meaning to five bytes, latin-1 to none of 0x80 to 0x9F that text would use."""
    try:
        shown, name = line.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        shown, name = line.decode("latin-1"), "latin-1"
    begin = max(0, at - SHOWN // 2)
    reason = f"{where}; as {name} it reads {shown[begin : begin + SHOWN].strip()!r}"
    return reason, f"Say --encoding {name} if that reads well, else the encoding that it has, or convert it."


def _lines(stream: Any) -> Any:
    """Lines as bytes, also very long ones."""
    rest = b""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    yield rest
