"""Phases of spot capacity learned from recorded spells (L. E. Baum and others, A Maximization Technique..., 1970)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headway.core.phases import Phases

EACH = 4
"""Phases of each kind; with fewer the table of docs/money.md is worse, with more it is no better."""

LONGEST = (60.0, 200.0)
"""Ticks that a stay in the slowest phase, away and there, is taken to last before anything is learned."""

PRIOR = 0.5
"""Moves of each kind that are taken as seen: no move is impossible."""

ROUNDS, ENOUGH = 100, 0.05
"""So many rounds at most; fewer once one adds less than this to the log likelihood."""

Floats = NDArray[np.float64]


def learned(spells: Sequence[Sequence[bool]], tick_s: float) -> Phases:
    """The phases under which what was seen is likeliest, by expectation and maximisation from a fixed start.

    Args:
        spells: of each recording, whether machines were to be had at each tick; at least one recording of two ticks.
        tick_s: between two looks.
    """
    longest = max(map(len, spells))
    there = np.array([False] * EACH + [True] * EACH)
    seen = np.ones((longest, len(spells), len(there)))  # (ticks, recordings, phases); past a recording's end all may be
    inside = np.zeros((longest, len(spells), 1))
    for column, spell in enumerate(spells):
        seen[: len(spell), column] = np.array(spell, bool)[:, None] == there
        inside[: len(spell), column] = 1.0
    stays = np.concatenate([np.geomspace(1.5, most, EACH) for most in LONGEST])
    moves = np.tile((1.0 / stays / (len(there) - 1))[:, None], len(there))
    np.fill_diagonal(moves, 1.0 - 1.0 / stays)
    start, before = np.full(len(there), 1.0 / len(there)), -np.inf
    for _ in range(ROUNDS):
        start, moves, likelihood = _round(seen, inside, start, moves)
        if likelihood - before < ENOUGH:
            break
        before = likelihood
    rows = tuple(tuple(row) for row in moves.tolist())
    return Phases(tick_s, tuple(there.tolist()), rows, tuple(start.tolist()))


def _round(seen: Floats, inside: Floats, start: Floats, moves: Floats) -> tuple[Floats, Floats, float]:
    """Better start and moves, and the log likelihood of those given."""
    forward, scale = np.empty_like(seen), np.empty(seen.shape[:2])
    for tick in range(len(seen)):
        now = (forward[tick - 1] @ moves if tick else start) * seen[tick]
        scale[tick] = now.sum(1)
        forward[tick] = now / scale[tick][:, None]
    backward, counts = np.ones(seen.shape[1:]), np.zeros_like(moves)
    for tick in range(len(seen) - 1, 0, -1):
        onward = seen[tick] * backward / scale[tick][:, None]
        counts += moves * ((forward[tick - 1] * inside[tick]).T @ onward)
        backward = onward @ moves.T
    begun = (forward[0] * backward).sum(0) + PRIOR
    counts += PRIOR
    return begun / begun.sum(), counts / counts.sum(1, keepdims=True), float(np.log(scale).sum())
