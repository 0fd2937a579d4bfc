"""Members of a generation find one another, and one thread is enough for hundreds of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headway.elastic.lead import rendezvous
from headway.elastic.lead.rendezvous import KEYS_EACH, Deliveries, Rendezvous
from headway.elastic.wire.messages import Put, Want


def read(deliveries: Deliveries) -> dict[str, list[str]]:
    """Values by who got them."""
    found: dict[str, list[str]] = {}
    for worker, lines in deliveries:
        messages: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
        assert all(message["generation"] == 3 for message in messages)
        assert [message["more"] for message in messages] == [True] * (len(messages) - 1) + [False]
        found.setdefault(worker, []).extend(message["value"] for message in messages)
    return found


def begun(size: int) -> Rendezvous:
    made = Rendezvous()
    made.begin(3, tuple(f"w{number}" for number in range(size)))
    return made


def test_who_asks_is_given_all_that_it_was_not_given_yet() -> None:
    made = begun(3)
    assert not made.put("w0", Put(3, "0/0", "a"))
    assert not made.put("w1", Put(3, "0/1", "b"))
    assert read(made.want("w0", Want(3, "0/0"))) == {"w0": ["a", "b"]}
    assert made.want("w0", Want(3, "0/2")) == []
    assert made.want("w1", Want(3, "0/2")) == []
    assert made.due() == []
    assert made.put("w2", Put(3, "0/2", "c"))
    assert read(made.due()) == {"w0": ["c"], "w1": ["a", "b", "c"]}
    assert made.due() == []
    assert read(made.want("w1", Want(3, "0/0"))) == {"w1": ["a"]}, "who asks again is given it again"


def test_a_value_that_is_set_anew_is_the_new_one() -> None:
    made = begun(2)
    made.put("w0", Put(3, "0/0", "old"))
    assert read(made.want("w1", Want(3, "0/0"))) == {"w1": ["old"]}
    made.put("w0", Put(3, "0/0", "new"))
    assert read(made.want("w1", Want(3, "0/0"))) == {"w1": ["new"]}


def test_no_answer_is_larger_than_it_may_be_and_what_was_asked_for_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MOST_BYTES", 300)
    made = begun(40)
    for number in range(40):
        made.put(f"w{number}", Put(3, f"0/{number}", f"{number}"))
    last = made.want("w5", Want(3, "0/39"))
    assert read(last)["w5"][-1] == "39"
    assert all(len(lines) < 400 for _, lines in last)
    known = {"39"}
    for number in range(40):
        if str(number) not in known:
            known |= set(read(made.want("w5", Want(3, f"0/{number}")))["w5"])
    assert known == {str(number) for number in range(40)}


@pytest.mark.parametrize("at_once", [1, 10, 200])
def test_hundreds_ask_a_few_times_each_and_not_once_for_each_other(at_once: int) -> None:
    """As gloo does it: each puts its own, then asks for those of all in order, unless it knows them. at_once: values
    that come until those who wait are given some."""
    size = 200
    made = begun(size)
    known: list[set[int]] = [set() for _ in range(size)]
    asked, waits = 0, dict[int, int]()

    def deliver(deliveries: Deliveries) -> None:
        for worker, values in read(deliveries).items():
            known[int(worker[1:])] |= set(map(int, values))

    def ask(rank: int) -> None:
        nonlocal asked
        wanted = next((other for other in range(size) if other not in known[rank]), None)
        if wanted is not None and waits.get(rank) != wanted:
            asked, waits[rank] = asked + 1, wanted
            deliver(made.want(f"w{rank}", Want(3, f"0/{wanted}")))

    for rank in range(size):
        made.put(f"w{rank}", Put(3, f"0/{rank}", str(rank)))
        ask(rank)
        if (rank + 1) % at_once == 0:
            deliver(made.due())
            for other in range(rank + 1):
                ask(other)
    assert [len(values) for values in known] == [size] * size
    assert asked <= 2 * size * (size / at_once)


def test_strangers_other_generations_and_too_much() -> None:
    made = begun(1)
    assert not made.put("w9", Put(3, "0/0", "a"))
    assert not made.put("w0", Put(2, "0/0", "a"))
    assert made.keys == ()
    assert made.want("w9", Want(3, "0/0")) == []
    for number in range(KEYS_EACH):
        made.put("w0", Put(3, f"{number}", "a"))
        made.want("w0", Want(3, f"none {number}"))
    with pytest.raises(ValueError, match="too many keys"):
        made.put("w0", Put(3, "more", "a"))
    with pytest.raises(ValueError, match="too many keys"):
        made.want("w0", Want(3, "none more"))
    made.begin(4, ("w0",))
    assert made.keys == ()
