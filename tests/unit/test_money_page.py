"""docs/money.md tells of every key of a job's money and time, and of commands that there are."""

from __future__ import annotations

from pathlib import Path

from tests.pages import links, strange

from headway.core.chronicle import KINDS
from headway.job import Budget

PAGE = Path(__file__).parents[2] / "docs" / "money.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_command_and_link_is_there() -> None:
    assert strange(PAGE) == []
    assert links(PAGE) == []


def test_every_key_and_event_is_told_of() -> None:
    keys = [f"budget.{name}" for name in Budget.model_fields]
    assert [key for key in (*keys, "deadline", "workers.price_per_hour") if f"`{key}`" not in TEXT] == []
    assert [kind for kind in ("policy", "foreseen", "at_risk", "stop") if f"- `{kind}`: " not in TEXT] == []
    assert {"policy", "foreseen", "at_risk", "stop"} <= KINDS
