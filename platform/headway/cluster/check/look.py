"""A file looked over: read, held against its schema, and against the mistakes that are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headway.cluster import file as files
from headway.cluster.check import manifests, shapes
from headway.cluster.check.finding import Fault, Finding, Rule, named
from headway.cluster.check.rules import RULES
from headway.cluster.check.view import View
from headway.errors import BadInput
from headway.notation.plain import line_of, read


def look(path: str | Path) -> list[Finding]:
    """All that is wrong with a cluster's file or with manifests of KubeRay, in the order of the file.

    Raises:
        BadInput: it cannot be read, or is no YAML at all.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise BadInput(f"{path} cannot be read", reason, "Give the YAML file of a cluster.") from None
    if re.search(r"^apiVersion:", text, re.MULTILINE):
        return _of_manifests(path, text)
    return _of_cluster(path, text)


def _of_cluster(path: Path, text: str) -> list[Finding]:
    tree = _read(path, text)
    if not isinstance(tree, dict):
        raise BadInput(f"{path}, line 1", "it should hold keys and values", "Give the YAML file of a cluster.")
    found = []
    try:
        files.parse(path, text)
    except BadInput as error:
        found += list(_of_reader(path, error))
    own = [("schema", fault) for fault in shapes.of_ray(tree)] if not found else []
    found += _placed(text, [*own, *_judged(RULES, View(tree))])
    return sorted(found, key=lambda finding: (finding.line, finding.rule))


def _of_manifests(path: Path, text: str) -> list[Finding]:
    parts = _documents(text)
    trees = [(begin, part, _read(path, part, begin)) for begin, part in parts]
    everything = [tree for _, _, tree in trees if isinstance(tree, dict)]
    found = []
    for begin, part, tree in trees:
        if not isinstance(tree, dict):
            continue
        faults = [("shape", fault) for fault in manifests.shape(tree)]
        if tree.get("kind") in shapes.DEFINED:
            faults += [("schema", fault) for fault in shapes.of_kuberay(tree)]
            faults += _judged(manifests.RULES, manifests.Manifest(tree, everything))
        found += _placed(part, faults, begin)
    if not any(tree.get("kind") in manifests.KINDS for tree in everything):
        said = "nothing in it is of a kind that is known here"
        found.append(Finding("fail", "shape", 1, said, "there is nothing to train on", "See cluster/kuberay."))
    return sorted(found, key=lambda finding: (finding.line, finding.rule))


def _judged(rules: Sequence[Rule], view: Any) -> list[tuple[str, Fault]]:
    return [(named(rule), fault) for rule in rules for fault in rule(view)]


def _placed(text: str, faults: Sequence[tuple[str, Fault]], begin: int = 0) -> list[Finding]:
    return [
        Finding(fault.level, rule, begin + line_of(text, fault.way), fault.found, fault.reason, fault.remedy)
        for rule, fault in faults
    ]


def _read(path: Path, text: str, begin: int = 0) -> Any:
    import yaml

    try:
        return read(text)
    except yaml.MarkedYAMLError as error:
        line = begin + (error.problem_mark.line + 1 if error.problem_mark else 1)
        raise BadInput(f"{path}, line {line}", error.problem or "it is no YAML", "Mend it.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no YAML", str(error).splitlines()[0], "Mend it.") from None


def _documents(text: str) -> list[tuple[int, str]]:
    """The documents of a file: lines before each, and its text."""
    found, begin, lines = [], 0, text.splitlines(keepends=True)
    for number, line in enumerate([*lines, "---\n"]):
        if line.rstrip() == "---":
            part = "".join(lines[begin:number])
            if part.strip():
                found.append((begin, part))
            begin = number + 1
    return found


def _of_reader(path: Path, error: BadInput) -> Iterator[Finding]:
    """The reader's own findings, which it tells as one error."""
    for piece in re.split(r"; (?=line \d+: )", f"line {_first(path, error)}: {error.reason}"):
        line = re.match(r"line (\d+): (.*)", piece, re.DOTALL)
        if line is not None:
            yield Finding("fail", "file", int(line[1]), line[2], "", error.remedy)


def _first(path: Path, error: BadInput) -> int:
    found = re.search(r", line (\d+)", error.fact)
    return int(found[1]) if found else 1
