"""Runs side by side: what differs in job, code, data and environment first, then each run's story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from headway.errors import BadInput, HeadwayError
from headway.report.shape import VERSION, Part, Story

UNTOLD = ("name",)
"""Keys of a job that say nothing of what it does."""
MOST = 8
"""Runs."""
NAMED = 5
"""Differences in a sentence."""


class Difference(Part):
    key: str
    values: list[Any]
    """One for each run, in order; null where it is not there."""


class Differences(Part):
    job: list[Difference]
    code: list[Difference]
    data: list[Difference]
    environment: list[Difference]


class ComparisonWords(Part):
    what: str
    how_well: str
    differences: str


class Comparison(Part):
    version: int = VERSION
    kind: Literal["comparison"] = "comparison"
    words: ComparisonWords
    differences: Differences
    runs: list[Story]
    redacted: bool = False


def compare(stories: Sequence[Story]) -> Comparison:
    """Side by side, in this order. Raises BadInput: there are fewer than two, or more than can be looked at."""
    if not 2 <= len(stories) <= MOST:
        reason = f"two to {MOST} runs can be compared"
        raise BadInput(f"{len(stories)} runs are to be compared", reason, "Name as many.")
    found = Differences(
        job=_of([_job(story) for story in stories]),
        code=_of([_code(story) for story in stories]),
        data=_of([_data(story) for story in stories]),
        environment=_of([_flat(story.environment) for story in stories]),
    )
    redacted = any(story.redacted for story in stories)
    return Comparison(words=_words(stories, found), differences=found, runs=list(stories), redacted=redacted)


def _of(sides: Sequence[Mapping[str, Any]]) -> list[Difference]:
    keys = dict.fromkeys(key for side in sides for key in side)
    rows = [Difference(key=key, values=[side.get(key) for side in sides]) for key in keys]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _job(story: Story) -> dict[str, Any]:
    """With what is as by default, where this release knows that."""
    import yaml

    from headway.job import parse

    try:
        tree = yaml.safe_load(story.job.yaml) or {}
        tree = parse(tree).model_dump(mode="json")
    except (yaml.YAMLError, HeadwayError, ValueError, TypeError):
        tree = tree if isinstance(tree, dict) else {}
    places = {"data.train", "data.validation"}  # digests tell these better
    return {key: value for key, value in _flat(tree).items() if key not in (*UNTOLD, *places)}


def _code(story: Story) -> dict[str, Any]:
    git = story.reproduce.git
    told = {"files": story.job.code_digest, "commit": git.get("commit"), "changed since": git.get("dirty")}
    return {key: value for key, value in told.items() if value is not None and value != ""}


def _data(story: Story) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for data in story.data:
        told |= {f"{data.role}.{key}": getattr(data, key) for key in ("name", "digest", "rows", "version")}
    return told


def _flat(tree: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """By dotted keys."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{at}{name}.")
        else:
            found[f"{at}{name}"] = value
    return found


def _words(stories: Sequence[Story], found: Differences) -> ComparisonWords:
    names = ", ".join(story.run.name for story in stories[:-1])
    return ComparisonWords(
        what=f"{len(stories)} runs beside each other: {names} and {stories[-1].run.name}.",
        how_well=_how_well(stories),
        differences=_told(found),
    )


def _how_well(stories: Sequence[Story]) -> str:
    best = {s.run.name: s.headline.best for s in stories if s.headline.best is not None}
    values = {name: each.value for name, each in best.items() if each.value is not None}
    if len(values) == len(stories) and len({each.metric for each in best.values()}) == 1:
        one = next(iter(best.values()))
        first = (min if one.mode == "min" else max)(values, key=values.__getitem__)
        all_of = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        return f"{first} has the best {one.metric}: {all_of}."
    losses = [f"{story.run.name} {story.headline.loss:.4g}" for story in stories if story.headline.loss is not None]
    return f"Training loss at the end: {', '.join(losses)}." if losses else "Nothing was measured."


def _told(found: Differences) -> str:
    said, same = [], []
    for name in ("job", "code", "data", "environment"):
        rows = getattr(found, name)
        if not rows:
            same.append(name)
            continue
        keys = ", ".join(row.key for row in rows[:NAMED]) + (", ..." if len(rows) > NAMED else "")
        said.append(f"{name} ({keys})")
    if not said:
        return "They have the same job, code, data and environment."
    alike = f" {' and '.join(same).capitalize()} {'is' if len(same) == 1 else 'are'} the same." if same else ""
    return f"They differ in {'; '.join(said)}.{alike}"
