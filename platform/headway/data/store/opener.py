"""Which store a place is: the one module that knows them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headway.data.store.folder import Folder
from headway.data.store.protocol import Store
from headway.storage.opener import is_url, local_folder

if TYPE_CHECKING:
    from headway.job import Store as Options


def open_store(place: str | Path, options: Options | None = None) -> Store:
    """The store at a URL, with the job's patience, or a folder.

    Args:
        place: s3://bucket/path, gs://bucket/path, az://container/path, another URL that fsspec knows, or a folder.
        options: the job's `data.store`.

    Raises:
        BadInput: the URL cannot be used, or what speaks its scheme is not installed.
    """
    if not is_url(place):
        return Folder(local_folder(place))
    from headway.core.retry import Policy
    from headway.data.store.patient import Remote
    from headway.data.store.raw import open_raw
    from headway.job import Store as Options

    options = options or Options()
    policy = Policy(options.retries, options.timeout_s, options.hedge)
    return Remote(open_raw(str(place), options), policy)
