"""An S3 service on loopback that fails on purpose: moto's server behind a proxy that injects faults, by a seed.

with S3() as s3:
    s3.put("bucket", "train", folder)
    s3.faults = Faults(latency_s=0.05, busy=0.1, cut=0.05)
    job["data"] = {"train": "s3://bucket/train", "store": {"endpoint": s3.endpoint}}

Needs `moto[s3,server]`. Keys do not matter, but clients want some: see `KEYS`.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

KEYS = {"AWS_ACCESS_KEY_ID": "headway", "AWS_SECRET_ACCESS_KEY": "headway", "AWS_EC2_METADATA_DISABLED": "true"}
REFUSALS = {
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "full": (507, "InsufficientStorage", "There is no room left for this object."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "elsewhere": (301, "PermanentRedirect", "The bucket must be addressed by the endpoint of its region."),
    "kept": (200, "", ""),
    "conflict": (409, "ConditionalRequestConflict", "A conflicting operation occurred on this resource."),
}
"""What befalls a request without getting to the service: status, code and message of the answer."""
_WRITING = ("PUT", "POST")
_CHUNK = 1 << 16
_HOP = {"transfer-encoding", "connection", "expect", "content-length"}
_DROPPED = {*_HOP, "date", "server"}


@dataclass(frozen=True)
class Faults:
    """What befalls the answers. Shares are of all requests, drawn one after the other from the seed.

    Args:
        latency_s: before every answer.
        rate: bytes per second of all connections together, to and from the service; None for no limit.
        busy: share answered 503 SlowDown.
        reset: share whose connection is reset before the service has heard of it.
        lost: share that the service does, and whose connection is reset in place of the answer.
        cut: share whose body ends in its middle, with the connection closed.
        hang: share that is never answered.
        slow: share that takes `slow_s` longer.
        slow_s: see above.
        full: whether nothing more can be written.
        denied: methods for which there is no right ("PUT").
        kept: whether each of several that are to be removed at once is kept, for want of a right to it.
        conditional: whether conditions of a write are honoured.
        at: what befalls the requests with these numbers, from 0; one of the names above, or `conflict`,
            `elsewhere` (the bucket is in another region), or "" for nothing.
        seed: of the draws.
    """

    latency_s: float = 0.0
    rate: float | None = None
    busy: float = 0.0
    reset: float = 0.0
    lost: float = 0.0
    cut: float = 0.0
    hang: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    full: bool = False
    denied: Collection[str] = ()
    kept: bool = False
    conditional: bool = True
    at: Mapping[int, str] = field(default_factory=dict)
    seed: int = 0

    def draw(self, chance: float) -> str:
        """What befalls a request, or "" for nothing; `chance` is uniform in [0, 1)."""
        for kind in ("busy", "reset", "lost", "cut", "hang", "slow"):
            chance -= getattr(self, kind)
            if chance < 0:
                return kind
        return ""


@dataclass(frozen=True)
class Request:
    """A request as it arrived.

    Args:
        method: like "PUT".
        path: with what stands behind "?".
        headers: by names in small letters.
        bytes: of its body.
        fault: what befell it; "" for nothing.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    bytes: int
    fault: str


LATE_S = 0.1
"""By which the proxy may be late and catch up, on a busy machine: what is on its way waits in buffers meanwhile."""


class Pace:
    """Bytes per second that several threads share.

    Args:
        rate: None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate, self._lock, self._free = rate, threading.Lock(), 0.0

    def wait_s(self, count: int) -> float:
        """Seconds to wait before so many bytes more."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - LATE_S) + count / self._rate
            return max(0.0, self._free - now)


class S3:
    """The service; use it as a context manager.

    `counts` holds requests by method ("GET") and by fault ("busy"), `seen` the newest requests, `most_at_once` the most
    that were answered at one time. Whoever signs with a key in `expired` is told that it has.

    Args:
        faults: to begin with.
        beside: another one, whose buckets these are: a second way to them, with faults, counts and a pace of its own.
    """

    def __init__(self, faults: Faults | None = None, beside: S3 | None = None) -> None:
        self._beside = beside
        self._moto: Any = None
        self.one_at_a_time: threading.Lock = beside.one_at_a_time if beside else threading.Lock()
        self.upstream: tuple[str, int]
        self.counts: Counter[str] = Counter()
        self.seen: deque[Request] = deque(maxlen=10_000)
        self.expired: set[str] = set()
        self.most_at_once = self._at_once = 0
        self._lock, self._over = threading.Lock(), threading.Event()
        self.faults = faults or Faults()

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        """Others from now on; the draws begin anew, and so do the counts. What hangs is let go."""
        with self._lock:
            self._over.set()
            self._over = threading.Event()
            self._faults, self._random = faults, random.Random(faults.seed)
            self.pace, self._number = Pace(faults.rate), 0
            self.counts.clear()
            self.seen.clear()
            self.most_at_once = self._at_once

    def start(self) -> Self:
        if self._beside is None:
            self._moto = _moto()
        self.upstream = self._moto.get_host_and_port() if self._beside is None else self._beside.upstream
        self._proxy = _Server(("127.0.0.1", 0), _Handler)
        self._proxy.s3 = self
        self._serving = threading.Thread(target=self._proxy.serve_forever, args=(0.05,), name="s3-proxy", daemon=True)
        self._serving.start()
        self.endpoint = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        return self

    def close(self) -> None:
        self._over.set()
        self._proxy.shutdown()
        self._proxy.server_close()
        self._serving.join()
        if self._moto is not None:
            self._moto.stop()

    def put(self, bucket: str, prefix: str, folder: Path) -> str:
        """Copy a folder's files into a bucket, which is made if need be, past the faults; returns the URL."""
        self.make_bucket(bucket)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.direct("PUT", f"/{bucket}/{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{bucket}/{prefix}"

    def make_bucket(self, bucket: str) -> None:
        self.direct("PUT", f"/{bucket}")

    def direct(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request of the test's own, past the faults.

        Raises:
            OSError: it was refused.
        """
        connection = http.client.HTTPConnection(*self.upstream)
        with self.alone(method, path), closing(connection):
            signed = "AWS4-HMAC-SHA256 Credential=headway/20260101/us-east-1/s3/aws4_request"
            connection.request(method, path, body, {"Authorization": signed})
            answer = connection.getresponse()
            content = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content

    def alone(self, method: str, path: str) -> AbstractContextManager[Any]:
        """To be held around what moto does: it looks and then writes, and walks through what another request changes
        meanwhile (the parts of an upload that is broken off), which S3 never does. Reading an object may go beside."""
        return nullcontext() if method in ("GET", "HEAD") and "?" not in path else self.one_at_a_time

    def befall(self, method: str, path: str, headers: Mapping[str, str], size: int) -> str:
        """What befalls the next request; it is counted."""
        key = re.search(r"Credential=([^/]+)/", headers.get("authorization", ""))
        with self._lock:
            faults = self._faults
            kind = faults.draw(self._random.random())
            if self._number in faults.at:
                kind = faults.at[self._number]
            elif key and key[1] in self.expired:
                kind = "expired"
            elif method in faults.denied:
                kind = "denied"
            elif faults.kept and path.endswith(("?delete", "?delete=")):
                kind = "kept"
            elif faults.full and method in _WRITING and "?delete" not in path:
                kind = "full"
            self._number += 1
            self.counts[method] += 1
            self.counts[kind or "good"] += 1
            self.seen.append(Request(method, path, headers, size, kind))
        return kind

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around a request, for `most_at_once`."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def pause(self, seconds: float | None) -> None:
        """Wait, but not beyond these faults; None for as long as there are these."""
        self._over.wait(seconds)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _moto() -> Any:
    """The service itself, which has begun."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    return moto


class _Server(ThreadingHTTPServer):
    s3: S3
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        """Close without saying goodbye before: else a reset would begin with a FIN."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go when they are tired of waiting; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one to moto."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upstream = http.client.HTTPConnection(*self.server.s3.upstream)

    def finish(self) -> None:
        self._upstream.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        return

    def answer(self) -> None:
        with self.server.s3.counted():
            self._answer()

    def _answer(self) -> None:
        s3 = self.server.s3
        body, begin = self._body(), time.monotonic()
        headers = {name.lower(): value for name, value in self.headers.items()}
        kind, faults = s3.befall(self.command, self.path, headers, len(body)), s3.faults
        if kind == "hang":
            s3.pause(None)
        if kind in ("hang", "reset"):
            self._reset()
            return
        if kind in REFUSALS:
            status, code, message = REFUSALS[kind]
            headers = {"Content-Type": "application/xml"}
            said = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            if kind == "kept":
                keys = re.findall("<Key>.*?</Key>", body.decode())
                refused = (f"<Error>{key}<Code>AccessDenied</Code><Message>No</Message></Error>" for key in keys)
                said = f"<DeleteResult>{''.join(refused)}</DeleteResult>"
            content = f"<?xml version='1.0'?>{said}".encode()
        else:
            status, headers, content = self._forward(body, faults.conditional)
        wait_s = faults.latency_s + (faults.slow_s if kind == "slow" else 0.0) - (time.monotonic() - begin)
        if wait_s > 0:
            s3.pause(wait_s)
        if kind == "lost":
            self._reset()
            return
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind == "cut" and self.command == "GET":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            for at in range(0, len(content), _CHUNK):
                self._paced(len(content[at : at + _CHUNK]))
                self.wfile.write(content[at : at + _CHUNK])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # the names that http.server calls

    def _body(self) -> bytes:
        """The request's body, which clients that sign as they go send in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length") or 0)
            return b"".join(self._read(min(_CHUNK, length - at)) for at in range(0, length, _CHUNK))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self._read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _read(self, size: int) -> bytes:
        self._paced(size)
        return self.rfile.read(size)

    def _paced(self, size: int) -> None:
        wait_s = self.server.s3.pace.wait_s(size)
        if wait_s > 0:
            self.server.s3.pause(wait_s)

    def _forward(self, body: bytes, conditional: bool) -> tuple[int, dict[str, str], bytes]:
        left_out = _HOP if conditional else {*_HOP, "if-match", "if-none-match"}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        with self.server.s3.alone(self.command, self.path):
            self._upstream.request(self.command, self.path, body, kept)
            answer = self._upstream.getresponse()
            content = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _DROPPED}
        if self.command == "HEAD" and answer.getheader("Content-Length"):
            headers["Content-Length"] = str(answer.getheader("Content-Length"))
        return answer.status, headers, content

    def _reset(self) -> None:
        """Close with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
