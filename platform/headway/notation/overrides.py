"""`--set key=value`: one value of a job's tree, by the dotted way to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from headway.errors import BadInput
from headway.notation.plain import read
from headway.notation.values import Place, dotted

_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^."'\s][^.]*?|))\s*(?:\.|$)""")


NAMES: dict[Place, str] = {("strategy",): "kind", ("strategy", "compression"): "kind"}
"""Places in a job where a name stands for a mapping with this key, see `opened`."""


class _Quoted(str):
    """A part that was written in quotes: text, and whole."""


def _never(way: Place) -> bool:
    return False


def apply(
    tree: dict[str, Any],
    setting: str,
    anchored: Callable[[Place, Any], Any],
    whole: Callable[[Place], bool] = _never,
) -> None:
    """Change the tree in place; what is changed is copied first.

    Args:
        tree: of the job.
        setting: key=value. The key is dotted: names, positions in lists (0 is the first), and keys that are numbers or
            dates where the mapping has such keys. A part with a dot in it may be put in quotes. The value is YAML.
        anchored: makes relative paths in a value that goes to a place absolute.
        whole: whether a mapping at a place is replaced, and not laid over by another.

    Raises:
        BadInput: it is malformed, or leads to nothing.
    """
    key, equals, text = cut(setting)
    if not equals:
        raise _malformed(setting)
    _put(tree, key, _value(setting, text), f"--set {setting}", anchored, whole)


def put(tree: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Change the tree in place by a value that has been read already; the rest as of `apply`.

    Args:
        said: what an error begins with.
    """
    _put(tree, key, value, said, lambda _, given: given, _never)


def _put(
    tree: dict[str, Any],
    key: str,
    value: Any,
    said: str,
    anchored: Callable[[Place, Any], Any],
    whole: Callable[[Place], bool],
) -> None:
    parts = parts_of(key)
    if not parts or not all(parts):
        raise _malformed(said.removeprefix("--set "))
    at: Any = tree
    way: Place = ()
    while True:
        place, parts = _step(at, parts, way, said)
        way = (*way, place)
        if not parts:
            break
        below = opened(way, at[place] if isinstance(at, list) or place in at else None)
        if below is not None and not isinstance(below, dict | list):
            remedy = f"Set it whole: {'--set ' if said.startswith('--set') else ''}{dotted(way)}=..."
            raise BadInput(said, f"{dotted(way)} is {below!r}, which has no parts", remedy)
        at[place] = at = {} if below is None else below.copy()
    value = anchored(way, value)
    there = at[place] if isinstance(at, list) else at.get(place)
    if isinstance(value, dict) and not (_key(way) and _key(way) in value):
        there = opened(way, there)
        laid_over = isinstance(there, dict) and not whole(way)
    else:
        laid_over = False
    if laid_over:
        at[place] = dict(there)
        merge(at[place], value)
    else:
        at[place] = value


def opened(way: Place, value: Any) -> Any:
    """What is at a place, a name there as the mapping that it stands for: another of its keys may be set then."""
    return {_key(way): value} if isinstance(value, str) and _key(way) else value


def _key(way: Place) -> str:
    """That a mapping at this place is told apart by: another's keys are not laid over it. Empty where there is none."""
    return NAMES.get(way[1:] if way[:1] == ("job",) else way, "")


def _malformed(setting: str) -> BadInput:
    return BadInput(f"--set {setting}", "not of the form key=value", "Write it like --set workers.max=3.")


def merge(tree: dict[Any, Any], other: dict[Any, Any]) -> None:
    """Lay `other` over `tree`, in place, mapping by mapping."""
    for name, value in other.items():
        below = tree.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            tree[name] = dict(below)
            merge(tree[name], value)
        else:
            tree[name] = value


def cut(setting: str) -> tuple[str, str, str]:
    """The key, the equals sign and the value; a sign in quotes belongs to the key."""
    quote = ""
    for number, character in enumerate(setting):
        if character in ("'", '"') and quote in ("", character):
            quote = "" if quote else character
        elif character == "=" and not quote:
            return setting[:number].strip(), "=", setting[number + 1 :]
    return setting.partition("=") if quote else (setting, "", "")


def parts_of(key: str) -> list[str]:
    """The dotted key's parts; none where it is malformed."""
    found: list[str] = []
    at = 0
    while at <= len(key):
        match = _PART.match(key, at)
        if match is None:
            return []
        double, single, plain = match.groups()
        quoted = double if double is not None else single
        found.append(plain if quoted is None else _Quoted(quoted))
        if match.end() == len(key):
            return found + ([""] if key.endswith(".") else [])
        at = match.end()
    return found


def _value(setting: str, text: str) -> Any:
    import yaml

    try:
        return read(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if text.lstrip()[:1] not in ("[", "{"):
            return text
        problem = getattr(error, "problem", None) or str(error)
        raise BadInput(f"--set {setting}", f"the value is not YAML: {problem}", "Mend it, or quote it.") from None


def _step(at: Any, parts: list[str], way: Place, said: str) -> tuple[Any, list[str]]:
    """The key or position that the first of the parts means here, and the parts that are left."""
    if isinstance(at, list):
        return _position(at, parts[0], way, said), parts[1:]
    for count in range(1, len(parts) + 1):  # a key with dots in it: 0.5, or the name of a layer
        joined = ".".join(parts[:count])
        keys = _meant(at, joined, quoted=isinstance(parts[0], _Quoted))
        if len(keys) > 1:
            reason = f"{dotted(way)} has {' and '.join(map(repr, keys))}, and it is not clear which is meant"
            raise BadInput(said, reason, f"Set the whole: --set '{dotted(way)}={{...}}'.")
        if keys:
            return keys[0], parts[count:]
        if isinstance(parts[0], _Quoted):
            break
    return _new_key(at, parts[0]), parts[1:]


def _meant(at: dict[Any, Any], text: str, quoted: bool) -> list[Any]:
    """Keys that are there, and that the text may mean."""
    if quoted:
        return [key for key in at if isinstance(key, str) and key == text] or _typed(at, text)
    return [key for key in at if isinstance(key, str) and key == text] + _typed(at, text)


def _typed(at: dict[Any, Any], text: str) -> list[Any]:
    value = _scalar(text)
    return [key for key in at if type(key) is type(value) and not isinstance(key, str) and key == value]


def _new_key(at: dict[Any, Any], text: str) -> Any:
    """Of the kind that all other keys have: a third class beside 0 and 1 is the number 2."""
    kinds = {type(key) for key in at}
    value = _scalar(text)
    return value if not isinstance(text, _Quoted) and kinds == {type(value)} else str(text)


def _scalar(text: str) -> Any:
    import yaml

    try:
        value = read(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return text if isinstance(value, list | dict) else value


def _position(at: list[Any], text: str, way: Place, said: str) -> int:
    name = dotted(way)
    whole = f"To change how many there are, set the whole list: --set '{name}=[...]'."
    if not at:
        raise BadInput(said, f"{name} is an empty list", whole)
    last = f"its elements are 0 to {len(at) - 1}" if len(at) > 1 else "its one element is 0"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        remedy = f"Name an element: {name}.0{'.' + text if re.fullmatch(r'[A-Za-z_]+', text) else ''}."
        raise BadInput(said, f"{name} is a list, and {text!r} is no position in it; {last}", remedy)
    if int(text) >= len(at):
        raise BadInput(said, f"{name} has no element {int(text)}: {last}", whole)
    return int(text)
