"""`headway doctor`: whether this machine, or a cluster, can train, and what to do where it cannot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.options import Runs
from headway.errors import AMISS

if TYPE_CHECKING:
    from headway.core.health import Finding

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
SHOWN = 4
"""Machines that a line names; of more it gives the number."""
_ADDRESS = (
    "Look at a Ray cluster instead, from here and on every machine of it: http://HOST:8265 of its head. It costs a Ray "
    "job of some seconds."
)
_TRACKING = "MLflow's URI, to be reached from the cluster's head; with --address."


def doctor(
    runs: Runs = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    address: Annotated[str | None, typer.Option("--address", help=_ADDRESS)] = None,
    tracking: Annotated[str | None, typer.Option("--tracking", metavar="URI", help=_TRACKING)] = None,
) -> None:
    """Check this machine: versions, devices, memory, disk, network, Ray. Or with --address a cluster."""
    from dataclasses import asdict

    findings: list[Finding] = []

    def found(finding: Finding) -> None:
        findings.append(finding)
        if not json_output:
            print(line(finding), flush=True)

    if address is not None:
        from headway.jobs.send.examining import doctor as of_cluster

        of_cluster(address=address, runs=runs, tracking=tracking, found=found)
    else:
        from headway.cli.checks import examine
        from headway.runs import Place

        for finding in examine(Place.of(runs)):
            found(finding)
    failed = any(finding.level == "fail" for finding in findings)
    if json_output:
        print(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}))
    if failed:
        raise typer.Exit(AMISS)


def line(finding: Finding) -> str:
    """A finding as people read it."""
    where = ""
    if finding.where:
        several = len(finding.where) > SHOWN
        where = f" on {len(finding.where)} machines" if several else f" on {', '.join(finding.where)}"
    reason = f": {finding.reason}" if finding.reason else ""
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{MARKS[finding.level]}  {finding.name}{where}: {finding.found}{reason}{remedy}"
