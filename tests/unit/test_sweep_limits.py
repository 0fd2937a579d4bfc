"""What of a sweep may be another when it is taken up again, and what is then as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headway.errors import BadInput
from headway.runs import Place
from headway.sweeps import book, file, folder, run
from headway.sweeps.book import Book
from headway.sweeps.crew import Said
from headway.sweeps.events import Limits, Over
from headway.sweeps.file import Sweep
from headway.sweeps.rules import Way
from headway.sweeps.run import Lead, began, nobody, rules_of, terms_of
from headway.sweeps.seen import figures

JOB: dict[str, Any] = {
    "name": "digits",
    "task": "task.py:Digits",
    "data": {"train": "d/train", "validation": "d/test"},
    "steps": 100,
    "evaluate_every_steps": 10,
    "reproducible": "bitwise",
    "optimizer": {"name": "sgd", "lr": 0.1},
}


def sweep(**more: Any) -> Sweep:
    space = {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}}
    return file.taken({"job": JOB, "trials": 8, "space": space, **more})


def limits(of: Sweep) -> Limits:
    return rules_of(of, lambda config: Way(100, 10)).limits


@pytest.mark.parametrize("scheduler", ["none", "asha", "median", "hyperband", "pbt", "pb2"])
@pytest.mark.parametrize("order", ["async", "strict"])
def test_whoever_decides_by_the_number_of_trials_keeps_it(scheduler: str, order: str) -> None:
    ways = {"scheduler": scheduler, "order": order, "width": 4}
    bound = order == "strict" or scheduler in ("hyperband", "pbt", "pb2")
    assert (terms_of(sweep(**ways)) != terms_of(sweep(**ways, trials=9))) == bound
    assert terms_of(sweep(**ways)) == terms_of(sweep(**ways, max_failures=9, workers={"max": 3}))


def test_limits_are_what_the_file_says() -> None:
    found = limits(sweep(stop={"patience": 4, "min_delta": 0.1}, budget={"steps": 500, "deadline": "2h"}))
    assert (found.trials, found.patience, found.min_delta, found.steps, found.seconds) == (8, 4, 0.1, 500, 7200.0)
    rules = rules_of(sweep(), lambda config: Way(100, 10))
    assert rules.within(found).limits == found
    assert rules.within(rules.limits) == rules


def test_what_was_made_by_the_number_of_trials_is_made_by_the_first_one(tmp_path: Path) -> None:
    path = tmp_path / book.FILE
    assert began(sweep(trials=20), path).trials == 20
    first = Book(path, lambda: None)
    first.begin("s", "key", "terms", limits(sweep()))
    first.append(limits(sweep(trials=20)))
    first.close()
    again = Book(path, lambda: None)
    (entry,) = again.begin("s", "key", "terms", limits(sweep(trials=30)))
    assert entry.event == limits(sweep(trials=20))
    assert again.limits == limits(sweep())
    assert began(sweep(trials=30), path).trials == 8
    with pytest.raises(BadInput, match="of another sweep"):
        again.admit("s", "other", "terms")
    with pytest.raises(BadInput, match="is another one by now"):
        again.admit("s", "key", "others")


def test_a_resumes_settings_are_kept_if_they_may_be(tmp_path: Path) -> None:
    place = Place.of(tmp_path)
    found = folder.create(place, "s", "s", file.to_yaml(sweep()), {})
    key = str(found.read()["key"])
    with folder.leading(found) as epoch:
        first = Lead(sweep(), found, place, epoch, nobody)
        Book(found.book, lambda: None).begin("s", key, terms_of(sweep()), limits(sweep()))
        Lead(sweep(trials=12, max_failures=7), found, place, epoch, nobody).keep()
        kept = file.load(found.file)
        assert (kept.trials, kept.max_failures) == (12, 7)
        assert terms_of(kept) == terms_of(sweep())
        with pytest.raises(BadInput, match="is another one by now"):
            Lead(sweep(search="random"), found, place, epoch, nobody).keep()
        assert file.load(found.file) == kept
        assert first.loop.rules.trials == 8


def test_no_figures_are_given_to_a_crew_that_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to an actor of a Ray that this process has left would start another Ray."""
    given: list[bool] = []
    inside: list[bool] = []

    @contextmanager
    def crewed(*_: Any, **__: Any) -> Iterator[Any]:
        inside.append(True)
        yield SimpleNamespace(figures=lambda samples: given.append(bool(inside)))
        inside.clear()

    class Runs:
        def __init__(self, *_: Any) -> None:
            """See `Running`."""

        def run(self) -> Over:
            lead._seen.news([Said(None, "a line")])
            return Over("finished", "")

    monkeypatch.setattr(figures, "EVERY_S", 0.0)
    monkeypatch.setattr(run, "crewed", crewed)
    monkeypatch.setattr(run, "Running", Runs)
    place = Place.of(tmp_path)
    wanted = sweep(job={**JOB, "tracking": {"enabled": False}})
    found = folder.create(place, "s", "s", file.to_yaml(wanted), {})
    with folder.leading(found) as epoch:
        lead = Lead(wanted, found, place, epoch, nobody)
        assert lead.follow("sweep", None).state == "finished"
    assert given == [True]


def test_what_is_recorded_is_not_begun_where_an_address_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    monkeypatch.setattr(run.Seen, "begin", lambda *given, **_: begun.append(given))
    place = Place.of(tmp_path)
    wanted = sweep(job={**JOB, "notify": [{"url_file": str(tmp_path / "gone")}]})
    found = folder.create(place, "s", "s", file.to_yaml(wanted), {})
    with folder.leading(found) as epoch, pytest.raises(BadInput, match=r"notify\.0\.url_file"):
        Lead(wanted, found, place, epoch, nobody)
    assert not begun
