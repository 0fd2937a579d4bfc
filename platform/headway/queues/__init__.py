"""The queue of a cluster: what takes workers of its jobs, not jobs.

place       what lies in the store: the book, led by a lease; wishes; what travels
keeper      decides and has it carried out, turn by turn; one at a time, by the lease
cluster     what a keeper asks of a cluster, and the real one: Ray's job API, runs' requests, Ray's nodes
actor       the keeper as a detached actor on the head, and the Ray job that begins it
asking      what people ask: submit, ls, set, move, rm, rules, log
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.queues.asking import log as log
    from headway.queues.asking import ls as ls
    from headway.queues.asking import submit as submit

__all__ = ["log", "ls", "submit"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import headway.queues` stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'headway.queues' has no attribute {name!r}")
    from headway.queues import asking

    return getattr(asking, name)
