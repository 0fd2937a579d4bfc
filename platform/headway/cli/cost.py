"""headway cost"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.options import Json, Runs
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.report.money import Cost
    from headway.report.worst import Told

CENTS, FEW = 2, 4
"""Places behind the point; of less than a dollar."""


def cost(
    run: Annotated[str | None, typer.Argument(help="The run's name, or its folder or URL.")] = None,
    runs: Runs = None,
    worst: Annotated[
        Path | None, typer.Option("--worst", metavar="JOB", help="What a job can cost at most, before it starts.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="FILE|NAME", help="With --worst: the cluster that it goes to.")
    ] = None,
    pace: Annotated[
        str | None,
        typer.Option("--pace", metavar="SECONDS|RUN", help="With --worst: of one worker for a step, or a run's."),
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", min=0.0, help="With --worst: it is ended after so many in any case.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With --worst: override a key.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell what a run has cost, and what the dollars went to; or what a job can cost at most."""
    if (run is None) == (worst is None):
        raise BadInput("one of RUN and --worst JOB is needed", "", "`headway cost RUN` tells what a run has cost.")
    if worst is not None:
        from headway.report.worst import told as told_worst

        before = told_worst(worst, setting or [], cluster, pace, hours, runs)
        print(before.model_dump_json()) if json else print("\n".join(_before(before)))
        return
    from headway.report.money import told
    from headway.runs import Place, find

    assert run is not None
    found = told(find(Place.of(runs), run))
    print(found.model_dump_json()) if json else print("\n".join(lines(found)))


def lines(found: Cost) -> list[str]:
    """For people."""
    from headway.core.bill import cents

    places = CENTS if found.dollars >= 1 else FEW
    by_cause = cents(found.by_cause, places)
    now = f", ${found.per_hour:,.4g} an hour now" if found.per_hour else ""
    what = "its machines" if found.by == "machines" else "the price of an hour of a worker (workers.price_per_hour)"
    said = [f"{found.run}: ${found.dollars:,.{places}f} so far{now}, by {what}"]
    whole = sum(by_cause.values()) or 1.0
    for cause, dollars in sorted(by_cause.items(), key=lambda each: -each[1]):
        said.append(f"{cause:>16}  ${dollars:>10,.{places}f}  {dollars / whole:6.1%}")
    said.append(
        f"{'wasted':>16}  ${found.wasted:>10,.{places}f}  {found.wasted / whole:6.1%}  of it, in nothing that counts"
    )
    if found.per_step is not None:
        said.append(f"{'1,000 steps':>16}  ${1000 * found.per_step:,.4g} (one: ${found.per_step:.3g})")
    for market, dollars in cents(found.by_market, places).items():
        said.append(f"{market}: ${dollars:,.{places}f}")
    for each in found.machines:
        share = f", ${each.per_hour:g}/h" if each.per_hour else ""
        kind = " (head)" if each.head else ""
        said.append(f"    {each.machine}{kind}: ${each.dollars:,.{places}f}{share}")
    if found.shared:
        said.append("Other runs used some of these machines: this one pays by the slots that it held.")
    if found.unpriced:
        said.append(f"Not counted, for want of a price: {', '.join(found.unpriced)}.")
    return said


def _before(found: Told) -> list[str]:
    said = [f"{found.job}: ${found.per_hour:,.4g} an hour at most: {found.machines}"]
    if found.dollars is None:
        said.append(f"how long is not known: {found.why}. Give --pace SECONDS or RUN, or --hours.")
    else:
        said.append(f"${found.dollars:,.2f} at most: {found.hours:,.3g} h {found.why}")
    return [*said, *found.notes]
