"""A Ray of this process's own, on this machine: it listens on the loopback, and takes nobody without its token."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from headway.driver import rayjob, stand_in
from headway.errors import BadInput

LOOPBACK = "127.0.0.1"
SOCKET_BYTES = 107
"""The longest name that a Unix socket may have."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
AGENT = "--dashboard_agent_command"
"""Of a node's process: the command of the page's agent."""


def start(cpus: int, store_bytes: int, **options: Any) -> None:
    """Start it, and connect this process to it; `ray.shutdown` ends it.

    Args:
        cpus: that it may give out.
        store_bytes: of its object store.
        options: further ones of `ray.init`.

    Raises:
        BadInput: there is no folder for its sockets.
    """
    import ray

    keep_token_private()
    folder, _ = temporary()
    with _loopback_only(), _apart(), lean(), rayjob.hidden():
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=store_bytes,
            include_dashboard=False,
            _node_ip_address=LOOPBACK,
            _temp_dir=None if folder is None else str(folder),
            _system_config={"prestart_worker_first_driver": False},  # `init` waits for a process per CPU
            **options,
        )


def temporary() -> tuple[Path | None, str]:
    """The folder for Ray's temporary files, None for its usual one; and what is to be told of it.

    Ray's sockets lie there, whose names may not be longer than 107 bytes. A batch system's TMPDIR often leaves no room.

    Raises:
        BadInput: no other folder can be had.
    """
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    usual = os.environ.get(name) or "/tmp"
    longest = f"{usual}/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    length = len(os.fsencode(longest))
    if length <= SOCKET_BYTES:
        return None, ""
    for parent in SHORT:
        short = Path(parent, f"headway-{os.getuid()}")
        if _is_ours(short):
            reason = f"sockets below {name}={usual} would have names of {length} bytes, and {SOCKET_BYTES} are allowed"
            return short, f"Ray's temporary files are kept in {short}: {reason}"
    raise BadInput(
        f"{name}={usual} is too long a path for Ray",
        f"sockets below it would have names of {length} bytes, {SOCKET_BYTES} are allowed, and none of "
        f"{', '.join(SHORT)} can be written",
        "Set RAY_TMPDIR to a short path that can be written.",
    )


def _is_ours(folder: Path) -> bool:
    """Whether the folder is there, or can be made, and nobody else can read or replace what is in it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        folder.chmod(0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Ray puts the machine's own address in place of the loopback, unless it is told that there are no clusters."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _apart() -> Iterator[None]:
    """Ray's processes in process groups of their own.

    What is sent to the whole group of a command (by `timeout`, a batch system, a terminal that is closed) asks the
    command for a checkpoint; it would end the Ray that is needed to take it.
    """
    from ray._private import services

    ray_services: Any = services
    usual = ray_services.ConsolePopen
    ray_services.ConsolePopen = partial(usual, process_group=0)
    try:
        yield
    finally:
        ray_services.ConsolePopen = usual


@contextmanager
def lean() -> Iterator[None]:
    """Ray without what serves nobody here: its page's server and agent, the autoscaler, who reads the workers' logs.

    They are 2 s of CPU, and Ray is not there before the agent is. Ray leaves out the page when told to, but starts the
    server and the agent all the same. The node's process wants an agent to be there, and to be told its ports: one that
    does nothing stands in for it, without ports, as a minimal Ray's.
    """
    from ray._private import node, services

    ray_node: Any = node.Node
    ray_services: Any = services
    usual = ray_node.start_api_server, ray_node.start_monitor, ray_node.start_log_monitor
    start_process = ray_services.start_ray_process
    ray_node.start_api_server = _no_api_server
    ray_node.start_monitor = ray_node.start_log_monitor = lambda node: None
    ray_services.start_ray_process = lambda command, *rest, **named: start_process(_bare(command), *rest, **named)
    try:
        yield
    finally:
        ray_node.start_api_server, ray_node.start_monitor, ray_node.start_log_monitor = usual
        ray_services.start_ray_process = start_process


def _no_api_server(node: Any, **_: Any) -> None:
    node._webui_url = ""


def _bare(command: list[str]) -> list[str]:
    """The command of a node's process, with nobody as the page's agent; any other as it is."""
    from ray._raylet import (  # type: ignore[attr-defined]
        DASHBOARD_AGENT_LISTEN_PORT_NAME,
        METRICS_AGENT_PORT_NAME,
        METRICS_EXPORT_PORT_NAME,
        persist_port,
    )

    given = dict(part.split("=", 1) for part in command if part.startswith("--") and "=" in part)
    if AGENT not in given:
        return command
    for name in (DASHBOARD_AGENT_LISTEN_PORT_NAME, METRICS_AGENT_PORT_NAME, METRICS_EXPORT_PORT_NAME):
        persist_port(given["--session_dir"], given["--node_id"], name, -1)  # not in use
    nobody = subprocess.list2cmdline([sys.executable, "-I", "-S", stand_in.__file__])
    return [f"{AGENT}={nobody}" if part.startswith(f"{AGENT}=") else part for part in command]


def keep_token_private() -> None:
    """Have a token in the file where Ray looks for it that only this user can read; Ray would let all read its own."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):  # a home that cannot be written: Ray says so itself
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            return
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
