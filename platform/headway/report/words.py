"""The first lines of a run's page: what it was, in plain words and whole sentences. Nothing is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headway.report.shape import Data, Headline, Job, Run, Task, Words

GOOD = 0.5
"""Of a run that spent less of its worker-seconds on committed steps it is said where they went."""
RESUMABLE = ("stopped", "interrupted", "failed")
SHOWN = 4
"""Metrics in a sentence."""
CAUSES = {
    "start": "starting workers",
    "checkpoint": "checkpoints",
    "regroup": "finding each other again",
    "repeated": "work that was done again",
    "spare": "standing by",
    "idle": "waiting",
}


@dataclass(frozen=True)
class Known:
    """What the sentences are made of.

    Args:
        lost: how often workers were lost, by cause.
        kept: how often training went on from a state that a node's keeper held; checkpoint: from a checkpoint.
        ledger: worker-seconds by cause.
        aside: rows that were set aside.
        saved: steps of the checkpoints that are there.
        final: digest of the weights at the end, if there is one.
    """

    run: Run
    task: Task
    job: Job
    data: Sequence[Data]
    headline: Headline
    lost: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0
    checkpoint: int = 0
    ledger: Mapping[str, float] = field(default_factory=dict)
    aside: int = 0
    saved: Sequence[int] = ()
    command: str = ""


def of(known: Known) -> Words:
    """All of them."""
    return Words(
        what=_what(known),
        data=_data(known),
        how_well=_how_well(known),
        how_long=_how_long(known),
        cost=_cost(known),
        trouble=_trouble(known),
        again=_again(known),
    )


def _what(known: Known) -> str:
    task, run, head = known.task, known.run, known.headline
    size = f" with {_short(task.parameters)} parameters" if task.parameters else ""
    kind = f" (a {task.model}{size})" if task.model else f" (a model{size})" if size else ""
    said = f" {_sentence(task.description)}" if task.description else ""
    where = "in one process" if run.local else f"on up to {_count(head.workers_max, 'worker')}"
    verb = {"running": "is being trained", "finished": "was trained"}.get(run.state, "was being trained")
    return f"{task.name}{kind} {verb} {where}.{said}"


def _data(known: Known) -> str:
    train = [each for each in known.data if each.role.startswith("train")]
    if not train:
        return "What it was trained on is not recorded."
    named = _and([f"{each.name}{_rows(each)}" for each in train])
    head = known.headline
    seen = f"{_rows_word(head.samples)} were seen in training"
    seen += f", which is {head.epochs:.3g} {'walk' if head.epochs == 1 else 'walks'} through it" if head.epochs else ""
    check = next((each for each in known.data if each.role == "validation"), None)
    against = f" It was measured on {check.name}{_rows(check)}." if check else " There was no validation set."
    return f"Trained on {named}; {seen}.{against}"


def _how_well(known: Known) -> str:
    head = known.headline
    values = [(name, value) for name, value in head.metrics.items() if value is not None]
    said = []
    if head.best is not None and head.best.value is not None:
        said.append(f"The best {head.best.metric} was {_figure(head.best.value)}, after step {head.best.step:,}.")
    if values:
        shown = ", ".join(f"{name} {_figure(value)}" for name, value in values[:SHOWN])
        more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
        said.append(f"{'At the end' if known.run.state != 'running' else 'By now'}: {shown}{more}.")
    if head.loss is not None:
        said.append(f"The training loss {'is' if known.run.state == 'running' else 'ended at'} {_figure(head.loss)}.")
    if not said:
        return "No step was committed." if not head.steps else "Nothing was measured."
    if not values:
        said.append("It was not evaluated on a validation set.")
    return " ".join(said)


def _how_long(known: Known) -> str:
    run, head = known.run, known.headline
    steps = f"{head.steps:,} of {head.total_steps:,} steps" if head.total_steps else f"{head.steps:,} steps"
    if head.total_steps and head.steps == head.total_steps:
        steps = f"all {head.steps:,} steps"
    took = f" in {_time(run.seconds)}" if run.seconds is not None else ""
    starts = f", over {head.starts} starts" if head.starts > 1 else ""
    return f"{_state(run)}: {steps}{took}{starts}."


def _state(run: Run) -> str:
    if run.state == "finished" and run.message.startswith("early"):
        return f"Finished early ({run.message})"
    why = f" ({run.message})" if run.message else ""
    if run.state == "failed":
        whose = {"task": " by the task's own fault", "platform": " by the platform's fault"}.get(run.cause or "", "")
        return f"Failed{whose}{why}"
    return {
        "finished": "Finished",
        "running": "Running",
        "stopped": f"Stopped on request{why}",
        "interrupted": f"Interrupted{why}",
    }.get(run.state, run.state) or run.state


def _cost(known: Known) -> str:
    head = known.headline
    if head.worker_seconds is None:
        return "What it cost is not recorded."
    dollars = f", which is {_dollars(head.dollars)}" if head.dollars is not None else ""
    said = f"It took {_time(head.worker_seconds)} of workers' time{dollars}"
    if head.goodput is None:
        return f"{said}."
    said += f"; {head.goodput:.1%} of it went into steps that count."
    wasted = {CAUSES[cause]: spent for cause, spent in known.ledger.items() if cause in CAUSES and spent > 0}
    if wasted and head.goodput < 1 - 0.05:
        most = sorted(wasted, key=lambda cause: -wasted[cause])[:2]
        parts = [f"{cause} ({wasted[cause] / head.worker_seconds:.0%})" for cause in most]
        said += f" Most of the rest was {_and(parts)}."
    return said


def _trouble(known: Known) -> str:
    said = [*_losses(known), *_rest(known)]
    if not said:
        return "Nothing went wrong: no worker was lost and no step was repeated."
    return " ".join(said)


def _losses(known: Known) -> Iterator[str]:
    head = known.headline
    if head.losses:
        causes = _and([f"{_times(count)} {LOST.get(cause, cause)}" for cause, count in known.lost.items()])
        yield f"{_count(head.losses, 'worker').capitalize()} {_was(head.losses)} lost ({causes})."
        if not known.kept and not known.checkpoint:
            pause = f" after {_time(head.longest_pause_s)} at most" if head.longest_pause_s else ""
            yield f"It did not matter: the others went on{pause}, and no step was lost or repeated."
    if known.checkpoint:
        yield f"Training went back to a checkpoint {_often(known.checkpoint)}."
    if known.kept:
        yield f"Nobody was left {_often(known.kept)}; training went on from a state that was kept in memory."
    if head.repeated_steps:
        yield f"{_count(head.repeated_steps, 'step').capitalize()} {_was(head.repeated_steps)} done again."
    elif known.checkpoint or known.kept:
        yield "No step was done twice."
    if head.joins:
        yield f"{_count(head.joins, 'worker').capitalize()} joined while it trained."


LOST = {
    "process_died": "a process ended",
    "node_died": "a machine was gone",
    "link_cut": "a link was cut",
    "stopped": "a process stood still",
    "hung": "a training thread hung",
    "diverged": "a replica differed",
    "start_failed": "one could not be started",
    "connection_lost": "connections broke",
    "parted": "the others could not reach it",
    "hardware": "a machine was ill",
    "unreachable": "one could not be reached",
    "stuck": "all waited for each other",
    "drained": "a machine was taken away with notice",
}


def _rest(known: Known) -> Iterator[str]:
    if known.aside:
        yield f"{_rows_word(known.aside)} could not be read and {_was(known.aside)} set aside."
    if known.run.state in ("failed", "interrupted") and known.run.message:
        yield f"It ended before its time: {_sentence(known.run.message)}"


def _again(known: Known) -> str:
    if not known.command:
        return "How it was started is not recorded."
    on = f" It goes on from step {max(known.saved):,} with `headway resume {known.run.name}`." if known.saved else ""
    digest = f" The same job has digest {known.job.digest[:12]}." if known.job.digest else ""
    return f"Run it again with `{known.command}`.{digest}{on if known.run.state in RESUMABLE else ''}"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _rows(data: Data) -> str:
    return f" ({_rows_word(data.rows)})" if data.rows else ""


def _rows_word(rows: int) -> str:
    return _count(rows, "row")


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}" if number == 1 else f"{number:,} {of}s"


def _often(times: int) -> str:
    return {1: "once", 2: "twice"}.get(times, f"{times} times")


def _times(count: int) -> str:
    return f"{_often(count)}"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))


def _figure(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def _short(number: int) -> str:
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,}"


def _dollars(value: float) -> str:
    return f"${value:,.2f}" if value >= 0.01 or not value else f"${value:.4f}"


def _time(seconds: float) -> str:
    """For people: 0.15 s, 12 s, 4 min 14 s, 3 h 20 min, 2 days 5 h."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = round(seconds / 3600)
    return f"{hours // 24} days" + (f" {hours % 24} h" if hours % 24 else "")
