"""headway drill"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.errors import AMISS

if TYPE_CHECKING:
    from headway.testing.account import Account

_SCRIPT_HELP = 'What happens when, like "kill worker=1 step=30; add node step=60"; random faults when not given.'


def drill(
    job: Annotated[Path, typer.Argument(help="The job's YAML file.")],
    faults: Annotated[str | None, typer.Option("--faults", metavar="SCRIPT", help=_SCRIPT_HELP)] = None,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="On machines that Ray's autoscaler buys of a cloud made on this machine.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, show_default="0; with --cloud a story", help="Of the random faults.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="Machines to begin with, or on a cloud at most (3).")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Run for so many instead of the job's.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job.")
    ] = None,
    quiet_run: Annotated[
        bool, typer.Option("--quiet-run/--no-quiet-run", help="Run undisturbed too, to compare weights.")
    ] = True,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the two runs on disk.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Run a job on a local cluster while machines fail, and see whether samples and weights stay the same."""
    import json as encoder

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    given: dict[str, Any] = {"faults": faults, "nodes": nodes, "steps": steps, "settings": setting or []}
    given |= {"quiet_run": quiet_run, "keep": keep, "tell": tell}
    if cloud:
        from headway.testing.story.drill import drill as on_a_cloud

        found: Account = on_a_cloud(job, seed=seed, **given)
    else:
        from headway.testing.drill import drill as start

        found = start(job, seed=seed or 0, **given)
    if json:
        print(encoder.dumps(found.shown()))
    else:
        show(found)
    if not found.good:
        raise typer.Exit(AMISS)


def show(found: Account) -> None:
    """Print an account for people, on standard output."""
    rows = [
        ("run", f"{found.state} after step {found.steps}" + (f" ({found.message})" if found.message else "")),
        ("samples", _same(found.same_samples) + f", {found.samples_missed} missed, {found.samples_repeated} repeated"),
        (
            "weights",
            _same(found.same_weights) + ("" if found.bitwise else " (promised only by reproducible=bitwise)"),
        ),
        ("healthy", f"workers killed: {found.healthy_killed}" + _killed(found.killed)),
        ("steps", f"{found.steps_repeated} repeated"),
        ("goodput", "not recorded" if found.goodput is None else f"{found.goodput:.3f}"),
        ("ledger", "  ".join(f"{name} {seconds:.1f} s" for name, seconds in found.ledger_s.items()) or "not recorded"),
    ]
    rows += [("fault", _fault(fault)) for fault in found.faults]
    rows += _of_a_cloud(found.shown()) if hasattr(found, "machines") else []
    rows += [("recovery", _recovery(recovery)) for recovery in found.recoveries]
    rows += [("seed", str(found.seed))] if found.seed is not None else []
    rows += [("folder", found.folder)] if found.folder else []
    for name, value in rows:
        print(f"{name:>12}  {value}")


def _of_a_cloud(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What an account of a cloud has besides."""
    sizes = ", ".join(f"{size['workers']} after {size['at_s']:.1f} s" for size in found["sizes"])
    idle = "NOT all gone" if found["idle_s"] is None else f"all gone {found['idle_s']:.1f} s after the run's end"
    rows = [("workers", f"{sizes} (from {found['least']} to {found['most']})")]
    rows += [("notice", _notice(notice)) for notice in found["notices"]]
    rows += [("joined", f"{each['machine']}: {each['joined_s']:.1f} s after it booted") for each in found["joins"]]
    rows += [("machine", _machine(machine)) for machine in found["machines"]]
    rows += [("autoscaler", _asked(line)) for line in found["autoscaler"]]
    rows += [("idle", f"machines {idle}"), ("dollars", f"{found['dollars']:.4f}")]
    return [*rows, ("left", "; ".join(found["leftovers"]) or "nothing")]


def _notice(notice: dict[str, Any]) -> str:
    if notice["visible_s"] is None:
        return f"of {notice['notice_s']:g} s to {notice['machine']}: NOT heard"
    over = f"handed over after {notice['handed_over_s']} s" if notice["in_time"] else "NOT handed over in time"
    return f"of {notice['notice_s']:g} s to {notice['machine']}: known after {notice['visible_s']} s, {over}"


def _machine(machine: dict[str, Any]) -> str:
    booted = "never booted" if machine["booted_s"] is None else f"up at {machine['booted_s']:.1f} s"
    gone = "still there" if machine["gone_s"] is None else f"{machine['why']} at {machine['gone_s']:.1f} s"
    what = f"{machine['machine']} ({machine['option']}{', the head' if machine['head'] else ''})"
    return f"{what}: bought at {machine['asked_s']:.1f} s, {booted}, {gone}, ${machine['dollars']:.5f}"


def _asked(line: dict[str, Any]) -> str:
    times = f" ({line['times']} times)" if line["times"] > 1 else ""
    return f"at {line['at_s']:.1f} s {line['asked']} {line['for']}: {line['answer']}{times}"


def _same(same: bool | None) -> str:
    return {True: "the same", False: "NOT the same", None: "not compared"}[same]


def _fault(fault: dict[str, object]) -> str:
    if fault["time"] is None:
        return f"{fault['fault']}: NOT injected, {fault['reason']}"
    return f"{fault['fault']}: injected after step {fault['committed']}"


def _killed(killed: list[dict[str, object]]) -> str:
    named = [f"{victim['worker']} ({victim['cause'] or 'no reason told'})" for victim in killed]
    return f": {', '.join(named)}" if named else ""


def _recovery(recovery: dict[str, object]) -> str:
    times = [f"{word} after {recovery[key]} s" for word, key in (("detected", "detected_s"), ("resumed", "resumed_s"))]
    fault = f" ({recovery['fault']})" if recovery["fault"] else ""
    return f"{recovery['cause']}{fault}: {', '.join(times)}"
