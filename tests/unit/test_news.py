"""What a cluster's autoscaler has learnt, as it is kept and told: bounded, and readable by whoever comes."""

from __future__ import annotations

import pytest

from headway.core.news import LONGEST, MOST, REFUSED, Event, Journal, News, Waiting


def test_what_was_encoded_is_read() -> None:
    news = News({"worker": Waiting(1.0, 2, "c in a spot: capacity")}, (Event(1.0, REFUSED, "c in a spot"),), 3.0)
    assert News.decode(news.encode()) == news


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b'"x"', b'{"events": [1]}', b'{"waiting": {"w": {"a": 1}}}'])
def test_what_cannot_be_read_is_no_news(data: bytes | None) -> None:
    assert News.decode(data) == News()


def test_it_stays_small_whatever_happens() -> None:
    journal = Journal()
    for i in range(3 * MOST):
        journal.note(float(i), REFUSED, f"{i} " + "x" * 10_000)
    news = journal.news()
    assert len(news.events) == MOST
    assert news.events[-1].text.startswith(f"{3 * MOST - 1} ")
    assert len(news.encode()) < MOST * (LONGEST + 100)


def test_the_same_again_is_the_same() -> None:
    journal = Journal()
    for at in range(5):
        journal.note(float(at), REFUSED, "none is left")
    assert journal.news().events == (Event(0.0, REFUSED, "none is left"),)


def test_those_who_wait_are_counted_by_type_since_the_first() -> None:
    journal = Journal()
    journal.waits("a", "worker", 10.0, "none is left")
    journal.waits("b", "worker", 12.0, "none")
    journal.waits("a", "worker", 15.0, "still none")
    journal.waits("c", "gpu", 13.0, "the account may have 0")
    assert journal.news().waiting == {
        "worker": Waiting(10.0, 2, "none"),
        "gpu": Waiting(13.0, 1, "the account may have 0"),
    }
    journal.waits_no_more("a", "worker", 16.0)
    journal.waits_no_more("c", "gpu", 16.0)
    journal.waits_no_more("never", "gpu", 16.0)
    assert journal.news().waiting == {"worker": Waiting(12.0, 1, "none")}


def test_only_what_is_new_is_written_the_first_time_even_nothing() -> None:
    """That there is an autoscaler is news: who looks for it finds an empty page."""
    journal = Journal()
    first = journal.untold()
    assert first == News()
    journal.told(first)
    assert journal.untold() is None
    journal.note(1.0, REFUSED, "none is left")
    assert journal.untold() is not None
