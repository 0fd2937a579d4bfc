"""What clouds say of a machine's end: what it means, and when it is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import notices
from headway.core.notices import (
    AHEAD_S,
    DRAINS,
    GCP_S,
    LATE_S,
    OVERDUE_S,
    WITHIN_S,
    Answer,
    AtRisk,
    Doubt,
    Drain,
    Judge,
    Nonsense,
    Notice,
)

NOW = 1_795_000_000.0
ISO = "2026-11-18T11:06:40Z"
"""NOW."""
GOOGLE = {"metadata-flavor": "Google"}


def azure(answer: Answer, now: float) -> tuple[Notice, ...]:
    return notices.azure_events(answer, now, "vm-1")


PARSERS: list[Callable[[Answer, float], tuple[Notice, ...]]] = [
    notices.aws_action,
    notices.aws_rebalance,
    notices.gcp_preempted,
    notices.gcp_maintenance,
    azure,
]


def answer(said: Any, status: int = 200, **headers: str) -> Answer:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def event(**changes: Any) -> dict[str, Any]:
    at = formatdate(NOW + 30, usegmt=True)
    usual = {
        "EventId": "E1",
        "EventType": "Preempt",
        "EventStatus": "Scheduled",
        "NotBefore": at,
        "Resources": ["vm-1"],
    }
    return {**usual, **changes}


def test_aws_gives_an_action_and_its_time() -> None:
    (found,) = notices.aws_action(answer({"action": "terminate", "time": ISO}), NOW - 120)
    assert (found.kind, found.left_s, found.words) == ("goes", 120.0, "AWS takes this spot machine back (terminate)")
    assert notices.aws_action(answer(b"<html>404</html>", 404), NOW) == ()


def test_the_services_own_clock_counts_where_it_tells_it() -> None:
    """A machine whose clock is an hour wrong must neither miss its notice nor take it for an old one."""
    said = answer({"action": "stop", "time": ISO}, date=formatdate(NOW - 100, usegmt=True))
    for ours in (NOW - 3600, NOW, NOW + 3600):
        assert notices.aws_action(said, ours)[0].left_s == 100.0
    wrong = answer({"action": "stop", "time": ISO}, date="at noon")
    assert notices.aws_action(wrong, NOW - 5)[0].left_s == 5.0


def test_a_rebalance_recommendation_is_a_risk() -> None:
    (found,) = notices.aws_rebalance(answer({"noticeTime": ISO}), NOW)
    assert found.kind == "risk"
    assert notices.aws_rebalance(answer(b"", 404), NOW) == ()


def test_google_says_true_or_false() -> None:
    (found,) = notices.gcp_preempted(Answer(200, GOOGLE, b"TRUE\n"), NOW)
    assert (found.kind, found.left_s) == ("goes", GCP_S)
    assert notices.gcp_preempted(Answer(200, GOOGLE, b"FALSE"), NOW) == ()
    with pytest.raises(Nonsense, match="does not come from Google"):
        notices.gcp_preempted(Answer(200, {}, b"TRUE"), NOW)


def test_google_ends_or_moves_a_machine_for_upkeep() -> None:
    kinds = {
        word: [found.kind for found in notices.gcp_maintenance(Answer(200, GOOGLE, word), NOW)]
        for word in (b"NONE", b"TERMINATE_ON_HOST_MAINTENANCE", b"MIGRATE_ON_HOST_MAINTENANCE")
    }
    assert list(kinds.values()) == [[], ["goes"], ["pause"]]


def test_azure_names_the_machines_that_an_event_concerns() -> None:
    others = event(Resources=["vm-2", "vm-10"])
    (found,) = azure(answer({"DocumentIncarnation": 3, "Events": [others, event()]}), NOW)
    assert (found.kind, found.left_s, found.event) == ("goes", 30.0, "E1")
    assert azure(answer({"Events": []}), NOW) == ()


def test_what_azure_has_begun_is_now() -> None:
    (found,) = azure(answer({"Events": [event(EventStatus="Started", NotBefore="")]}), NOW)
    assert found.left_s == 0.0


@pytest.mark.parametrize("said", [None, "", "soon", 0, 7.0, []])
def test_what_azure_has_not_begun_has_a_time(said: Any) -> None:
    with pytest.raises(Nonsense, match="no time"):
        azure(answer({"Events": [event(NotBefore=said)]}), NOW)
    without = event()
    del without["NotBefore"]
    with pytest.raises(Nonsense, match="no time"):
        azure(answer({"Events": [without]}), NOW)


@pytest.mark.parametrize("lasts_s", [9.0, "9", None, True, [9]])
def test_a_pause_of_no_time_drains_nothing(lasts_s: Any) -> None:
    with pytest.raises(Nonsense, match="no seconds"):
        azure(answer({"Events": [event(EventType="Freeze", DurationInSeconds=lasts_s)]}), NOW)


@pytest.mark.parametrize(
    ("kind", "lasts_s", "means"),
    [
        ("Preempt", -1, "goes"),
        ("Terminate", -1, "goes"),
        ("Reboot", 5, "goes"),
        ("Redeploy", -1, "goes"),
        ("Freeze", 5, "pause"),
        ("Freeze", 300, "goes"),
        ("Freeze", -1, "pause"),
    ],
)
def test_azures_kinds_of_events(kind: str, lasts_s: int, means: str) -> None:
    (found,) = azure(answer({"Events": [event(EventType=kind, DurationInSeconds=lasts_s)]}), NOW)
    assert found.kind == means


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "said",
    [
        Answer(200, GOOGLE, b"<html>Please sign in</html>"),
        Answer(200, GOOGLE, b""),
        Answer(200, GOOGLE, b"\xff\xfe\x00"),
        Answer(200, GOOGLE, b"[" * 60_000),
        Answer(200, GOOGLE, b"[]"),
        Answer(200, GOOGLE, b"{}"),
        Answer(500, GOOGLE, b"{}"),
        Answer(302, GOOGLE, b"TRUE"),
        answer({"action": "terminate", "time": 7, "noticeTime": [], "Events": {}}),
        answer({"action": "dance", "time": ISO, "noticeTime": "soon", "Events": [7]}),
        answer({"Events": [event(EventType="Party")]}),
        answer({"Events": [event(EventId=7)]}),
        answer({"Events": [event(EventId="E" * 5000)]}),
        answer({"Events": [event(NotBefore="soon")]}),
    ],
    ids=range(14),
)
def test_what_no_cloud_says_is_nonsense(parse: Callable[[Answer, float], Any], said: Answer) -> None:
    with pytest.raises(Nonsense) as raised:
        parse(said, NOW)
    assert len(str(raised.value)) < 300
    assert str(raised.value).isprintable()


@given(st.sampled_from(PARSERS), st.sampled_from([200, 204, 301, 404, 500]), st.binary(max_size=200) | st.builds(
    lambda tree: json.dumps(tree).encode(),
    st.dictionaries(
        st.sampled_from(["action", "time", "noticeTime", "Events"]),
        st.recursive(st.none() | st.integers() | st.text() | st.sampled_from(["terminate", ISO]), st.lists),
    ),
))  # fmt: skip
def test_no_answer_breaks_a_parser(parse: Callable[[Answer, float], Any], status: int, body: bytes) -> None:
    try:
        found = parse(Answer(status, {**GOOGLE, "date": "?"}, body), NOW)
    except Nonsense:
        return
    assert all(isinstance(each, Notice) for each in found)


# When it is believed

GOES = Notice("goes", "n1", "it goes", 120.0)
RISK = Notice("risk", "r1", "it is at risk", 0.0)


def heard(judge: Judge, *said: Notice, at: float, times: int = 2) -> list[Any]:
    """What is done after the same was heard several times."""
    return [deed for _ in range(times) for deed in judge.hear("s", said, at)]


def test_a_notice_is_believed_once_it_was_heard_twice() -> None:
    judge = Judge()
    assert judge.hear("s", [GOES], 0.0) == []
    assert judge.unsure("s")
    again = Notice("goes", "n1", "it goes", 119.9)
    assert judge.hear("s", [again], 0.1) == [Drain(again, 119.9)]
    assert not judge.unsure("s")
    assert heard(judge, GOES, at=1.0, times=5) == [], "and acted on once"


def test_a_notice_that_comes_and_goes_is_none() -> None:
    judge = Judge()
    for second in range(100):
        assert judge.hear("s", [GOES] if second % 2 else [], float(second)) == []


def test_sources_do_not_confirm_each_other() -> None:
    judge = Judge()
    assert judge.hear("a", [GOES], 0.0) == judge.hear("b", [GOES], 0.0) == []


def test_google_tells_no_time_and_it_does_not_slip() -> None:
    """30 seconds from when it was heard first, not from each time that it is."""
    judge = Judge()
    judge.hear("s", [Notice("goes", "p", "w", GCP_S)], 0.0)
    (deed,) = judge.hear("s", [Notice("goes", "p", "w", GCP_S)], 2.0)
    assert deed.left_s == GCP_S - 2.0


def test_an_end_that_comes_nearer_is_told_again() -> None:
    judge = Judge()
    heard(judge, GOES, at=0.0)
    assert judge.hear("s", [Notice("goes", "n1", "w", 116.0)], 0.0) == []
    (deed,) = judge.hear("s", [Notice("goes", "n1", "w", 30.0)], 10.0)
    assert deed.left_s == 30.0
    assert judge.hear("s", [Notice("goes", "n1", "w", 500.0)], 11.0) == [], "and never put off"


@pytest.mark.parametrize("left_s", [-LATE_S - 1, -3600.0, AHEAD_S + 1, 365 * 86400.0])
def test_an_end_long_ago_or_far_away_is_not_believed(left_s: float) -> None:
    judge = Judge()
    (deed,) = heard(judge, Notice("goes", "n", "w", left_s), at=0.0, times=20)
    assert isinstance(deed, Doubt), "and that is told once"


def test_an_end_that_was_far_away_is_believed_when_it_is_near() -> None:
    judge = Judge()
    heard(judge, Notice("goes", "n", "w", 2 * AHEAD_S), at=0.0)
    (deed,) = judge.hear("s", [Notice("goes", "n", "w", AHEAD_S - 1)], AHEAD_S + 1)
    assert isinstance(deed, Drain)


def test_an_end_a_moment_ago_is_now() -> None:
    """A hibernation is announced when it begins."""
    (deed,) = heard(Judge(), Notice("goes", "n", "w", -2.0), at=0.0)
    assert deed.left_s == 0.0


def test_no_more_than_some_drains_in_an_hour() -> None:
    judge, deeds = Judge(), []
    for number in range(50):
        deeds += heard(judge, Notice("goes", f"n{number}", "w", 60.0), at=float(number))
    assert sum(isinstance(deed, Drain) for deed in deeds) == DRAINS
    assert sum(isinstance(deed, Doubt) for deed in deeds) == 1
    assert any(isinstance(deed, Drain) for deed in heard(judge, Notice("goes", "new", "w", 60.0), at=WITHIN_S + 60))


def test_what_is_kept_does_not_grow_with_what_is_said() -> None:
    judge = Judge("replace")
    for number in range(1000):
        heard(judge, Notice("goes", f"n{number}", "w", 1e6), Notice("risk", f"r{number}", "w", 0.0), at=float(number))
    assert len(judge._known) <= 2 + DRAINS


def test_an_end_that_does_not_come_is_said_once() -> None:
    judge = Judge()
    heard(judge, GOES, at=0.0)
    judge.hear("s", [], 100.0)
    assert judge.look(120.0 + OVERDUE_S) == []
    assert len(judge.look(121.0 + OVERDUE_S)) == 1
    assert judge.look(500.0) == []


def test_an_end_that_was_withdrawn_and_comes_after_all_is_believed() -> None:
    """Google's notice has no name of its own."""
    judge = Judge()
    heard(judge, GOES, at=0.0)
    judge.hear("s", [], 1.0)
    judge.look(121.0 + OVERDUE_S)
    judge.hear("s", [], 200.0)
    (deed,) = heard(judge, GOES, at=300.0)
    assert deed.left_s == 120.0


def test_a_reason_that_was_kept_is_read_with_care() -> None:
    assert notices.why(b'{"why": "it goes"}') == "it goes"
    for kept in (None, b"", b"[]", b"\xff", b"{", b"[" * 60_000):
        assert notices.why(kept) == ""
    assert "\x1b" not in notices.why(json.dumps({"why": "\x1b[2J"}).encode())


def test_a_risk_is_ignored_unless_it_is_to_be_replaced() -> None:
    (deed,) = heard(Judge(), RISK, at=0.0, times=10)
    assert isinstance(deed, Doubt)
    judge = Judge("replace")
    assert heard(judge, RISK, at=0.0, times=10) == [AtRisk(RISK)]
    assert heard(judge, Notice("risk", "r2", "w", 0.0), at=1.0) == [], "not again at once, whatever its name"


def test_a_pause_is_sat_out() -> None:
    (deed,) = heard(Judge(), Notice("pause", "p", "it is moved", 60.0), at=0.0, times=10)
    assert isinstance(deed, Doubt)
