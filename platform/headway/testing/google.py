"""A double of Google's storage on loopback, made from its documentation of the XML API: no service of Google's answers
here. It holds requests to what that says of them, generations and their conditions above all.

https://cloud.google.com/storage/docs/xml-api/reference-headers#xgoogifgenerationmatch
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from headway.testing.s3 import Request

KEYS = {"GOOGLE_BEARER_TOKEN": "headway"}
PAGE = 1000
CONDITION = "x-goog-if-generation-match"


class Google:
    """The service, with one bucket; use it as a context manager. `seen` holds the newest requests."""

    def __init__(self, bucket: str) -> None:
        self.bucket, self.seen = bucket, deque[Request](maxlen=10_000)
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, tuple[dict[str, str], dict[int, bytes]]] = {}

    def start(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.google = self
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="google", daemon=True)
        self._serving.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._serving.join()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> _Answer:
        """What the service says to a request."""
        parts = urlsplit(path)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        with self._lock:
            self.seen.append(Request(method, path, headers, len(body), ""))
            if not headers.get("authorization", "").startswith("Bearer "):
                return _refusal(401, "AuthenticationRequired")
            if bucket != self.bucket:
                return _refusal(404, "NoSuchBucket")
            if not key:
                return self._list(query)
            return self._of(method, unquote(key), query, headers, body)

    def _of(self, method: str, key: str, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> _Answer:
        own = {name: value for name, value in headers.items() if name.startswith("x-goog-meta-")}
        there = self._objects.get(key)
        if "uploads" in query:
            name = f"upload-{next(self._numbers)}"
            self._uploads[name] = (own, {})
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{name}</UploadId>")
        if "uploadId" in query:
            return self._part(method, key, query, body)
        if method == "PUT":
            if CONDITION in headers and int(headers[CONDITION]) != (there.generation if there else 0):
                return _refusal(412, "PreconditionFailed")
            return self._write(key, body, own)
        if there is None:
            return _refusal(404, "NoSuchKey")
        if method == "DELETE":
            del self._objects[key]
            return 204, {}, b""
        return _content(there, headers.get("range"))

    def _part(self, method: str, key: str, query: dict[str, str], body: bytes) -> _Answer:
        if query["uploadId"] not in self._uploads:
            return _refusal(404, "NoSuchUpload")
        if method == "PUT":
            self._uploads[query["uploadId"]][1][int(query["partNumber"])] = body
            return 200, {"ETag": f'"{query["partNumber"]}"'}, b""
        own, parts = self._uploads.pop(query["uploadId"])
        if method == "DELETE":
            return 204, {}, b""
        _, headers, _ = self._write(key, b"".join(parts[number] for number in sorted(parts)), own)
        status, _, content = _xml("CompleteMultipartUploadResult", f"<ETag>{escape(headers['ETag'])}</ETag>")
        return status, headers, content

    def _write(self, key: str, content: bytes, own: dict[str, str]) -> _Answer:
        generation = next(self._numbers)
        written = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._objects[key] = _Object(content, generation, own, written)
        return 200, {"ETag": f'"{generation:x}"', "x-goog-generation": str(generation)}, b""

    def _list(self, query: dict[str, str]) -> _Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found: dict[str, str] = {}
        for key, there in sorted(self._objects.items()):
            if not key.startswith(prefix):
                continue
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end >= 0:
                folder = key[: end + 1]
                found[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            else:
                told = f"<Key>{escape(key)}</Key><LastModified>{there.written}</LastModified>"
                told += f'<ETag>"{there.generation:x}"</ETag><Size>{len(there.content)}</Size>'
                found[key] = f"<Contents>{told}</Contents>"
        begin = query.get("continuation-token", "")
        names = [name for name in sorted(found) if name > begin]
        cut = len(names) > PAGE
        more = f"<NextContinuationToken>{escape(names[PAGE - 1])}</NextContinuationToken>" if cut else ""
        told = f"<IsTruncated>{str(cut).lower()}</IsTruncated>{more}"
        return _xml("ListBucketResult", told + "".join(found[name] for name in names[:PAGE]))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


_Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class _Object:
    content: bytes
    generation: int
    own: dict[str, str]
    written: str


def _content(there: _Object, span: str | None) -> _Answer:
    content = there.content
    headers = {"ETag": f'"{there.generation:x}"', "x-goog-generation": str(there.generation), **there.own}
    headers["Last-Modified"] = formatdate(usegmt=True)
    if span is None:
        return 200, headers, content
    begin, end = (int(part) for part in span.removeprefix("bytes=").split("-"))
    if begin >= len(content):
        return _refusal(416, "InvalidRange")
    part = content[begin : end + 1]
    headers["Content-Range"] = f"bytes {begin}-{begin + len(part) - 1}/{len(content)}"
    return 206, headers, part


def _xml(name: str, content: str) -> _Answer:
    return 200, {"Content-Type": "application/xml"}, f"<?xml version='1.0'?><{name}>{content}</{name}>".encode()


def _refusal(status: int, code: str) -> _Answer:
    _, headers, content = _xml("Error", f"<Code>{code}</Code><Message>{code}</Message>")
    return status, headers, content


class _Server(ThreadingHTTPServer):
    google: Google
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go when they are tired of waiting; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        return

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, told, content = self.server.google.answer(self.command, self.path, headers, body)
        self.send_response_only(status)
        for name, value in told.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815  # the names that http.server calls
