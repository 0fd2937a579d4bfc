"""Who must go when two cannot reach each other."""

from __future__ import annotations

from headway.core.links import Links

RANKS = ("w0", "w1", "w2", "w3")


def test_2_7_the_most_blamed_goes() -> None:
    links = Links()
    links.accuse("w0", ("w1",))
    links.accuse("w2", ("w0",))
    links.accuse("w3", ("w0",))
    assert links.blamed(RANKS) == "w0", "it accuses one, and two accuse it: its own link is the bad one"
    assert links.blamed(("w1", "w2", "w3")) is None, "without it all are well"


def test_2_7_of_two_the_later_in_rank_goes() -> None:
    for worker, peer in (("w1", "w3"), ("w3", "w1")):
        links = Links()
        links.accuse(worker, (peer,))
        assert links.blamed(RANKS) == "w3"
        assert links.blamed(tuple(reversed(RANKS))) == "w1"


def test_2_7_two_that_accuse_each_other_say_one_thing() -> None:
    links = Links()
    links.accuse("w0", ("w1",))
    links.accuse("w1", ("w0",))
    links.accuse("w2", ("w0", "w1"))
    links.accuse("w3", ("w2",))
    assert links.blamed(RANKS) == "w2"


def test_2_7_what_concerns_one_that_is_not_heard_is_left_to_the_watch() -> None:
    links = Links()
    links.accuse("w0", ("w1", "w2"))
    assert links.blamed(("w1", "w2", "w3")) is None
    assert links.blamed(("w0", "w2")) == "w2"


def test_nobody_accuses_itself_and_a_commit_forgets_all() -> None:
    links = Links()
    links.accuse("w0", ("w0",))
    assert links.blamed(RANKS) is None
    links.accuse("w0", ("w1",))
    links.forget()
    assert links.blamed(RANKS) is None
