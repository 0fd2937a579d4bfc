"""What is posted: all that is known, as JSON, or a line for people, as Slack takes it."""

from __future__ import annotations

import json
import math
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headway.core import secrecy
from headway.core.alarms import Word

VERSION = 1
LONGEST = 2000
"""Characters of a text."""
METRICS = 20
SHORTEST = 6
"""A shorter secret would be found everywhere."""
MARKS = {"finished": ":white_check_mark:", "failed": ":x:", "stopped": ":octagonal_sign:"}
GOES, OVER = ":warning:", ":arrow_forward:"


@dataclass(frozen=True)
class About:
    """What a word is of.

    Args:
        name: of the run or the sweep; kind: which of both it is.
        path: its folder or URL.
        host: machine that leads it.
        hidden: values that nobody is to be told, wherever they turn up.
    """

    name: str
    path: str
    host: str
    kind: str = "run"
    hidden: Sequence[str] = field(default=(), repr=False)


def about_run(name: str, path: str, given: Mapping[str, str]) -> About:
    """A run that is led on this machine. given: variables of its environment; nobody is told those that are secret."""
    secret = [value for key, value in given.items() if secrecy.called(key) and len(value) >= SHORTEST]
    return About(name, path, socket.gethostname(), hidden=secret)


def tree(about: About, word: Word, at: float, facts: Mapping[str, Any]) -> dict[str, Any]:
    """All of a word.

    Args:
        at: Unix seconds.
        facts: of the run at that moment: step, total_steps, loss, metrics, workers, goodput, ...
    """
    text = clean(word.text, about.hidden)
    told = {
        "version": VERSION,
        "id": uuid.uuid4().hex,
        "kind": word.kind,
        "over": word.over,
        "time": at,
        about.kind: about.name,
        "text": text,
        "path": clean(about.path, about.hidden),
        "host": about.host,
    }
    return {**told, **{name: _plain(value, about.hidden) for name, value in facts.items() if name not in told}}


def body(form: str, told: Mapping[str, Any]) -> bytes:
    """What is posted of it."""
    return json.dumps(told if form == "json" else {"text": _line(told)}, allow_nan=False).encode()


def clean(text: str, hidden: Sequence[str] = ()) -> str:
    """The text without secrets, and not too long."""
    for part in (*hidden, *secrecy.within(text)):
        if part:
            text = text.replace(part, secrecy.HIDDEN)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _line(told: Mapping[str, Any]) -> str:
    """By Slack's rules: only these three characters are escaped, and a name may hold none of its marks."""
    name = str(next((told[kind] for kind in ("run", "sweep", "job") if kind in told), ""))
    mark = MARKS.get(str(told["kind"]), OVER if told["over"] else GOES)
    rest = _numbers(told.get("metrics") or {})
    line = f"*{name}* {told['text']}" + (f" ({rest})" if rest and told["kind"] == "finished" else "")
    return f"{mark} {line}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _numbers(metrics: Mapping[str, Any]) -> str:
    shown = [f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)]
    return ", ".join(shown[:5])


def _plain(value: Any, hidden: Sequence[str]) -> Any:
    """As JSON has it: what is no number is null, and a text is without secrets."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(name), hidden): _plain(each, hidden) for name, each in list(value.items())[:METRICS]}
    return value if isinstance(value, int | bool) or value is None else clean(str(value), hidden)
