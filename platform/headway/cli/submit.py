"""headway submit"""

from __future__ import annotations

import json as jsons
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.saying import say
from headway.errors import INTERRUPTED

if TYPE_CHECKING:
    from headway.jobs.send.beginning import Submitted

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The cluster's job API: http://HOST:8265. RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265, if not "
        "given.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the run's end; the exit code is the run's.")]
Install = Annotated[
    bool,
    typer.Option("--install", help="Bring packages that the cluster lacks, pinned to this machine's versions."),
]


def submit(
    job: Annotated[Path, typer.Argument(help="The job's YAML file.")],
    address: Address = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; there is one run of a name.")] = None,
    runs: Annotated[
        str | None,
        typer.Option(
            "--runs",
            envvar="HEADWAY_RUNS",
            metavar="PLACE",
            show_default="what the cluster's machines say",
            help="Where the run is kept: a URL like s3://BUCKET/FOLDER (also gs://, az://), or a folder that every "
            "machine of the cluster sees.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job.")
    ] = None,
    wait: Wait = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Try all of it on the cluster; start no run.")] = False,
    install: Install = False,
    send_secrets: Annotated[
        bool,
        typer.Option("--send-secrets", help="Send secrets in the job: who has the cluster's token can read them."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what became of it as one JSON object.")] = False,
) -> None:
    """Run a job on a Ray cluster that is somewhere else."""
    from headway.jobs.send import submitting

    with _left_by_ctrl_c():
        done = submitting.submit(
            job,
            settings=setting or [],
            address=address,
            name=name,
            runs=runs,
            wait=wait,
            dry_run=dry_run,
            install=install,
            send_secrets=send_secrets,
            say=say,
            plan=show_plan,
        )
    show(done, json)


def resume(
    run: str,
    address: str,
    runs: str | None,
    settings: list[str],
    allow: list[str],
    *,
    wait: bool,
    install: bool,
    send_secrets: bool,
    json: bool,
) -> None:
    """`headway resume` on a cluster's job API."""
    from headway.jobs.send import submitting

    with _left_by_ctrl_c():
        done = submitting.resume(
            run,
            address=address,
            runs=runs,
            settings=settings,
            allow=allow,
            wait=wait,
            install=install,
            send_secrets=send_secrets,
            say=say,
            plan=show_plan,
        )
    show(done, json)


def show_plan(plan: dict[str, Any]) -> None:
    """The plan, for people."""
    from headway.jobs.send import wording

    for line in wording.plan(plan):
        say(line)


@contextmanager
def _left_by_ctrl_c() -> Iterator[None]:
    """What was handed to the cluster is the cluster's; this says which it is."""
    from headway.jobs.send.beginning import Left

    try:
        yield
    except Left as error:
        say(f"Interrupted. What was submitted goes on; end it with: headway stop {error.run}")
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        say("Interrupted before it began; nothing was started.")
        raise typer.Exit(INTERRUPTED) from None


def show(done: Submitted, json: bool) -> None:
    """Print what became of a submission; ends with its exit code."""
    from headway.jobs.send import wording

    if json:
        print(jsons.dumps(done.shown()))
    else:
        for line in wording.done(done.shown()):
            print(line)
    if done.exit_code:
        raise typer.Exit(done.exit_code)
