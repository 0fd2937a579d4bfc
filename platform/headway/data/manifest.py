"""The manifest of a dataset: which Parquet shards it has, how many rows and row groups each, and their digests.

A dataset is a folder of `shard-00000.parquet`, ... and one `manifest.json`, written last: a folder without it is not a
dataset, so whatever was interrupted can never be taken for finished.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import file_digest, sha256
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.durable import sync_folder
from headway.errors import BadData

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "manifest.json"
FORMAT = "headway-dataset/1"
MAKE = "Make it with `headway data get NAME` or `headway data prepare SRC DST`."
REMAKE = "Make the dataset again with `headway data get` or `headway data prepare` and --force."


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its name within the folder, rows, size in bytes, SHA-256 in hex, and rows of each row group."""

    path: str
    rows: int
    bytes: int
    sha256: str
    row_groups: tuple[int, ...]


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

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Rows of every row group, in order over the shards."""
        return tuple(rows for shard in self.shards for rows in shard.row_groups)

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
            "shards": [(s.path, s.rows, s.bytes, s.sha256, s.row_groups) for s in self.shards],
        }
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def schema_of(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """A Parquet file's Arrow schema as the manifest keeps it."""
    return tuple((column.name, str(column.type)) for column in schema)


def load(folder: str | Path) -> Manifest:
    """Read a dataset's manifest. Touches no shard: see `quick_check` and `verify`.

    Raises:
        BadData: the folder or the manifest is missing, unreadable or not ours, or the dataset has no rows.
    """
    folder = Path(folder)
    path = folder / FILE
    if not folder.exists():
        raise BadData(f"no dataset at {folder}", "the folder does not exist", MAKE)
    if not folder.is_dir():
        raise BadData(f"{folder} is not a dataset", "it is a file; a dataset is a folder with a manifest.json", MAKE)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadData(f"{folder} is not a dataset", f"it has no {FILE}", MAKE) from None
    except OSError as error:
        raise BadData(f"{path} cannot be read", error.strerror or str(error), "Give a readable dataset.") from None
    except ValueError as error:
        raise BadData(f"{path} is not JSON", str(error), REMAKE) from None
    found = tree.get("format") if isinstance(tree, dict) else None
    if found != FORMAT:
        raise BadData(f"{path} has format {found!r}", f"this Headway reads {FORMAT!r}", REMAKE)
    manifest = _parse(tree, path)
    if manifest.rows == 0:
        raise BadData(f"{folder} has zero rows", "there is nothing to train on", "Prepare it from a source with rows.")
    return manifest


def _parse(tree: dict[str, Any], path: Path) -> Manifest:
    fields = {name: tree[name] for name in Manifest.__dataclass_fields__ if name in tree}
    try:
        fields["schema"] = tuple((str(name), str(kind)) for name, kind in tree["schema"])
        fields["shards"] = tuple(
            Shard(**{**shard, "row_groups": tuple(shard["row_groups"])}) for shard in tree["shards"]
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
        if sum(shard.row_groups) != shard.rows or min(shard.row_groups, default=1) < 1:
            return f"the row groups of {shard.path} do not add up to its {shard.rows} rows"
    if sum(shard.rows for shard in manifest.shards) != manifest.rows:
        return f"its shards do not add up to {manifest.rows} rows"
    if sum(shard.bytes for shard in manifest.shards) != manifest.bytes:
        return f"its shards do not add up to {manifest.bytes} bytes"
    return None


def write(folder: str | Path, manifest: Manifest) -> None:
    """Write the manifest atomically: a reader sees the old one, or the new one, whole.

    Raises:
        OSError: as the file system says.
    """
    folder = Path(folder)
    temporary = folder / f".{FILE}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(manifest)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / FILE)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)


def quick_check(folder: str | Path, manifest: Manifest) -> None:
    """Check every shard's presence, size, footer, schema and row groups. Reads footers only.

    Raises:
        BadData: naming the shard.
    """
    for shard in manifest.shards:
        _check_shard(Path(folder) / shard.path, shard, manifest)


def verify(folder: str | Path, manifest: Manifest) -> None:
    """`quick_check`, then the SHA-256 of every shard: reads all bytes.

    Raises:
        BadData: naming the shard.
    """
    quick_check(folder, manifest)
    for shard in manifest.shards:
        path = Path(folder) / shard.path
        with path.open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
        if found != shard.sha256:
            reason = f"its SHA-256 is {found[:12]}..., the manifest says {shard.sha256[:12]}..."
            raise BadData(f"{path} has been altered", reason, REMAKE)


def _check_shard(path: Path, shard: Shard, manifest: Manifest) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        size = path.stat().st_size
        if path.is_dir():
            raise BadData(f"{path} cannot be read", "it is a folder; the manifest says a shard", REMAKE)
        if size != shard.bytes:
            fact = f"{path} is truncated" if size < shard.bytes else f"{path} has grown"
            raise BadData(fact, f"it has {size} bytes, the manifest says {shard.bytes}", REMAKE)
        with pq.ParquetFile(path) as file:
            schema, meta = schema_of(file.schema_arrow), file.metadata
            rows = tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    except FileNotFoundError:
        raise BadData(f"{path} is missing", "the manifest lists it", REMAKE) from None
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{path} cannot be read", str(error).splitlines()[0], REMAKE) from None
    if schema != manifest.schema:
        raise BadData(f"{path} has another schema", _difference(manifest.schema, schema), REMAKE)
    if rows != shard.row_groups:
        reason = (
            f"it has {len(rows)} of {sum(rows)} rows in all, the manifest says {len(shard.row_groups)} of {shard.rows}"
        )
        raise BadData(f"{path} has other row groups", reason, REMAKE)


def _difference(said: tuple[tuple[str, str], ...], found: tuple[tuple[str, str], ...]) -> str:
    then, now = dict(said), dict(found)
    gone = [f"column {name!r} is gone" for name in then if name not in now]
    new = [f"column {name!r} is new" for name in now if name not in then]
    changed = [f"column {n!r} is {now[n]}, not {then[n]}" for n in then if n in now and now[n] != then[n]]
    return "; ".join(gone + new + changed) or "its columns are in another order"
