"""`headway data prepare`: files into a dataset.

The package's rooms: `options` (what can be asked for), `sources` (what people's files hold), `steps` (what is done to
rows), `stages` (what the cluster does, each resumable), `publishing`, and `whole`, which goes through them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.data.manifest import Manifest
    from headway.data.prepare.progress import Progress


def prepare(
    src: Any, dst: str | Path, *, progress: Callable[[Progress], None] | None = None, **options: Any
) -> Manifest | dict[str, Manifest]:
    """Turn files, or a frame, into Parquet shards with a manifest, all or nothing.

    What is not kept, or was changed, is said on standard error, and noted in the manifest's `made`.

    Rows keep the order of the source (files by path), but images, which are mixed once by a fixed seed as their order
    is by class. Row groups are cut as `headway.data.write.sizing` says: at least 16 where there are 4,096 rows or more,
    up to 8,192 rows of a narrow table or about 2 MiB of images each.

    Args:
        src: a file, or a folder of files of one format. Every worker must see it under this path. Or a pandas or Polars
            frame, an Arrow table, or what gives an Arrow stream; every worker must then see the folder of `dst`.
        dst: the folder to make.
        progress: called as the work goes on.
        options: those of the command line, by the names of `headway.data.prepare.options.Options`, such as
            `label="price", split="train=0.8,test=0.2"`; errors name them as the command line does.

    Returns:
        The manifest; where the dataset is split, that of each part by its name.

    Raises:
        BadData: the source is missing, unreadable, empty, or not of one schema; names the file.
        BadInput: an option is unknown or cannot be used, the destination is taken, or the disk is full.
        RunFailed: Ray failed. What was done is kept, and the same command goes on with it.
    """
    from headway.data.prepare.options import as_arguments, checked
    from headway.data.prepare.progress import nobody
    from headway.data.prepare.whole import prepared

    made = prepared(src, dst, checked(options, as_arguments), progress or nobody)
    return made.get("", made)
