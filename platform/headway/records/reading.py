"""The lines of a file of records, a stretch at a time, as columns of Arrow; whatever is no such line is left out.

Most are read by Arrow's own parser, millions of them in a second; a stretch that it does not take, line by line.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

BLOCK_BYTES = 8 << 20

Line = dict[str, Any]


class Lines:
    """A file of JSON lines, which may grow meanwhile, and need not be there.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damaged = 0
        """Lines that were left out so far; the last one without an end is not counted."""

    def stretches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """All of it in the columns of a schema; fields that it does not name are left out, those that lack are null."""
        options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        for block in self._blocks():
            try:
                yield pj.read_json(io.BytesIO(block), parse_options=options).select(schema.names)
            except (pa.ArrowException, KeyError):
                yield self._slowly(block, schema)

    def each(self) -> Iterator[list[Line]]:
        """All of it as dicts, a stretch at a time."""
        for block in self._blocks():
            yield list(self._parsed(block))

    def _slowly(self, block: bytes, schema: pa.Schema) -> pa.Table:
        found = [{name: line.get(name) for name in schema.names} for line in self._parsed(block)]
        with suppress(pa.ArrowException, TypeError, ValueError, OverflowError):  # as where a loss is NaN
            return pa.Table.from_pylist(found, schema)
        rows = []
        for row in found:
            try:
                pa.Table.from_pylist([row], schema)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                self.damaged += 1
            else:
                rows.append(row)
        return pa.Table.from_pylist(rows, schema)

    def _parsed(self, block: bytes) -> Iterator[Line]:
        for text in block.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if isinstance(line, dict):
                yield line
            elif text.strip():
                self.damaged += 1

    def _blocks(self) -> Iterator[bytes]:
        """Whole lines."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            rest = b""
            while data := file.read(BLOCK_BYTES):
                whole, newline, data = data.rpartition(b"\n")
                if newline:
                    yield rest + whole + newline
                    rest = data
                else:
                    rest += data
