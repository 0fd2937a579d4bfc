"""A script, read: each piece a fault, or refused with the piece, the reason and what is allowed there."""

from __future__ import annotations

import re
from collections.abc import Iterable

from headway.errors import BadInput, nearest
from headway.testing.faults.fault import Fault, in_order
from headway.testing.faults.verbs import DEADLINE_S, VERBS, WAYS, form

_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)?$")
_UNITS = {"ms": 1e-3, "s": 1.0, None: 1.0, "m": 60.0}
SHARE = 25.0
"""Percent of packets that others overtake, where `reorder` does not say."""


def parse(text: str) -> tuple[Fault, ...]:
    """The faults of a script, by step.

    Raises:
        BadInput: naming the piece that is wrong, and what is allowed there.
    """
    pieces = [piece.strip() for piece in re.split(r"[;\n]", text)]
    return in_order(_parse(piece) for piece in pieces if piece and not piece.startswith("#"))


def _parse(piece: str) -> Fault:
    name, *words = piece.split()
    if name not in VERBS:
        raise _bad(piece, f"nothing is called {name!r}", nearest(name, list(VERBS)))
    verb = VERBS[name]
    target, which = ("", ()) if verb.targets == ("",) else _target(piece, name, words)
    options = _options(piece, name, words if verb.targets == ("",) else words[1:])
    missing = [option for option in verb.needs if option not in options]
    if "step" not in options and not verb.early:
        raise _bad(piece, "it does not say when", form(name))
    if missing:
        said = {"for": "how long", "by": "by how much", "way": "which way", "percent": "how many", "kbit": "how slow"}
        raise _bad(piece, f"it does not say {said[missing[0]]}", form(name))
    span_s = _positive(piece, options[verb.span]) if verb.span in options else None
    by_s = _positive(piece, options["by"]) if "by" in options else None
    if by_s is not None and span_s is not None and by_s >= span_s:
        raise _bad(piece, "it ends before the first packet that is held back gets through", "Let `for` be above `by`.")
    percent = _number(piece, options["percent"], 100) if "percent" in options else SHARE if name == "reorder" else None
    return Fault(
        name,
        target,
        _whole(piece, options["step"]) if "step" in options else -1,
        which,
        DEADLINE_S if name in ("drain", "reclaim") and span_s is None else span_s,
        by_s,
        percent,
        _number(piece, options["kbit"], 1e9) if "kbit" in options else None,
        options.get("way", ""),
    )


def _target(piece: str, name: str, words: list[str]) -> tuple[str, tuple[int, ...]]:
    """What the first word after the verb says: the target in the singular, and its numbers."""
    verb = VERBS[name]
    if not words:
        raise _bad(piece, "it names no target", form(name))
    target, equals, numbers = words[0].partition("=")
    single = target.removesuffix("s")
    if not {target, single} & {known.removesuffix("s") for known in verb.targets}:
        raise _bad(piece, f"{name} does not apply to {target!r}", form(name))
    bare = name == "add" or target not in ("worker", "workers", "node", "nodes")
    if bare == bool(equals) or (target not in verb.targets and verb.fewest == 1):
        raise _bad(piece, f"{words[0]!r} is no target of {name}", form(name))
    which = () if bare else tuple(_whole(piece, word) for word in numbers.split(","))
    if len(which) > 1 and target == single:
        raise _bad(piece, f"{words[0]!r} names {len(which)} targets", form(name))
    if len(set(which)) < len(which):
        raise _bad(piece, f"{words[0]!r} names one twice", form(name))
    if which and len(which) < verb.fewest:
        raise _bad(piece, f"{words[0]!r} names one, and nobody to {name} it from", form(name))
    return single, which


def _options(piece: str, name: str, words: Iterable[str]) -> dict[str, str]:
    verb = VERBS[name]
    allowed = {"step", verb.span, *verb.needs, *verb.allows}
    options: dict[str, str] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if "way" in allowed and option in ("to", "from"):
            if word not in WAYS:
                raise _bad(piece, f"{word!r} is no way", f"Choose of {', '.join(WAYS)}.")
            option, value = "way", word
        if not equals or option not in allowed or option in options:
            raise _bad(piece, f"{word!r} cannot stand there", form(name))
        options[option] = value
    return options


def _whole(piece: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise _bad(piece, f"{text!r} is no whole number", "Workers, nodes and steps are counted from 0.")
    return int(text)


def _positive(piece: str, text: str) -> float:
    match = _SECONDS.match(text)
    if match is None:
        raise _bad(piece, f"{text!r} is no duration", "Write it like 8s, 500ms or 2m.")
    seconds = float(match[1]) * _UNITS[match[2]]
    if not 1e-3 <= seconds < 1e5:
        raise _bad(piece, f"{text!r} is no time in which anything could happen", "Write it like 8s, 500ms or 2m.")
    return seconds


def _number(piece: str, text: str, most: float) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not 0 < float(text) <= most:
        raise _bad(piece, f"{text!r} is not above 0 and at most {most:g}", "")
    return float(text)


def _bad(piece: str, reason: str, remedy: str) -> BadInput:
    return BadInput(f"the fault {piece!r} cannot be read", reason, remedy)
