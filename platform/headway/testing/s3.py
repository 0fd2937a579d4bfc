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
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

KEYS = {"AWS_ACCESS_KEY_ID": "headway", "AWS_SECRET_ACCESS_KEY": "headway", "AWS_EC2_METADATA_DISABLED": "true"}
BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_HOP = {"transfer-encoding", "connection", "expect", "content-length"}
_DROPPED = {*_HOP, "date", "server"}


@dataclass(frozen=True)
class Faults:
    """What befalls the answers. Shares are of all requests, drawn one after the other from the seed.

    Args:
        latency_s: before every answer.
        busy: share answered 503 SlowDown.
        reset: share whose connection is reset before an answer.
        cut: share whose body ends in its middle, with the connection closed.
        hang: share that is never answered.
        slow: share that takes `slow_s` longer.
        slow_s: see above.
        seed: of the draws.
    """

    latency_s: float = 0.0
    busy: float = 0.0
    reset: float = 0.0
    cut: float = 0.0
    hang: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    seed: int = 0

    def draw(self, chance: float) -> str:
        """What befalls a request, or "" for nothing; `chance` is uniform in [0, 1)."""
        for kind in ("busy", "reset", "cut", "hang", "slow"):
            chance -= getattr(self, kind)
            if chance < 0:
                return kind
        return ""


class S3:
    """The service; use it as a context manager. `counts` holds requests by method ("GET") and by fault ("busy")."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.counts: Counter[str] = Counter()
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
            self.counts.clear()

    def start(self) -> Self:
        import logging

        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        self.upstream = self._moto.get_host_and_port()
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
        try:
            signed = "AWS4-HMAC-SHA256 Credential=headway/20260101/us-east-1/s3/aws4_request"
            connection.request(method, path, body, {"Authorization": signed})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content

    def befall(self, method: str) -> str:
        """What befalls the next request; it is counted."""
        with self._lock:
            kind = self._faults.draw(self._random.random())
            self.counts[method] += 1
            self.counts[kind or "good"] += 1
        return kind

    def pause(self, seconds: float | None) -> None:
        """Wait, but not beyond these faults; None for as long as there are these."""
        self._over.wait(seconds)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


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
        s3, begin = self.server.s3, time.monotonic()
        body = self._body()
        kind, faults = s3.befall(self.command), s3.faults
        if kind == "hang":
            s3.pause(None)
        if kind in ("hang", "reset"):
            self._reset()
            return
        if kind == "busy":
            status, headers, content = 503, {"Content-Type": "application/xml"}, BUSY
        else:
            status, headers, content = self._forward(body)
        wait_s = faults.latency_s + (faults.slow_s if kind == "slow" else 0.0) - (time.monotonic() - begin)
        if wait_s > 0:
            s3.pause(wait_s)
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
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # the names that http.server calls

    def _body(self) -> bytes:
        """The request's body, which clients that sign as they go send in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
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
