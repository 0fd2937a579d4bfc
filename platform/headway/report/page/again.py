"""How a run is made once more: commands, digests, its job; and the machines and versions that it had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headway.report.page import numbers, plots
from headway.report.page.markup import Inside, Markup, tag
from headway.report.page.sheet import Section
from headway.report.page.tables import pairs

NODES = {"cpu": "CPU", "memory": "memory", "gpu": "GPU"}
RATES = {"network": "network", "disk": "disk"}
LONG = 400


def again(story: Mapping[str, Any]) -> Section | None:
    """Commands and digests."""
    found: Mapping[str, Any] = story.get("reproduce") or {}
    job: Mapping[str, Any] = story.get("job") or {}
    commands = [str(command) for command in found.get("commands") or ()]
    digests = dict(found.get("digests") or {})
    git = {name: value for name, value in (found.get("git") or {}).items() if value not in (None, "")}
    inside: list[Inside] = [copied("\n".join(commands)) if commands else None]
    facts = [*(_words(git, "git ")), *_words(digests)]
    inside.append(pairs([(name, tag("code", value)) for name, value in facts]) if facts else None)
    if job.get("yaml"):
        inside.append(tag("details", tag("summary", "The job, as it was run"), copied(str(job["yaml"]))))
    if not any(inside):
        return None
    return Section("again", "Once more", inside, "The same job, data and code end with the same samples and updates.")


def environment(story: Mapping[str, Any]) -> Section | None:
    """Versions and machines."""
    facts = list(_words(story.get("environment") or {}))
    task = story.get("task") or {}
    told = [(name, task[name]) for name in ("name", "description", "model") if task.get(name)]
    told += [("parameters", numbers.number(task["parameters"]))] if isinstance(task.get("parameters"), int) else []
    if not facts and not told:
        return None
    return Section(
        "environment",
        "Environment",
        [
            pairs([(f"task {name}" if name == "name" else name, str(value)) for name, value in told]) if told else None,
            pairs([(name, value) for name, value in facts]) if facts else None,
        ],
    )


def machines(story: Mapping[str, Any], drawn: dict[str, Any]) -> Section | None:
    """How busy each node was."""
    found = [node for node in story.get("nodes") or () if len(node.get("seconds") or ()) > 1]
    frames, made = [], []
    for at, node in enumerate(found):
        for kind, names, unit in (("busy", NODES, "share"), ("rate", RATES, "B/s")):
            there = [name for name in names if any(value is not None for value in node.get(name) or ())]
            if not there:
                continue
            lines = [
                plots.line(
                    names[name],
                    {"step": [0] * len(node["seconds"]), "seconds": node["seconds"], "value": node[name]},
                    c,
                )
                | {"step": None}
                for c, name in enumerate(there)
            ]
            chart = {
                "id": f"node-{at}-{kind}",
                "kind": "lines",
                "unit": unit,
                "height": 140,
                "zero": True,
                "series": lines,
            }
            made.append(chart)
            frames.append(plots.frame(chart, f"{node.get('name', 'node')}", ", ".join(names[name] for name in there)))
    if not frames:
        return None
    drawn.setdefault("plots", []).extend(made)
    return Section("machines", "Machines", tag("div", frames, class_="pair"))


def copied(text: str) -> Markup:
    """Text that a button copies."""
    button = tag("button", "Copy", type="button", data_do="copy")
    return tag("div", tag("pre", tag("code", text), tabindex="0"), button, class_="copied")


def _words(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Facts of any depth, by their names."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _words(value, f"{before}{name} ")
        elif isinstance(value, list | tuple):
            yield f"{before}{name}", ", ".join(map(str, value))[:LONG]
        elif value not in (None, ""):
            text = numbers.number(value) if isinstance(value, float) else str(value)
            yield f"{before}{name}", ("yes" if value else "no") if isinstance(value, bool) else text[:LONG]
