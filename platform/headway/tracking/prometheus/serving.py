"""An HTTP server of figures, for all runs that this process keeps the records of: one port, one entry."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from headway.core.families import COUNTER, FAMILIES, PREFIX
from headway.core.figures import Labels, Sample
from headway.tracking.prometheus import discovery

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CLIENT_S = 10.0
"""So long a client may take for its request."""
WILDCARDS = ("", "0.0.0.0", "::")

Samples = Callable[[], Sequence[Sample]]


class Sources:
    """Whose figures are served: a collector of prometheus_client's.

    Each source is (label, name): ("run", NAME) or ("sweep", NAME).
    """

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str], Samples] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, label: str, name: str, samples: Samples) -> None:
        with self._lock:
            self._samples[label, name] = samples

    def remove(self, label: str, name: str, samples: Samples) -> None:
        """Where it is still these."""
        with self._lock:
            if self._samples.get((label, name)) == samples:
                del self._samples[label, name]

    def describe(self) -> list[Metric]:
        """Nothing beforehand: what there is hangs on the sources."""
        return []

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            sources = list(self._samples.items())
        found: defaultdict[tuple[str, str], list[tuple[Labels, float]]] = defaultdict(list)
        for (label, source), samples in sources:
            for name, labels, value in samples():
                found[label, name].append(((source, *labels), value))
        for (label, name), values in found.items():
            family = FAMILIES[PREFIX + name]
            kind: Any = CounterMetricFamily if family.kind == COUNTER else GaugeMetricFamily
            metric = kind(PREFIX + name.removesuffix("_total"), family.help, labels=(label, *family.labels))
            for labels, value in values:
                metric.add_metric(labels, value)
            yield metric


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_S

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without asking for the name of an address, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


class Serving:
    """Figures at an address of this machine.

    Args:
        sources: that are served.
        host: to listen at.
    """

    def __init__(self, sources: Sources, host: str) -> None:
        self.sources, self._host = sources, host
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._entry: discovery.Entry | None = None

    def open(self, port: int) -> int:
        """Listen; 0: at any port that is free. Returns the port. Raises OSError."""
        from prometheus_client import CollectorRegistry, make_wsgi_app

        family, _, _, _, address = socket.getaddrinfo(
            self._host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = type("_Bound", (_Server,), {"address_family": family})(address[:2], _Handler)
        registry = CollectorRegistry()
        registry.register(self.sources)
        server.set_app(make_wsgi_app(registry))
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="prometheus", daemon=True)
        self._thread.start()
        return self.port

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.server_port

    @property
    def target(self) -> str:
        """By which it is reached: host:port."""
        host = socket.gethostname() if self._host in WILDCARDS else self._host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def announce(self, runs: Path, name: str) -> None:
        """See `discovery.announce`. Raises OSError."""
        self._entry = discovery.announce(runs, name, self.target)

    def close(self) -> None:
        """Withdraw the entry, and listen no more."""
        if self._entry is not None:
            self._entry.withdraw()
            self._entry = None
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        ending = threading.Thread(target=server.shutdown, name="prometheus-ends", daemon=True)
        ending.start()
        with suppress(OSError):  # it looks around twice a second, or when somebody comes
            socket.create_connection((str(server.server_address[0]), server.server_port), 0.2).close()
        ending.join()
        self._thread.join()
        server.server_close()
