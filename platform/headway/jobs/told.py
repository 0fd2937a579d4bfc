"""What the driver on the cluster tells whoever submitted: lines among what it prints, which people are not shown.

    ::headway:: {"told": "plan", ...}

Only Python's own library is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

MARK = "::headway:: "

Told = Literal["lacks", "refused", "plan", "note", "began", "ended", "found"]
"""lacks: `packages` {name: [wanted, found or null]}, of this machine. refused: `fact`, `reason`, `remedy`,
`traceback`, `exit_code`; nothing was started. plan: what `headway submit` shows before it does. note: `text`.
began: `run`, `where`, `epoch`, `resumed_from` (a step, or null). ended: `state`, `message`, `exit_code`.
found: one line of `doctor`."""


def line(told: Told, **content: Any) -> str:
    """One line, with its end."""
    return f"{MARK}{json.dumps({'told': told, **content})}\n"


def read(lines: Iterable[str]) -> list[dict[str, Any]]:
    """What was told among these lines; what is cut short or damaged is none."""
    found = []
    for each in lines:
        if not is_told(each):
            continue
        try:
            tree = json.loads(each[len(MARK) :])
        except ValueError:
            continue
        if isinstance(tree, dict) and "told" in tree:
            found.append(tree)
    return found


def is_told(line: str) -> bool:
    """Whether it is such a line, and not for people."""
    return line.startswith(MARK)
