"""What a run was trained on, as it was when it began: datasets.json, which tells it still when the data is gone.

{"train": {"name": "fashion-mnist", "rows": 60000, "digest": "...", "schema": [["image", "..."], ...], ...}, ...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.durable import replace

if TYPE_CHECKING:
    from headway.data.manifest import Manifest

FILE = "datasets.json"
COLUMNS, LABELS = 500, 200
"""That are told of one."""


def keep(folder: Path, places: Mapping[str, tuple[str, int | None]], found: Mapping[str, Manifest]) -> None:
    """Write it into a run's folder.

    Args:
        places: folder or URL of each, by use.
        found: their manifests, by use.

    Raises:
        OSError: the folder cannot be written.
    """
    text = json.dumps({use: _told(each, places[use][0]) for use, each in found.items()}, indent=1)
    path = folder / FILE
    with suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return
    replace(path, text)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What is known of them, by use; of runs of earlier releases, and where it is damaged, nothing."""
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {str(use): dict(each) for use, each in tree.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _told(found: Manifest, place: str) -> dict[str, Any]:
    counts = found.label_counts or {}
    most = sorted(counts.items(), key=lambda each: -each[1])[:LABELS]
    return {
        "name": found.name,
        "place": place,
        "source": found.source,
        "version": found.version,
        "digest": found.digest,
        "rows": found.rows,
        "bytes": found.bytes,
        "shards": len(found.shards),
        "schema": [list(column) for column in found.schema[:COLUMNS]],
        "label": found.label,
        "label_counts": dict(most),
        "categories": {name: len(names) for name, names in found.categories.items()},
    }
