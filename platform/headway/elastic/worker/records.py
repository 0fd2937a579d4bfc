"""Numbers of the user's own, as they are taken at the door."""

from __future__ import annotations

from typing import Any

import torch

from headway.errors import BadInput


def number(verb: str, name: Any, value: Any) -> torch.Tensor | float:
    """A value to be recorded; a tensor is not read, for that would wait for the device.

    Args:
        verb: that the user called, for the error.
        name: of the record.
        value: scalar.

    Raises:
        BadInput: the name is no text, or the value no scalar.
    """
    if not isinstance(name, str) or not name:
        raise BadInput(f"{verb}() was given the name {name!r}", "a record is kept under a name", "Give text.")
    if isinstance(value, torch.Tensor):
        if value.numel() == 1 and not value.is_complex():
            return value.detach()
        shape = f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    else:
        try:
            return float(value)
        except (TypeError, ValueError):
            shape = f"a {type(value).__name__}"
    raise BadInput(f"{verb}() was given {shape} for {name!r}", "a record is one real number", "Take its mean, or item.")


def numbers(verb: str, values: Any) -> dict[str, float]:
    """Values by name as Python's numbers. Raises BadInput likewise, and where there is no dict."""
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise BadInput(f"{verb}() was given a {kind}", "records have names", "Give a dict of numbers by name.")
    return {name: float(number(verb, name, value)) for name, value in values.items()}
