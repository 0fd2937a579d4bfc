"""What models learn from, what a user's own searcher is told, and what all of them begin with."""

from __future__ import annotations

import math
import random
import statistics
import threading
from pathlib import Path
from typing import Any

import pytest

from headway.errors import BAD_INPUT, TASK_FAILED, BadInput
from headway.sweeps import file
from headway.sweeps import search as searchers
from headway.sweeps.chance import rolled
from headway.sweeps.events import Ask, Tell
from headway.sweeps.file import Sweep
from headway.sweeps.rules import Way
from headway.sweeps.run import rules_of
from headway.sweeps.search import Known, SearcherFailed, draws, models
from headway.sweeps.search.line import Line
from headway.sweeps.search.observed import Observed
from headway.sweeps.space import parse

LINE = parse({"arguments.x": {"uniform": [0.0, 1.0]}})
JOB: dict[str, Any] = {
    "name": "digits",
    "task": "task.py:Digits",
    "data": {"train": "d/train", "validation": "d/test"},
    "steps": 100,
    "optimizer": {"name": "sgd", "lr": 0.1},
}


def sweep(space: dict[str, Any] | None = None, **more: Any) -> Sweep:
    space = space or {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}}
    return file.taken({"job": JOB, "trials": 20, "space": space, **more})


def tpe(**more: Any) -> models.Modelled:
    return models.Modelled(LINE, models.tpe(0, 10), False, "min", 0, **more)


def distances(searcher: Any, step: int | None, final: bool, trials: int = 60) -> list[float]:
    """How far from the best what is suggested lies, of a searcher that is told that 0.3 is best."""
    found = []
    for trial in range(1, trials + 1):
        x = searcher.suggest(trial)["arguments.x"]
        found.append(abs(x - 0.3))
        if step is not None:
            searcher.told(trial, step, abs(x - 0.3), final)
    return found


@pytest.mark.parametrize(
    ("kind", "final"), [("tpe", True), ("tpe", False), ("cmaes", True), ("cmaes", False), ("gp", False)]
)
def test_a_model_learns_of_trials_whether_they_are_over_or_wait(kind: str, final: bool) -> None:
    """Under a scheduler that pauses most are never over."""
    trials = 22 if kind == "gp" else 60
    searcher = searchers.create(sweep({"arguments.x": {"uniform": [0.0, 1.0]}}, search=kind))
    late = distances(searcher, 4, final, trials)[-10:]
    assert statistics.median(late) < 0.1, "by chance it is about 0.25"


def test_it_learns_nothing_of_trials_that_nobody_has_heard_of() -> None:
    assert statistics.median(distances(tpe(), None, False)[-30:]) > 0.1


def test_what_stands_where() -> None:
    """The whole ones by their loss, then those that came further, then what diverged."""
    import optuna

    storage = Observed(scored=True)
    study = optuna.create_study(storage=storage)
    ids = [study.ask()._trial_id for _ in range(6)]
    for at, (step, loss, whole) in enumerate([(64, 0.5, True), (64, 0.2, True), (16, 0.1, False), (4, 0.0, False)]):
        storage.observe(ids[at], step, loss, whole)
    storage.observe(ids[4], 4, math.nan, False)
    seen = {each._trial_id: each for each in study.get_trials()}
    assert [seen[each].state.name for each in ids] == ["COMPLETE"] * 5 + ["RUNNING"]
    scores = [seen[each].value or 0.0 for each in ids[:5]]
    assert sorted(scores) == [scores[1], scores[0], scores[2], scores[3], scores[4]]


def test_losses_on_one_scale_are_kept_as_they_are() -> None:
    import optuna

    storage = Observed(scored=True)
    study = optuna.create_study(storage=storage)
    ids = [study.ask()._trial_id for _ in range(3)]
    storage.observe(ids[0], 64, 0.5, True)
    storage.observe(ids[1], 64, 0.2, True)
    storage.observe(ids[2], 4, math.nan, True)
    assert [each.value for each in study.get_trials()] == [0.5, 0.2, 0.5], "what diverged is as bad as the worst"


def test_models_begin_with_what_is_known() -> None:
    known = [Known({"arguments.x": x / 40}, 64, abs(x / 40 - 0.3), True) for x in range(41)]
    late = distances(tpe(known=known), None, False, 20)
    assert statistics.median(late) < 0.1, "from the first on, and nothing was told"


def test_a_model_learns_of_what_was_run_and_not_of_what_it_said() -> None:
    """A sweep that is taken up again goes by its book."""
    searcher = tpe()
    for trial in range(1, 31):
        searcher.suggest(trial)
        searcher.correct(trial, {"arguments.x": trial / 30})
        searcher.told(trial, 64, abs(trial / 30 - 0.3), True)
    late = [abs((searcher.suggest(trial) or {})["arguments.x"] - 0.3) for trial in range(31, 51)]
    assert statistics.median(late) < 0.1


@pytest.mark.parametrize("name", ["random", "sobol"])
def test_those_without_a_model_begin_with_the_best_that_is_known(name: str) -> None:
    rates = {0.02: (64, 0.3, True), 0.03: (16, 0.1, False), 0.04: (64, math.nan, True), 0.05: (64, 0.9, True)}
    known = [Known({"optimizer.lr": rate}, *rest) for rate, rest in rates.items()]
    strange = Known({"arguments.no_more": 1}, 64, 0.0, True)
    searcher = searchers.create(sweep(search=name), [*known, strange])
    assert searcher.suggest(1) == {"optimizer.lr": 0.02}
    assert searcher.suggest(2) not in [each.config for each in known]


def test_chance_is_that_of_the_trial() -> None:
    """Whatever was asked before: so trials are the same in any order, and with any number at once."""
    one, other = draws.Random(LINE, 0), draws.Random(LINE, 0)
    assert [one.suggest(trial) for trial in (1, 2, 3)] == [other.suggest(trial) for trial in (3, 2, 1)][::-1]


def test_a_sequence_is_evener_than_chance() -> None:
    """Of 64 points one falls into each 64th part."""
    space, searcher = LINE, draws.Sobol(LINE, 0)
    cells = {int((searcher.suggest(trial) or {})["arguments.x"] * 64) for trial in range(1, 65)}
    by_chance = {int(draws.by_chance(space, trial)["arguments.x"] * 64) for trial in range(1, 65)}
    assert len(cells) == 64 > len(by_chance)


@pytest.mark.parametrize(("name", "stock"), [("gp", 1), ("mine.py:Own", 1), ("tpe", 0), ("random", 0)])
def test_a_searcher_that_takes_its_time_is_asked_before_there_is_room(name: str, stock: int) -> None:
    assert rules_of(sweep(search=name), lambda config: Way(100)).ahead == stock


# The user's own

OWN = """
from ray.tune.search import ConcurrencyLimiter, Searcher

class Good:
    def __init__(self, space, step=0.01): self.at, self.step, self.heard = 0, step, []
    def suggest(self, trial):
        self.at += 1
        return {"optimizer": {"lr": self.step * self.at}} if self.at < 5 else None
    def told(self, trial, step, value, final): self.heard.append((trial, value))

class Raises(Good):
    def suggest(self, trial): raise ZeroDivisionError("one over nothing")

class Deaf(Good):
    def told(self, trial, step, value, final): raise KeyError("accuracy")

class Nonsense(Good):
    def suggest(self, trial): return [0.1]

class Missing(Good):
    def suggest(self, trial): return {}

class Strange(Good):
    def suggest(self, trial): return {"optimizer.lr": 0.01, "optimizer.rl": 0.01}

class Outside(Good):
    def suggest(self, trial): return {"optimizer.lr": 7.0}

class Unready(Good):
    def __init__(self): raise OSError("no licence")

class Silent: pass

class Tunes(Searcher):
    def set_search_properties(self, metric, mode, config, **spec):
        self._metric, self._mode, self.config = metric, mode, config
        return True
    def suggest(self, trial_id):
        return {"optimizer.lr": self.config["optimizer.lr"].sample()}
    def on_trial_complete(self, trial_id, result=None, error=False): pass

class Capped(ConcurrencyLimiter):
    def __init__(self): super().__init__(Tunes(), max_concurrent=1)

class Fixed(Tunes):
    def set_search_properties(self, metric, mode, config, **spec): return False
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(OWN, encoding="utf-8")
    return path


def test_a_users_own_searcher_is_asked_and_told(own: Path) -> None:
    searcher = searchers.create(sweep(search={"name": f"{own}:Good", "step": 0.02}))
    assert searcher.suggest(1) == {"optimizer.lr": 0.02}
    searcher.told(1, 10, 0.5, True)
    assert [searcher.suggest(trial) for trial in (2, 3, 4, 5)][-1] is None
    assert searcher._searcher.heard == [(1, 0.5)]  # type: ignore[attr-defined]


def test_one_of_tunes_draws_the_same_again(own: Path) -> None:
    """From numpy's own generator, as Tune's domains do."""
    one, other = (searchers.create(sweep(search=f"{own}:Tunes")) for _ in range(2))
    said = [one.suggest(trial) for trial in range(1, 6)]
    assert said == [other.suggest(trial) for trial in range(1, 6)]
    assert len({str(each) for each in said}) == 5


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Raises", "raised in `suggest`: ZeroDivisionError: one over nothing"),
        ("Nonsense", "suggested [0.1]: that is no dict"),
        ("Missing", "suggested {}: optimizer.lr is missing"),
        ("Strange", "optimizer.rl is no key of the space. Did you mean 'optimizer.lr'?"),
        ("Outside", "optimizer.lr cannot be 7.0"),
    ],
)
def test_one_that_fails_is_said_to_have(own: Path, kind: str, words: str) -> None:
    searcher = searchers.create(sweep(search=f"{own}:{kind}"))
    with pytest.raises(SearcherFailed) as caught:
        searcher.suggest(1)
    assert words in str(caught.value)
    assert f"{own}:{kind}" in str(caught.value)
    assert caught.value.exit_code == TASK_FAILED
    assert "headway resume" in caught.value.remedy, "nothing is lost"
    assert ("mine.py" in caught.value.traceback) == (kind == "Raises"), "theirs is shown, ours is not"
    assert "theirs.py" not in caught.value.traceback


def test_one_that_fails_at_news_is_said_to_have(own: Path) -> None:
    searcher = searchers.create(sweep(search=f"{own}:Deaf"))
    searcher.suggest(1)
    with pytest.raises(SearcherFailed, match="raised in `told`: KeyError"):
        searcher.told(1, 4, 0.5, True)


def test_one_that_cannot_be_made_is_said_so(own: Path) -> None:
    with pytest.raises(SearcherFailed, match="could not be made: OSError: no licence"):
        searchers.create(sweep(search=f"{own}:Unready"))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("{own}:Godo", {}, "there is no 'Godo' in it. Did you mean 'Good'?"),
        ("{own}:Silent", {}, "it is no class with a method `suggest`"),
        ("{own}:Good", {"stepp": 1}, "unexpected keyword argument 'stepp'"),
        ("{own}:Fixed", {}, "did not take metric, mode and space"),
        ("{own}.py:Good", {}, "does not exist"),
        ("no_such_module_of_mine:Good", {}, "there is no module 'no_such_module_of_mine'"),
    ],
)
def test_one_that_is_not_there_or_does_not_fit_is_bad_input(
    own: Path, name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput) as caught:
        searchers.create(sweep(search={"name": name.format(own=own), **options}))
    assert words in str(caught.value)
    assert caught.value.exit_code == BAD_INPUT


def test_one_whose_file_is_broken_shows_its_own_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import math\nmath.no_such()\n", encoding="utf-8")
    with pytest.raises(SearcherFailed, match="could not be imported: AttributeError") as caught:
        searchers.create(sweep(search=f"{tmp_path / 'broken.py'}:Mine"))
    assert "math.no_such()" in caught.value.traceback
    assert "importlib" not in caught.value.traceback


def test_one_of_tunes_takes_no_conditions(own: Path) -> None:
    space = {
        "optimizer.momentum": {"uniform": [0, 0.9], "when": {"optimizer.name": "sgd"}},
        "optimizer.name": {"choice": ["sgd", "adamw"]},
    }
    with pytest.raises(BadInput, match="Ray Tune's searchers know no conditions"):
        searchers.create(sweep(space, search=f"{own}:Tunes"))


@pytest.mark.parametrize("options", [{}, {"step": 0.02}], ids=str)
def test_one_is_the_same_when_its_sweep_is_read_back(own: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """A sweep is taken up again from the file that it keeps: nothing is in it that its constructor was not given."""
    first = sweep(search={"name": f"{own}:Good", **options})
    (tmp_path / "kept.yaml").write_text(file.to_yaml(first), encoding="utf-8")
    again = file.load(tmp_path / "kept.yaml")
    assert again.search.arguments == options
    assert searchers.create(again).suggest(1) == searchers.create(first).suggest(1)


def test_one_of_tunes_that_says_nothing_now_is_not_through(own: Path) -> None:
    line = Line(searchers.create(sweep(search=f"{own}:Capped")))
    assert [each.trial for each in line.do(Ask(1))] == [1]
    assert line.do(Ask(2)) == []
    assert line.do(Ask(3)) == []
    assert line.do(Tell(1, 4, 0.5, final=False)) == []
    (said,) = line.do(Tell(1, 8, 0.5, final=True))
    assert said.trial == 2
    assert said.config is not None
    assert line.held == [3]


def test_two_threads_do_not_draw_from_one_anothers_chance() -> None:
    """A searcher's, and a scheduler's."""
    inside, done = threading.Event(), threading.Event()

    def searcher() -> None:
        with rolled(7, 1):
            inside.set()
            done.wait(0.2)  # the other one comes now, and has to wait
            random.random()

    with rolled(0, 1):
        alone = random.random(), random.random()
    thread = threading.Thread(target=searcher)
    thread.start()
    inside.wait(10.0)
    with rolled(0, 1):
        first = random.random()
        done.set()
        thread.join(0.5)
        assert (first, random.random()) == alone
    thread.join(10.0)
