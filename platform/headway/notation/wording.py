"""What is wrong with a job's fields, in the words of who wrote them.

No names of classes, and none of the marks by which pydantic tells apart what a field may be.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from headway.errors import nearest
from headway.notation.values import Place, dotted

NOT_PLAIN = "not_plain"
"""Kind of an error whose context holds `faults` (see headway.notation.values.admit)."""
NO_SECTION = ("model_type", "model_attributes_type")
_MOST_KEYS = 6


def say(model: type[BaseModel], tree: Any, errors: list[ErrorDetails]) -> list[str]:
    """A sentence for each thing that is wrong.

    Args:
        model: of the whole.
        tree: what was given for it.
        errors: as pydantic found them.
    """
    found: dict[str, None] = {}  # in order, each once
    for error in errors:
        place = _Place(model, error["loc"])
        if place.forks:
            fork, kinds, kind = place.forks[0]
            value = _at(tree, fork)
            meant = _kind_for(value, kinds)
            if meant is None:
                code = _as_text(value) if not isinstance(value, int | float) else ""
                found[f"{dotted(fork)}{_shown(value)}: give {' or '.join(map(_wanted, kinds))}{code}"] = None
            if kind is not meant:
                continue
        found[_sentence(model, place, error)] = None
    return list(found)


class _Place:
    """Where an error is: the way as the user wrote it, and the forks on it, where a field takes several kinds.

    Each fork is its own way, the kinds, and the one that the error is about.
    """

    def __init__(self, model: type[BaseModel], loc: tuple[int | str, ...]) -> None:
        self.way: Place = ()
        self.forks: list[tuple[Place, list[Any], Any]] = []
        self.model: type[BaseModel] | None = model
        kind: Any = model
        for part in loc:
            kinds = _kinds(kind)
            if len(kinds) > 1:
                kind = next((each for each in kinds if _is_mark(str(part), each)), None)
                self.forks.append((self.way, kinds, kind))
                continue
            kind = _bare(kinds[0])
            if part == "[key]":
                continue
            self.model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
            self.way = (*self.way, part)
            if self.model is not None:
                field = self.model.model_fields.get(str(part))
                kind = field.annotation if field else None
            else:
                kind = get_args(kind)[-1] if get_origin(kind) in (list, dict) else None


def _kinds(annotation: Any) -> list[Any]:
    """What a field takes: the parts of a union, None left out."""
    if get_origin(annotation) is Annotated:
        inner, *constraints = get_args(annotation)
        return [Annotated[(kind, *constraints)] if kind is inner else kind for kind in _kinds(inner)]
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for each in get_args(annotation) if each is not type(None) for kind in _kinds(each)]
    return [annotation]


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _origin(kind: Any) -> Any:
    return get_origin(_bare(kind)) or _bare(kind)


def _is_mark(mark: str, kind: Any) -> bool:
    """Whether pydantic's mark means this kind."""
    origin = _origin(kind)
    if origin is Literal:
        return mark.startswith("literal[")
    if origin in (list, dict):
        return mark.startswith(f"{origin.__name__}[") or mark == origin.__name__
    name = getattr(origin, "__name__", "")
    return mark in (name, f"constrained-{name}") or (mark.startswith("function-before[") and name in mark)


def _kind_for(value: Any, kinds: list[Any]) -> Any:
    """The kind that a value was meant for, by its own."""
    for kind in kinds:
        origin = _origin(kind)
        if origin in (list, dict) and isinstance(value, origin | tuple if origin is list else origin):
            return kind
        if origin in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
            return kind
    return None


def _wanted(kind: Any) -> str:
    """What a kind of value looks like."""
    origin = _origin(kind)
    if origin is Literal:
        return ", ".join(repr(each) for each in get_args(_bare(kind)))
    if origin is list:
        (of,) = get_args(_bare(kind))
        below = _bare(of)
        if isinstance(below, type) and issubclass(below, BaseModel):
            return f"a list of {{{', '.join(below.model_fields)}}}"
        return "a list"
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
    return words.get(origin, "a mapping")


def _at(tree: Any, way: Place) -> Any:
    for part in way:
        try:
            tree = tree[part] if not isinstance(tree, BaseModel) else getattr(tree, str(part))
        except (KeyError, IndexError, TypeError, AttributeError):
            return None
    return tree


def _shown(value: Any) -> str:
    return f"={value!r}" if isinstance(value, str | int | float | bool | type(None)) else ""


def _sentence(model: type[BaseModel], place: _Place, error: ErrorDetails) -> str:
    where, kind = dotted(place.way), error["type"]
    value = ... if _is_secret(model, place.way, kind) else error.get("input")
    if kind == NOT_PLAIN:
        prefix = f"{where}." if where else ""
        return "; ".join(f"{prefix}{fault}" for fault in error["ctx"]["faults"])
    if kind == "extra_forbidden" and place.model is not None:
        return f"unknown key {where!r}. {nearest(str(place.way[-1]), list(place.model.model_fields))}"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "invalid_key" or error["loc"][-1:] == ("[key]",):
        return f"the key {where} is no text. Put it in quotes"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind in NO_SECTION:
        keys = list(_model_at(model, place.way).model_fields)
        more = ", ..." if len(keys) > _MOST_KEYS else ""
        message = f"input should be a dictionary of its keys: {', '.join(keys[:_MOST_KEYS])}{more}"
    elif kind == "string_type":
        message += _as_text(value)
    elif kind == "too_short" and isinstance(value, list):
        message = "the list is empty"
    return f"{where}{_shown(value)}: {message}" if where else message


def _is_secret(model: type[BaseModel], way: Place, kind: str) -> bool:
    """Whether what is there is not to be shown: of a field that no text shows, or in place of a section with one."""
    if not way:
        return False
    field = _model_at(model, way[:-1]).model_fields.get(str(way[-1]))
    if field is not None and not field.repr:
        return True
    return kind in NO_SECTION and any(not each.repr for each in _model_at(model, way).model_fields.values())


def _as_text(value: Any) -> str:
    """How to write as text what is none."""
    if isinstance(value, PurePath):
        return ". It is a path: write str(path)"
    if isinstance(value, type) or callable(value):
        return f". It is code: name it, like file.py:{getattr(value, '__name__', 'Class')}"
    if isinstance(value, Mapping | list | str) or value is None:
        return ""
    return ". Put it in quotes"


def _model_at(model: type[BaseModel], way: Place) -> type[BaseModel]:
    for part in way:
        field = model.model_fields.get(str(part))
        kinds = [_bare(kind) for kind in _kinds(field.annotation)] if field else []
        kinds += [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return model
