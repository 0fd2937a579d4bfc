"""Lengths of time as people write them: 30s, 90m, 12h, 30d, 2w."""

from __future__ import annotations

import re

from headway.errors import BadInput

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(option: str, text: str) -> float:
    """Seconds of a length of time.

    Args:
        option: that it was given with, for what is said of a wrong one.
        text: as "90m".

    Raises:
        BadInput: it is none.
    """
    found = _LENGTH.fullmatch(text.strip().lower())
    if found is None:
        raise BadInput(f"{option} {text}", "it is no length of time", "Write a number and s, m, h, d or w: 30d.")
    return float(found[1]) * _SECONDS[found[2]]
