"""What a plan says of strategy, lanes and memory, in words: as `headway job check` and `headway submit` show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def lines(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A name and a text each, of what is known.

    Args:
        told: with the keys strategy, lanes_together, activation_checkpointing and memory of `headway.plan.Plan.shown`,
            or fewer.
    """
    yield from _strategy(told.get("strategy") or {})
    for name, text in (
        ("lanes", _together(told.get("lanes_together"))),
        ("recomputed", _checkpointed(told.get("activation_checkpointing"))),
        ("memory", _memory(told.get("memory"))),
    ):
        if text:
            yield name, text


def _strategy(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How workers are kept in step, which lanes each replica has, and what is sent."""
    if not found:
        return
    yield "strategy", f"{found['kind']}: {found['words']}"
    if found.get("replicas"):
        same = "; who carries them makes no difference to the result"
        parts = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found["replicas"])
        yield "replicas", f"{len(found['replicas'])}, of lanes {parts}" + (same if found["repeatable"] else "")
    sent = found.get("bytes")
    if sent is not None and sent["workers"] > 1:
        yield "sent", _sent(sent)


def _sent(sent: Mapping[str, Any]) -> str:
    """By each worker, where there are most."""
    each = f"each of {sent['workers']} workers sends"
    if sent["step"] is None:
        return f"{each} what cannot be told beforehand; with all_reduce {size(sent['all_reduce'])} a step"
    text = f"{each} about {size(sent['step'])} a step"
    if sent["step"] and sent["step"] != sent["all_reduce"]:
        times = sent["all_reduce"] / sent["step"]
        more = f"{times:.3g} times fewer" if times > 1 else f"{1 / times:.3g} times more"
        text += f", {more} than with all_reduce ({size(sent['all_reduce'])})"
    if sent["copies"]:
        text += f"; and {size(sent['copies'])} of copies, so that a lost worker costs only time"
    return text


def _together(why: str | None) -> str:
    """Whether lanes go together, as far as a few rows say."""
    if why is None:
        return ""
    return f"computed one by one: {why}" if why else "those of a worker go through the model together"


def _checkpointed(which: str | None) -> str:
    """Which blocks keep none."""
    if which is None:
        return ""
    return f"{which}, in the backward pass" if which else "nothing: the model has no repeated blocks"


def _memory(known: Mapping[str, int] | None) -> str:
    """Of each worker where there are fewest."""
    if known is None:
        return ""
    least, rows, lane_rows = known["workers"], known["together_rows"], known["lane_rows"]
    each = f"{least} worker" if least == 1 else f"each of {least} workers"
    of = f"the {lane_rows:,} rows of a lane" if known["whole_lane"] else f"{lane_rows:,} rows of a lane at once"
    text = f"{each}: {size(known['state_bytes'])} of model, optimiser and gradients"
    text += f", {size(known['lane_bytes'])} for {of}"
    if known["together_bytes"] > known["lane_bytes"]:
        text += f", {size(known['together_bytes'])} for {rows:,} rows together, where that is free"
    return f"{text}; {size(known['peak_bytes'])} at the peak, beside the process itself"


def size(count: float) -> str:
    """Bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"
