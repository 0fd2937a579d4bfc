"""The page of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.report.page import account, again, journey, kept, opening, rows, trouble
from headway.report.page.sheet import Page


def page(story: Mapping[str, Any]) -> Page:
    """The page of a run.

    Args:
        story: of kind `run`.
    """
    drawn: dict[str, Any] = {"plots": []}
    sections = [
        *journey.journey(story, drawn),
        account.account(story, drawn),
        trouble.recoveries(story),
        kept.logged(story),
        kept.checkpoints(story),
        rows.data(story),
        again.machines(story, drawn),
        again.again(story),
        again.environment(story),
        trouble.events(story),
    ]
    name = str(story["run"]["name"])
    return Page(
        title=f"{name} · training report",
        opening=opening.of_run(story),
        sections=[section for section in sections if section is not None],
        drawn=drawn,
        footer=footer(bool(story.get("redacted"))),
    )


def footer(redacted: bool) -> str:
    """The last line of a page."""
    out = " Paths, hosts, people and environment were left out." if redacted else ""
    return f"Made by Headway. This file holds all it needs and asks for nothing over a network.{out}"
