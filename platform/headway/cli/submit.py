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
    queue: Annotated[
        bool, typer.Option("--queue", help="Put it into the cluster's queue, which gives workers to its jobs.")
    ] = False,
    priority: Annotated[int | None, typer.Option("--priority", help="In the queue: the higher goes first.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", show_default="you", help="In the queue: whose quotas it counts against.")
    ] = None,
    team: Annotated[str | None, typer.Option("--team", help="In the queue: likewise.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what became of it as one JSON object.")] = False,
) -> None:
    """Run a job on a Ray cluster that is somewhere else."""
    if queue:
        _refuse({"--wait": wait, "--dry-run": dry_run, "--install": install, "--send-secrets": send_secrets}, _BY_QUEUE)
        _enqueue(job, address, name, runs, setting or [], priority or 0, user, team or "", json)
        return
    _refuse({"--priority": priority is not None, "--user": user is not None, "--team": team is not None}, _NO_QUEUE)
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


_BY_QUEUE = ("it does not go with --queue", "the job begins when its turn comes, and nobody is there to be told then")
_NO_QUEUE = ("it says something of a place in the queue", "and the job is not to wait in one")


def _refuse(given: dict[str, bool], why: tuple[str, str]) -> None:
    """Raises BadInput: an option is given that means nothing here."""
    from headway.errors import BadInput

    name = next((name for name, is_given in given.items() if is_given), None)
    if name is not None:
        raise BadInput(f"{name}: {why[0]}", why[1], "Leave it out, or --queue." if why is _BY_QUEUE else "Add --queue.")


def _enqueue(
    job: Path,
    address: str | None,
    name: str | None,
    runs: str | None,
    settings: list[str],
    priority: int,
    user: str | None,
    team: str,
    json: bool,
) -> None:
    from headway.queues import asking

    done = asking.submit(
        job,
        address=address,
        name=name,
        runs=runs,
        settings=settings,
        priority=priority,
        user=user,
        team=team,
        say=say,
    )
    if json:
        print(jsons.dumps(done.shown()))
        return
    if done.position:
        print(f"{done.run} waits in the queue, at place {done.position}" + (f": {done.why}" if done.why else ""))
    else:
        print(f"{done.run} is in the queue, and {done.state}")
    print(f"headway queue ls --runs {done.runs} shows the queue; headway status {done.run} the run once it has begun")


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
