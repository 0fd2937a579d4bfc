"""What the verbs of `headway cluster` tell of a cluster, whoever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    Args:
        name: as `headway cluster drain` takes it: a number on this machine, else the cloud's id.
        type: of `available_node_types`.
        state: `booting`, `up`, `draining`, `stopping`, `down`; `lost` is one that the cloud still has and Ray has not.
        id: Ray's; "" while it has none.
        ip: inside the cluster; "" while it has none.
        since: Unix seconds of its launch; None where that is not known.
        option: how it was got, in words: the cloud's type, zone, spot.
        price_per_hour: dollars; None where that is not told.
        why: of the state, where there is something to say.
    """

    name: str
    type: str
    state: str
    id: str = ""
    ip: str = ""
    since: float | None = None
    option: str = ""
    price_per_hour: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Status:
    """A cluster at this moment.

    Args:
        name: of it.
        kind: `provider.type` of its file.
        state: `up`, `starting`, `down` (nothing of it is left), or `unreachable`.
        address: of Ray, for drivers on its machines (HOST:PORT).
        jobs: of its job API, a URL: what `headway submit --address` takes.
        since: Unix seconds of its start.
        ends_at: Unix seconds at which it ends by itself, if the file says so.
        nodes: the head first.
        news: what its provider has learnt, newest last: refusals, boots that failed, what is being waited for.
        why: of the state.
    """

    name: str
    kind: str
    state: str
    address: str = ""
    jobs: str = ""
    since: float | None = None
    ends_at: float | None = None
    nodes: Sequence[Node] = ()
    news: Sequence[str] = ()
    why: str = ""


@dataclass(frozen=True)
class Down:
    """What `down` did.

    Args:
        name: of the cluster.
        ended: machines that it ended, in words.
        leftovers: what is still there and may cost something, in words; each is a leak.
        kept: what is left there on purpose, and is named so that it is known.
        note: something to know; as that it was down before.
    """

    name: str
    ended: Sequence[str] = ()
    leftovers: Sequence[str] = ()
    kept: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Up:
    """What `up` did.

    Args:
        name: of the cluster.
        kind: `provider.type`.
        address: of Ray.
        jobs: of its job API.
        folder: of what is known of it on this machine; its token is in the file `token` there (0600).
        hints: lines for people: how to submit a job, how to end it.
        applied: what changed on a cluster that was up already; None if it was started by this.
    """

    name: str
    kind: str
    address: str
    jobs: str
    folder: str
    hints: Sequence[str] = field(default_factory=tuple)
    applied: Sequence[str] | None = None
