"""What is another in a cluster's file that was changed while the cluster is up."""

from __future__ import annotations

from headway.cluster.file import ClusterFile


def differences(old: ClusterFile, new: ClusterFile) -> list[str]:
    """In words, for people."""
    said = [
        f"{key} is {getattr(new.spec, key)}, was {getattr(old.spec, key)}"
        for key in ("max_workers", "idle_timeout_minutes")
        if getattr(old.spec, key) != getattr(new.spec, key)
    ]
    for name in {**old.workers, **new.workers}:
        if name not in old.workers or name not in new.workers:
            said.append(f"node type {name} is {'new' if name in new.workers else 'no more'}")
            continue
        was, now = old.workers[name].model_dump(), new.workers[name].model_dump()
        said += [f"{name}.{key} is {now[key]}, was {was[key]}" for key in now if now[key] != was[key]]
    if old.headway != new.headway:
        said.append("what has changed of provider.headway counts from the next start")
    return said
