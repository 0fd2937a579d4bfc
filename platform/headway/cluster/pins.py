"""What a cluster's machines install: the versions that are here, all of them said."""

from __future__ import annotations

import importlib.metadata as metadata
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headway.errors import BadInput

_LOCAL = ("headway",)
"""What travels as files."""


def requirements(*more: str) -> list[str]:
    """Every package that Headway needs, and what these need, pinned to the versions of this machine: "ray==2.60.0".

    Args:
        more: packages that are needed there, too: "boto3".

    Raises:
        BadInput: something of it is not installed here, so its version is not known.
    """
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [("headway", frozenset())]
    for name in more:
        found[name] = f"{name}=={_version(Requirement(name), 'the cluster')}"
        waiting.append((name, frozenset()))
    seen = set[tuple[str, str]]()
    while waiting:
        name, extras = waiting.pop()
        for wanted in _of(name, extras):
            key = canonicalize_name(wanted.name)
            if key not in _LOCAL:
                found[key] = f"{key}=={_version(wanted, name)}"
            new = {(key, each) for each in ("", *wanted.extras)} - seen
            seen |= new
            if new:
                waiting.append((key, frozenset(each for _, each in new if each)))
    return [line for _, line in sorted(found.items())]


def _of(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a package needs here."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError as error:
        raise _missing(name, "it has no metadata here") from error
    for line in lines:
        wanted = Requirement(line)
        holds = wanted.marker is None or any(wanted.marker.evaluate({"extra": each}) for each in ("", *extras))
        if holds:
            yield wanted


def _version(wanted: Requirement, whose: str) -> str:
    try:
        return metadata.version(wanted.name).partition("+")[0]  # what follows is a build's, which an index has not
    except metadata.PackageNotFoundError as error:
        raise _missing(wanted.name, f"{whose} needs it") from error


def _missing(name: str, why: str) -> BadInput:
    remedy = f"Install it: pip install {name}."
    return BadInput(
        f"the version of {name} for the cluster's machines is not known", f"{why}, and it is not here", remedy
    )


if __name__ == "__main__":  # python -m headway.cluster.pins > requirements.txt, for clusters that others start
    import sys

    print("\n".join(requirements(*sys.argv[1:])))
