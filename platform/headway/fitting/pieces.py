"""The rows of a job's training set, row group by row group: of one dataset, or of all parts of a mixture in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headway.data.manifest import Manifest, load
from headway.data.read.groups import Groups
from headway.data.read.quarantine import Quarantine, report_nothing
from headway.data.store.cache import open_files
from headway.data.store.files import Files
from headway.errors import BadData, BadInput
from headway.job import Data, Job
from headway.notation.code import is_named


@dataclass
class RowGroups:
    """See the module, and `headway.fitting.dataset.Pieces`. Opens what it reads when it is first asked, in any process.

    Args:
        data: the job's, with versions pinned.
        manifests: of its parts.
    """

    data: Data
    manifests: tuple[Manifest, ...]
    _files: dict[int, Files] = field(default_factory=dict, repr=False)
    _groups: dict[tuple[int, tuple[str, ...] | None], Groups] = field(default_factory=dict, repr=False)
    _schema: pa.Schema | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return RowGroups, (self.data, self.manifests)

    @property
    def rows(self) -> int:
        return sum(manifest.rows for manifest in self.manifests)

    @property
    def bytes(self) -> int:
        """Of the files."""
        return sum(manifest.bytes for manifest in self.manifests)

    @property
    def schema(self) -> pa.Schema:
        """Raises BadData: no row group can be read."""
        if self._schema is None:
            tables = (self._read(part, group, self.data.columns) for part, group in self._places())
            table = next((table for table in tables if table is not None), None)
            if table is None:
                raise BadData("data.train has no row that can be read", "all are set aside", "Look at the data.")
            self._schema = table.schema.remove_metadata()
        return self._schema

    def __len__(self) -> int:
        return sum(len(manifest.groups) for manifest in self.manifests)

    def table(self, number: int, columns: Sequence[str] | None) -> pa.Table:
        """Raises BadData: it cannot be read."""
        part, group = next(itertools.islice(self._places(), number, None))
        wanted = columns or self.data.columns
        table = self._read(part, group, wanted)
        if table is None:
            table = self.schema.empty_table()
            return table if wanted is None else table.select(list(wanted))
        return table

    def close(self) -> None:
        """Whoever asks for more opens the files again."""
        for files in self._files.values():
            files.close()
        self._files.clear()
        self._groups.clear()

    def _places(self) -> Iterator[tuple[int, int]]:
        """Part and row group of each piece."""
        return ((part, group) for part, of in enumerate(self.manifests) for group in range(len(of.groups)))

    def _read(self, part: int, group: int, columns: Sequence[str] | None) -> pa.Table | None:
        """The rows that are not set aside; None where the whole row group is."""
        found = self._reading(part, columns).load(group)
        if found.table is None or found.bad is None:
            return found.table
        return found.table.filter(pa.array(~found.bad))

    def _reading(self, part: int, columns: Sequence[str] | None) -> Groups:
        key = part, None if columns is None else tuple(columns)
        if key not in self._groups:
            data, manifest = self.data, self.manifests[part]
            if part not in self._files:
                self._files[part] = open_files(data.sources[part].path, manifest, data)
            quarantine = None
            if data.on_bad_data == "quarantine":
                quarantine = Quarantine("data.train", manifest.rows, data.quarantine_limit, report_nothing)
            self._groups[key] = Groups(self._files[part], columns, data.no_nulls, data.check_digests, quarantine)
        return self._groups[key]


def of(job: Job) -> RowGroups:
    """The rows of a job's training set.

    Raises:
        BadData: a manifest cannot be read.
        BadInput: the training set is given by code.
    """
    if is_named(job.data.sources[0].path):
        raise BadInput(
            f"task.fit: data.train={job.data.sources[0].path.rpartition('/')[2]} is given by code",
            "fit() reads columns, and such a dataset has none",
            "Work it out in the dataset's own code, or prepare the rows with `headway data prepare`.",
        )
    sources = job.data.sources
    return RowGroups(job.data, tuple(load(source.path, source.version, job.data.store) for source in sources))
