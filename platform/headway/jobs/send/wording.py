"""A plan and an outcome in words, as `headway submit` shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headway import plan_words


def options(address: str, runs: str | None) -> str:
    """What another command needs to find a run: to be printed behind its name."""
    return f" --address {address}" + (f" --runs {runs}" if runs else "")


def plan(told: Mapping[str, Any]) -> list[str]:
    """The plan that the cluster told, a line each; what it did not tell is left out."""
    return list(_plan(told))


def _plan(told: Mapping[str, Any]) -> Iterator[str]:
    cluster, workers, data = (told.get(name) or {} for name in ("cluster", "workers", "data"))
    if cluster:
        yield f"cluster    Ray {cluster.get('ray')}, Python {cluster.get('python')}, {_nodes(cluster.get('nodes', 0))}"
    for use, where in data.items():
        yield f"data       {use}: {where.get('place')}, {where.get('rows', 0):,} rows, version {where.get('version')}"
    if told.get("runs"):
        yield f"runs       {told['runs']}"
    if tried := told.get("tried"):
        able = f"{_nodes(tried.get('nodes', 0))} that can hold a worker"
        yield f"tried      {tried.get('good')} of {able} read the data and write the runs"
        yield from (f"           {node}: {why}" for node, why in (tried.get("bad") or {}).items())
    if workers:
        each = ", ".join(f"{amount:g} {what}" for what, amount in (workers.get("each") or {}).items())
        more = "; an autoscaler may bring more" if workers.get("autoscaler") else ""
        yield (
            f"workers    {workers.get('min')} to {workers.get('max')} of {each}: {workers.get('now')} fit now, "
            f"{workers.get('most')} at most{more}"
        )
    for number, lanes in (told.get("lanes") or {}).items():
        yield f"lanes      {number} worker{'s' if str(number) != '1' else ''}: {', '.join(map(str, lanes))}"
    if told.get("steps"):
        size = told.get("parameters")
        model = f", {size:,} parameters" if size else ""
        kept = f", checkpoints of {_bytes(told['checkpoint_bytes'])}" if told.get("checkpoint_bytes") else ""
        yield f"steps      {told['steps']:,} of {told.get('global_batch', 0):,} rows{model}{kept}"
    yield from (f"{name:<10} {text}" for name, text in plan_words.lines(told))
    if told.get("sent_bytes"):
        yield f"sent       {_bytes(told['sent_bytes'])}"
    if installed := told.get("installed"):
        yield f"installed  {_bytes(installed.get('bytes', 0))} for this job"
    yield from (f"read by    {sentence}" for sentence in told.get("readers") or ())
    yield from (f"note       {warning}" for warning in told.get("warnings") or ())


def done(told: Mapping[str, Any]) -> list[str]:
    """What became of a submission (`headway.jobs.send.submitting.Submitted.shown`)."""
    run, state = told["run"], told["state"]
    if state == "checked":
        return [f"{run} could begin on {told['address']}. Nothing was started."]
    if state != "running":
        why = f": {told['message']}" if told.get("message") else ""
        return [f"{run} {state}{why}"]
    does = "runs" if told.get("resumed_from") is None else f"goes on from step {told['resumed_from']:,}"
    does = "is under way already" if told.get("elsewhere") else does
    there = options(told["address"], told.get("runs"))
    return [
        f"{run} {does} on {told['address']}; it is kept in {told['where']}",
        f"Follow it with: headway logs {run} -f{there}",
    ]


def _nodes(number: int) -> str:
    return f"{number} node{'s' if number != 1 else ''}"


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"
