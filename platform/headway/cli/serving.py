"""Somebody else's server that a verb of ours runs until Ctrl-C: it is awaited, and ends with the verb."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import IO

from headway.errors import BadInput, RunFailed

START_S = 60.0
STOP_S = 5.0


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; BadInput when it cannot be had."""
    fact, remedy = (
        f"--host {host} --port {port} cannot be used",
        "Choose another with --port, or 0 for any that is free.",
    )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise BadInput(fact, error.strerror or str(error), remedy) from None


def start(command: Sequence[str], log: IO[str], more: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start it. more: variables of the environment beside ours."""
    # A session of its own: the server may have children, and all of them are to end, when we say so.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(more or {})},
        start_new_session=True,
    )


def wait_until_up(server: subprocess.Popen[str], name: str, host: str, port: int, path: str, log: IO[str]) -> None:
    """Until it answers. name: of whom; path: that it answers when it is up. Raises RunFailed."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    # No proxy of the environment stands between this and its own child.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RunFailed(f"{name} did not start", tail(log), "")
        try:
            with opener.open(f"http://{in_url(local)}:{port}{path}", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RunFailed(f"{name} did not answer within {START_S:.0f} s", tail(log), "Try again.")


def stop(server: subprocess.Popen[str]) -> None:
    """End it with all of its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue


def tail(log: IO[str]) -> str:
    """What it said last."""
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "it said nothing"


def in_url(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
