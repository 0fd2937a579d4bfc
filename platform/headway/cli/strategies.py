"""headway strategies"""

from __future__ import annotations

from typing import Annotated, Any

import typer


def strategies(
    kind: Annotated[str | None, typer.Argument(help="One of them, with what each of its options means.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the ways of keeping workers in step, with when to choose which, and their options."""
    import json as encoder

    from headway.errors import BadInput, nearest
    from headway.strategies.catalogue import listed

    found = listed()
    if kind is not None:
        entries = [entry for entries in found.values() for entry in entries]
        if kind not in [entry["kind"] for entry in entries]:
            known = [str(entry["kind"]) for entry in entries]
            raise BadInput(f"{kind!r}", "there is no such strategy, and no such compression", nearest(kind, known))
        found = {name: [entry for entry in entries if entry["kind"] == kind] for name, entries in found.items()}
    if json:
        print(encoder.dumps(found))
        return
    print("\n\n".join(_shown(entry, whole=kind is not None) for entry in found["strategies"]))
    if found["compressions"]:
        if kind is None:
            print("\nCompressions: strategy.compression of all_reduce, local_sgd and diloco\n")
        print("\n\n".join(_shown(entry, whole=kind is not None) for entry in found["compressions"]))


def _shown(entry: dict[str, Any], whole: bool) -> str:
    import textwrap

    lines = [str(entry["kind"])]
    for name, text in (("", entry["what"]), ("choose it", entry["choose"]), ("it loses", entry["loses"])):
        said = f"{name}: {text}" if name else text
        lines += textwrap.wrap(said, 110, initial_indent="  ", subsequent_indent="    ")
    options = entry["options"]
    if whole:
        for option in options:
            said = f"{option['name']}={_value(option['default'])}: {option['means']}"
            lines += textwrap.wrap(said, 110, initial_indent="  ", subsequent_indent="    ")
    elif options:
        said = "options: " + ", ".join(f"{option['name']}={_value(option['default'])}" for option in options)
        lines += textwrap.wrap(said, 110, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
