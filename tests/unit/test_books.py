"""The account of all workers as sums: the same as that of each, added up."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headway.core import ledger
from headway.core.ledger import BOOKED, CAUSES
from headway.elastic.lead.books import Books


@pytest.mark.parametrize("seed", range(40))
def test_sums_are_what_the_accounts_add_up_to(seed: int) -> None:
    draw, books, now = random.Random(seed), Books(), 1e6 * random.Random(seed).random()
    there: dict[str, dict[str, Any]] = {}
    closed: list[dict[str, float]] = []
    held_s = 0.0
    for number in range(300):
        now += draw.random()
        act = draw.choice(["open", "begun", "take", "take", "close"])
        worker = draw.choice(list(there)) if there else ""
        if act == "open" or not worker:
            books.open(f"w{number}", now)
            there[f"w{number}"] = {"opened": now, "before": 0.0, "said": {}}
        elif act == "begun":
            age_s = draw.random() * (now - there[worker]["opened"])
            books.begun(worker, age_s, now)
            there[worker]["before"] = now - there[worker]["opened"] - age_s
        elif act == "take":
            said = {cause: there[worker]["said"].get(cause, 0.0) + draw.random() / 20 for cause in BOOKED}
            books.take(worker, tuple(said.values()))
            there[worker]["said"] = said
        elif draw.random() < 0.3:
            lost = draw.random() < 0.5
            books.close(worker, lost, now)
            closed.append(of(there[worker], now, lost))
            held_s += now - there.pop(worker)["opened"]
        whole = ledger.total([*closed, *(of(account, now, False) for account in there.values())])
        found = books.total(now)
        assert [found[cause] for cause in CAUSES] == pytest.approx([whole[cause] for cause in CAUSES], abs=1e-6)
        lifetime_s = held_s + sum(now - account["opened"] for account in there.values())
        assert sum(found.values()) == pytest.approx(lifetime_s)


def of(account: dict[str, Any], now: float, lost: bool) -> dict[str, float]:
    said = dict(account["said"])
    if said:
        said["start"] += account["before"]
    return ledger.closed(said, now - account["opened"], lost=lost)


def test_bad_input_what_is_no_account_is_refused() -> None:
    books = Books()
    books.open("w0", 1.0)
    with pytest.raises(ValueError, match="not an account"):
        books.take("w0", (1.0,))


def test_nobody_there_has_spent_nothing() -> None:
    assert set(Books().total(7.0).values()) == {0.0}
