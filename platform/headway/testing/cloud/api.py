"""The test cloud over HTTP, in the network of its machines: a head that is cut off cannot ask it either."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import urlsplit

from headway.cluster.market import Machine, Market, Option, Refused
from headway.testing.cloud.cloud import Cloud
from headway.testing.network.namespace import within

TIMEOUT_S = 10.0
T = TypeVar("T")


class Api:
    """The cloud's door.

    Args:
        cloud: that is asked.
        host: to listen at.
        pid: of a process in whose network that is; None for this one's.
    """

    def __init__(self, cloud: Cloud, host: str = "127.0.0.1", pid: int | None = None) -> None:
        self._cloud, self._host, self._pid = cloud, host, pid
        self._server: ThreadingHTTPServer | None = None
        self.url = ""

    def open(self) -> None:
        """Begin to answer."""
        cloud = self._cloud

        class Asked(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    answer: dict[str, Any] = {"answer": _obey(cloud, self.path.strip("/"), order)}
                except Refused as refused:
                    answer = {"refused": [refused.kind, str(refused), refused.retry_s]}
                except OSError:  # the cloud is silent, or its answer is lost
                    self.close_connection = True
                    return
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Keeps quiet: the cloud has a log of its own."""

        def listen() -> ThreadingHTTPServer:
            return ThreadingHTTPServer((self._host, 0), Asked)

        server = listen() if self._pid is None else within(self._pid, listen)
        self._server, self.url = server, f"http://{self._host}:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _obey(cloud: Cloud, verb: str, order: dict[str, Any]) -> Any:
    cluster = str(order["cluster"])
    if verb == "launch":
        option = Option(**order["option"])
        return asdict(cloud.launch(cluster, option, order["tags"], order["config"], order["once"]).shown())
    if verb == "tag":
        return cloud.tag(cluster, order["machine"], order["tags"])
    if verb == "terminate":
        return cloud.terminate(cluster, order["machines"])
    if verb == "ended":
        return cloud.ended(cluster, order["machines"])
    if verb == "spot_prices":
        return cloud.spot_prices([Option(**each) for each in order["options"]], order["since"])
    return [asdict(each) for each in cloud.listed(cluster)]


class Far:
    """The cloud, from afar.

    Args:
        url: of its door.
        cluster: for which.
    """

    def __init__(self, url: str, cluster: str) -> None:
        self._where, self._cluster = urlsplit(url), cluster

    def launch(self, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> Machine:
        """See `Market`."""
        order = {"option": asdict(option), "tags": dict(tags), "config": dict(config), "once": once}
        return self._ask("launch", _machine, **order)

    def tag(self, machine: str, tags: Mapping[str, str]) -> None:
        """See `Market`."""
        self._ask("tag", bool, machine=machine, tags=dict(tags))

    def terminate(self, machines: Sequence[str]) -> None:
        """See `Market`."""
        self._ask("terminate", bool, machines=list(machines))

    def machines(self) -> Sequence[Machine]:
        """See `Market`."""
        return self._ask("machines", lambda found: [_machine(each) for each in found])

    def ended(self, machines: Sequence[str]) -> Mapping[str, float]:
        """See `Charges`."""
        return self._ask("ended", dict, machines=list(machines))

    def spot_prices(self, options: Sequence[Option], since: float) -> Mapping[Option, Sequence[tuple[float, float]]]:
        """See `Charges`."""
        order = {"options": [asdict(each) for each in options], "since": since}
        steps = self._ask(
            "spot_prices", lambda found: [[(at, dollars) for at, dollars in each] for each in found], **order
        )
        return dict(zip(options, steps, strict=True))

    def _ask(self, verb: str, read: Callable[[Any], T], **order: Any) -> T:
        connection = http.client.HTTPConnection(self._where.hostname or "", self._where.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", f"/{verb}", json.dumps({"cluster": self._cluster, **order}))
            answer = json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"the cloud gave no answer: {error}") from error
        finally:
            connection.close()
        if "refused" in answer:
            kind, reason, retry_s = answer["refused"]
            raise Refused(kind, reason, retry_s)
        return read(answer["answer"])


def _machine(tree: dict[str, Any]) -> Machine:
    return Machine(**{**tree, "option": Option(**tree["option"])})


def open_market(provider: Mapping[str, Any], cluster: str) -> Market:
    """For `headway.cluster.markets`: the section's `headway.market.url` says where the door is."""
    return Far(provider["headway"]["market"]["url"], cluster)
