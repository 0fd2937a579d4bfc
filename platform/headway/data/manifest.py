"""The manifest of a dataset: which Parquet shards it has, where each row group lies, and the digests of all.

A dataset is a folder, or a place in an object store, of `shard-00000.parquet`, ... and one `manifest.json`, written
last: a folder without it is not a dataset, so whatever was interrupted can never be taken for finished. Shards never
change. Appending adds shards and makes a new version of the manifest; each stays readable as `manifest-000001.json`.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_128_hexdigest

from headway.data.store.opener import open_store
from headway.data.store.protocol import Store
from headway.durable import sync_folder
from headway.errors import BadData
from headway.storage.opener import is_url, local_folder

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headway.job import Store as Options

FILE = "manifest.json"
FORMAT = "headway-dataset/3"
RULES = {"headway-dataset/2": 2, FORMAT: 3}
"""By format that is read, the rules by which its sources are. See `Manifest`."""
MAKE = "Make it with `headway data get NAME` or `headway data prepare SRC DST`."
AT_ONCE = 16
"""Shards of an object store whose footers are read at the same time."""
REMAKE = "Make the dataset again with `headway data get` or `headway data prepare` and --force."


@dataclass(frozen=True)
class RowGroup:
    """One row group: its rows, and the bytes of the file in which all its columns lie.

    Args:
        rows: in it.
        offset: of the first byte.
        bytes: from there.
        xxh3: XXH3-128 of these bytes in hex, checked as they are read. Unlike the shard's SHA-256 it does not protect
            from malice, but costs a tenth.
    """

    rows: int
    offset: int
    bytes: int
    xxh3: str


@dataclass(frozen=True)
class Shard:
    """One Parquet file.

    Args:
        path: its name within the folder.
        rows: in it.
        bytes: its size.
        sha256: of the file, in hex.
        row_groups: in their order.
        footer: XXH3-128 in hex of all that follows the last row group.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    row_groups: tuple[RowGroup, ...]
    footer: str

    @property
    def footer_offset(self) -> int:
        """Where the last row group ends."""
        return self.row_groups[-1].offset + self.row_groups[-1].bytes


@dataclass(frozen=True)
class Manifest:
    """What a dataset is.

    Args:
        name: for people; the folder's name unless told otherwise.
        source: where the data came from, for people.
        rows: of all shards.
        bytes: of all shards, as stored.
        schema: (column, Arrow type) in order; the same in every shard.
        shards: in the order of rows.
        label: the column that is predicted, if any.
        label_counts: rows by value of the label.
        created: UTC, ISO 8601.
        headway_version: what wrote it.
        categories: by column of integer codes, the names they stand for: code i is names[i].
        version: 1, and one more with each append.
        made: how it was made, by version: options of `prepare`, and notes of what it did not keep.
        rules: by which sources are read, the same in all versions. 3: an empty field of text is null, and folders'
            names are columns. 2, of datasets begun by format 2: it is empty text, and they are not.
    """

    name: str
    source: str
    rows: int
    bytes: int
    schema: tuple[tuple[str, str], ...]
    shards: tuple[Shard, ...]
    label: str | None = None
    label_counts: dict[str, int] | None = field(default=None, hash=False)
    created: str = ""
    headway_version: str = ""
    categories: dict[str, list[str]] = field(default_factory=dict, hash=False)
    version: int = 1
    made: dict[str, Any] = field(default_factory=dict, hash=False)
    rules: int = RULES[FORMAT]

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Rows of every row group, in order over the shards."""
        return tuple(group.rows for shard in self.shards for group in shard.row_groups)

    def locate(self, group: int) -> tuple[Shard, int]:
        """The shard that holds row group number `group` of the dataset, and the group's number in that shard.

        Raises:
            IndexError: if there is no such group.
        """
        if not 0 <= group < len(self.groups):
            raise IndexError(f"row group {group} of {len(self.groups)}")
        at = bisect_right(self._begins, group) - 1
        return self.shards[at], group - self._begins[at]

    @cached_property
    def _begins(self) -> list[int]:
        """Number of the first row group of each shard."""
        return list(accumulate((len(shard.row_groups) for shard in self.shards[:-1]), initial=0))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the data is: equal for equal data, wherever, whenever and by whatever release it was made."""
        content = {
            "schema": self.schema,
            "label": self.label,
            "categories": self.categories,
            "shards": [(s.path, s.rows, s.bytes, s.sha256, [g.rows for g in s.row_groups]) for s in self.shards],
        }
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def span(meta: pq.RowGroupMetaData) -> tuple[int, int]:
    """The bytes of a Parquet file in which a row group's columns lie: [start, stop)."""
    columns = [meta.column(i) for i in range(meta.num_columns)]
    starts = [c.data_page_offset if c.dictionary_page_offset is None else c.dictionary_page_offset for c in columns]
    return min(starts), max(s + c.total_compressed_size for s, c in zip(starts, columns, strict=True))


def schema_of(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """A Parquet file's Arrow schema as the manifest keeps it."""
    return tuple((column.name, str(column.type)) for column in schema)


def name_of(version: int) -> str:
    """The file that keeps a version of the manifest for good."""
    return f"manifest-{version:06d}.json"


def load(folder: str | Path, version: int | None = None, options: Options | None = None) -> Manifest:
    """Read a dataset's manifest. Touches no shard: see `quick_check` and `verify`.

    Args:
        folder: of the dataset, or its URL in an object store.
        version: which; the newest when not given.
        options: how object stores are spoken to.

    Raises:
        BadData: the folder or the manifest is missing, unreadable or not ours, or the dataset has no rows.
    """
    name = FILE if version is None else name_of(version)
    path: str | Path
    if is_url(folder):
        path = f"{folder}/{name}"
    else:
        folder = local_folder(folder)
        path = folder / name
        if not folder.exists():
            raise BadData(f"no dataset at {folder}", "the folder does not exist", MAKE)
        if not folder.is_dir():
            reason = "it is a file; a dataset is a folder with a manifest.json"
            raise BadData(f"{folder} is not a dataset", reason, MAKE)
    try:
        tree = json.loads(open_store(folder, options).read(name))
    except FileNotFoundError:
        if version is not None:
            remedy = f"`headway data stats {folder}` shows which there are."
            raise BadData(f"{folder} has no version {version}", f"there is no {name}", remedy) from None
        raise BadData(f"{folder} is not a dataset", f"it has no {FILE}", MAKE) from None
    except ValueError as error:
        raise BadData(f"{path} is not JSON", str(error), REMAKE) from None
    found = tree.get("format") if isinstance(tree, dict) else None
    if found not in RULES:
        raise BadData(f"{path} has format {found!r}", f"this Headway reads {FORMAT!r}", REMAKE)
    manifest = _parse({"rules": RULES[found], **tree}, path)
    if manifest.rows == 0:
        raise BadData(f"{folder} has zero rows", "there is nothing to train on", "Prepare it from a source with rows.")
    return manifest


def _parse(tree: dict[str, Any], path: str | Path) -> Manifest:
    fields = {name: tree[name] for name in Manifest.__dataclass_fields__ if name in tree}
    try:
        fields["schema"] = tuple((str(name), str(kind)) for name, kind in tree["schema"])
        fields["shards"] = tuple(
            Shard(**{**shard, "row_groups": tuple(RowGroup(**group) for group in shard["row_groups"])})
            for shard in tree["shards"]
        )
        manifest = Manifest(**fields)
        problem = _contradiction(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadData(f"{path} is damaged", f"{type(error).__name__}: {error}", REMAKE) from None
    if problem:
        raise BadData(f"{path} is damaged", problem, REMAKE)
    return manifest


def _contradiction(manifest: Manifest) -> str | None:
    for shard in manifest.shards:
        if Path(shard.path).name != shard.path:
            return f"shard {shard.path!r} is not a plain file name"
        rows = [group.rows for group in shard.row_groups]
        if sum(rows) != shard.rows or min(rows, default=0) < 1:
            return f"the row groups of {shard.path} do not add up to its {shard.rows} rows"
    if sum(shard.rows for shard in manifest.shards) != manifest.rows:
        return f"its shards do not add up to {manifest.rows} rows"
    if sum(shard.bytes for shard in manifest.shards) != manifest.bytes:
        return f"its shards do not add up to {manifest.bytes} bytes"
    return None


def write(folder: str | Path, manifest: Manifest) -> None:
    """Write the manifest atomically, as its version and as the newest; readers see the old or the new one, whole.

    Raises:
        OSError: as the file system says.
    """
    folder = Path(folder)
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1)
    for name in (name_of(manifest.version), FILE):
        temporary = folder / f".{name}.{os.getpid()}"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
    sync_folder(folder)


def quick_check(folder: str | Path, manifest: Manifest, options: Options | None = None) -> None:
    """Check every shard's presence, size, footer, schema and row groups. Reads footers only.

    Args:
        folder: of the dataset, or its URL in an object store.
        manifest: of the dataset.
        options: how object stores are spoken to.

    Raises:
        BadData: naming the shard.
    """
    with closing(open_store(folder, options)) as store, ThreadPoolExecutor(AT_ONCE if is_url(folder) else 1) as pool:
        for _ in pool.map(lambda shard: _check_shard(store, shard, manifest), manifest.shards):
            pass


def verify(folder: str | Path, manifest: Manifest, options: Options | None = None) -> None:
    """`quick_check`, then the SHA-256 of every shard and the XXH3 of its row groups and footer: reads all bytes once.

    Args:
        folder: of the dataset, or its URL in an object store.
        manifest: of the dataset.
        options: how object stores are spoken to.

    Raises:
        BadData: naming the shard, and the row group where that can be told.
    """
    quick_check(folder, manifest, options)
    with closing(open_store(folder, options)) as store:
        for shard in manifest.shards:
            verify_shard(store, shard)


def verify_shard(store: Store, shard: Shard) -> None:
    """Read all bytes of a shard. Raises BadData: they are not those of the manifest."""
    path = f"{store.url}/{shard.path}"
    found, odd = _digests(store, shard)
    if found != shard.sha256:
        reason = f"its SHA-256 is {found[:12]}..., the manifest says {shard.sha256[:12]}..."
        raise BadData(f"{path} has been altered{f' in {odd}' if odd else ''}", reason, REMAKE)
    if odd is not None:
        reason = f"the manifest's digest of {odd} is not that of its bytes, and its SHA-256 is right"
        raise BadData(f"the manifest of {path} is damaged", reason, REMAKE)


def _digests(store: Store, shard: Shard) -> tuple[str, str | None]:
    """The SHA-256 of a shard, and the first row group (or the footer) whose XXH3 is not what the manifest says."""
    whole, odd, at = sha256(), None, 0
    spans = [(f"row group {i}", g.offset, g.bytes, g.xxh3) for i, g in enumerate(shard.row_groups)]
    end = shard.footer_offset
    for name, offset, size, digest in [*spans, ("the footer", end, shard.bytes - end, shard.footer)]:
        data = store.read(shard.path, at, offset + size - at)
        whole.update(data)
        if odd is None and xxh3_128_hexdigest(memoryview(data)[offset - at :]) != digest:
            odd = name
        at = offset + size
    return whole.hexdigest(), odd


def verify_versions(folder: str | Path, manifest: Manifest, options: Options | None = None) -> None:
    """Check that every version of the manifest is there, and that each only added shards to the one before.

    Args:
        folder: of the dataset, or its URL in an object store.
        manifest: the newest version.
        options: how object stores are spoken to.

    Raises:
        BadData: naming the version.
    """
    before: tuple[Shard, ...] = ()
    for version in range(1, manifest.version + 1):
        found = load(folder, version, options)
        path = f"{folder}/{name_of(version)}"
        if found.version != version or found.shards[: len(before)] != before:
            reason = f"its shards do not go on from version {version - 1}" if before else f"it is of {found.version}"
            raise BadData(f"{path} is damaged", reason, REMAKE)
        before = found.shards
    if before != manifest.shards:
        raise BadData(f"{folder}/{FILE} is damaged", f"it is not version {manifest.version}", REMAKE)


def _check_shard(store: Store, shard: Shard, manifest: Manifest) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = f"{store.url}/{shard.path}"
    try:
        size = store.size(shard.path)
        if size != shard.bytes:
            fact = f"{path} is truncated" if size < shard.bytes else f"{path} has grown"
            raise BadData(fact, f"it has {size} bytes, the manifest says {shard.bytes}", REMAKE)
        # A footer says where things are from the file's end, so that it can be parsed alone.
        with pq.ParquetFile(
            pa.BufferReader(store.read(shard.path, shard.footer_offset, size - shard.footer_offset))
        ) as file:
            schema, meta = schema_of(file.schema_arrow), file.metadata
            rows = tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    except FileNotFoundError:
        raise BadData(f"{path} is missing", "the manifest lists it", REMAKE) from None
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{path} cannot be read", str(error).splitlines()[0], REMAKE) from None
    if schema != manifest.schema:
        raise BadData(f"{path} has another schema", difference(manifest.schema, schema), REMAKE)
    if rows != tuple(group.rows for group in shard.row_groups):
        reason = (
            f"it has {len(rows)} of {sum(rows)} rows in all, the manifest says {len(shard.row_groups)} of {shard.rows}"
        )
        raise BadData(f"{path} has other row groups", reason, REMAKE)


def difference(said: tuple[tuple[str, str], ...], found: tuple[tuple[str, str], ...]) -> str:
    """In words, how one schema differs from another."""
    then, now = dict(said), dict(found)
    gone = [f"column {name!r} is gone" for name in then if name not in now]
    new = [f"column {name!r} is new" for name in now if name not in then]
    changed = [f"column {n!r} is {now[n]}, not {then[n]}" for n in then if n in now and now[n] != then[n]]
    return "; ".join(gone + new + changed) or "its columns are in another order"
