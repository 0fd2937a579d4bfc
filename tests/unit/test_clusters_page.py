"""docs/clusters.md says only what there is: every command with its options, every file, every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages import links, strange

from headway.cluster import file

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "clusters.md", *sorted((ROOT / "cluster").glob("*/README.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_is_there(page: Path) -> None:
    assert strange(page) == []


def test_every_file_of_the_page_is_there() -> None:
    assert links(PAGES[0]) == []
    page = PAGES[0].read_text(encoding="utf-8")
    for name in re.findall(r"\bcluster/[a-z]+/[a-z]+\.(?:yaml|sh)\b", page):
        assert (ROOT / name).exists(), name


def test_the_file_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    found = file.parse(Path("page.yaml"), text)
    assert (found.kind, found.most("worker"), len(found.workers["worker"].one_of)) == ("aws", 4, 3)


def test_six_workers_are_no_faster_than_four_with_eight_lanes() -> None:
    from headway.core.demand import fastest

    assert fastest(8, 6) == 4
