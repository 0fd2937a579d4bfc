"""What `headway doctor --address` says of the agents of a cluster's nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headway.core.agents import SILENT_S, Watched, judged
from headway.jobs.there.machine import AZURES_TAG, cloud

NOW = 1_795_000_000.0


def sign(**changes: Any) -> bytes:
    usual = {"at": NOW - 5, "notices": "aws", "heard": {"spot notice": NOW - 5}, "trouble": {}, "leaves": {}}
    return json.dumps({**usual, **changes}).encode()


def test_machines_that_are_watched_are_well() -> None:
    (found,) = judged([Watched("a", "aws", sign()), Watched("b", "", sign(notices="none"))], NOW)
    assert (found.level, found.where) == ("ok", ("a", "b"))


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (sign(at=NOW - SILENT_S - 1), "has said nothing for 61 s"),
        (sign(trouble={"spot notice": "no answer within 1 s"}), "spot notice: no answer within 1 s"),
        (sign(late=True, leaves={"why": "AWS takes it"}), "(AWS takes it) has not come"),
    ],
)
def test_an_agent_that_is_not_well_is_told_of(kept: bytes, words: str) -> None:
    (found,) = judged([Watched("a", "aws", kept)], NOW)
    assert (found.level, found.where) == ("warn", ("a",))
    assert words in found.found
    assert found.reason
    assert found.remedy


@pytest.mark.parametrize("kept", [None, b"", b"[]", b"{}", b"\xff", b'{"at": "noon"}'])
def test_a_clouds_machine_without_an_agent_is_told_of(kept: bytes | None) -> None:
    (found,) = judged([Watched("a", "gcp", kept), Watched("b", "", kept)], NOW)
    assert (found.level, found.where) == ("warn", ("a",))
    assert found.remedy.endswith("watch --notices gcp.")


def test_where_some_have_an_agent_the_others_are_told_of() -> None:
    warn, well = judged([Watched("a", "", sign()), Watched("b")], NOW)
    assert (warn.level, warn.where, well.where) == ("warn", ("b",), ("a",))


def test_machines_of_ones_own_need_none() -> None:
    (found,) = judged([Watched("a"), Watched("b")], NOW)
    assert (found.level, found.where) == ("ok", ("a", "b"))
    assert list(judged([], NOW)) == []


@pytest.mark.parametrize(
    ("file", "said", "whose"),
    [
        ("sys_vendor", "Amazon EC2", "aws"),
        ("product_name", "Google Compute Engine", "gcp"),
        ("chassis_asset_tag", AZURES_TAG, "azure"),
        ("sys_vendor", "QEMU", ""),
    ],
)
def test_a_machine_shows_whose_it_is(file: str, said: str, whose: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(f"{said}\n")
    assert cloud(tmp_path) == whose
