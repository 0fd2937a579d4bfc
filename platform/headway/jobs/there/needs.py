"""What must be on a machine for a run to go on there: Python, Ray, and the packages of the run.

Only Python's own library is imported here, and none of its newer features is used: this is to say what is too old.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Mapping
from typing import Any

OLDEST = (3, 11)
"""Python that Headway runs on."""


def lacking(wanted: Mapping[str, str]) -> dict[str, list[str | None]]:
    """Of packages by their distributions' names, those that are not here, or in another release.

    Args:
        wanted: with a version, of which another patch of the same release will do; or with what a version must be, like
            ">=2.10,<3".

    Returns:
        [wanted, found] of each; found is None where there is none.
    """
    found: dict[str, list[str | None]] = {}
    for name, version in sorted(wanted.items()):
        here = version_of(name)
        if here is None or not fits(here, version):
            found[name] = [version, here]
    return found


def fits(here: str, wanted: str) -> bool:
    """Whether a version will do. Of the ways to say what is wanted those that Headway's own metadata has."""
    if not wanted or wanted[0].isdigit():
        return not wanted or release(here) == release(wanted)
    return all(_fits(numbers(here), clause.strip()) for clause in wanted.split(","))


def _fits(here: tuple[int, ...], clause: str) -> bool:
    operator = re.match(r"[<>=!~]+", clause)
    if operator is None:
        return True
    text = clause[operator.end() :].strip()
    there = numbers(text)
    width = max(len(here), len(there))
    left, right = (part + (0,) * (width - len(part)) for part in (here, there))
    if operator[0] in ("==", "===", "!="):
        same = here[: len(there)] == there if text.endswith(".*") else left == right
        return same == (operator[0] != "!=")
    if operator[0] == "~=":
        return left >= right and here[: len(there) - 1] == there[:-1]
    return {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator[0]]


def numbers(version: str) -> tuple[int, ...]:
    """Of a version; what stands behind them, or for a build, does not count."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version.strip())
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def version_of(name: str) -> str | None:
    """Of a distribution that is installed here."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, by which packages say that they changed."""
    return numbers(version)[:2]


def refusal(lacks: Mapping[str, list[str | None]], where: str) -> dict[str, Any]:
    """Fact, reason, remedy and exit code of a machine that lacks packages.

    Args:
        lacks: see `lacking`; not empty.
        where: the machine, in words.
    """
    words = []
    for name, (wanted, found) in sorted(lacks.items()):
        words.append(f"{name} {wanted}" + (f" (it has {found})" if found else ""))
    remedy = "Install it there, or give --install, which brings it for this run only."
    if len(words) > 1:
        remedy = "Install them there, or give --install, which brings them for this run only."
    if "ray" in lacks:
        theirs = lacks["ray"][1]
        reason = "the run is led by what is inside of Ray, which another release has otherwise"
        remedy = f"Use a cluster with Ray {lacks['ray'][0]}" + (f"; this one has {theirs}." if theirs else ".")
        return _said(f"{where} has another Ray: {', '.join(words)} is wanted", reason, remedy)
    return _said(f"{where} lacks {', '.join(words)}", "the run needs what it was submitted with", remedy)


def python_refusal(where: str, version: tuple[int, int] | None = None) -> dict[str, Any] | None:
    """The same for Python that is too old; None where it will do. version: this one's where not given."""
    major, minor = version if version is not None else (sys.version_info[0], sys.version_info[1])
    if (major, minor) >= OLDEST:
        return None
    oldest = ".".join(map(str, OLDEST))
    reason = f"Headway runs on Python {oldest} or newer, and workers run on the cluster's"
    return _said(f"{where} runs Python {major}.{minor}", reason, f"Use a cluster with Python {oldest} or newer.")


def python_note(submitted: tuple[int, ...]) -> str:
    """What is to be told where Python is another than that of the machine that submitted; "" where it is not."""
    here = (sys.version_info[0], sys.version_info[1])
    if tuple(submitted[:2]) == here:
        return ""
    theirs, ours = ".".join(map(str, here)), ".".join(map(str, submitted[:2]))
    return f"the cluster runs Python {theirs}, and this was submitted from Python {ours}: the task runs on the former"


def _said(fact: str, reason: str, remedy: str) -> dict[str, Any]:
    return {"fact": fact, "reason": reason, "remedy": remedy, "traceback": "", "exit_code": 2}
