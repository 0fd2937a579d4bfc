"""A dataset is copied, whole, to another place: from a folder to an object store, back, or between two of them.

Its manifest is written last, so that a copy which is broken off is no dataset, and the same copy again goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from headway.data.manifest import FILE, Manifest, Shard, load, name_of, verify_shard, verify_versions
from headway.data.store.opener import open_store
from headway.data.store.protocol import Store
from headway.errors import BadData, BadInput
from headway.storage.opener import is_url, local_folder

if TYPE_CHECKING:
    from headway.job import Store as Options


def copy(source: str, to: str, options: Options | None = None, tell: Callable[[str], None] = print) -> Manifest:
    """Copy a dataset with all its versions; what was written is read once, against the manifest's digests.

    Args:
        source: its folder or URL.
        to: folder or URL of the copy.
        options: how object stores are spoken to.
        tell: takes what is under way, for people.

    Raises:
        BadInput: another dataset is there.
        BadData: the source is no whole dataset, or the copy is not what was copied.
    """
    manifest = load(source, options=options)
    verify_versions(source, manifest, options)
    with closing(open_store(source, options)) as here, closing(open_store(to, options)) as there:
        if there.exists(FILE):
            _same(to, manifest, options)
        for number, shard in enumerate(manifest.shards, 1):
            tell(f"{shard.path}: {number} of {len(manifest.shards)}, {shard.bytes:,} bytes")
            if not _is_whole(there, shard):
                there.write(shard.path, _content(source, here, shard))
                verify_shard(there, shard)
        for name in [*map(name_of, range(1, manifest.version + 1)), FILE]:
            there.write(name, here.read(name))
    return manifest


def _same(to: str, manifest: Manifest, options: Options | None) -> None:
    """Raises BadInput: what is there is neither this dataset nor an earlier version of it."""
    try:
        found = load(to, options=options)
    except BadData:
        found = None
    if found is None or found.shards != manifest.shards[: len(found.shards)]:
        what = "another dataset is there" if found else f"what is there has a {FILE} that cannot be read"
        raise BadInput(f"{to} is taken", what, "Give the copy another place.")


def _is_whole(there: Store, shard: Shard) -> bool:
    """Whether the copy has a shard already, as it should be."""
    try:
        if there.size(shard.path) != shard.bytes:
            return False
        verify_shard(there, shard)
    except (FileNotFoundError, BadData):
        return False
    return True


def _content(source: str, here: Store, shard: Shard) -> bytes | Path:
    """A shard: of a folder its file, which needs no room in memory."""
    return here.read(shard.path) if is_url(source) else local_folder(source) / shard.path
