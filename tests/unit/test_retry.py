"""How patient we are: pauses, which errors last, when an answer is late, how many extra requests there may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.retry import Allowance, Latencies, Policy, lasting


@given(retry=st.integers(0, 5000), draw=st.floats(0, 1, exclude_max=True))
def test_pauses_are_jittered_over_all_of_a_growing_span(retry: int, draw: float) -> None:
    policy = Policy(first_pause_s=0.1, longest_pause_s=10.0)
    span = 0.1 * 2 ** min(retry, 10)
    assert policy.pause_s(retry, draw) == pytest.approx(draw * min(10.0, span))


@pytest.mark.parametrize(
    "message",
    [
        "AWS Error ACCESS_DENIED during HeadObject operation: No response body.",
        "AWS Error UNKNOWN (HTTP status 403) during HeadObject operation: No response body.",
        "AWS Error INVALID_ACCESS_KEY_ID during GetObject operation",
        "AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: The specified bucket does not exist",
    ],
)
def test_rights_and_names_last(message: str) -> None:
    assert lasting(message)


@pytest.mark.parametrize(
    "message",
    [
        "AWS Error SERVICE_UNAVAILABLE during GetObject operation: ",
        "AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body.",
        "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 18, Transferred a partial file",
        "AWS Error SLOW_DOWN during GetObject operation: 4030 requests",
        "no answer within 20 s",
        "4000 bytes came, not 8000",
    ],
)
def test_the_rest_may_pass(message: str) -> None:
    assert not lasting(message)


def test_an_answer_is_late_beyond_the_95th_percentile_of_its_like() -> None:
    latencies = Latencies(least=16)
    for i in range(15):
        latencies.add(1 << 20, 0.1 + i / 1000)
    assert latencies.late_s(1 << 20) is None
    for i in range(15, 100):
        latencies.add(1 << 20, 0.1 + i / 1000)
    assert latencies.late_s(1 << 20) == pytest.approx(0.195)
    assert latencies.late_s(1 << 10) is None  # nothing is known of small ones


def test_only_the_latest_answers_count() -> None:
    latencies = Latencies(keep=32)
    for seconds in [5.0] * 100 + [0.1] * 32:
        latencies.add(1000, seconds)
    assert latencies.late_s(1000) == pytest.approx(0.1)


def test_nothing_is_late_at_once() -> None:
    latencies = Latencies(floor_s=0.01)
    for _ in range(32):
        latencies.add(1000, 0.0001)
    assert latencies.late_s(1000) == 0.01


@given(requests=st.integers(0, 2000), wishes=st.integers(1, 4))
def test_extra_requests_are_a_small_share(requests: int, wishes: int) -> None:
    allowance, spent = Allowance(share=0.1, most=8), 0
    for _ in range(requests):
        allowance.earn()
        spent += sum(allowance.spend() for _ in range(wishes))
    assert spent <= 4 + 0.1 * requests + 1e-6
    assert spent >= min(1, requests)
