"""A searcher that the user brought: one of Ray Tune's kind, or one of ours. What it says is checked."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from headway.errors import BadInput, nearest
from headway.faults.blame import reason as told
from headway.faults.blame import users_traceback
from headway.sweeps.chance import rolled
from headway.sweeps.distributions import Distribution
from headway.sweeps.events import Config
from headway.sweeps.search.protocol import Known, NotNow, Searcher, SearcherFailed
from headway.sweeps.space import Space

T = TypeVar("T")

MEND = "Mend it, and take the sweep up again: headway resume."


def load(name: str) -> Any:
    """The class that `file.py:Class` or `package.module:Class` names.

    Raises:
        BadInput: there is no such file, module or class, or it is no searcher.
        SearcherFailed: it raises when it is imported.
    """
    where, _, attribute = name.rpartition(":")
    module = _from_file(name, Path(where)) if where.endswith(".py") else _from_path(name, where)
    found = getattr(module, attribute, None)
    if found is None:
        known = [each for each in vars(module) if not each.startswith("_")]
        raise BadInput(f"search {name!r}", f"there is no {attribute!r} in it", nearest(attribute, known))
    if not inspect.isclass(found) or not callable(getattr(found, "suggest", None)):
        reason = "it is no class with a method `suggest`"
        raise BadInput(f"search {name!r}", reason, "See headway.sweeps.search.protocol, or ray.tune.search.Searcher.")
    return found


def _from_file(name: str, path: Path) -> Any:
    if not path.is_file():
        raise BadInput(
            f"search {name!r}", f"{path} does not exist", "Give file.py:Class, relative to the sweep's file."
        )
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # for what lies beside it
    spec = importlib.util.spec_from_file_location(f"headway_search_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loader = spec.loader
    _guarded(name, "could not be imported", lambda: loader.exec_module(module))
    return module


def _from_path(name: str, module: str) -> Any:
    top = module.partition(".")[0]
    try:
        return _guarded(name, "could not be imported", lambda: importlib.import_module(module))
    except SearcherFailed as failure:
        cause = failure.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name in (top, module):
            remedy = "Give file.py:Class, run from its folder, or install it."
            raise BadInput(f"search {name!r}", f"there is no module {cause.name!r}", remedy) from None
        raise


def brought(
    name: str, options: dict[str, Any], space: Space, metric: str, mode: str, seed: int, known: Sequence[Known] = ()
) -> Searcher:
    """The user's searcher.

    Args:
        name: file.py:Class or package.module:Class. One of ours is called with space, metric, mode, seed, known and the
            options, as far as it takes them; one of Ray Tune's with its options, and is given the rest as Tune does.
        options: further words of `search:`.

    Raises:
        BadInput: it is not there, does not take these options, or does not take this space.
        SearcherFailed: it raised.
    """
    kind = load(name)
    if _is_tunes(kind):
        return Checked(name, _OfTune(name, kind, options, space, metric, mode, seed), space, seed)
    ours = {"space": space, "metric": metric, "mode": mode, "seed": seed, "known": known}
    taken = inspect.signature(kind).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    given = {word: value for word, value in ours.items() if takes_all or word in taken}
    return Checked(name, _made(name, kind, {**given, **options}), space, seed)


class Checked(Searcher):
    """Says what it says, if it can be tried; else whose fault it is.

    Args:
        name: as the user wrote it.
        searcher: theirs.
        space: of which it is to suggest settings.
        seed: for what it draws from generators that belong to everybody.
    """

    def __init__(self, name: str, searcher: Any, space: Space, seed: int) -> None:
        self._name, self._searcher, self._space, self._seed = name, searcher, space, seed
        self._of = space.distributions
        self._calls = 0

    def suggest(self, trial: int) -> Config | None:
        said = self._call("suggest", lambda: self._searcher.suggest(trial))
        if said is None:
            return None
        if not isinstance(said, dict):
            raise SearcherFailed(f"the searcher {self._name!r} suggested {said!r}", "that is no dict of settings", MEND)
        return self._settings(flat(said))

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        if callable(getattr(self._searcher, "told", None)):
            self._call("told", lambda: self._searcher.told(trial, step, value, final))

    def _settings(self, said: dict[str, Any]) -> Config:
        """What it said, in the space's order, with what is constant; numbers of numpy as plain ones."""
        said = {key: near(self._of[key], value) if key in self._of else value for key, value in said.items()}
        try:
            whole = self._space.walk(lambda key, of: of.value(of.param(said[key])))
            fault = self._space.fault({**whole, **said})
        except (KeyError, ValueError, TypeError, StopIteration):
            fault = self._space.fault(said)
        if fault:
            raise SearcherFailed(f"the searcher {self._name!r} suggested {said!r}", fault, MEND)
        return whole

    def _call(self, verb: str, what: Callable[[], T]) -> T:
        self._calls += 1
        with rolled(self._seed, self._calls):
            return _guarded(self._name, f"raised in `{verb}`", what, MEND)


class _OfTune:
    """A `ray.tune.search.Searcher`, by our verbs."""

    def __init__(
        self, name: str, kind: Any, options: dict[str, Any], space: Space, metric: str, mode: str, seed: int
    ) -> None:
        if space.conditional:
            reason = "Ray Tune's searchers know no conditions"
            raise BadInput(f"search {name!r}", reason, "Leave out `when:`, or take tpe, random, sobol or grid.")
        self._name, self._metric = name, metric
        self._latest: dict[int, dict[str, Any]] = {}
        with rolled(seed, 0):
            self._searcher = _made(name, kind, options)
            domains = {key: each.tune() for key, each in space.distributions.items()}
            try:
                took = self._searcher.set_search_properties(metric, mode, domains)
            except Exception as error:
                raise BadInput(f"search {name!r}", f"it does not take this space: {told(error)}", "") from error
        if not took:
            reason = "its set_search_properties did not take metric, mode and space"
            raise BadInput(f"search {name!r}", reason, "Give it none of them itself: they are the sweep's.")

    def suggest(self, trial: int) -> dict[str, Any] | None:
        said = self._searcher.suggest(f"{trial:05d}")
        if said is None:
            raise NotNow
        if said == self._searcher.FINISHED:
            return None
        return said  # type: ignore[no-any-return]  # checked by the caller

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        number = f"{trial:05d}"
        if value is not None:
            self._latest[trial] = {self._metric: value, "step": step, "training_iteration": step}
        if not final:
            self._searcher.on_trial_result(number, self._latest[trial])
            return
        result = self._latest.pop(trial, None)
        failed = result is None or result[self._metric] != result[self._metric]
        self._searcher.on_trial_complete(number, None if failed else result, error=failed)


def near(of: Distribution, value: Any) -> Any:
    """A number that lies between two that may be, as the nearer of them: not every searcher knows of steps."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if of.bounds is None or not number or of.holds(value) or not of.bounds[0] <= value <= of.bounds[1]:
        return value
    return of.value(of.param(value))


def flat(said: dict[Any, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted keys, where they came as dicts of dicts."""
    found: dict[str, Any] = {}
    for key, value in said.items():
        if isinstance(value, dict) and value:
            found.update(flat(value, f"{before}{key}."))
        else:
            found[f"{before}{key}"] = value
    return found


def _is_tunes(kind: Any) -> bool:
    from ray.tune.search import Searcher as OfTune

    return issubclass(kind, OfTune)


def _made(name: str, kind: Any, options: dict[str, Any]) -> Any:
    try:
        inspect.signature(kind).bind(**options)
    except TypeError as error:
        raise BadInput(
            f"search {name!r}", f"its constructor says: {error}", "Give it what it takes beside name:."
        ) from None
    return _guarded(name, "could not be made", lambda: kind(**options))


def _guarded(name: str, what: str, call: Callable[[], T], remedy: str = "") -> T:
    """A call of the user's code. what: the searcher did, if it raises; remedy: then."""
    try:
        return call()
    except (BadInput, NotNow, SearcherFailed):
        raise
    except Exception as error:
        failure = SearcherFailed(f"the searcher {name!r} {what}", told(error), remedy)
        failure.traceback = users_traceback(error)
        raise failure from error
