"""How far a prepare is and what it did not keep, and who is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a prepare is.

    Args:
        stage: reading, or what comes before it (finding duplicates, scattering) or after (sorting).
        done: pieces of the stage.
        total: pieces of the stage.
        rows: written so far in this stage.
    """

    stage: str
    done: int
    total: int
    rows: int


Note = Callable[[str], None]
Say = Callable[[Progress], None]


def nobody(progress: Progress) -> None:
    """Who is told where nobody asked to be."""


def on_stderr(note: str) -> None:
    """Says what is not kept, or was changed."""
    print(f"note: {note}", file=sys.stderr, flush=True)
