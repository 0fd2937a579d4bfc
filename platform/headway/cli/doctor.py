"""`headway doctor`: whether this machine can train, and what to do where it cannot."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from headway.cli.places import Runs
from headway.errors import RUN_FAILED

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def doctor(
    runs: Runs = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this machine: versions, devices, memory, disk, network, Ray."""
    from dataclasses import asdict

    from headway.cli.checks import examine
    from headway.runs import Place

    findings = []
    for finding in examine(Place.of(runs)):
        findings.append(finding)
        if not json_output:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            print(f"{_MARKS[finding.level]}  {finding.name}: {finding.found}{remedy}", flush=True)
    failed = any(finding.level == "fail" for finding in findings)
    if json_output:
        print(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}))
    if failed:
        raise typer.Exit(RUN_FAILED)
