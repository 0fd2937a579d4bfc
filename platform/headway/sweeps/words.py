"""A distribution as it is written: by its name in Ray Tune, with what Ray Tune takes for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headway.sweeps.distributions import Choice, Continuous, Distribution, Normal, Whole, alike, is_number


def _bounds(args: Sequence[Any], log: bool, whole: bool) -> tuple[Any, Any]:
    low, high = args[:2]
    if low > high:
        raise ValueError(f"the bounds are the wrong way round: write [{high!r}, {low!r}]")
    if log and low <= 0:
        raise ValueError(f"the lower bound is {low!r}, and a logarithm needs one above 0")
    if low == high and not whole:
        raise ValueError(f"both bounds are {low!r}, which leaves one value: write it as it is, without a distribution")
    return low, high


def _continuous(args: Sequence[Any], log: bool, q: bool) -> Continuous:
    low, high = _bounds(args, log, whole=False)
    found = Continuous(float(low), float(high), float(args[2]) if q else None, log)
    if found.empty:
        raise ValueError(f"no multiple of {args[2]!r} lies between {low!r} and {high!r}")
    return found


def _whole(args: Sequence[Any], log: bool, q: bool) -> Whole:
    odd = [each for each in args if each != int(each)]
    if odd:
        raise ValueError(f"{odd[0]!r} is no whole number. Did you mean {'log' if log else ''}uniform?")
    low, high = map(int, _bounds(args, log, whole=True))
    step = int(args[2]) if q else 1
    if step == 1:  # Tune's upper bound is left out, but of what has a q above 1
        if low == high:
            raise ValueError(
                f"it holds no number: the upper bound is left out, as in Ray Tune. Write [{low}, {low + 1}]"
            )
        high -= 1
    found = Whole(low, high, step, log)
    if found.empty:
        raise ValueError(f"no multiple of {step} lies between {low} and {high}")
    return found


def _normal(args: Sequence[Any], q: bool) -> Normal:
    if args[1] <= 0:
        raise ValueError(f"the standard deviation is {args[1]!r}, and should be above 0")
    return Normal(float(args[0]), float(args[1]), float(args[2]) if q else None)


_FORMS = {"uniform": "[low, high]", "randint": "[low, high]", "randn": "[mean, sd]"}
KINDS: dict[str, str] = {
    f"{q}{log}{base}": f"{form[:-1]}, q]" if q else form
    for base, form in _FORMS.items()
    for log in (("", "log") if base != "randn" else ("",))
    for q in ("", "q")
}
"""Distributions of numbers, and what is written behind each."""
LISTS = ("choice", "grid", "grid_search")
"""Distributions of values that are listed."""
WORDS = (*KINDS, *LISTS)


def parse(word: str, args: Any) -> Distribution:
    """A distribution as it is written.

    Args:
        word: one of `WORDS`.
        args: what stands behind it.

    Raises:
        ValueError: why it is none.
    """
    if word in LISTS:
        return _choice(word, args)
    form = KINDS[word]
    count = form.count(",") + 1
    if not isinstance(args, list) or len(args) != count:
        raise ValueError(f"{word} takes {form}, and {args!r} is given")
    if strange := [each for each in args if not is_number(each)]:
        raise ValueError(f"{word} takes {form}, numbers, and {strange[0]!r} is none")
    q, log = word.startswith("q"), "log" in word
    if q and args[2] <= 0:
        raise ValueError(f"q is {args[2]!r}, and should be above 0")
    if word.endswith("randn"):
        return _normal(args, q)
    return _whole(args, log, q) if word.endswith("randint") else _continuous(args, log, q)


def _choice(word: str, args: Any) -> Choice:
    if not isinstance(args, list):
        raise ValueError(f"{word} takes a list of values, and {args!r} is given")
    if not args:
        raise ValueError(f"{word} has no values")
    for number, each in enumerate(args):
        if any(alike(each, other) for other in args[:number]):
            raise ValueError(f"{word} names {each!r} twice")
    return Choice(tuple(args), word != "choice")
