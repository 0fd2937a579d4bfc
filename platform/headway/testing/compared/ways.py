"""What `--strategies` names: each a strategy with options, as changes to the job."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import BadInput, nearest
from headway.job import Job
from headway.notation.overrides import parts_of
from headway.notation.plain import read
from headway.notation.reading import mapping
from headway.strategies.options import KINDS, Strategy

MOST = 16
"""That are compared at once."""
FORM = "Write names, options behind them: all_reduce,diloco:every=50,all_reduce:compression=int8."


@dataclass(frozen=True)
class Way:
    """One of those that are compared.

    Args:
        name: as it was written, for people.
        settings: `key=value` changes to the job, the strategy first.
    """

    name: str
    settings: tuple[str, ...]

    @property
    def slug(self) -> str:
        """Its name as part of a run's."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")[:60]


def parse(text: str) -> list[Way]:
    """The ways of a list.

    Args:
        text: pieces between commas, each `kind`, `kind:key=value:key=value` or the path of a YAML file. A key is an
            option of the strategy, or else one of the job. What stands in brackets is no separator.

    Raises:
        BadInput: naming the piece that is wrong, and what is allowed there.
    """
    pieces = [piece.strip() for piece in split(text, ",")]
    if not all(pieces):
        raise BadInput(f"--strategies {text}", "one of them has no name", FORM)
    ways = [_way(piece) for piece in pieces]
    twice = [way.name for at, way in enumerate(ways) if way.slug in [other.slug for other in ways[:at]]]
    if twice:
        raise BadInput(f"--strategies names {twice[0]} twice", "", "Give each of them other options, or name it once.")
    if len(ways) > MOST:
        raise BadInput(f"--strategies names {len(ways)}", f"at most {MOST} are compared", "Leave some out.")
    return ways


def split(text: str, at: str) -> list[str]:
    """The pieces between separators that are in no brackets and no quotes."""
    found, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += 0 if quote else (character in "[{") - (character in "]}")
        if character == at and not quote and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found


def _way(piece: str) -> Way:
    kind, *options = split(piece, ":")
    if piece.endswith((".yaml", ".yml")):
        return _of_a_file(Path(piece))
    if kind not in KINDS:
        if Path(piece).is_file():
            return _of_a_file(Path(piece))
        remedy = f"{nearest(kind, list(KINDS))} `headway strategies` lists them; a YAML file may be named as well."
        raise BadInput(f"--strategies: {piece}", f"there is no strategy {kind!r}", remedy)
    settings, rest = [f"strategy={kind}"], []
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise BadInput(f"--strategies: {piece}", f"{option!r} is not of the form key=value", FORM)
        first = parts_of(key.strip())[0] if parts_of(key.strip()) else ""
        if first in Strategy.model_fields and first != "kind":
            settings.append(f"strategy.{key.strip()}={value.strip()}")
        elif first in Job.model_fields and first != "strategy":
            rest.append(f"{key.strip()}={value.strip()}")
        else:
            known = [name for name in (*Strategy.model_fields, *Job.model_fields) if name not in ("kind", "strategy")]
            reason = f"{first!r} is an option neither of a strategy nor of the job"
            raise BadInput(f"--strategies: {piece}", reason, nearest(first, known))
    return Way(piece, (*settings, *rest))


def _of_a_file(path: Path) -> Way:
    """A strategy's section alone, or keys of a job with `strategy` among them."""
    tree: dict[str, Any] = mapping(path, "strategy")
    if "strategy" not in tree and "kind" not in tree:
        remedy = "Write kind: diloco and its options; or keys of a job, with strategy among them."
        raise BadInput(f"--strategies: {path}", "it names no strategy", remedy)
    laid = tree if "strategy" in tree else {"strategy": tree}
    strange = [key for key in laid if key not in Job.model_fields]
    if strange:
        raise BadInput(
            f"{path}: {strange[0]!r}", "a job has no such key", nearest(str(strange[0]), list(Job.model_fields))
        )
    return Way(path.stem, tuple(f"{key}={json.dumps(value)}" for key, value in laid.items()))


def link(text: str) -> float:
    """Kilobits a second of a link, like 100mbit, 1gbit or 512kbit.

    Raises:
        BadInput: it is none.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmg])bit(?:/s)?\s*", text.lower())
    if match is None or not float(match[1]):
        raise BadInput(f"--link {text}", "that is no rate of a link", "Write it like 100mbit or 1gbit.")
    return float(match[1]) * {"k": 1.0, "m": 1e3, "g": 1e6}[match[2]]


def seeds(text: str) -> list[int]:
    """Seeds like 0,1,2 or 3.

    Raises:
        BadInput: they are none.
    """
    pieces = text.split(",")
    try:
        found: Sequence[Any] = [read(piece) for piece in pieces]
    except Exception:  # of YAML, of many kinds
        found = [None]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in found):
        raise BadInput(f"--seeds {text}", "seeds are whole numbers from 0 on", "Write them like 0,1,2.")
    return list(dict.fromkeys(found))
