"""Where what was logged lies in a run's folder, and in MLflow: by name and step, so that a repeat takes its place."""

from __future__ import annotations

import hashlib
import re

FOLDER = "logged"
INDEX = "logged.jsonl"
NAME_CHARS = 100
_ODD = re.compile(r"[^A-Za-z0-9_/ -]+")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_TAKEN = (".lock", ".kept", ".tmp")
"""Ends of names that are no records, see `headway.runs.stream`."""


def path_of(name: str, step: int, suffix: str) -> str:
    """Relative to the run's folder, below `FOLDER`; the same for equal names, another for others.

    Args:
        name: the user's; with slashes where it is one of a group.
        step: committed steps.
        suffix: with its dot. There always is one, so that no file has the name of another's folder.
    """
    parts = [part.strip(" -") for part in _ODD.sub("_", name).split("/")]
    cleaned = "/".join(part for part in parts if part)[:NAME_CHARS].strip("/ ") or "_"
    if cleaned != name:
        cleaned += f"-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    suffix = suffix.lower()
    usable = _SUFFIX.fullmatch(suffix) and suffix not in _TAKEN
    return f"{FOLDER}/{cleaned}/step-{step:08d}{suffix if usable else '.bin'}"
