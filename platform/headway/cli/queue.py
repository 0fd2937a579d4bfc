"""headway queue ls, set, move, rm, quotas, log, restart"""

from __future__ import annotations

import json as jsons
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.options import Json, Runs
from headway.cli.saying import say

if TYPE_CHECKING:
    from headway.core.enqueued import Entry
    from headway.queues.asking import Listed

app = typer.Typer(help="Jobs that share a cluster: who has which workers, who waits, and why.", no_args_is_help=True)
Run = Annotated[str, typer.Argument(help="The run's name.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="http://HOST:PORT",
        show_default=False,
        help="The cluster that is to keep the queue, where none does. RAY_API_SERVER_ADDRESS, if not given.",
    ),
]


@app.command()
def ls(
    runs: Runs = None,
    all_of_it: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    json: Json = False,
) -> None:
    """Who has workers, who waits and in which order, and why."""
    from headway.queues import asking

    found = asking.ls(runs)
    shown = [entry for entry in found.entries if all_of_it or not entry.over]
    if json:
        rows = [_plain(entry, number, found) for number, entry in _numbered(shown)]
        told = {"kept": found.kept, "keeper": found.keeper, "rules": asking.rules_tree(found.book)}
        print(jsons.dumps({**told, "entries": rows}))
        return
    if not shown:
        print("the queue is empty" if found.keeper else "there is no queue")
    else:
        lines = [_row(entry, number, found) for number, entry in _numbered(shown)]
        for line in _lined([["", "run", "state", "workers", "priority", "whose", "why"], *lines]):
            print(line)
    if shown and not found.kept:
        say(f"nobody keeps the queue now (it was {found.keeper}): the next `headway submit --queue` begins a keeper")


def _lined(rows: list[list[str]]) -> list[str]:
    """Columns side by side; the last is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    ]


def _numbered(entries: list[Entry]) -> list[tuple[int, Entry]]:
    """With the places of those that wait, from 1; 0 for the others."""
    waiting = [entry for entry in entries if entry.state in ("waiting", "paused")]
    return [(waiting.index(entry) + 1 if entry in waiting else 0, entry) for entry in entries]


def _plain(entry: Entry, number: int, found: Listed) -> dict[str, Any]:
    from headway.core import enqueued

    tree = enqueued.to_tree(entry)
    del tree["parcels"]
    names = ("state", "workers", "priority", "user", "team", "least", "most", "steps", "held_s")
    all_of_it = {name: getattr(entry, name) for name in names}
    why = found.book.waits.get(entry.run, entry.why) if number else entry.why
    return {**tree, **all_of_it, "position": number, "why": why}


def _row(entry: Entry, number: int, found: Listed) -> list[str]:
    why = found.book.waits.get(entry.run, entry.why) if number else entry.why
    whose = f"{entry.user} ({entry.team})" if entry.team else entry.user
    sizes = f"{entry.workers} of {entry.least}..{entry.most}"
    return [str(number or ""), entry.run, entry.state, sizes, str(entry.priority), whose, why]


@app.command("set")
def change(
    run: Run,
    priority: Annotated[int | None, typer.Option("--priority", help="The higher goes first.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Whose quotas it counts against.")] = None,
    team: Annotated[str | None, typer.Option("--team", help="Likewise.")] = None,
    runs: Runs = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Give a job another priority, or let it count against others' quotas."""
    from headway.errors import BadInput

    what = {
        name: value for name, value in (("priority", priority), ("user", user), ("team", team)) if value is not None
    }
    if not what:
        raise BadInput("nothing is to be changed", "", "Give --priority, --user or --team.")
    _ask("set", {"run": run, **what}, runs, address, json)


@app.command()
def move(
    run: Run,
    before: Annotated[str | None, typer.Option("--before", metavar="RUN", help="Before this one.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Behind all of its priority.")] = False,
    runs: Runs = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Put a job before the others of its priority, or before one of them."""
    from headway.errors import BadInput

    if before and last:
        raise BadInput("--before and --last", "it is one or the other", "")
    _ask("move", {"run": run, "before": before, "last": last}, runs, address, json)


@app.command()
def rm(run: Run, runs: Runs = None, address: Address = None, json: Json = False) -> None:
    """Take a job off the queue; one that runs is ended after a checkpoint."""
    _ask("rm", {"run": run}, runs, address, json)


@app.command()
def quotas(
    file: Annotated[Path | None, typer.Argument(help="A YAML file with all of them.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TEAM=N",
            help="A team's workers; TEAM.gpus=N, TEAM.jobs=N, TEAM.share=2; user:NAME.cpus=N; most_running=3. Nothing "
            "behind = takes it away.",
        ),
    ] = None,
    runs: Runs = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Show what users and teams may hold at most, and their shares; or change it."""
    from headway.queues import asking
    from headway.queues import quotas as notation

    found = asking.ls(runs)
    if file is None and not setting:
        tree = asking.rules_tree(found.book)
        print(jsons.dumps(tree) if json else "\n".join(_rules(tree)))
        return
    rules = notation.read(file) if file is not None else found.book.rules
    others, prepared = notation.split(setting or ())
    prepared = notation.prepared(file) if prepared is None and file is not None else prepared
    for each in others:
        rules = notation.changed(rules, each)
    notation.admit(rules, {entry.user: entry.team for entry in found.entries if entry.team})
    many = {} if prepared is None else {"prepared": prepared}
    _ask("rules", {"rules": {**notation.tree(rules), **many}}, runs, address, json)


def _rules(tree: Mapping[str, Any]) -> list[str]:
    lines = [f"{name}: {value}" for name, value in tree.items() if name != "quotas" and value is not None]
    for quota in tree["quotas"]:
        whose = f"team {quota['team']}" if quota.get("team") else f"user {quota.get('user')}"
        rest = ", ".join(f"{name} {value}" for name, value in quota.items() if name not in ("team", "user"))
        lines.append(f"{whose}: {rest}")
    return lines


@app.command()
def log(runs: Runs = None, json: Json = False) -> None:
    """What was decided, and why, oldest first."""
    from headway.queues import asking

    for each in asking.log(runs):
        if json:
            print(jsons.dumps(each))
            continue
        at = datetime.fromtimestamp(each["time"]).astimezone().isoformat(" ", "seconds")
        size = f" {each['workers']}" if each["workers"] else ""
        print(f"{at}  {each['do']} {each['run']}{size}: {each['why']}")


@app.command()
def restart(runs: Runs = None, address: Address = None) -> None:
    """Have the cluster keep the queue by a new keeper; one that is there is ended first."""
    from headway.jobs.look.asking import cluster
    from headway.jobs.send.submitting import runs_of
    from headway.queues import asking

    place = runs_of(runs)
    if place is not None:
        asking.begin(cluster(address) or "http://127.0.0.1:8265", place, say, anew=True)
    print(f"the queue of {place} is kept")


def _ask(do: str, what: dict[str, Any], runs: str | None, address: str | None, json: bool) -> None:
    from headway.queues import asking
    from headway.runs import Place, audit

    on = str(what.get("run") or "queue")
    answer = asking.ask(runs, do, what, address=address, say=say)
    audit.note(Place.of(runs), f"queue {do}", on, details={n: v for n, v in what.items() if n != "run"}, say=say)
    print(jsons.dumps({"run": what.get("run"), "said": answer.said}) if json else answer.said)
