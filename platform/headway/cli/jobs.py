"""headway job schema, headway job check"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headway.cli.options import Runs

app = typer.Typer(help="Look at jobs without running them.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the job's JSON Schema, for editors and other tools."""
    import json

    from headway.job import Job

    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **Job.model_json_schema()}, indent=2))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The job's YAML file.")],
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    runs: Runs = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Validate all that can be known before a run, try the task on a few rows, and print the plan."""
    import json as encoder

    from headway import plan_words, tryout, variables
    from headway.job import load
    from headway.runs import Place

    place = Place.of(runs)
    job = load(file, setting)
    with variables.in_force(job):
        found = tryout.check(job, None if place.url else place.folder).shown()
    if json:
        print(encoder.dumps({"job": job.name, "ok": True, **found}))
        return
    lanes, sizes = found.pop("lanes_per_worker"), found.pop("sizes")
    warnings = found.pop("warnings")
    said = {name: found.pop(name) for name in ("strategy", "memory", "lanes_together", "activation_checkpointing")}
    datasets, shares, cargo = found.pop("datasets"), found.pop("shares"), found.pop("carried")
    print(f"{file}: good")
    for name, value in found.items():
        print(f"{name.replace('_', ' '):>18}  {'unknown' if value is None else format(value, ',')}")
    for use, dataset in datasets.items():
        share = f", {shares[use]:.1%} of the rows" if use in shares else ""
        print(f"{use:>18}  {_size(dataset)}{share}")
    for workers, carried in lanes.items():
        like = max(size for size in sizes if size <= workers)
        same = f" (no faster than {like})" if like < workers else ""
        print(f"{f'{workers} workers' if workers > 1 else '1 worker':>18}  lanes {', '.join(map(str, carried))}{same}")
    for name, text in plan_words.lines(said):
        print(f"{name:>18}  {text}")
    if job.prices is not None or job.workers.price_per_hour is not None:
        from headway.report import worst

        dear = worst.of(job, found["total_steps"])
        print(f"{'cost':>18}  ${dear.per_hour:,.4g} an hour at most: {dear.machines}")
    print(f"{'carried':>18}  {cargo['files']:,} files, {plan_words.size(cargo['bytes'])}")
    for warning in warnings:
        print(f"{'note':>18}  {warning}")


def _size(dataset: dict[str, Any]) -> str:
    """Rows, and the version of what lies in a folder; what code gives has none."""
    rows = f"{dataset['rows']:,} rows" if dataset["rows"] else "a stream"
    return f"{rows}, version {dataset['version']}" if dataset["version"] else f"{rows}, by its own code"
