"""headway simulate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    trace: Annotated[Path | None, typer.Argument(help="A recorded trace: CSV of nodes, or JSON of faults.")] = None,
    generate: Annotated[str | None, typer.Option(help="Draw a trace instead: spot, faults or churn.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="live, restart, restart-default or groups; may be repeated. All if none. budget: deadlines and "
            "prices, on a CSV of region,trace,gap_s,availability."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="At most so many; nodes of a generated trace.")] = None,
    lanes: Annotated[int | None, typer.Option(min=1, help="Of the live run.")] = None,
    spares: Annotated[int, typer.Option(min=0, help="Workers of the live run that stand by.")] = 0,
    hours: Annotated[float, typer.Option(min=0.01, help="Length of a generated trace.")] = 1.0,
    notice: Annotated[float, typer.Option(min=0.0, help="Seconds of notice before a node goes.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    drills: Annotated[int, typer.Option(min=0, help="Random drills instead of a trace, one for each seed.")] = 0,
    doubt: Annotated[
        int, typer.Option(min=0, help="Healthy runs in bad weather instead, one for each seed: nobody may be killed.")
    ] = 0,
    costs: Annotated[
        Path | None, typer.Option(help="JSON of costs in seconds, or the results of benchmarks/elasticity.py.")
    ] = None,
    work: Annotated[float, typer.Option(min=0.01, help="budget: hours of computing.")] = 48.0,
    deadline: Annotated[
        list[float] | None, typer.Option(help="budget: hours until the deadline; may be repeated. 52 and 70 if none.")
    ] = None,
    restart: Annotated[
        list[float] | None,
        typer.Option(help="budget: hours of a restart; may be repeated. 0.05 and 0.2 if none."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay machines that come and go against the membership's decisions, without machines."""
    import json as encoder

    from headway.errors import BadInput
    from headway.sim import compare as comparing
    from headway.sim import costs as pricing
    from headway.sim import trace as traces

    if policy == ["budget"]:
        _budget(trace, work, deadline or [52.0, 70.0], restart or [0.05, 0.2], json)
        return
    if (trace is not None) + (generate is not None) + (drills > 0) + (doubt > 0) != 1:
        raise BadInput(
            "one of TRACE, --generate, --drills and --doubt is needed",
            remedy="For a first look: `headway simulate --generate spot --workers 64`.",
        )
    if drills:
        _drill(drills, seed, json)
        return
    if doubt:
        _doubt(doubt, seed, json)
        return
    prices = pricing.load(costs)
    found = traces.read(trace, seed) if trace else traces.generate(generate or "", workers or 64, seed, hours)
    result = comparing.compare(found, prices, tuple(policy or comparing.POLICIES), workers, lanes, notice, spares)
    if plot:
        from headway.sim.plot import plot as draw

        draw(result, plot)
    if json:
        print(encoder.dumps(result.as_json()))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    heads, *lines = comparing.rows(result)
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    print(
        f"{found.name}: {found.until / 3600:.1f} h, {found.losses} nodes lost, at most {result.workers} workers, "
        f"{result.lanes} lanes"
    )
    Console().print(table)
    if result.slowest_decision_s is not None:
        print(f"slowest decision of the membership: {1000 * result.slowest_decision_s:.1f} ms of CPU time")


def _budget(path: Path | None, work: float, deadlines: list[float], restarts: list[float], as_json: bool) -> None:
    """The game of deadlines, on a recording of spot machines."""
    import json as encoder

    from headway.errors import BadInput
    from headway.sim import late, spells

    if path is None:
        raise BadInput(
            "--policy budget needs a file of recordings",
            remedy="Name a CSV: headway simulate --policy budget spot_cant_be_late.csv.",
        )
    found = late.table(spells.read(path), work, deadlines, restarts)
    if as_json:
        print(encoder.dumps({"file": path.name, **found.as_json()}))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    print(f"{path.name}: {found.words()}")
    table = Table(box=box.SIMPLE_HEAD)
    heads, *lines = late.rows(found)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=False)
    for line in lines:
        table.add_row(*line)
    Console().print(table)


def _drill(number: int, seed: int, as_json: bool) -> None:
    """Random drills: each must end with the samples of the quiet run."""
    import json as encoder

    from headway.errors import Amiss
    from headway.sim.drill import drills

    done, ends = drills(range(seed, seed + number))
    same = sum(d.ended and d.same_samples for d in done)
    odd = [d.seed for d in done if not (d.ended and d.same_samples)]
    summary = {
        "seeds": [seed, seed + number - 1],
        "same_samples": same,
        "faults": sum(d.faults for d in done),
        "generations": sum(d.generations for d in done),
        "ends": dict(ends),
        "odd_seeds": odd,
    }
    if as_json:
        print(encoder.dumps(summary))
    else:
        print(
            f"seeds {seed} to {seed + number - 1}: {same} of {number} drills ended with the samples of the quiet run "
            f"({summary['faults']} faults, {summary['generations']} generations)"
        )
    if odd:
        raise Amiss(f"{len(odd)} of {number} drills did not", f"seeds {', '.join(map(str, odd[:10]))}")


def _doubt(number: int, seed: int, as_json: bool) -> None:
    """Healthy runs in bad weather: all that goes wrong passes, and nobody may be killed."""
    import json as encoder

    from headway.errors import Amiss
    from headway.sim.doubt import doubt

    done = [doubt(s) for s in range(seed, seed + number)]
    odd = [d.seed for d in done if d.killed or not d.resumed]
    summary = {
        "seeds": [seed, seed + number - 1],
        "killed": sum(d.killed for d in done),
        "resumed": sum(d.resumed for d in done),
        "faults": sum(len(d.faults) for d in done),
        "doubt_s": round(sum(d.doubt_s for d in done), 1),
        "odd_seeds": odd,
    }
    if as_json:
        print(encoder.dumps(summary))
    else:
        print(
            f"seeds {seed} to {seed + number - 1}: {summary['killed']} workers killed in {number} healthy runs "
            f"({summary['faults']} faults, {summary['doubt_s']} s of doubt); {summary['resumed']} trained to the end"
        )
    if odd:
        raise Amiss(f"{len(odd)} of {number} runs were harmed", f"seeds {', '.join(map(str, odd[:10]))}")
