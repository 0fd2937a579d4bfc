"""What is asked of a store, near or far, and the error of one that is out of reach."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from headway.errors import BadData
from headway.storage.clients import AZURE

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or data.store.anonymous: true)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or data.store.anonymous: true)",
    "az": AZURE,
}


class OutOfReach(BadData):
    """A store does not answer, or only with errors: nothing is known of the data there."""


def truncated(place: str, size: int, needed: int) -> BadData:
    """A file that is shorter than it must be."""
    reason = f"it has {size} bytes, {needed} are needed"
    return BadData(f"{place} is truncated", reason, "Run `headway data check` on it.")


class Store(Protocol):
    """Named files in one place. Methods may be called from many threads."""

    url: str

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes [offset, offset + length) of a file, or up to its end.

        Raises:
            FileNotFoundError: there is no such file.
            BadData: it cannot be had, or is shorter than asked for.
        """

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def list(self) -> list[str]:
        """Names of all files, also of those in folders below (`train/manifest.json`), sorted."""

    def write(self, name: str, content: bytes | Path) -> None:
        """Make a file of bytes, or of a local file's; readers see none or all of it."""

    def close(self) -> None:
        """Nothing more will be asked for."""
