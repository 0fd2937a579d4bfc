"""A real head of a Ray cluster, with a dashboard that takes jobs and a token that it wants; gone with its block."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from headway.cluster.local.processes import kill_below


@dataclass(frozen=True)
class Head:
    """Where it is, and what a client's environment needs.

    Args:
        address: of the cluster.
        dashboard: URL that takes jobs.
        token: that it wants.
        folder: of its temporary files.
    """

    address: str
    dashboard: str
    token: str
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Variables of a shell without anything of Ray's but what is given, and with a home of its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "AWS_", "HEADWAY_"))}
        return {**kept, "HOME": str(self.folder / "home"), "RAY_USAGE_STATS_ENABLED": "0", **more}

    @property
    def known(self) -> dict[str, str]:
        """Variables of one who has the token."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def asked(self, path: str) -> str:
        """What the dashboard answers."""
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())


@contextmanager
def head(cpus: int = 3) -> Iterator[Head]:
    """Start it on the loopback, in a session and a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hh-", dir="/tmp"))
    (folder / "home").mkdir()
    ports = _free_ports(6)
    found = Head(f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", secrets.token_hex(16), folder)
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    names += ("metrics-export-port", "ray-client-server-port")
    options = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    options += [f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}/r", "--head", "--block"]
    options += [f"--object-store-memory={100 * 2**20}", "--include-dashboard=true"]
    ray = Path(sys.executable).with_name("ray")
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [str(ray), "start", *options],
            env=found.environment(**found.known, PYTHONPATH=os.environ.get("PYTHONPATH", "")),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not _is_up(found):
            assert process.poll() is None, (folder / "said").read_text()
            assert time.monotonic() < deadline, (folder / "said").read_text()
            time.sleep(0.2)
        yield found
    finally:
        kill_below(process.pid)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _is_up(found: Head) -> bool:
    with suppress(OSError):
        return "version" in found.asked("/api/version")
    return False


def _free_ports(count: int) -> list[int]:
    """Ports that are free at once; held together, so that none is given twice."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
