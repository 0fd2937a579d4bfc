"""docs/clusters.md says only what there is: every command with its options, every file, every key."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from headway.cli.app import app
from headway.cluster import file

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "clusters.md", *sorted((ROOT / "cluster").glob("*/README.md"))]


def commands(page: Path) -> list[list[str]]:
    """Lines of code that call us, as words; what stands before the call and after a comment is left out."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    calls = [(line, re.search(r"(?:^|\s)headway (?=[a-z])", line)) for line in lines]
    return [shlex.split(line[call.end() :], comments=True) for line, call in calls if call]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_is_there(page: Path) -> None:
    for words in commands(page):
        command: Any = typer.main.get_command(app)
        rest = list(words)
        while below := getattr(command, "commands", None):
            assert rest[0] in below, f"{page.name}: there is no `headway {' '.join(words)}`"
            command = below[rest.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert asked <= known, f"{page.name}: `headway {' '.join(words)}` has no {asked - known}"


def test_every_file_of_the_page_is_there() -> None:
    page = PAGES[0].read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page):
        assert (PAGES[0].parent / link).exists(), link
    for name in re.findall(r"\bcluster/[a-z]+/[a-z]+\.(?:yaml|sh)\b", page):
        assert (ROOT / name).exists(), name


def test_the_file_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    found = file.parse(Path("page.yaml"), text)
    assert (found.kind, found.most("worker"), len(found.workers["worker"].one_of)) == ("aws", 4, 3)


def test_six_workers_are_no_faster_than_four_with_eight_lanes() -> None:
    from headway.core.demand import fastest

    assert fastest(8, 6) == 4
