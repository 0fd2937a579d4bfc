"""Which storage a place is: the one module that knows them all."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from headway.errors import BadInput
from headway.storage.folder import FolderStorage
from headway.storage.options import Options
from headway.storage.protocol import Storage

SCHEMES = ("s3", "gs", "az")
_BUCKET = re.compile(r"[$A-Za-z0-9][A-Za-z0-9._-]*")
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "azure": "az"}


def is_url(place: str | Path) -> bool:
    """Whether a place is an object store's URL and no folder of this machine. file:// is a folder."""
    return isinstance(place, str) and "://" in place and not place.startswith("file://")


def local_folder(place: str | Path) -> Path:
    """The folder that a path or a file:// URL names."""
    if isinstance(place, str) and place.startswith("file://"):
        parts = urlsplit(place)
        if parts.netloc not in ("", "localhost"):
            remedy = f"Write it like file:///{parts.netloc}{parts.path}."
            raise BadInput(f"{place} names a machine", f"{parts.netloc!r} stands where a machine's name does", remedy)
        return Path(url2pathname(parts.path))
    return Path(place)


def clean_url(place: str) -> str:
    """A place in an object store, in the one way to write it: s3://bucket/path, without a slash at the end.

    Raises:
        BadInput: it names no bucket, holds a key, or nothing here speaks its scheme.
    """
    parts = urlsplit(place)
    if "@" in parts.netloc or parts.query or parts.fragment:
        fact = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path} is given with more than a path"
        reason = "what stands before '@' or behind '?' would be kept in the run's records"
        raise BadInput(fact, reason, "Keys belong into the environment, settings under store: in the config file.")
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in SCHEMES:
        remedy = "Give s3://bucket/path, gs://bucket/path, az://container/path or a folder."
        raise BadInput(f"{place} cannot be opened", f"nothing here speaks {parts.scheme}://", remedy)
    like = f"Write it like {scheme}://bucket/path."
    if not parts.netloc:
        raise BadInput(f"{place} names no bucket", "", like)
    if not _BUCKET.fullmatch(parts.netloc):
        raise BadInput(f"{place!r} cannot be opened", f"{parts.netloc!r} can be no bucket's name", like)
    path = "/".join(part for part in parts.path.split("/") if part)
    if any(part in (".", "..") for part in path.split("/")) or not path.isprintable():
        raise BadInput(f"{place!r} cannot be opened", "its path has a part that no object's name can have", like)
    return f"{scheme}://{parts.netloc}/{path}".rstrip("/")


def open_storage(place: str | Path, options: Options | None = None) -> Storage:
    """The storage at a URL or in a folder. Nothing is asked of it yet, and no folder is made.

    Args:
        place: s3://bucket/path, gs://bucket/path, az://container/path, file:///path or a folder.
        options: how an object store is spoken to.

    Raises:
        BadInput: the URL cannot be used, or obstore is not installed.
    """
    if not is_url(place):
        return FolderStorage(local_folder(place))
    from headway.storage.objects import open_objects

    return open_objects(clean_url(str(place)), options or Options())
