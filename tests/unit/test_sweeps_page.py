"""docs/sweeps.md says only what there is: commands, files, keys, names; and all of them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pages import links, strange

from headway.notation.plain import read
from headway.sweeps import best, book, conclusion, folder, pictures
from headway.sweeps.file import Sweep, taken
from headway.sweeps.named import SCHEDULERS, SEARCHES
from headway.sweeps.seen import history

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sweeps.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_command_and_link_is_there() -> None:
    assert strange(PAGE) == []
    assert links(PAGE) == []


def test_the_sweep_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(# sweep.yaml.*?)```", TEXT, re.DOTALL)
    tree = read(text)
    tree["job"] = {
        "name": "n",
        "task": "/t.py:T",
        "arguments": {},
        "data": {"train": "/d", "validation": "/d"},
        "steps": 8,
    }
    assert taken(tree).trials == 32


def test_every_key_search_and_scheduler_is_told_of() -> None:
    keys = {field.alias or name for name, field in Sweep.model_fields.items()} - {"name", "job", "time_attr"}
    assert {key for key in keys if not re.search(rf"`?\b{key}\b[:`]", TEXT)} == set()
    assert {name for name in (*SEARCHES, *SCHEDULERS) if f"`{name}`" not in TEXT} == set()


def test_every_file_of_a_sweep_is_told_of() -> None:
    files = [folder.FACTS, folder.FILE, book.FILE, history.FILE, conclusion.FILE, best.FILE, f"{pictures.FOLDER}/"]
    assert [name for name in files if f"`{name}`" not in TEXT] == []
