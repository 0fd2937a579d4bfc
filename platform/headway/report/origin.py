"""Where a run came from, for its page: its task, job, code and machine, and how it is run again."""

from __future__ import annotations

import ast
import hashlib
import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.errors import HeadwayError
from headway.report.shape import Data, Job, Reproduce, Task

if TYPE_CHECKING:
    from headway import job as jobs
    from headway.runs import RunFolder

YAML_CHARS = 20_000
SPOOL_BYTES = 1 << 20
"""Of the spool's first line, which earlier releases alone have the environment in."""


def job_of(run: RunFolder) -> jobs.Job | None:
    """The job as it was run; None where this release cannot read it."""
    from headway.job import load

    with suppress(HeadwayError, OSError, ValueError):
        return load(run.job_file)
    return None


def job(run: RunFolder, job: jobs.Job | None, facts: Mapping[str, Any]) -> Job:
    return Job(yaml=_yaml(run, job), digest=str(facts.get("digest") or ""), code_digest=_code_digest(run.code))


def _yaml(run: RunFolder, job: jobs.Job | None) -> str:
    """What is not as by default; all of it where this release cannot tell."""
    import yaml

    if job is not None:
        return yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    with suppress(OSError, UnicodeDecodeError):
        return run.job_file.read_text(encoding="utf-8")[:YAML_CHARS]
    return ""


def _code_digest(code: Path) -> str:
    """Of the task's files, by name and content; empty where there are none."""
    files = sorted(path for path in code.rglob("*") if path.is_file() and not _is_made(path.relative_to(code)))
    if not files:
        return ""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.relative_to(code).as_posix()}\0".encode())
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _is_made(path: Path) -> bool:
    return "__pycache__" in path.parts or any(part.startswith(".") for part in path.parts) or path.suffix == ".pyc"


def task(run: RunFolder, job: jobs.Job | None, facts: Mapping[str, Any]) -> Task:
    where, _, name = (job.task if job is not None else str(facts.get("task") or "")).rpartition(":")
    known = job.name if job is not None else run.name
    description, model = _read(run.code, where, name)
    return Task(
        name=known,
        description=description,
        model=model,
        parameters=facts.get("parameters"),
        arguments=dict(job.arguments) if job is not None else {},
    )


def _read(code: Path, where: str, name: str) -> tuple[str, str]:
    """The first sentence about the task, and what its model() gives, as its source says; nothing of it is run."""
    file = code / where.rpartition("/")[2] if where.endswith(".py") else code / f"{where.replace('.', '/')}.py"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return "", ""
    found = next((each for each in ast.walk(tree) if getattr(each, "name", None) == name), None)
    if not isinstance(found, ast.ClassDef | ast.FunctionDef):
        return "", ""
    text = " ".join((ast.get_docstring(tree) or ast.get_docstring(found) or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip("."), _model(found)


def _model(found: ast.ClassDef | ast.FunctionDef) -> str:
    for each in ast.walk(found):
        if isinstance(each, ast.FunctionDef) and each.name == "model":
            for last in reversed([node for node in ast.walk(each) if isinstance(node, ast.Return)]):
                if isinstance(last.value, ast.Call):
                    return ast.unparse(last.value.func).rpartition(".")[2][:80]
    return ""


def environment(run: RunFolder, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What it ran on; git's commit is told with how it is reproduced."""
    found = facts.get("environment") or {}
    if not found:
        with suppress(OSError, ValueError), run.spool.open("rb") as file:
            found = json.loads(file.readline(SPOOL_BYTES)).get("environment") or {}
    return dict(found) if isinstance(found, dict) else {}


def reproduce(
    run: RunFolder,
    facts: Mapping[str, Any],
    told: Job,
    data: list[Data],
    environment: Mapping[str, Any],
    samples: str,
    local: bool,
) -> Reproduce:
    """Commands, digests, and the commit of the code. samples: digest of those that were seen."""
    git = environment.get("git") or {}
    found = {"commit": git["commit"], "dirty": git.get("changed")} if git.get("commit") else {}
    commands = [f"git checkout {found['commit']}"] if found else []
    commands += [f"headway data check {shlex.quote(each.place)}" for each in data if each.place]
    commands.append(command(run, local))
    if facts.get("state") != "finished":
        commands.append(f"headway resume {shlex.quote(run.name)}")
    digests = {
        "job": told.digest,
        "code": told.code_digest,
        **{f"data.{each.role}": each.digest for each in data},
        "samples": samples,
        "weights": str(facts.get("weights_sha256") or "") if facts.get("state") != "running" else "",
    }
    return Reproduce(commands=commands, digests={name: each for name, each in digests.items() if each}, git=found)


def command(run: RunFolder, local: bool) -> str:
    """That runs the same job again, from the run's own folder; nothing where its job is not there."""
    if not run.job_file.exists():
        return ""
    return f"headway train {shlex.quote(f'{run.where}/job.yaml')} --name {run.name}-again{' --local' if local else ''}"
