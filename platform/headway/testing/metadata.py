"""Doubles of the clouds' metadata services, made from their documentation: one server speaks for many machines.

with Metadata() as service:
    machine = service.instance("i-1", cloud="aws")
    subprocess.run([..., "--notices", "aws", "--url", machine.url])
    machine.reclaim(notice_s=120)

They hold a client to what the real ones want (AWS's token by PUT, Google's and Azure's headers), and can be told to
misbehave: see `LIES`.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

Cloud = Literal["aws", "gcp", "azure"]
LIES = ("hang", "html", "flood", "endless", "error", "redirect", "past", "far", "other", "flap", "deep", "drip")
"""Hang: no answer. Html: a page of somebody else's. Flood: 10 MB. Endless: bytes without end. Error: 500. Redirect: to
another place that announces an end. Past, far: an end an hour ago, or in a year. Other: another machine's. Flap: an end
in every second answer. Deep: brackets within brackets. Drip: a byte a second."""
FLOOD_BYTES = 10 << 20
HOUR_S, YEAR_S = 3600.0, 365 * 86400.0
WAIT_S = 60.0
ELSEWHERE = "/elsewhere"

_Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Instance:
    """One machine, as its service sees it. All may be called while it is asked.

    Args:
        id: the cloud's.
        cloud: whose service speaks for it.
        url: what the agent is told.
        name: Azure's.
        ahead_s: how far the service's clock is before ours.
        asked: the newest questions, as (verb, path).
        may_go: ids of Azure's events that the machine need not be waited for.
    """

    id: str
    cloud: Cloud
    url: str
    name: str = ""
    ahead_s: float = 0.0
    asked: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=1000))
    may_go: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self._tag = 1
        self._tokens: set[str] = set()
        self._deadline: float | None = None
        self._action = ""
        self._rebalance = 0.0
        self._maintenance = "NONE"
        self._events: list[dict[str, Any]] = []
        self._lie = ""
        self._over = threading.Event()

    def reclaim(self, notice_s: float = 120.0, action: str = "") -> float:
        """Announce that the machine goes; somebody else must take it. Returns when: Unix seconds here.

        Args:
            notice_s: until then. Google tells none: it is 30 there.
            action: AWS's, or Azure's kind of event; terminate, and Preempt, when not given.
        """
        with self._news:
            self._deadline = time.time() + notice_s
            self._action = action or "terminate"
            if self.cloud == "azure":
                self.schedule(action or "Preempt", notice_s)
            self._changed()
            return self._deadline

    def rebalance(self) -> None:
        """Announce that a spot machine of AWS may be taken before long."""
        with self._news:
            self._rebalance = time.time()

    def maintenance(self, event: str) -> None:
        """Google's `maintenance-event`."""
        with self._news:
            self._maintenance = event
            self._changed()

    def schedule(self, kind: str, notice_s: float, lasts_s: int = -1, status: str = "Scheduled") -> str:
        """One of Azure's events; returns its id."""
        key = secrets.token_hex(8).upper()
        at = formatdate(time.time() + self.ahead_s + notice_s, usegmt=True) if status == "Scheduled" else ""
        event = {"EventId": key, "EventType": kind, "EventStatus": status, "NotBefore": at}
        about = {"ResourceType": "VirtualMachine", "Resources": [self.name], "DurationInSeconds": lasts_s}
        with self._news:
            self._events.append({**event, **about, "Description": "", "EventSource": "Platform"})
        return key

    def withdraw(self) -> None:
        """Nothing is announced any more."""
        with self._news:
            self._deadline, self._rebalance, self._maintenance = None, 0.0, "NONE"
            self._events.clear()
            self._changed()

    def lie(self, how: str | None) -> None:
        """Misbehave in a way of `LIES` from now on; None: no more."""
        if how is not None and how not in LIES:
            raise ValueError(f"{how!r} is none of {LIES}")
        with self._news:
            self._lie = how or ""
            if how in ("past", "far", "flap", "other"):
                self.reclaim({"past": -HOUR_S, "far": YEAR_S}.get(how, 120.0))
            self._changed()

    def forget_tokens(self) -> None:
        """As AWS's does when a machine was stopped and started."""
        with self._news:
            self._tokens.clear()

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        self._over.set()
        with self._news:
            self._changed()

    # What is asked

    def answer(self, verb: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> _Reply:
        """What the service says; blocks where it hangs, or is told to wait."""
        self.asked.append((verb, path))
        lie = self._lie
        if lie == "hang":
            self._over.wait()
        if path == ELSEWHERE:
            return 200, {}, json.dumps({"action": "terminate", "time": self._iso(time.time() + 120)}).encode()
        if lie == "redirect":
            return 302, {"Location": self.url + ELSEWHERE}, b""
        if lie == "error":
            return 500, {}, b"an error"
        if lie in _BODIES:
            return 200, {"Content-Type": "text/html", "Metadata-Flavor": "Google"}, _BODIES[lie]()
        by_cloud: dict[str, Callable[..., _Reply]] = {"aws": self._aws, "gcp": self._gcp, "azure": self._azure}
        return by_cloud[self.cloud](verb, path, query, headers, body)

    def _aws(self, verb: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> _Reply:
        if path == "/latest/api/token":
            keep = headers.get("x-aws-ec2-metadata-token-ttl-seconds")
            if verb != "PUT" or keep is None:
                return 400, {}, b""
            token = secrets.token_urlsafe(40)
            self._tokens.add(token)
            return 200, {"X-aws-ec2-metadata-token-ttl-seconds": keep}, token.encode()
        if headers.get("x-aws-ec2-metadata-token") not in self._tokens:
            return 401, {}, b""
        what = path.removeprefix("/latest/meta-data/")
        deadline = self._shown()
        if what == "instance-id":
            return 200, {}, b"i-of-somebody-else" if self._lie == "other" else self.id.encode()
        if what == "spot/instance-action" and deadline is not None:
            return 200, {}, json.dumps({"action": self._action, "time": self._iso(deadline)}).encode()
        if what == "events/recommendations/rebalance" and self._rebalance:
            return 200, {}, json.dumps({"noticeTime": self._iso(self._rebalance)}).encode()
        return 404, {}, b"<html>404</html>"

    def _gcp(self, verb: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> _Reply:
        if headers.get("metadata-flavor") != "Google":
            return 403, {}, b"Forbidden"
        what = path.removeprefix("/computeMetadata/v1/instance/")
        if query.get("wait_for_change") == "true":
            limit = min(float(query.get("timeout_sec", WAIT_S)), WAIT_S)
            with self._news:
                self._news.wait_for(lambda: self._over.is_set() or str(self._tag) != query.get("last_etag"), limit)
        said = {
            "preempted": "TRUE" if self._shown() is not None else "FALSE",
            "maintenance-event": self._maintenance,
            "id": "0" if self._lie == "other" else self.id,
        }.get(what)
        if said is None:
            return 404, {}, b""
        return 200, {"Metadata-Flavor": "Google", "ETag": str(self._tag)}, said.encode()

    def _azure(self, verb: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> _Reply:
        if headers.get("metadata") != "true" or "api-version" not in query:
            return 400, {}, b"{}"
        if path == "/metadata/instance/compute":
            whose = "of-somebody-else" if self._lie == "other" else self.id
            return 200, {}, json.dumps({"name": self.name, "vmId": whose}).encode()
        if path != "/metadata/scheduledevents":
            return 404, {}, b"{}"
        if verb == "POST":
            self.may_go += [each["EventId"] for each in json.loads(body)["StartRequests"]]
            return 200, {}, b""
        shown = self._events if self._deadline is None or self._shown() is not None else []
        return 200, {}, json.dumps({"DocumentIncarnation": self._tag, "Events": shown}).encode()

    def _shown(self) -> float | None:
        """The end that is announced in this answer."""
        flapping = self._lie == "flap" and len(self.asked) % 2
        return None if flapping else self._deadline

    def _iso(self, at: float) -> str:
        return datetime.fromtimestamp(at + self.ahead_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _changed(self) -> None:
        self._tag += 1
        self._news.notify_all()


_BODIES: dict[str, Callable[[], bytes]] = {
    "html": lambda: b"<html><body>Please sign in to the network.</body></html>",
    "flood": lambda: b" " * FLOOD_BYTES,
    "deep": lambda: b"[" * 60_000,
    "endless": lambda: b"",
    "drip": lambda: b"",
}


class Metadata:
    """The server; use it as a context manager.

    Args:
        host, port: where it listens; a port that is free when 0.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._where, self.instances = (host, port), dict[str, Instance]()

    def start(self) -> Self:
        self._server = _Server(self._where, _Handler)
        self._server.metadata = self
        host, port = self._server.server_address[:2]
        self.url = f"http://{host!s}:{port}"
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="metadata", daemon=True)
        self._serving.start()
        return self

    def instance(self, id: str, cloud: Cloud = "aws", name: str = "") -> Instance:
        """A machine for which it speaks from now on; its id has no slash."""
        self.instances[id] = Instance(id, cloud, f"{self.url}/{id}", name or id)
        return self.instances[id]

    def close(self) -> None:
        for instance in list(self.instances.values()):
            instance.close()
        self._server.shutdown()
        self._server.server_close()
        self._serving.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    metadata: Metadata
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go when they are tired of waiting; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        return

    def handle_one(self) -> None:
        parts = urlsplit(self.path)
        id, _, rest = parts.path.lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        instance = self.server.metadata.instances.get(id)
        if instance is None:
            self._say(404, {}, b"", 0.0)
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        lie = instance._lie
        reply = instance.answer(self.command, f"/{rest}", query, headers, body)
        if lie in ("endless", "drip"):
            self._without_end(instance, b" " * 65536 if lie == "endless" else b" ", 0.0 if lie == "endless" else 1.0)
        else:
            self._say(*reply, instance.ahead_s)

    def _say(self, status: int, headers: Mapping[str, str], body: bytes, ahead_s: float) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + ahead_s, usegmt=True))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _without_end(self, instance: Instance, part: bytes, each_s: float) -> None:
        self.send_response_only(200)
        self.end_headers()
        self.close_connection = True
        while not instance._over.wait(each_s):
            self.wfile.write(part)

    do_GET = do_PUT = do_POST = handle_one  # noqa: N815  # the names that http.server calls
