"""`headway sweep replay`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.options import Json

if TYPE_CHECKING:
    from headway.sweeps.replay.clock import Cluster
    from headway.sweeps.replay.replaying import Replayed


def replay(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A sweep's file. Without: the default search and scheduler.")
    ] = None,
    curves: Annotated[
        list[Path] | None, typer.Option(metavar="TABLE", help="Parquet of recorded curves; may be repeated.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The column of curves. The file's; else the first.")] = None,
    mode: Annotated[str | None, typer.Option(help="min or max. The file's; else min.")] = None,
    search: Annotated[str | None, typer.Option(help="Another search than the file's or the default.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Another scheduler, likewise.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="So many sweeps, each by another seed.")] = 10,
    budget: Annotated[int | None, typer.Option(min=1, help="Stretches of each sweep; 20 whole runs if none.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="So many trials at once.")] = 1,
    lanes: Annotated[int, typer.Option(min=1, help="Of a trial: those that go share the workers; 1: one each.")] = 1,
    noise: Annotated[float, typer.Option(min=0.0, help="Spread of the time of a stretch: sd of its log.")] = 0.0,
    make: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Make a table instead: curves of a small network on digits.")
    ] = None,
    rows: Annotated[int, typer.Option(min=2, help="Of a table that is made.")] = 300,
    json: Json = False,
) -> None:
    """Replay a sweep on recorded learning curves, on a virtual clock: in seconds, which search and scheduler pay."""
    import json as encoder

    from headway.errors import BadInput

    if make is not None:
        from headway.sweeps.replay.making import make as made

        made(make, rows)
        print(encoder.dumps({"table": str(make), "rows": rows}) if json else f"{make}: {rows} configurations")
        return
    if not curves:
        remedy = "`headway sweep replay --make curves.parquet` makes a table; then --curves curves.parquet."
        raise BadInput("--curves is missing: on what is it to be replayed?", "", remedy)
    if mode not in (None, "min", "max"):
        raise BadInput(f"--mode {mode}", "it is min or max", "")
    from headway.sweeps.replay.clock import Cluster

    cluster = Cluster(workers=workers, lanes=lanes, noise=noise)
    found = [_replayed(path, file, metric, mode, search, scheduler, seeds, budget, cluster) for path in curves]
    if json:
        print(encoder.dumps({"tables": found, "regret": _means(found)}))
        return
    _show(found)


def _replayed(
    path: Path,
    file: Path | None,
    metric: str | None,
    mode: Any,
    search: str | None,
    scheduler: str | None,
    seeds: int,
    budget: int | None,
    cluster: Cluster,
) -> dict[str, Any]:
    from headway.sweeps.file import load as load_sweep
    from headway.sweeps.replay import table as tables
    from headway.sweeps.replay.replaying import by_name, of_file, replay, sweep_of

    sweep = load_sweep(file) if file is not None else None
    table = tables.load(path, metric or (sweep.metric if sweep else None), mode or (sweep.mode if sweep else "min"))
    if sweep is None:
        sweep = sweep_of(table)
    else:
        table, sweep = of_file(table, sweep.model_copy(update={"metric": table.metric, "mode": table.mode}))
    sweep = by_name(sweep, search, scheduler)
    result = replay(table, sweep, seeds, budget, cluster)
    return {
        "search": sweep.search.name,
        "scheduler": sweep.scheduler.name,
        "workers": cluster.workers,
        "lanes": cluster.lanes,
        "noise": cluster.noise,
        **_told(result),
    }


def _told(result: Replayed) -> dict[str, Any]:
    from headway.sweeps.replay.replaying import points

    table, first = result.table, result.best
    return {
        "table": table.name,
        "rows": len(table.configs),
        "stretches": table.length,
        "metric": table.metric,
        "mode": table.mode,
        "budget": result.budget,
        "seeds": len(result.regrets),
        "regret": {str(at): {"mean": result.mean(at), "error": result.error(at)} for at in points(result.budget)},
        "trials": sum(each.trials for each in result.played) / len(result.played),
        "whole": sum(each.whole for each in result.played) / len(result.played),
        "best": {"row": first[0], "value": first[1], "settings": table.configs[first[0]]},
        "seconds": result.seconds,
    }


def _means(found: list[dict[str, Any]]) -> dict[str, float]:
    """Over the tables, where all have the same budget."""
    if len({each["budget"] for each in found}) > 1:
        return {}
    return {at: sum(each["regret"][at]["mean"] for each in found) / len(found) for at in found[0]["regret"]}


def _show(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("table", overflow="fold", min_width=16)
    for head in ("a quarter", "half", "all", "trials", "whole", "best"):
        shown.add_column(head, justify="right", no_wrap=True)
    for each in found:
        regrets = [f"{regret['mean']:.3f} ± {regret['error']:.3f}" for regret in each["regret"].values()]
        trials, whole = f"{each['trials']:.0f}", f"{each['whole']:.0f}"
        shown.add_row(each["table"], *regrets, trials, whole, f"{each['best']['value']:.5g}")
    first = found[0]
    print(
        f"{first['search']} and {first['scheduler']}, {first['budget']} stretches on {first['workers']} workers, "
        f"{first['seeds']} seeds. Regret (0: the table's best was seen; 1: nothing was learnt) after parts of them:"
    )
    Console().print(shown)
    if len(found) > 1 and _means(found):
        print("mean over the tables: " + ", ".join(f"{value:.3f}" for value in _means(found).values()))
