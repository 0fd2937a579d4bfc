"""The Ray that a run starts for itself: nobody on the network reaches it, and no other user reads its token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headway.driver import embedded

pytestmark = pytest.mark.ray

LISTENING = """
import os
import ray
from headway.driver import embedded

def children(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in open(f"/proc/{pid}/task/{task}/children").read().split():
            yield child
            yield from children(child)

def sockets(pid):
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]

embedded.start(2, 80 * 2**20, log_to_driver=False, logging_level="ERROR")
ray.get(ray.remote(lambda: None).remote())
ours = {inode for pid in [str(os.getpid()), *children(os.getpid())] for inode in sockets(pid)}
for name in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in ours:
            print("LISTENS", fields[1].partition(":")[0], flush=True)
print("AT", ray.util.get_node_ip_address(), os.environ["RAY_AUTH_MODE"], flush=True)
ray.shutdown()
"""

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_2_21_an_embedded_ray_is_reached_from_this_machine_only(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**clean, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=180, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    listening = [line[1] for line in lines if line[0] == "LISTENS"]
    assert len(listening) > 3
    assert set(listening) <= LOOPBACK
    assert ["AT", "127.0.0.1", "token"] in lines
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0
    assert len(token.read_text()) == 64


def test_2_21_a_token_that_all_could_read_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("mine")
    token.chmod(0o644)
    embedded.keep_token_private()
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text() == "mine"
    token.unlink()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    embedded.keep_token_private()
    assert not token.exists()
