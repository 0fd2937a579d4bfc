"""A Ray of this process's own, on this machine: it listens on the loopback, and takes nobody without its token."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from headway.driver import rayjob
from headway.errors import BadInput

LOOPBACK = "127.0.0.1"
SOCKET_BYTES = 107
"""The longest name that a Unix socket may have."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


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
    with _loopback_only(), _apart(), without_dashboard(), rayjob.hidden():
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=store_bytes,
            include_dashboard=False,
            _node_ip_address=LOOPBACK,
            _temp_dir=None if folder is None else str(folder),
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
def without_dashboard() -> Iterator[None]:
    """Ray leaves out its page when told to, but starts the page's server and agent: two seconds, and nobody asks them.

    A minimal Ray has neither.
    """
    from ray._private import node, utils

    ray_utils: Any = utils
    ray_node: Any = node.Node
    usual = ray_utils.get_dashboard_dependency_error, ray_node.start_api_server
    ray_utils.get_dashboard_dependency_error = lambda: ImportError("left out")
    ray_node.start_api_server = _no_api_server
    try:
        yield
    finally:
        ray_utils.get_dashboard_dependency_error, ray_node.start_api_server = usual


def _no_api_server(node: Any, **_: Any) -> None:
    node._webui_url = ""


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
