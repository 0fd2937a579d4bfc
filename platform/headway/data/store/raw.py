"""Object stores as their clients give them: every request is made once, and what happened is said.

s3://, gs:// and az:// are spoken by pyarrow itself; any other scheme that fsspec knows goes through fsspec.
`headway.data.store.patient` adds patience.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headway.data.store.protocol import OutOfReach, truncated
from headway.errors import BadInput
from headway.storage.clients import AZURE

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

    from headway.job import Store as Options

OPEN_FILES = 64


def open_raw(url: str, options: Options) -> ArrowStore:
    """The store at a URL as its client gives it: every request is made once."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        fact = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path} is given with more than a path"
        reason = "what stands before '@' or behind '?' would be kept in the run's records"
        raise BadInput(fact, reason, "Keys belong into the environment, settings under data.store.")
    if not parts.netloc:
        raise BadInput(f"{url} names no bucket", "", f"Write it like {parts.scheme}://bucket/path.")
    openers = {"s3": _s3, "gs": _gs, "gcs": _gs, "az": _azure, "abfs": _azure}
    opener = openers.get(parts.scheme)
    if opener is None:
        system, root = _fsspec(url)
    else:
        system, root = opener(url, options), f"{parts.netloc}{parts.path}"
    return ArrowStore(url.rstrip("/"), system, root.rstrip("/"), folders=opener is None)


def _s3(url: str, options: Options) -> FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    region = options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and options.endpoint is None:
        region = _region(urlsplit(url).netloc, options)
    return S3FileSystem(
        anonymous=options.anonymous,
        region=region or "us-east-1",
        request_timeout=options.timeout_s,
        connect_timeout=min(5.0, options.timeout_s),
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),  # headway.data.store.patient decides, and counts
        **_endpoint(options.endpoint),
    )


_regions: dict[str, str] = {}


def _region(bucket: str, options: Options) -> str:
    """Where a bucket is; asked for as patiently as everything else, once per process."""
    from pyarrow.fs import resolve_s3_region

    from headway.core.retry import Policy, lasting

    policy, tries = Policy(options.retries, options.timeout_s, False), 0
    while bucket not in _regions:
        try:
            _regions[bucket] = resolve_s3_region(bucket)
        except OSError as error:
            fact = f"the region of the bucket {bucket} cannot be found"
            if lasting(str(error)) or "not found" in str(error):
                raise BadInput(fact, _line(error), "Check its name, or give data.store.region.") from None
            if tries == options.retries:
                reason = f"{tries + 1} requests, the last one: {_line(error)}"
                raise OutOfReach(fact, reason, "Check that Amazon can be reached, or give data.store.region.") from None
            time.sleep(policy.pause_s(tries, 0.5))
            tries += 1
    return _regions[bucket]


def _gs(url: str, options: Options) -> FileSystem:
    from datetime import timedelta

    from pyarrow.fs import GcsFileSystem

    patience = timedelta(seconds=max(1.0, options.timeout_s))
    return GcsFileSystem(anonymous=options.anonymous, retry_time_limit=patience, **_endpoint(options.endpoint))


def _azure(url: str, options: Options) -> FileSystem:
    from pyarrow.fs import AzureFileSystem

    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise BadInput(f"{url} cannot be opened", "it names a container but no account", f"Set {AZURE}.")
    settings: dict[str, Any] = {"account_key": os.environ.get("AZURE_STORAGE_KEY")}
    if os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        settings = {"sas_token": os.environ["AZURE_STORAGE_SAS_TOKEN"]}
    if options.endpoint:
        at = urlsplit(options.endpoint)
        settings |= {"blob_storage_authority": at.netloc, "blob_storage_scheme": at.scheme}
        settings |= {"dfs_storage_authority": at.netloc, "dfs_storage_scheme": at.scheme}
    return AzureFileSystem(account, **settings)


def _endpoint(endpoint: str | None) -> dict[str, str]:
    if endpoint is None:
        return {}
    parts = urlsplit(endpoint)
    if "@" in parts.netloc:
        fact = f"data.store.endpoint={parts.scheme}://{parts.netloc.rpartition('@')[2]} is given with a name or key"
        raise BadInput(fact, "it would be kept in the run's records", "Keys belong into the environment.")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadInput(f"data.store.endpoint={endpoint!r}", "it is no URL", "Write it like http://host:9000.")
    return {"endpoint_override": parts.netloc, "scheme": parts.scheme}


def _fsspec(url: str) -> tuple[FileSystem, str]:
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    scheme = urlsplit(url).scheme
    try:
        system, root = url_to_fs(url)
    except ImportError as error:
        remedy = str(known_implementations.get(scheme, {}).get("err", error)).rstrip(".") + "."
        raise BadInput(f"{url} cannot be opened", f"what speaks {scheme}:// is not installed", remedy) from None
    except ValueError:
        known = "s3://, gs://, az://, a folder, or what fsspec knows"
        raise BadInput(f"{url} cannot be opened", f"nothing here speaks {scheme}://", f"Give {known}.") from None
    return PyFileSystem(FSSpecHandler(system)), root


class ArrowStore:
    """A place in a pyarrow file system. Every request is made once; errors are the client's own (OSError).

    Args:
        url: for people.
        system: the file system.
        root: the place's path within it.
        folders: whether it has folders, which must be made before files in them.
    """

    def __init__(self, url: str, system: FileSystem, root: str, folders: bool) -> None:
        self.url, self._system, self._root, self._folders = url, system, root, folders
        self._open: OrderedDict[str, NativeFile] = OrderedDict()  # opening asks for the size: a request saved each time
        self._lock = Lock()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        url = f"{self.url}/{name}"
        if length is None:
            with self._system.open_input_file(self._path(name)) as file:
                return _exactly(file, url, offset, max(0, file.size() - offset))
        with self._lock:  # what fsspec gives serves one at a time: behind a read that hangs nobody should wait
            file = self._open.pop(name, None) if self._folders else self._open.get(name)
        file = file or self._system.open_input_file(self._path(name))
        try:
            content = _exactly(file, url, offset, length)
        except BaseException:  # whatever it was, the file is opened anew
            with self._lock:
                self._open.pop(name, None)
            raise
        with self._lock:
            self._open[name] = file
            self._open.move_to_end(name)
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return content

    def size(self, name: str) -> int:
        from pyarrow.fs import FileType

        found = self._system.get_file_info(self._path(name))
        if found.type != FileType.File:
            raise FileNotFoundError(self._path(name))
        return int(found.size)

    def exists(self, name: str) -> bool:
        from pyarrow.fs import FileType

        return bool(self._system.get_file_info(self._path(name)).type == FileType.File)

    def list(self) -> list[str]:
        from pyarrow.fs import FileSelector

        found = self._system.get_file_info(FileSelector(self._root, recursive=True, allow_not_found=True))
        return sorted(info.path[len(self._root) + 1 :] for info in found if info.is_file)

    def write(self, name: str, content: bytes | Path) -> None:
        path = self._path(name)
        if self._folders:
            self._system.create_dir(path.rpartition("/")[0], recursive=True)
        with self._system.open_output_stream(path) as sink:
            if isinstance(content, bytes):
                sink.write(content)
                return
            with content.open("rb") as source:
                while block := source.read(8 << 20):
                    sink.write(block)

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _exactly(file: NativeFile, url: str, offset: int, length: int) -> bytes:
    """So many bytes. Fewer are the store's error, to be tried again, for a body may end early without one."""
    if file.size() < offset + length:  # known since it was opened
        raise truncated(url, file.size(), offset + length)
    content: bytes = file.read_at(length, offset)
    if len(content) == length:
        return content
    raise OSError(f"{len(content)} bytes came, not {length}")


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
