"""Quotas: which contradict, and what is left of them."""

from __future__ import annotations

import pytest

from headway.core.queued import Each, Queued, Quota
from headway.core.quotas import Allowances, contradictions

JOB = Queued("a", "ann", "vision", each=Each(2.0, 1.0))


@pytest.mark.parametrize(
    ("quotas", "fact"),
    [
        ((Quota(),), "a quota names neither a user nor a team"),
        ((Quota(user="ann", team="vision"),), "a quota names user ann and team vision"),
        ((Quota(user="ann", gpus=1), Quota(user="ann", gpus=2)), "user ann has two quotas that differ"),
        ((Quota(user="ann", gpus=-1),), "gpus=-1 in the quota of user ann"),
        ((Quota(team="vision", share=0),), "share=0 in the quota of team vision"),
        (
            (Quota(user="ann", jobs=3), Quota(team="vision", jobs=2)),
            "user ann may have jobs=3, and team vision jobs=2",
        ),
    ],
)
def test_what_contradicts_is_told(quotas: tuple[Quota, ...], fact: str) -> None:
    (found,) = contradictions(quotas, {"ann": "vision"})
    assert found.fact == fact
    assert found.reason
    assert found.remedy


def test_what_does_not_contradict_is_not_told() -> None:
    quotas = (Quota(user="ann", gpus=2), Quota(team="vision", gpus=4), Quota(user="bob"), Quota(user="bob"))
    assert contradictions(quotas, {"ann": "vision"}) == []


def test_a_job_counts_against_its_user_and_its_team() -> None:
    allowances = Allowances((Quota(user="ann", gpus=4), Quota(team="vision", cpus=6, jobs=2)))
    assert allowances.blocks(JOB, 4) == 1
    assert allowances.blocks(JOB, 5) == 0
    allowances.add(JOB, 2, 1)
    assert allowances.more(JOB, 9) == 1, "6 CPUs of the team, 2 each"
    assert allowances.said(1) == "team vision has 4 of 6 cpus, 1 of 2 jobs"
    allowances.add(JOB, 1, 1)
    assert allowances.more(JOB, 9) == 0
    assert allowances.blocks(JOB, 1) == 1
    allowances.add(JOB, 3, 2, -1)
    assert allowances.blocks(JOB, 3) is None
    assert allowances.more(Queued("b", "bob"), 9) == 9, "nobody's quota"
