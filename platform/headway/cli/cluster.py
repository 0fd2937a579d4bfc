"""headway cluster up, down, status, drain, add; check and certs are beside this"""

from __future__ import annotations

import json as encoder
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli import cluster_certs, cluster_check
from headway.cli.options import Json
from headway.cli.saying import say
from headway.errors import PLATFORM_FAILED

if TYPE_CHECKING:
    from headway.cluster.shown import Down, Status, Up

app = typer.Typer(help="Start clusters, let them grow and shrink, end them.", no_args_is_help=True)

app.command()(cluster_check.check)
app.command()(cluster_certs.certs)

Which = Annotated[str, typer.Argument(metavar="NAME", help="The cluster's name, or its file.")]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", "-c", metavar="NAME", show_default=False, help="Which; not needed where there is one."),
]


@app.command()
def up(
    file: Annotated[Path, typer.Argument(help="The cluster's YAML file.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the cluster, instead of the file's.")] = None,
    json: Json = False,
) -> None:
    """Start a cluster; one that is up follows its changed file."""
    from headway.cluster import verbs

    found = verbs.up(file, name, say)
    _print(found, _lines_up(found), json)


@app.command()
def down(name: Which, json: Json = False) -> None:
    """End a cluster, and look whether anything of it is left."""
    from headway.cluster import verbs

    done = verbs.down(name, say)
    _print(done, _lines_down(done), json)
    if done.leftovers:
        raise typer.Exit(PLATFORM_FAILED)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The cluster's name, or its file.")] = None,
    json: Json = False,
) -> None:
    """Show a cluster's machines and what it waits for; without a name, all that are known on this machine."""
    from headway.cluster import verbs

    if name is None:
        found = verbs.every()
        if json:
            print(encoder.dumps({"clusters": [asdict(each) for each in found]}))
            return
        for each in found:
            print(_line(each))
        if not found:
            print("No cluster is known here. Start one with `headway cluster up FILE`.")
        return
    one = verbs.status(name)
    _print(one, _lines(one), json)


@app.command()
def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="As `headway cluster status` names it.")],
    deadline: Annotated[
        str, typer.Option("--deadline", metavar="TIME", help="It ends then: 30s, 2m. Work is handed over before.")
    ] = "30s",
    cluster: Cluster = None,
    json: Json = False,
) -> None:
    """Let a node hand over what it does, and end it."""
    from headway.cluster import verbs
    from headway.notation.times import seconds

    said = verbs.drain(cluster, node, seconds("--deadline", deadline), say)
    _print({"node": node, "said": said}, [said], json)


@app.command()
def add(
    count: Annotated[int, typer.Argument(metavar="[N]", min=1, help="How many.")] = 1,
    node_type: Annotated[str | None, typer.Option("--type", help="Of available_node_types.")] = None,
    cluster: Cluster = None,
    json: Json = False,
) -> None:
    """Start more nodes."""
    from headway.cluster import verbs

    said = verbs.add(cluster, count, node_type, say)
    _print({"said": said}, said, json)


def _print(found: Any, lines: list[str], json: bool) -> None:
    if json:
        print(encoder.dumps(found if isinstance(found, dict) else asdict(found)))
        return
    for line in lines:
        print(line)


def _lines_up(found: Up) -> list[str]:
    if found.applied is not None:
        return [f"cluster {found.name} follows the changed file", *(f"  {each}" for each in found.applied)]
    return [
        f"cluster {found.name} is up: Ray at {found.address}, jobs at {found.jobs}",
        "to run a job on it, and to end it:",
        *(f"    {each}" for each in found.hints),
    ]


def _lines_down(done: Down) -> list[str]:
    note = f" ({done.note})" if done.note else ""
    if not done.leftovers:
        ended = f"ended {', '.join(done.ended)}; " if done.ended else ""
        return [f"cluster {done.name} is down{note}: {ended}nothing is left", *(f"kept: {each}" for each in done.kept)]
    said = [f"STILL THERE: {each}" for each in done.leftovers]
    return [f"cluster {done.name} could not be ended whole{note}", *said, *(f"kept: {each}" for each in done.kept)]


def _line(found: Status) -> str:
    nodes = sum(each.state in ("up", "draining") and each.name != "head" for each in found.nodes)
    more = f"  {nodes} nodes  jobs at {found.jobs}" if found.state == "up" else ""
    return f"{found.name}  {found.kind}  {found.state}{more}" + (f"  ({found.why})" if found.why else "")


def _lines(found: Status) -> list[str]:
    now = time.time()
    lines = [_line(found)]
    if found.state != "up":
        return lines
    lines += [f"  Ray at {found.address}, since {_ago(now, found.since)}"]
    lines += [f"  ends by itself in {_long(found.ends_at - now)}"] if found.ends_at is not None else []
    for each in found.nodes:
        said = [each.name, each.type, each.state, each.ip, each.id[:12], _ago(now, each.since), each.option]
        said += [f"${each.price_per_hour:g}/h"] if each.price_per_hour is not None else []
        lines.append("  " + "  ".join(filter(None, said)) + (f"  ({each.why})" if each.why else ""))
    return [*lines, *(f"  {each}" for each in found.news)]


def _ago(now: float, since: float | None) -> str:
    return "" if since is None else f"{_long(now - since)} ago"


def _long(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
