"""The space of a sweep: what the job's keys may be, and which of them only with another's choice.

    optimizer.lr: {loguniform: [1e-4, 1e-1]}
    optimizer.name: {choice: [sgd, adamw]}
    optimizer.momentum: {uniform: [0, 0.99], when: {optimizer.name: sgd}}
    arguments.depth: 3

The names are Ray Tune's, and so is their meaning: `randint` and `lograndint` leave their upper bound out. The order of
the keys is free. A key whose condition does not hold is not set: the job's own value counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, islice, product
from typing import Any

from headway.errors import BadInput, nearest
from headway.notation import overrides, values
from headway.sweeps import words
from headway.sweeps.distributions import Choice, Distribution, alike
from headway.sweeps.events import Config

_MOST = 1_000
"""Keys of a space."""


@dataclass(frozen=True)
class Setting:
    """What a key of the job may be.

    Args:
        of: its distribution; None of a constant.
        value: of a constant.
        when: values that other keys must have, by key; all of them.
    """

    of: Distribution | None
    value: Any = None
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def counts(self, config: Config) -> bool:
        """Whether its condition holds."""
        return all(key in config and any(alike(config[key], each) for each in allowed) for key, allowed in self.when)


@dataclass(frozen=True)
class Space:
    """What trials may be.

    Args:
        settings: by key, as they are written.
        order: of the keys: those that a condition asks for are before its own.
    """

    settings: Mapping[str, Setting]
    order: tuple[str, ...]

    @property
    def distributions(self) -> dict[str, Distribution]:
        """Of every key that varies, in the order in which they are chosen."""
        found = ((key, self.settings[key].of) for key in self.order)
        return {key: of for key, of in found if of is not None}

    @property
    def conditional(self) -> bool:
        """Whether some key counts only with another's choice."""
        return any(each.when for each in self.settings.values())

    def walk(self, choose: Callable[[str, Distribution], Any]) -> Config:
        """Make a configuration, key by key, in an order in which conditions are known.

        Args:
            choose: gives a value; is asked for those keys only whose condition holds.

        Returns:
            Values by key, in the order of the file, constants among them.
        """
        config: Config = {}
        for key in self.order:
            setting = self.settings[key]
            if setting.counts(config):
                config[key] = setting.value if setting.of is None else choose(key, setting.of)
        return {key: config[key] for key in self.settings if key in config}

    def at(self, units: Mapping[str, float]) -> Config:
        """The configuration at a point of the unit cube, given by key."""
        return self.walk(lambda key, of: of.at(units[key]))

    def fault(self, config: Mapping[str, Any]) -> str:
        """Why this is no configuration of the space; "" if it is one."""
        try:
            whole = self.walk(lambda key, of: _taken(config, key, of))
        except _Strange as strange:
            return str(strange)
        odd = next((key for key in config if key not in whole), None)
        if odd is not None and odd in self.settings:
            return f"{odd} is set, and its condition does not hold"
        if odd is not None:
            return f"{odd} is no key of the space. {nearest(odd, list(self.settings))}"
        constant = next((key for key in whole if key not in config or not alike(whole[key], config[key])), None)
        return "" if constant is None else f"{constant} is always {whole[constant]!r}"

    def grid(self) -> Iterator[Config]:
        """Every combination of listed values, the last key's changing fastest.

        Raises:
            BadInput: a key has no list.
        """
        lists = {key: of.listed for key, of in self.distributions.items()}
        endless = [key for key, listed in lists.items() if listed is None]
        if endless:
            remedy = "Write {grid: [...]} or {choice: [...]}, or take another search, like random."
            raise BadInput(f"search: grid goes through values, and space.{endless[0]} has no list", "", remedy)
        return self._combined()

    def _combined(self) -> Iterator[Config]:
        """Depth first along the order, so that keys that do not count multiply nothing."""
        heads: list[Config] = [{}]
        while heads:
            config = heads.pop()
            key = next((k for k in self.order if k not in config and self.settings[k].counts(config)), None)
            if key is None:
                yield {k: config[k] for k in self.settings if k in config}
                continue
            setting = self.settings[key]
            listed = (setting.value,) if setting.of is None else setting.of.listed or ()
            heads += [{**config, key: each} for each in reversed(listed)]

    def corners(self) -> Iterator[Config]:
        """Configurations in which each key is at each of its extremes once, and all at their least and greatest."""
        yield self.at(dict.fromkeys(self.order, 0.0))
        yield self.at(dict.fromkeys(self.order, 1.0))
        for key, of in self.distributions.items():
            for value in of.extremes:
                yield self._with({key: value})

    def pairs(self, most: int) -> Iterator[Config]:
        """Configurations in which each two keys are at each two of their extremes, where both count together; of very
        many every so-manieth, so that there are no more than `most`."""
        edges = {key: of.extremes for key, of in self.distributions.items()}
        sizes = [len(each) for each in edges.values()]
        count = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
        every = max(1, -(-count // most))
        two = (
            {one: value, other: beside}
            for one, other in combinations(edges, 2)
            for value, beside in product(edges[one], edges[other])
        )
        for wanted in islice(two, 0, None, every):
            config = self._with(wanted)
            if all(key in config and alike(config[key], value) for key, value in wanted.items()):
                yield config

    def _with(self, wanted: Config) -> Config:
        """A configuration in which keys have these values, with their conditions made to hold."""
        forced = dict(wanted)
        ahead = list(wanted)
        while ahead:
            for parent, allowed in self.settings[ahead.pop()].when:
                if parent not in forced:
                    forced[parent] = allowed[0]
                    ahead.append(parent)
        return self.walk(lambda each, of: forced.get(each, of.at(0.0)) if each in forced else of.at(0.0))


class _Strange(Exception):
    pass


def _taken(config: Mapping[str, Any], key: str, of: Distribution) -> Any:
    if key not in config:
        raise _Strange(f"{key} is missing")
    if not of.holds(config[key]):
        raise _Strange(f"{key} cannot be {config[key]!r}")
    return config[key]


# From what is written


def parse(written: Any) -> Space:
    """A space as it is written.

    Raises:
        BadInput: all that is wrong with it, each by its key.
    """
    settings, faults = _read(written)
    if faults:
        raise BadInput("the space cannot be used", "; ".join(faults), "`headway sweep schema` has all distributions.")
    return Space(settings, tuple(_parents(settings).static_order()))


def faults_of(written: Any) -> list[str]:
    """What is wrong with a space, each by its key, beginning with `space`."""
    return _read(written)[1]


def _read(written: Any) -> tuple[dict[str, Setting], list[str]]:
    if not isinstance(written, dict):
        return {}, ["space should be a mapping of the job's keys to distributions"]
    if not written:
        return {}, ["space is empty: name at least one key of the job, like optimizer.lr: {loguniform: [1e-4, 1e-1]}"]
    if len(written) > _MOST:
        return {}, [f"space has {len(written):,} keys, and {_MOST:,} are the most"]
    faults: list[str] = []
    settings: dict[str, Setting] = {}
    for key, given in written.items():
        try:
            settings[_key(key)] = _setting(str(key), given)
        except ValueError as error:
            faults.append(f"space.{key}: {error}")
    if not faults:
        faults += [*_of_conditions(settings), *_of_overlaps(settings)]
    if not faults and not any(each.of is not None for each in settings.values()):
        faults.append("space holds constants only: give at least one key a distribution")
    return settings, faults


def _key(key: Any) -> str:
    parts = overrides.parts_of(key) if isinstance(key, str) else []
    if not parts or not all(parts):
        raise ValueError("is no dotted key of a job")
    return str(key)


def _setting(key: str, given: Any) -> Setting:
    if not isinstance(given, dict):
        return Setting(None, _plain(given))
    when = _when(given.get("when")) if "when" in given else ()
    rest = {name: value for name, value in given.items() if name != "when"}
    known = [*words.WORDS, "constant"]
    found = [name for name in rest if name in known]
    if len(rest) != 1 or not found:
        raise ValueError(_unknown(key, rest, found, known))
    (word, args), *_ = rest.items()
    if word == "constant":
        return Setting(None, _plain(args), when)
    return Setting(words.parse(word, _plain(args)), None, when)


def _unknown(key: str, rest: dict[Any, Any], found: list[Any], known: list[str]) -> str:
    """Why a mapping is no distribution."""
    if not rest:
        return "a condition without a distribution: write {uniform: [0, 1], when: {...}}"
    if len(found) > 1:
        return f"{' and '.join(map(str, found))} at once: one distribution is meant"
    if len(found) == 1:
        odd = next(name for name in rest if name not in known)
        return f"unknown key {odd!r} beside {found[0]}. {nearest(str(odd), ['when'])}"
    name, value = next(iter(rest.items()))
    if name == "sample_from":
        return "sample_from is code, which a file has none of: write a distribution, with `when` for a condition"
    if isinstance(value, dict):
        return f"write it as one dotted key: {key}.{name}: ...; a mapping as it is is {{constant: ...}}"
    return f"unknown distribution {name!r}. {nearest(str(name), known)}"


def _plain(value: Any) -> Any:
    faults: list[str] = []
    found = values.admit(value, faults)
    if faults:
        raise ValueError("; ".join(faults).strip())
    return found


def _when(given: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(given, dict) or not given:
        raise ValueError("when takes keys of the space and their values: when: {optimizer.name: sgd}")
    return tuple((str(key), tuple(value) if isinstance(value, list) else (value,)) for key, value in given.items())


def _of_conditions(settings: dict[str, Setting]) -> Iterator[str]:
    for key, setting in settings.items():
        for parent, allowed in setting.when:
            where = f"space.{key}.when.{parent}"
            if parent == key:
                yield f"{where}: a key cannot hang on itself"
            elif parent not in settings:
                yield f"{where}: space has no such key. {nearest(parent, [each for each in settings if each != key])}"
            elif not allowed:
                yield f"{where}: names no value, so that it never holds"
            else:
                yield from _of_values(where, parent, settings[parent], allowed)
    try:
        _parents(settings).prepare()
    except CycleError as error:
        circle = error.args[1]
        if len(circle) > 2:  # one that hangs on itself is named above
            yield f"space: {' hangs on '.join(reversed(circle))}, in a circle. Strike out one of these conditions"


def _parents(settings: Mapping[str, Setting]) -> TopologicalSorter[str]:
    """Keys, each with those that its condition asks for."""
    return TopologicalSorter({key: [parent for parent, _ in each.when] for key, each in settings.items()})


def _of_values(where: str, parent: str, setting: Setting, allowed: tuple[Any, ...]) -> Iterator[str]:
    """What is wrong with the values that a condition asks for."""
    if setting.of is None:
        known: tuple[Any, ...] = (setting.value,)
    elif isinstance(setting.of, Choice):
        known = setting.of.values
    else:
        yield f"{where}: a condition goes by a choice or a grid, and {parent} is neither"
        return
    for value in allowed:
        if not any(alike(value, each) for each in known):
            hint = nearest(str(value), [str(each) for each in known])
            yield f"{where}={value!r}: {parent} is never that. {hint}"


def _of_overlaps(settings: dict[str, Setting]) -> Iterator[str]:
    """Keys of which one is a part of the other: which of them counts would hang on their order."""
    ways = {key: tuple(map(str, overrides.parts_of(key))) for key in settings}
    for one, other in product(settings, settings):
        if one != other and ways[other][: len(ways[one])] == ways[one]:
            twice = "are the same key" if len(ways[one]) == len(ways[other]) else "overlap"
            yield f"space: {one} and {other} {twice}. Write one of them"


def schema() -> dict[str, Any]:
    """JSON Schema of a space."""
    number = {"type": "number"}
    when = {"type": "object", "minProperties": 1, "description": "Values that other keys of the space must have."}
    kinds: dict[str, Any] = {
        word: {
            "type": "array",
            "items": number,
            "minItems": form.count(",") + 1,
            "maxItems": form.count(",") + 1,
            "description": form,
        }
        for word, form in words.KINDS.items()
    }
    kinds |= {word: {"type": "array", "minItems": 1} for word in words.LISTS}
    kinds["constant"] = {}
    of = [
        {
            "type": "object",
            "properties": {word: kind, "when": when},
            "required": [word],
            "additionalProperties": False,
        }
        for word, kind in kinds.items()
    ]
    plain = {"type": ["string", "number", "boolean", "null", "array"], "description": "A constant."}
    return {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [*of, plain]}}
