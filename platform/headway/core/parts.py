"""Which part of a split (train, validation, test) a row belongs to: a pure function of a seed and the row's hash."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np

from headway.core.keys import key

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
WORD = 2**64
Words = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True)
class Parts:
    """Named shares of the rows, in order; the shares add up to 1."""

    shares: tuple[tuple[str, Fraction], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.shares)

    def of(self, hashes: Words, seed: int) -> np.ndarray[Any, np.dtype[np.int8]]:
        """Number of each row's part; shape [rows].

        A row's part depends on its hash and the seed alone, so it stays when rows are added, and a share that grows
        at the cost of the next one takes rows from that one only.

        Args:
            hashes: of the rows' keys, uint64, shape [rows].
            seed: of the split.
        """
        ends = [int(end * WORD) for end in accumulate(share for _, share in self.shares[:-1])]
        drawn = mixed(hashes ^ np.uint64(key("split", seed)))
        return np.searchsorted(np.array(ends, np.uint64), drawn, side="right").astype(np.int8)


def parse(text: str) -> Parts:
    """Parts from text like train=0.8,validation=0.1,test=0.1.

    Raises:
        ValueError: saying what is wrong with it.
    """
    shares = []
    for item in text.split(","):
        name, sign, number = (word.strip() for word in item.partition("="))
        if not sign or not NAME.fullmatch(name):
            raise ValueError(f"{item!r} is not NAME=SHARE")
        try:
            share = Fraction(number)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{number!r} is not a number") from None
        if not 0 < share <= 1:
            raise ValueError(f"the share of {name} is not above 0 and at most 1")
        shares.append((name, share))
    names = [name for name, _ in shares]
    if len(set(names)) < len(names):
        raise ValueError("a name occurs twice")
    if sum(share for _, share in shares) != 1:
        raise ValueError(f"the shares add up to {float(sum(share for _, share in shares)):g}, not 1")
    return Parts(tuple(shares))


def mixed(words: Words) -> Words:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): one to one, each bit of the input moves half of the output."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
