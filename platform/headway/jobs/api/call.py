"""One question over HTTP and its answer, for a job API that may be behind a tunnel, a proxy, or nothing at all."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from headway.errors import BadInput

DEFAULT = "http://127.0.0.1:8265"
"""Where a tunnel to a head's dashboard usually ends."""
CONNECT_S = 5.0
ANSWER_S = 30.0
_SAID = 300


class Unasked(BadInput):
    """The cluster's job API did not answer the question. That says nothing of the jobs."""


class Unreachable(Unasked):
    """It could not be asked."""


class NoEntry(Unasked):
    """It does not let us in."""


class NotARay(Unasked):
    """Somebody else answers: what stands before it, say, or a head that is not up yet."""


class Failed(Exception):
    """No answer came to one question, or none that settles it; it may have been heard all the same."""


@dataclass(frozen=True)
class Answer:
    """What came back. location: where it sends us instead."""

    status: int
    body: bytes
    location: str = ""

    def said(self) -> str:
        """The answer in a line: of a traceback its last."""
        text = self.body.decode(errors="replace").strip()
        if "<html" in text.lower() or not text:
            return f"it answers {self.status} {http.client.responses.get(self.status, '')}".rstrip()
        lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
        return f"it answers {self.status}: {lines[-1][:_SAID]}" if lines else f"it answers {self.status}"


def where(address: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The address of a job API: as it was said, else of RAY_API_SERVER_ADDRESS, else of RAY_ADDRESS where that is one,
    else the usual end of a tunnel.

    Raises:
        BadInput: it is an address of another kind.
    """
    said = f"--address {_redacted(address)}" if address is not None else ""
    if address is None:
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            given = environ.get(name, "")
            if given and (name != "RAY_ADDRESS" or is_job_api(given)):
                address, said = given, f"{name}={_redacted(given)}"
                break
        else:
            return DEFAULT
    remedy = "Give that of its dashboard: http://HOST:8265, or through a tunnel http://127.0.0.1:PORT."
    if not is_job_api(address):
        raise BadInput(said, "it is no address of a Ray cluster's job API", remedy)
    if re.search(r"//[^/?#]*@", address):
        reason = "it holds a name or a password, which would be shown"
        raise BadInput(said, reason, "Leave them out: a cluster's token is taken from RAY_AUTH_TOKEN or a file.")
    if not _usable(address):
        raise BadInput(said, "it is no address of a Ray cluster's job API", remedy)
    return address.rstrip("/")


def _usable(address: str) -> bool:
    """Whether a host can be asked at it."""
    if not address.isprintable() or " " in address:
        return False
    try:
        parts = urlsplit(address)
        str(parts.hostname or "").encode("idna")  # as the connection will
        sound = bool(parts.hostname) and (parts.port is None or parts.port > 0) and address.isascii()
    except ValueError:
        return False
    return sound and not parts.query and not parts.fragment


def is_job_api(address: str | None) -> bool:
    """Whether an address is one of a job API, and not of a cluster that a driver joins."""
    return address is not None and address.lower().startswith(("http://", "https://"))


def _redacted(address: str) -> str:
    return re.sub(r"//[^@/]*@", "//***@", address)


def unreachable(address: str, reason: str) -> Unreachable:
    """Nobody could be asked there."""
    remedy = (
        "Check the address (a head's dashboard listens on port 8265), the tunnel to it, and that the head was started "
        "with its dashboard."
    )
    return Unreachable(f"{address} could not be asked", reason, remedy)


def not_a_ray(address: str, reason: str) -> NotARay:
    """Somebody answers, and it is no job API of Ray's."""
    remedy = "Give the address of the dashboard of a cluster's head, http://HOST:8265; ray[default] has it."
    return NotARay(f"{address} is not a Ray cluster's job API", reason, remedy)


def ask(
    address: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None, answer_s: float
) -> Answer:
    """Ask once.

    Raises:
        Failed: no answer came; or it was cut.
        BadInput: the certificate of the other side is not to be trusted.
    """
    parts = urlsplit(address)
    connection, target, own = _connection(parts.scheme, str(parts.hostname), parts.port, f"{parts.path}{path}")
    try:
        connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(answer_s)
        connection.request(method, target, body, {"Accept": "application/json", **own, **headers})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), answer.getheader("Location") or "")
    except ssl.SSLCertVerificationError as error:
        remedy = "Set SSL_CERT_FILE to the certificate of who vouches for it."
        raise BadInput(f"{address} is not to be trusted", error.verify_message, remedy) from None
    except TimeoutError:
        raise Failed("no answer comes in time") from None
    except http.client.HTTPException as error:
        raise Failed(f"the answer is cut or no HTTP ({type(error).__name__})") from None
    except UnicodeError:
        raise Failed("no host can be called so") from None
    except OSError as error:
        raise Failed(error.strerror or str(error) or type(error).__name__) from None
    finally:
        connection.close()


def _connection(
    scheme: str, host: str, port: int | None, path: str
) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection, through the environment's proxy where there is one; what is to be asked for on it, and what the
    proxy wants to be told."""
    secure = scheme == "https"
    proxy = None if _near(host) or proxy_bypass(host) else getproxies().get(scheme)
    port = port or (443 if secure else 80)
    if proxy is None:
        if secure:
            return http.client.HTTPSConnection(host, port, timeout=CONNECT_S), path, {}
        return http.client.HTTPConnection(host, port, timeout=CONNECT_S), path, {}
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    at, number, known = str(via.hostname), via.port or 80, _known(via)
    if not secure:
        shown = f"[{host}]" if ":" in host else host
        return http.client.HTTPConnection(at, number, timeout=CONNECT_S), f"http://{shown}:{port}{path}", known
    tunnel = http.client.HTTPSConnection(at, number, timeout=CONNECT_S)
    tunnel.set_tunnel(host, port, known)
    return tunnel, path, {}


def _known(proxy: SplitResult) -> dict[str, str]:
    """How a proxy knows its users."""
    if proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


def _near(host: str) -> bool:
    """Whether it is this machine, which no proxy stands before."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host == socket.gethostname()
