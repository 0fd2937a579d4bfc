"""headway audit verify, headway audit show"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.options import Json
from headway.errors import Amiss

if TYPE_CHECKING:
    from headway.core.audit import Entry

app = typer.Typer(help="Who asked what of runs and clusters, and whether that log is whole.", no_args_is_help=True)
Place = Annotated[
    str | None,
    typer.Argument(metavar="[PLACE]", envvar="HEADWAY_RUNS", help="Where runs are kept: a folder or a URL."),
]


@app.command()
def verify(
    place: Place = None,
    kept: Annotated[
        list[str] | None,
        typer.Option("--kept", metavar="N:DIGEST", help="What an earlier verify printed, kept elsewhere."),
    ] = None,
    json: Json = False,
) -> None:
    """Find entries that were changed, removed, exchanged, put in or cut off. Exit code 1 if there are any."""
    import json as encoder

    from headway.runs import Place, audit

    where = Place.of(place)
    found = audit.verify(where, kept or [])
    head = found.head.said if found.head is not None else None
    faults = [{"entry": fault.number, "what": fault.what} for fault in found.faults]
    if json:
        told = {"place": str(where), "entries": len(found.entries), "head": head, "faults": faults}
        print(encoder.dumps({**told, "pending": found.pending.number if found.pending else None}))
    else:
        for fault in found.faults:
            print(f"{f'entry {fault.number}' if fault.number else 'the log'}: {fault.what}", file=sys.stderr)
        if not found.faults:
            print(f"{where}: {len(found.entries)} entries, whole" if found.entries else f"{where} has no log yet")
            if found.pending is not None:
                print(f"(entry {found.pending.number} is behind the head: its writer is at it, or was interrupted)")
            if head is not None:
                print(f"Keep this where nobody who writes there can: --kept {head}")
    if found.faults:
        remedy = f"Ask who can write there. This machine remembers the log in {audit.memory(where)}."
        raise Amiss(f"the audit log of {where} is not what was written", f"{len(found.faults)} faults", remedy)


@app.command()
def show(
    place: Place = None,
    on: Annotated[str | None, typer.Option("--on", metavar="NAME", help="Of this run or cluster only.")] = None,
    json: Json = False,
) -> None:
    """Print the log, oldest first; what it says is believed: `verify` does not."""
    import json as encoder

    from headway.runs import Place, audit

    entries = [entry for entry in audit.entries(Place.of(place)) if on is None or entry.act.on == on]
    if json:
        print(encoder.dumps({"entries": [_plain(entry) for entry in entries]}))
        return
    for entry in entries:
        print(_line(entry))


def _plain(entry: Entry) -> dict[str, Any]:
    act = entry.act
    told = {"verb": act.verb, "on": act.on, "by": act.by, "at": act.at, "details": dict(act.details)}
    return {"number": entry.number, **told}


def _line(entry: Entry) -> str:
    from datetime import datetime

    act = entry.act
    at = datetime.fromtimestamp(act.at).astimezone().isoformat(" ", "seconds")
    details = "  ".join(f"{name}={value}" for name, value in act.details.items())
    text = f"{entry.number:5}  {at}  {act.by}  {act.verb} {act.on}  {details}".rstrip()
    return "".join(letter if letter.isprintable() else "?" for letter in text)
