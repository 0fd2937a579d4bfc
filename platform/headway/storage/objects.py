"""Buckets as storages: s3://, gs:// and az://, spoken by obstore, with patience.

obstore's own retries are off where `headway.storage.cloud` decides, and on where it cannot: within a multipart upload,
whose parts may be sent twice. Keys are looked up anew when they are refused, so that a run outlives them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from headway.errors import BadInput, HeadwayError
from headway.storage.answers import Verdict, beyond, judge
from headway.storage.cloud import Cloud
from headway.storage.options import Options
from headway.storage.protocol import Absent, Buffer, Found, named

PART = 8 << 20
"""Bytes of a part of a large object: 10,000 of them, which S3 allows, are 78 GiB."""
PARTS_AT_ONCE = 6
MARK = "headwayupload"
"""Metadata of a large object: whose it is, for when the answer to its last request is lost."""
_GENERATION = "generation "


def open_objects(url: str, options: Options) -> Objects:
    """The storage at a URL as `headway.storage.opener.clean_url` gives it.

    Raises:
        BadInput: obstore is not installed, or Azure's account is not named.
    """
    try:
        import obstore
    except ImportError:
        reason, remedy = "obstore is not installed, which speaks to object stores", "Run `pip install obstore`."
        raise BadInput(f"{url} cannot be opened", reason, remedy) from None
    assert obstore
    cloud = Cloud(url, options)
    cloud.client("ask")  # what is wrong with the settings is said now
    path = urlsplit(url).path.strip("/")
    return Objects(url, cloud, f"{path}/" if path else "", whole=True)


class Objects:
    """`Storage` of what lies below a prefix of a bucket.

    Args:
        url: for people.
        cloud: the bucket, shared by all who see a part of it.
        prefix: before each name; empty, or ends with "/".
        whole: whether this is what was opened, with which the connections are closed.
    """

    def __init__(self, url: str, cloud: Cloud, prefix: str, whole: bool = False) -> None:
        self.url, self._cloud, self._prefix, self._whole = url, cloud, prefix, whole

    def get(self, name: str) -> bytes:
        return self.look(name)[0]

    def look(self, name: str) -> tuple[bytes, str]:
        import obstore

        def request(client: Any) -> tuple[bytes, str]:
            found = obstore.get(client, self._key(name))
            return found.bytes().to_bytes(), _version(self._cloud.scheme, found.meta)

        return self._cloud.ask("read", self._url(name), request, "read")

    def read(self, name: str, offset: int, length: int) -> Buffer:
        import obstore

        if not length:
            return b""

        def request(client: Any) -> memoryview:
            try:
                content = memoryview(obstore.get_range(client, self._key(name), start=offset, length=length))
            except obstore.exceptions.BaseError as error:
                if beyond(error):
                    raise _Shorter from None
                raise
            if len(content) < length:
                raise _Shorter
            return content

        try:
            return self._cloud.ask("read", self._url(name), request, "read")
        except _Shorter:
            raise EOFError(f"{self._url(name)} ends before byte {offset + length}") from None

    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        import obstore

        mode: Any = "overwrite"
        if isinstance(only_if, Absent):
            mode = "create"
        elif only_if is not None:
            mode = _condition(only_if)
        view = memoryview(content)
        body = view.cast("B") if view.nbytes else b""

        def request(client: Any) -> str:
            written = obstore.put(client, self._key(name), body, mode=mode, use_multipart=False)
            return _version(self._cloud.scheme, written)

        return self._cloud.ask("written", self._url(name), request, "ask", size=view.nbytes)

    def upload(self, name: str, blocks: Iterable[Buffer]) -> int:
        import obstore

        source = _Parts(blocks)
        first = next(source, b"")
        if len(first) < PART:
            self.put(name, first)
            return source.bytes
        self._cloud.renew()  # for what is sent in parts cannot be sent again
        mark = uuid.uuid4().hex

        def request(client: Any) -> None:
            obstore.put(
                client,
                self._key(name),
                source.after(first),
                attributes={MARK: mark},
                use_multipart=True,
                chunk_size=PART,
                max_concurrency=PARTS_AT_ONCE,
            )

        def ours(client: Any) -> bool:
            try:
                return bool(obstore.get(client, self._key(name), options={"head": True}).attributes.get(MARK) == mark)
            except FileNotFoundError:
                return False

        try:
            self._cloud.ask("written", self._url(name), request, "upload", once=True)
        except HeadwayError:
            if source.raised is not None:
                raise source.raised from None
            if not source.ended or not self._cloud.ask("read", self._url(name), ours, "read"):
                raise
        return source.bytes

    def folders(self, prefix: str = "") -> list[str]:
        import obstore

        whole = self._prefix + prefix

        def request(client: Any) -> list[str]:
            return list(obstore.list_with_delimiter(client, whole.rstrip("/") or None)["common_prefixes"])

        found = self._cloud.ask("listed", self._url(prefix), request, "read")
        return sorted(path[len(whole) :].strip("/") for path in found)

    def list(self, prefix: str = "") -> list[Found]:
        import obstore

        whole = self._prefix + prefix
        below = whole.rpartition("/")[0]

        def request(client: Any) -> list[Any]:
            return list(obstore.list(client, below or None, chunk_size=1000).collect())

        found, now = [], datetime.now(UTC)
        for entry in self._cloud.ask("listed", self._url(prefix), request, "read"):
            if entry["path"].startswith(whole):
                age_s = max(0.0, (now - entry["last_modified"]).total_seconds())
                name = entry["path"][len(self._prefix) :]
                found.append(Found(name, entry["size"], _version(self._cloud.scheme, entry), age_s))
        return sorted(found, key=lambda each: each.name)

    def delete(self, names: Sequence[str]) -> None:
        import obstore

        keys = [self._key(name) for name in names]

        def request(client: Any) -> None:
            try:
                obstore.delete(client, keys)
            except FileNotFoundError as error:
                if judge(error) is Verdict.NO_BUCKET:
                    raise
                if len(keys) > 1:  # Google's stop at one that is not there
                    for key in keys:
                        with suppress(FileNotFoundError):
                            obstore.delete(client, key)

        if keys:
            self._cloud.ask("removed", self._url(names[0]), request, "ask")

    def at(self, prefix: str) -> Objects:
        inner = prefix.strip("/")
        return Objects(f"{self.url}/{inner}", self._cloud, f"{self._prefix}{inner}/")

    def close(self) -> None:
        if self._whole:  # a part of the place may be closed, and the place used on
            self._cloud.close()

    def _key(self, name: str) -> str:
        return self._prefix + named(name)

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}".rstrip("/")


class _Shorter(Exception):
    """There are fewer bytes than were asked for."""


class _Parts:
    """Blocks of any sizes as parts of one size, each in memory of its own: what is sent is not copied again."""

    def __init__(self, blocks: Iterable[Buffer]) -> None:
        self.bytes, self.ended = 0, False
        self.raised: BaseException | None = None
        self._parts = self._cut(blocks)

    def __iter__(self) -> Iterator[bytearray]:
        return self

    def __next__(self) -> bytearray:
        return next(self._parts)

    def after(self, first: bytearray | bytes) -> Iterator[bytearray | bytes]:
        yield first
        yield from self

    def _cut(self, blocks: Iterable[Buffer]) -> Iterator[bytearray]:
        part, at = bytearray(PART), 0
        try:
            for block in blocks:
                view = memoryview(block)
                rest = view.cast("B") if view.nbytes else memoryview(b"")
                while rest.nbytes:
                    count = min(PART - at, rest.nbytes)
                    part[at : at + count] = rest[:count]
                    rest, at = rest[count:], at + count
                    self.bytes += count
                    if at == PART:
                        yield part
                        part, at = bytearray(PART), 0
        except BaseException as error:  # raised again; noted, for it is the caller's own
            self.raised = error
            raise
        if at:
            del part[at:]
            yield part
        self.ended = True


def _version(scheme: str, meta: Any) -> str:
    """What a condition needs: Google's number of the generation, or else the entity tag."""
    tag, generation = meta.get("e_tag"), meta.get("version")
    if scheme == "gs" and generation is not None:
        return f"{_GENERATION}{generation}"
    return str(tag).strip('"')  # which Azure's listings leave out


def _condition(version: str) -> dict[str, str]:
    if version.startswith(_GENERATION):
        return {"version": version.removeprefix(_GENERATION)}
    return {"e_tag": f'"{version}"'}
