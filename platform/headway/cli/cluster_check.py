"""headway cluster check"""

from __future__ import annotations

import json as encoder
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json
from headway.errors import AMISS

MARKS = {"warn": "warn", "fail": "FAIL"}


def check(
    file: Annotated[Path, typer.Argument(help="A cluster's YAML file, or manifests of KubeRay.")],
    json: Json = False,
) -> None:
    """Look a cluster's file over for what will not work, lets others in, or costs without end."""
    from headway.cluster.check.look import look

    findings = look(file)
    failed = any(finding.level == "fail" for finding in findings)
    if json:
        print(encoder.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            reason = f": {finding.reason}" if finding.reason else ""
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            where = f"{file}, line {finding.line}"
            print(f"{MARKS[finding.level]}  {finding.rule}  {where}: {finding.found}{reason}{remedy}")
        if not findings:
            print(f"{file}: nothing found")
    if failed:
        raise typer.Exit(AMISS)
