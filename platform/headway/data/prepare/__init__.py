"""`headway data prepare`: files into a dataset.

The package's rooms: `sources` (what people's files hold), `steps` (what is done to rows), `stages` (what the cluster
does, each resumable), and `whole`, which goes through them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.data.manifest import Manifest


def prepare(src: str | Path, dst: str | Path, **options: Any) -> Manifest | dict[str, Manifest]:
    """Turn files into Parquet shards with a manifest; see `headway.data.prepare.whole.prepare`."""
    from headway.data.prepare.whole import prepare as make

    return make(src, dst, **options)
