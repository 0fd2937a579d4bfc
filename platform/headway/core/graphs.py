"""Who exchanges weights with whom in gossip, and how much each counts: doubly stochastic, so that the mean stays."""

from __future__ import annotations

GRAPHS = ("ring", "exponential", "complete")


def neighbours(graph: str, replica: int, count: int) -> list[int]:
    """Replicas whose weights one takes, ascending, itself among them.

    Args:
        graph: ring: those before and after it; exponential: those 1, 2, 4, ... before it (Assran et al. 2019,
            Stochastic Gradient Push; Ying et al. 2021, Exponential Graph is Provably Efficient); complete: all.
        replica: its number.
        count: of replicas.

    Raises:
        ValueError: there is no such graph.
    """
    if graph == "ring":
        found = {(replica - 1) % count, replica, (replica + 1) % count}
    elif graph == "exponential":
        found = {replica, *((replica - (1 << hop)) % count for hop in range(max(1, (count - 1).bit_length())))}
    elif graph == "complete":
        found = set(range(count))
    else:
        raise ValueError(f"there is no graph {graph!r}")
    return sorted(found)


def weights(graph: str, replica: int, count: int) -> dict[int, float]:
    """How much each of them counts: all alike. Every replica is taken by as many as it takes, so columns add up to 1 as
    rows do (Lian et al. 2017, Can Decentralized Algorithms Outperform Centralized Algorithms?)."""
    found = neighbours(graph, replica, count)
    return dict.fromkeys(found, 1 / len(found))


def needs(graph: str, count: int, carried: tuple[tuple[int, ...], ...]) -> list[tuple[int, int, int]]:
    """What passes between workers: (replica, from rank, to rank), each once, in one order that all share."""
    carrier = {r: rank for rank, replicas in enumerate(carried) for r in replicas}
    found = {
        (other, carrier[other], rank)
        for rank, replicas in enumerate(carried)
        for r in replicas
        for other in neighbours(graph, r, count)
        if carrier[other] != rank
    }
    return sorted(found)
