"""headway compare"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headway.errors import AMISS

if TYPE_CHECKING:
    from headway.testing.compared.outcome import Comparison

_STRATEGIES_HELP = (
    "Names between commas, options behind them (diloco:every=50, all_reduce:compression=int8), or YAML files."
)


def compare(
    job: Annotated[Path, typer.Argument(help="The job's YAML file.")],
    strategies: Annotated[str, typer.Option("--strategies", metavar="A,B,C", help=_STRATEGIES_HELP)],
    faults: Annotated[
        str | None, typer.Option("--faults", metavar="SCRIPT", help="What happens to each run, as of `headway drill`.")
    ] = None,
    link: Annotated[
        str | None, typer.Option("--link", metavar="RATE", help="Of each node's link, like 100mbit; needs root.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Run for so many instead of the job's.")] = None,
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", min=1, show_default="workers.max, 2 at least", help="Machines to begin with."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="0,1,2", show_default="the job's", help="A run for each.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job, for all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", show_default="compared-NAME", help="For the page, picture and numbers."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the runs in that folder, too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Run a job under several strategies on local clusters, and compare loss, seconds, bytes and goodput."""
    import json as encoder

    from headway.job import load
    from headway.testing.compared import compare as comparing
    from headway.testing.compared import ways

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    folder = out or Path(f"compared-{load(job, setting).name}")
    found = comparing.compare(
        job,
        strategies,
        faults=faults,
        rate=link,
        steps=steps,
        nodes=nodes,
        seeds=ways.seeds(seeds) if seeds is not None else (),
        settings=setting or (),
        keep=folder if keep else None,
        tell=tell,
    )
    written = write(found, folder)
    if json:
        print(encoder.dumps(found.shown()))
    else:
        from headway.testing.compared.words import lines

        for line in lines(found):
            print(line)
        print(f"written: {', '.join(map(str, written))}")
    if not found.good:
        raise typer.Exit(AMISS)


def write(found: Comparison, folder: Path) -> list[Path]:
    """The numbers, the page and the picture, into a folder. Raises BadInput: it cannot be written."""
    import json as encoder

    from headway.durable import replace
    from headway.errors import BadInput
    from headway.report import page
    from headway.testing.compared.picture import draw

    document = found.shown()
    written = [page.write(document, folder / "comparison.html")]
    try:
        replace(folder / "comparison.json", encoder.dumps(document, indent=1))
        picture = draw(found, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"nothing can be written to {folder}", reason, "Give another folder: --out.") from None
    return [*written, folder / "comparison.json", *([picture] if picture else [])]
