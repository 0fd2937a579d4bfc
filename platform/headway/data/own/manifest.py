"""What is known of a dataset of the user's own: as much of a manifest as one without files can have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headway.data.manifest import Manifest


@dataclass(frozen=True)
class Described(Manifest):
    """See `Manifest`; there are no shards.

    Args:
        content: digest of the rows, or of what stands for them.
        stream: its rows can only be gone through, and are not counted.
        drifts: it gives other rows each time.
        notes: what does not hold for it, in words.
    """

    content: str = ""
    stream: bool = False
    drifts: bool = False
    notes: tuple[str, ...] = field(default=(), hash=False)

    @property
    def digest(self) -> str:
        """Of the rows."""
        return self.content

    @property
    def facts(self) -> dict[str, Any]:
        """By which a worker knows that it has the same."""
        return {"rows": self.rows, "digest": self.content}
