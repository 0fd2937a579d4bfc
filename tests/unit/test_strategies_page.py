"""docs/strategies.md says only what there is: strategies, options, compressions, the command and its options."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml

from headway.cli import compare
from headway.job import parse
from headway.strategies.options import COMPRESSORS, KINDS, OPTIONS, Compression
from headway.testing.compared.ways import parse as ways

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")


def test_every_strategy_option_and_compression_is_told() -> None:
    for name in (*KINDS, *COMPRESSORS, *{option for options in OPTIONS.values() for option in options}):
        if name != "none":
            assert f"`{name}`" in PAGE, f"the page says nothing of {name}"
    for name in Compression.model_fields:
        if name != "kind":
            assert name in PAGE, f"the page says nothing of compression.{name}"


def test_its_jobs_are_good() -> None:
    lines = re.findall(r"^    (strategy: .*?)(?:  #.*)?$", PAGE, re.M)
    assert len(lines) == 2
    for line in lines:
        parse({"name": "n", "task": "t.py:T", "data": {"train": "d"}, "steps": 1, **yaml.safe_load(line)})


def test_its_commands_are_good() -> None:
    (named,) = re.findall(r"--strategies (\S+,\S+)$", PAGE, re.M)
    assert [way.name for way in ways(named)] == list(KINDS)
    ways("diloco:every=50:outer.lr=0.5,all_reduce:reproducible=bitwise")
    told = set(re.findall(r"`(--[a-z]+)", PAGE))
    there = {"--" + ("set" if name == "setting" else name) for name in inspect.signature(compare.compare).parameters}
    assert there - {"--job"} == told
