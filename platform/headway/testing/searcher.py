"""The contract of a searcher: what `headway.sweeps.search.protocol.Searcher` promises, as tests.

A searcher supplies one fixture, `make`, and inherits every test:

    class TestMine(SearcherContract):
        @pytest.fixture
        def make(self) -> Make:
            return lambda space, seed, known: Mine(space, seed)

`make` is given a space whose values are listed where `lists` is set; with conditions where `conditions` is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headway.sweeps.events import Config
from headway.sweeps.search.protocol import Known, Searcher
from headway.sweeps.space import Space, parse

Make = Callable[[Space, int, Sequence[Known]], Searcher]
"""A new searcher that makes a small metric of a space, by a seed; and what is known from before."""

LISTED: dict[str, Any] = {
    "optimizer.name": {"choice": ["sgd", "adamw"]},
    "arguments.width": {"grid": [16, 32, 64, 128]},
}
PLAIN: dict[str, Any] = {
    "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "optimizer.momentum": {"uniform": [0, 0.99]},
    "arguments.layers": {"randint": [1, 9]},
    "arguments.noise": {"randn": [0, 1]},
    "arguments.act": {"choice": ["relu", "gelu", None]},
    "clip_norm": 1.0,
}
BOUND: dict[str, Any] = {
    "optimizer.momentum": {"uniform": [0, 0.99], "when": {"optimizer.name": "sgd"}},
    "optimizer.nesterov": {"choice": [True, False], "when": {"optimizer.name": "sgd"}},
    "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "optimizer.name": {"choice": ["sgd", "adamw"]},
}


def loss_of(config: Config) -> float:
    """A loss that settings have: the nearer they are to certain ones, the less."""
    rate = math.log10(config.get("optimizer.lr", 1e-2))
    momentum: float = config.get("optimizer.momentum", 0.9)
    if rate > -1.2:
        return math.nan
    return (rate + 2) ** 2 + (momentum - 0.9) ** 2 + 0.1 * (config.get("arguments.act") is None)


def history(searcher: Searcher, seed: int, calls: int) -> list[Config | None]:
    """What it suggests in a sweep in which all kinds of things happen: trials that are evaluated on their way, go their
    whole way, end early, fail, diverge; four at a time. The same seed, the same sweep."""
    chance = random.Random(seed)
    said: list[Config | None] = []
    going: dict[int, int] = {}
    for _ in range(calls):
        if len(going) < 4:
            said.append(searcher.suggest(len(said) + 1))
            if said[-1] is None:
                break
            going[len(said)] = 0
            continue
        trial = chance.choice(sorted(going))
        going[trial] += 4
        config = said[trial - 1]
        assert config is not None
        value, fate = loss_of(config) + 1 / going[trial], chance.random()
        if math.isnan(value):
            searcher.told(trial, going[trial], value, True)
        elif fate < 0.1:
            searcher.told(trial, going[trial], None, True)
        else:
            final = going[trial] >= 16
            searcher.told(trial, going[trial], value, final)
            if not final and fate > 0.6:
                searcher.told(trial, going[trial], None, True)
            elif not final:
                continue
        del going[trial]
    return said


class SearcherContract:
    """Every test of the contract; a subclass supplies the fixture `make`.

    Attributes:
        seeded: another seed suggests other settings.
        lists: it takes spaces only whose values are all listed.
        conditions: it takes spaces with conditions.
        novel: it suggests nothing twice, and says when there is no more.
        calls: of a history.
        plain: a space without conditions.
    """

    seeded = True
    lists = False
    conditions = True
    novel = True
    calls = 80
    plain = PLAIN

    def space(self, written: dict[str, Any]) -> Space:
        """As the searcher can take it."""
        if not self.lists:
            return parse(written)
        numbers = {"loguniform": [1e-3, 1e-2, 1e-1], "uniform": [0.0, 0.5, 0.9], "randint": [1, 2], "randn": [0.0, 1.0]}
        listed = {}
        for key, given in written.items():
            word = next((each for each in given if each in numbers), None) if isinstance(given, dict) else None
            rest = {"when": given["when"]} if isinstance(given, dict) and "when" in given else {}
            listed[key] = given if word is None else {"grid": numbers[word], **rest}
        return parse(listed)

    def test_what_it_suggests_is_of_the_space(self, make: Make) -> None:
        for written in (self.plain, BOUND) if self.conditions else (self.plain,):
            space = self.space(written)
            said = [each for each in history(make(space, 1, ()), 1, self.calls) if each is not None]
            assert len(said) > 5
            assert [space.fault(each) for each in said] == [""] * len(said)

    def test_the_same_calls_give_the_same_answers(self, make: Make) -> None:
        space = self.space(BOUND if self.conditions else self.plain)
        assert history(make(space, 3, ()), 7, self.calls) == history(make(space, 3, ()), 7, self.calls)

    def test_another_seed_suggests_others(self, make: Make) -> None:
        space = self.space(self.plain)
        one, other = (history(make(space, seed, ()), 7, 20) for seed in (1, 2))
        assert (one != other) == self.seeded

    def test_a_small_space_is_gone_through_once(self, make: Make) -> None:
        space = parse(LISTED)
        said = history(make(space, 0, ()), 2, 200)
        if not self.novel:
            return
        assert said[-1] is None
        told = [(each["optimizer.name"], each["arguments.width"]) for each in said if each is not None]
        assert sorted(told) == sorted((name, width) for name in ("sgd", "adamw") for width in (16, 32, 64, 128))

    def test_nothing_but_bad_news_is_borne(self, make: Make) -> None:
        """Every trial diverges, or fails, or is never heard of."""
        space = self.space(self.plain)
        searcher = make(space, 0, ())
        for trial in range(1, 16):
            config = searcher.suggest(trial)
            assert config is not None
            assert space.fault(config) == ""
            if trial % 3:
                searcher.told(trial, 5, (None, math.nan)[trial % 3 - 1], True)

    def test_what_is_known_of_before_does_no_harm(self, make: Make) -> None:
        space = self.space(BOUND if self.conditions else self.plain)
        before = [each for each in history(make(space, 5, ()), 5, min(60, self.calls)) if each is not None]
        known = [
            Known(each, 16 if number % 2 else 4, loss_of(each), bool(number % 2)) for number, each in enumerate(before)
        ]
        said = [each for each in history(make(space, 6, known), 6, min(60, self.calls)) if each is not None]
        assert said
        assert {space.fault(each) for each in said} == {""}

    def test_the_generators_of_others_are_left_alone(self, make: Make) -> None:
        random.seed(4)
        np.random.seed(4)
        before, numpys = random.getstate(), repr(np.random.get_state())
        history(make(self.space(self.plain), 0, ()), 1, min(60, self.calls))
        assert random.getstate() == before
        assert repr(np.random.get_state()) == numpys

    def test_settings_that_were_changed_by_others_are_told_as_what_they_are(self, make: Make) -> None:
        """A sweep that is taken up again goes by its book, whatever the searcher says this time."""
        space = self.space(self.plain)
        searcher = make(space, 0, ())
        others = history(make(space, 9, ()), 9, 8)
        if (correct := getattr(searcher, "correct", None)) is None:
            return
        for trial, config in enumerate(others, 1):
            searcher.suggest(trial)
            correct(trial, config)
            searcher.told(trial, 4, 1.0, True)
        later = searcher.suggest(len(others) + 1)
        assert later is not None
        assert later not in others
