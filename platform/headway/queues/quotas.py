"""Quotas as people write them.

most_running: 3
teams:
  vision: 8                       # workers
  speech: {gpus: 4, share: 2}
users:
  ann: {jobs: 2}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from headway.core import bookings
from headway.core.queued import Quota, Rules
from headway.core.quotas import contradictions
from headway.errors import BadInput, nearest
from headway.notation.reading import mapping

FIELDS = tuple(each.name for each in fields(Quota) if each.name not in ("user", "team"))
WHOLE = ("workers", "jobs")
PREPARED = "prepared"
_FORM = "Write it like vision=8, vision.gpus=4, user:ann.jobs=2 or most_running=3."


def split(settings: Sequence[str]) -> tuple[list[str], int | None]:
    """Settings that are no quota apart: how many jobs are to be prepared; None where that is not said.

    Raises:
        BadInput: it is no number of them.
    """
    of = [each for each in settings if each.partition("=")[0].strip() == PREPARED]
    number = _number(of[-1], of[-1].partition("=")[2].strip(), whole=True) if of else None
    return [each for each in settings if each not in of], number


def prepared(file: Path) -> int | None:
    """How many jobs a file wants to be prepared; None where it does not say. Raises BadInput."""
    found = mapping(file, "quotas").get(PREPARED)
    return None if found is None else split([f"{PREPARED}={found}"])[1]


def read(file: Path) -> Rules:
    """All of them, from a file.

    Raises:
        BadInput: it cannot be read, or says something else.
    """
    tree = mapping(file, "quotas")
    rules = Rules()
    for key, value in tree.items():
        if key == PREPARED:
            continue
        if key in ("teams", "users"):
            if not isinstance(value, Mapping):
                raise BadInput(
                    f"{file}: {key} is {value!r}", "it names whose quota is what", f"Write {key}: {{NAME: 8}}."
                )
            for name, given in value.items():
                each = given if isinstance(given, Mapping) else {"workers": given}
                for part, number in each.items():
                    prefix = "user:" if key == "users" else ""
                    rules = changed(rules, f"{prefix}{name}.{part}={'' if number is None else number}")
        else:
            rules = changed(rules, f"{key}={'' if value is None else value}")
    return rules


def changed(rules: Rules, setting: str) -> Rules:
    """With one of them otherwise: NAME=8 is a team's workers.

    Raises:
        BadInput: it is none.
    """
    key, equals, text = setting.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not key:
        raise BadInput(f"--set {setting}", "it is no quota", _FORM)
    if key == "fair":
        if text not in ("", "user", "team"):
            raise BadInput(f"--set {setting}", f"shares are among users or teams, not {text!r}", "Write fair=user.")
        fair: Any = text or None
        return replace(rules, fair=fair)
    if key in bookings.RULES:
        whole = key == "most_running"
        value = _number(setting, text, whole, least=1 if whole else 0) if text else getattr(Rules(), key)
        if key == "raised_s" and not value:
            raise BadInput(f"--set {setting}", "no time would be enough to be raised for", "Write raised_s=86400.")
        return replace(rules, **{key: value})
    kind, colon, name = key.partition(":")
    kind, name = (kind, name) if colon else ("team", kind)
    name, _, part = name.partition(".")
    part = part or "workers"
    if kind not in ("team", "user") or not name:
        raise BadInput(f"--set {setting}", f"{kind} is neither team nor user", _FORM)
    if part not in FIELDS:
        raise BadInput(f"--set {setting}", f"there is no quota of {part}", nearest(part, [*FIELDS]))
    value = _number(setting, text, part in WHOLE) if text else None
    if part == "share":
        if value is not None and value <= 0:
            raise BadInput(f"--set {setting}", "a share is a weight, and more than 0", "")
        value = 1.0 if value is None else value
    whose: dict[str, Any] = {kind: name}
    amount: dict[str, Any] = {part: value}
    of = [quota for quota in rules.quotas if getattr(quota, kind) == name]
    rest = tuple(quota for quota in rules.quotas if getattr(quota, kind) != name)
    quota = replace(of[0] if of else Quota(**whose), **amount)
    nothing = quota == Quota(**whose)
    return replace(rules, quotas=rest if nothing else (*rest, quota))


def admit(rules: Rules, team_of: dict[str, str]) -> None:
    """Raises BadInput: they contradict each other.

    Args:
        team_of: the teams of users that are known.
    """
    found = list(contradictions(rules.quotas, team_of))
    if found:
        first, more = found[0], len(found) - 1
        fact = f"{first.fact} (and {more} more)" if more else first.fact
        raise BadInput(fact, first.reason, first.remedy)


def tree(rules: Rules) -> dict[str, Any]:
    """As plain values."""
    return bookings.rules_tree(rules)


def _number(setting: str, text: str, whole: bool, least: int = 0) -> Any:
    try:
        value: float = int(text) if whole else float(text)
    except ValueError:
        kind = "whole number" if whole else "number"
        raise BadInput(f"--set {setting}", f"{text!r} is no {kind}", _FORM) from None
    if not math.isfinite(value) or value < least:
        raise BadInput(
            f"--set {setting}", f"{text} is less than {least}" if value < least else "it is no number", _FORM
        )
    return value
