"""Names and lists as they stand in the files that are written."""

from __future__ import annotations

import json
import keyword
import re

WIDE = 110


def listed(names: list[str]) -> str:
    """A list of names as Python has it, over several lines where it is long."""
    whole = json.dumps(names, ensure_ascii=False)
    if len(whole) <= WIDE:
        return whole
    lines, line = [], "   "
    for name in names:
        item = f" {json.dumps(name, ensure_ascii=False)},"
        if len(line) + len(item) > WIDE:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join(["[", *lines, line, "]"])


def prose(text: str) -> str:
    """Text of others (a column's name, a file's) as it may stand in a docstring: it ends none, and escapes nothing."""
    return " ".join(text.split()).replace("\\", "/").replace('"', "'")


def class_name(text: str) -> str:
    """A class's name from any text: `customer churn` gives CustomerChurn."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    made = "".join(word[0].upper() + word[1:] for word in words) or "Own"
    return made if made[0].isalpha() and not keyword.iskeyword(made) else f"Of{made}"


def job_name(text: str) -> str:
    """A job's name from any text."""
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return made[:60] or "own"
