"""The queue under a virtual clock: all jobs end, and what comes of it against others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.queued import Quota, Rules, Speedup
from headway.sim.queue import POLICIES, Drawn, Fair, Fifo, Ours, Setting, draw, play

SMALL = Setting(jobs=120, gpus=32, load=3.0)


def test_draws_are_as_heavy_tailed_as_told() -> None:
    setting = Setting(jobs=20000, load=1.0)
    jobs = draw(setting, 0)
    lengths = sorted(job.work_s / setting.curve.at(job.asked) for job in jobs)
    assert 780 < lengths[len(lengths) // 2] < 920
    assert 15_000 < sum(lengths) / len(lengths) < 30_000, "28,329 s without the cut at 60 days"
    assert lengths[-1] <= 60 * 86400.0
    assert 3.6 < sum(job.asked for job in jobs) / len(jobs) < 4.0
    assert sum(job.asked * length for job, length in zip(jobs, sorted(lengths), strict=True)) > 0
    assert draw(setting, 0) == jobs != draw(setting, 1)


@pytest.mark.parametrize("name", POLICIES)
def test_all_end_and_the_same_again(name: str) -> None:
    jobs = draw(SMALL, 0)
    first = play(SMALL, jobs, POLICIES[name](SMALL))
    assert len(first.completion_h) == len(first.first_step_h) == 120
    assert first == play(SMALL, jobs, POLICIES[name](SMALL))
    work_h = sum(job.work_s for job in jobs) / 3600
    assert first.gpu_h >= work_h, "no curve is better than straight"


def test_the_account_of_one_job() -> None:
    setting = Setting(gpus=8, curve=Speedup(serial=0.0))
    jobs = [Drawn("a", 100.0, 0, 1, 2, 2, 1000.0)]
    outcome = play(setting, jobs, Fifo(setting))
    assert outcome.completion_h == [pytest.approx((30 + 500) / 3600)]
    assert outcome.gpu_h == pytest.approx(2 * 530 / 3600)
    assert outcome.first_step_h == [pytest.approx(30 / 3600)]
    assert play(setting, jobs, Ours(setting)) == outcome


def test_a_live_change_stops_a_job_for_a_second_and_a_restart_for_thirty() -> None:
    """b comes when a has all 4; 2 each from then on."""
    setting = Setting(gpus=4, curve=Speedup(serial=0.0))
    jobs = [Drawn("a", 0.0, 0, 1, 4, 4, 40_000.0), Drawn("b", 1000.0, 0, 2, 2, 2, 1e6)]
    rules = Rules(keeps=1.0)
    ours, fair = play(setting, jobs, Ours(setting, rules)), play(setting, jobs, Fair(setting))
    done = 4 * (1000 - 30)
    assert min(ours.completion_h) == pytest.approx((1000 + 1 + (40_000 - done) / 2) / 3600)
    assert min(fair.completion_h) == pytest.approx((1000 + 30 + (40_000 - done) / 2) / 3600)


def test_ours_is_first_done_at_no_more_gpu_hours() -> None:
    found = {name: play(SMALL, draw(SMALL, 0), policy(SMALL)) for name, policy in POLICIES.items()}
    assert found["ours"].mean_h < min(found[name].mean_h for name in ("fifo", "eviction"))
    assert found["ours"].gpu_h < 1.03 * found["fifo"].gpu_h


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 2.0, 8.0]), st.integers(1, 3), st.booleans())
def test_nobody_starves(seed: int, load: float, most: int, quotas: bool) -> None:
    """`play` raises where somebody waits for ever."""
    setting = replace(SMALL, jobs=40, gpus=32, load=load, most=most, known_after_s=[60.0, float("inf")][seed % 2])
    rules = Rules(held_for_s=3600.0, quotas=(Quota(user="somebody", gpus=32, jobs=5),) if quotas else ())
    outcome = play(setting, draw(setting, seed), Ours(setting, rules))
    assert len(outcome.completion_h) == 40
