"""headway train, headway resume"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.options import Run, Runs
from headway.core.ends import exit_code
from headway.driver.in_process import ADDRESS as IN_PROCESS
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.report import Report

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="local (an embedded Ray), auto, or HOST:PORT of an existing Ray cluster. RAY_ADDRESS, else local, if not "
        "given.",
    ),
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job.")]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="KEY[,KEY]", help="Go on with other bits: threads, torch or device may differ."),
]
Local = Annotated[
    bool,
    typer.Option(
        "--local", help="In this process, without Ray: one worker, and breakpoints stop here. The bits are the same."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object on standard output.")]


def train(
    job: Annotated[Path, typer.Argument(help="The job's YAML file.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the run.")] = None,
    runs: Runs = None,
    setting: Set = None,
    address: Address = None,
    local: Local = False,
    json: Json = False,
) -> None:
    """Run a job from its beginning."""
    from headway.driver.run import train as start
    from headway.job import load

    where, checked = _goes(address, local), load(job, setting)
    _follow(
        lambda watch: start(checked, name=name, runs_folder=runs, address=where, watch=watch), runs, json, local=local
    )


def resume(
    run: Run,
    runs: Runs = None,
    setting: Set = None,
    allow: Allow = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="As of `headway train`; or http://HOST:8265, the job API of a cluster that is to go on with it.",
        ),
    ] = None,
    local: Local = False,
    wait: Annotated[bool, typer.Option("--wait", help="On a cluster's job API: wait for the run's end.")] = False,
    install: Annotated[
        bool, typer.Option("--install", help="On a cluster's job API: bring packages that the cluster lacks.")
    ] = False,
    send_secrets: Annotated[
        bool, typer.Option("--send-secrets", help="On a cluster's job API: send secrets that stand in --set.")
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the report, or what became of the submission, as one JSON object."),
    ] = False,
) -> None:
    """Go on with a run from its newest sound checkpoint, as if nothing had happened."""
    from headway.jobs.api.call import is_job_api

    where = _goes(address, local)
    if is_job_api(address):
        from headway.cli import submit

        more = {"wait": wait, "install": install, "send_secrets": send_secrets}
        submit.resume(run, str(address), runs, setting or [], allow or [], **more, json=json)
        return
    for option, given in {"--wait": wait, "--install": install, "--send-secrets": send_secrets}.items():
        if given:
            only = "it is for runs that are led by a cluster, with --address http://HOST:8265"
            raise BadInput(option, only, "Leave it out, or give such an address.")
    from headway.cli import sweep

    if sweep.is_sweep(runs, run):
        if allow:
            raise BadInput("--allow", f"{run} is a sweep: bits are its trials' own", "Leave it out.")
        if local:
            raise BadInput("--local", f"{run} is a sweep, whose trials train beside one another", "Leave it out.")
        sweep.go_on(run, runs, setting, address, json)
        return
    from headway.driver.run import resume as again

    def start(watch: Any) -> Report:
        return again(run, runs_folder=runs, address=where, watch=watch, settings=setting, allow=allow or ())

    _follow(start, runs, json, run, local=local)


def _goes(address: str | None, local: bool) -> str | None:
    """The address that both options come to. Raises BadInput: both are given."""
    if not local:
        return address
    if address is not None:
        raise BadInput(f"--local and --address {address}", "it is one or the other", "Leave one of them out.")
    return IN_PROCESS


def _follow(
    start: Callable[[Any], Report], runs: str | None, json: bool, named: str | None = None, local: bool = False
) -> None:
    """local: what the task prints, and who debugs it, have the terminal for themselves."""
    from headway.cli.live import Live
    from headway.cli.runs import show
    from headway.cli.screen import followed

    failed = (lambda run: _print_failed(runs, named or run)) if json else None
    report = followed(start, Live(plain=local), failed, aside=json or not local)
    if json:
        print(report.model_dump_json())
    else:
        show(report)
    if report.state in ("interrupted", "stopped"):
        with_more = "".join(f" --set {setting}" for setting in report.resume_with)
        how = f"{_where(report, runs)}{' --local' if local else ''}{with_more}"
        print(f"{report.state.title()}. Go on with: headway resume {report.run}{how}", file=sys.stderr)
        raise typer.Exit(exit_code(report.state))


def _where(report: Report, runs: str | None) -> str:
    """The option that another command needs to find the run."""
    from headway.driver.rayjob import place
    from headway.runs import DEFAULT

    asked, kept = place(runs)[0], report.path.rpartition("/")[0]
    if kept == str(Path(DEFAULT).resolve()):
        return ""
    return f" --runs {asked if kept == (asked.url or str(asked.folder.resolve())) else kept}"


def _print_failed(runs: str | None, name: str) -> None:
    from headway.driver.rayjob import place
    from headway.report import load
    from headway.runs import find

    print(load(find(place(runs)[0], name)).model_dump_json())
