"""Pages of the documentation, as tests read them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from headway.cli.app import app


def commands(page: Path) -> list[list[str]]:
    """Lines of code that call us, as words; what stands before the call and after a comment is left out."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    calls = [(line, re.search(r"(?:^|\s)headway (?=[a-z])", line)) for line in lines]
    return [shlex.split(line[call.end() :], comments=True) for line, call in calls if call]


def strange(page: Path) -> list[str]:
    """Its commands, or options of them, that there are not, in words."""
    found = []
    for words in commands(page):
        command: Any = typer.main.get_command(app)
        rest = list(words)
        while below := getattr(command, "commands", None):
            name = rest[0] if rest and rest[0] in below else _left_out(command)
            if name is None:
                found.append(f"there is no `headway {' '.join(words)}`")
                break
            rest = rest[1:] if rest and rest[0] == name else rest
            command = below[name]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.partition("=")[0] for word in rest if word.startswith("-")}
        found += [f"`headway {' '.join(words)}` has no {option}" for option in sorted(asked - known)]
    return found


def _left_out(group: Any) -> str | None:
    """The verb that is meant where none is said; see `headway.cli.sweep`."""
    return "run" if group.name == "sweep" else None


def links(page: Path) -> list[str]:
    """Files that it leads to, and that are not there."""
    found = re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [link for link in found if not (page.parent / link).exists()]
