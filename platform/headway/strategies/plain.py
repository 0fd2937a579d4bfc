"""Values between workers, as JSON that keeps their types: what comes from a peer is data and never code.

Plain JSON stands for None, bool, int, str, finite floats and lists. Everything else is an object with one key, its
kind. Equal values give equal bytes.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from headway.errors import BadInput

MOST_BYTES = 1 << 30
"""Of one value; more belongs into tensors."""


def pack(value: Any, other: Callable[[Any], Any] | None = None) -> bytes:
    """A value as bytes.

    Args:
        value: of None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict (with such keys), numpy
            scalars and arrays of numbers, torch's dtype, device and Size; dict's subclasses become dicts.
        other: called for each value inside, first; gives the encoded form of those that are its own (an object with one
            key of its own), else None.

    Raises:
        BadInput: something else is in it.
    """
    return json.dumps(encoded(value, other), separators=(",", ":"), allow_nan=False).encode("ascii")


def unpack(data: bytes, other: Callable[[str, Any], Any] | None = None) -> Any:
    """The value that `pack` was given.

    Args:
        data: from a peer.
        other: called as other(kind, content) for kinds that are not known here.

    Raises:
        ValueError: it is nothing that `pack` writes.
    """
    try:
        return decoded(json.loads(data), other)
    except ValueError:
        raise
    except (TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a packed value: {error}") from error


def encoded(value: Any, other: Callable[[Any], Any] | None) -> Any:
    """What `pack` writes as JSON; for an `other` that has values inside."""
    if other is not None and (found := other(value)) is not None:
        return found
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return [encoded(each, other) for each in value]
    if isinstance(value, dict):
        return {"dict": [[encoded(key, other), encoded(each, other)] for key, each in value.items()]}
    if kind in _SEQUENCES:
        return {_SEQUENCES[kind]: [encoded(each, other) for each in value]}
    if kind in (set, frozenset):
        return {kind.__name__: sorted((encoded(each, other) for each in value), key=json.dumps)}
    if kind is complex:
        return {"complex": [encoded(value.real, other), encoded(value.imag, other)]}
    if kind in (bytes, bytearray):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "?biufcSUMm":
        text = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        if isinstance(value, np.generic):
            return {"scalar": [value.dtype.str, text]}
        return {"array": [value.dtype.str, list(value.shape), text]}
    if kind is torch.dtype:
        return {"dtype": str(value).removeprefix("torch.")}
    if kind is torch.device:
        return {"device": str(value)}
    raise BadInput(
        f"a {kind.__module__}.{kind.__qualname__} cannot be given to other workers",
        "state travels as numbers, text, lists, dicts, arrays and tensors, so that no worker runs what another sends",
        "Let state_dict() give plain values, and load_state_dict() rebuild the object.",
    )


def decoded(found: Any, other: Callable[[str, Any], Any] | None) -> Any:
    """The opposite of `encoded`; raises what comes of it where that is not what was written."""
    if isinstance(found, list):
        return [decoded(each, other) for each in found]
    if not isinstance(found, dict):
        return found
    ((kind, content),) = found.items()
    if kind in _READERS:
        return _READERS[kind](content)
    if kind == "dict":
        return {decoded(key, other): decoded(each, other) for key, each in content}
    if kind in _MADE:
        return _MADE[kind](decoded(each, other) for each in content)
    if kind == "complex":
        return complex(*(decoded(each, other) for each in content))
    if other is None:
        raise ValueError(f"unknown kind of value: {kind[:40]!r}")
    return other(kind, content)


def _scalar(content: Any) -> Any:
    dtype, text = content
    return np.frombuffer(base64.b64decode(text, validate=True), _numbers(dtype))[0]


def _array(content: Any) -> Any:
    dtype, shape, text = content
    return np.frombuffer(base64.b64decode(text, validate=True), _numbers(dtype)).reshape(shape).copy()


def _numbers(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if dtype.hasobject:
        raise ValueError(f"dtype {name!r} holds objects")
    return dtype


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no dtype {name[:40]!r}")
    return found


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


_SEQUENCES: dict[type, str] = {tuple: "tuple", torch.Size: "size"}
_MADE: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "size": torch.Size, "set": set, "frozenset": frozenset}
_READERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "scalar": _scalar,
    "array": _array,
    "dtype": _dtype,
    "device": _device,
}
