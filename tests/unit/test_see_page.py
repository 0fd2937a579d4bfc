"""docs/see.md, and README, say only what there is; the page has a word for each way to see a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages import commands, links, strange

from headway.elastic.worker.session import Session
from headway.job import Job
from headway.notation.plain import read

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "see.md"
TEXT = PAGE.read_text(encoding="utf-8")
VERBS = ("watch", "report", "ui", "sync", "dashboards", "notify", "records")


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_command_link_and_picture_is_there(page: Path) -> None:
    assert strange(page) == []
    assert links(page) == []


@pytest.mark.parametrize("verb", VERBS)
def test_each_way_to_see_has_a_command(verb: str) -> None:
    assert verb in {words[0] for words in commands(PAGE)}


def test_the_keys_of_the_job_are_such() -> None:
    texts = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    keys = {key for text in texts for key in read(text)}
    assert keys
    assert keys <= set(Job.model_fields)


def test_what_a_session_is_asked_for_there_is() -> None:
    asked = set(re.findall(r"session\.(\w+)\(", TEXT))
    assert {"record", "log_figure", "log_text", "log_table", "log_artifact"} <= asked
    assert {name for name in asked if not hasattr(Session, name)} == set()
