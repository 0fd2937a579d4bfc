"""docs/own-loop.md shows the difference between the plain loop and the session's as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_2_22_the_page_says_that_the_body_runs_again() -> None:
    page = (DOCS / "own-loop.md").read_text(encoding="utf-8")
    section = page.partition("## The body may run again")[2]
    assert "lost in mid-step" in section
    assert "rehearses" in section
    assert "session.register" in section


def test_the_page_shows_the_real_difference() -> None:
    command = runpy.run_path(str(DOCS / "own_loop_diff.py"))
    page = (DOCS / "own-loop.md").read_text(encoding="utf-8")
    assert command["difference"]()
    assert f"```diff\n{command['difference']()}```\n" in page, "run: python docs/own_loop_diff.py --write"
    assert command["page"]() == page
