"""A Ray of this process's own, on this machine: it listens on the loopback, and takes nobody without its token."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"


def start(cpus: int, store_bytes: int, **options: Any) -> None:
    """Start it, and connect this process to it; `ray.shutdown` ends it.

    Args:
        cpus: that it may give out.
        store_bytes: of its object store.
        options: further ones of `ray.init`.
    """
    import ray

    keep_token_private()
    with _loopback_only():
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=store_bytes,
            include_dashboard=False,
            _node_ip_address=LOOPBACK,
            **options,
        )


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
