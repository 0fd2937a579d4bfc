"""The first lines of a run's page: what it was, in plain words and whole sentences. Nothing is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headway.report.shape import Data, Headline, Job, Run, Task, Words

GOOD = 0.95
"""Of a run that spent less of its worker-seconds on committed steps it is said where the rest went."""
RESUMABLE = ("stopped", "interrupted", "failed")
SHOWN = 4
"""Metrics in a sentence."""
ENDS = {
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped on request",
    "interrupted": "Interrupted",
    "failed": "Failed",
}
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
        validation: the latest numbers of evaluations, by name.
        aside: rows that were set aside.
        saved: steps of the checkpoints that are there.
        apart: since when, and why, lanes were computed one by one; empty where nothing was found against their going
            together.
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
    validation: Mapping[str, float | None] = field(default_factory=dict)
    aside: int = 0
    saved: Sequence[int] = ()
    command: str = ""
    apart: str = ""


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
    about = [task.model] if task.model else []
    about += [f"{_short(task.parameters)} parameters"] if task.parameters else []
    kind = f" ({', '.join(about)})" if about else ""
    where = (
        "in one process" if run.local and head.workers_max <= 1 else f"on up to {_count(head.workers_max, 'worker')}"
    )
    verb = {"running": "is being trained", "finished": "was trained"}.get(run.state, "was being trained")
    said = f" {_sentence(task.description)}" if task.description else ""
    return f"{task.name}{kind} {verb} {where}.{said}"


def _data(known: Known) -> str:
    train = [each for each in known.data if each.role.startswith("train")]
    if not train:
        return "What it was trained on is not recorded."
    named = _and([f"{each.name}{_rows(each)}" for each in train])
    head = known.headline
    seen = f"{_rows_word(head.samples)} were seen in training"
    seen += f" ({head.epochs:.3g} {'epoch' if head.epochs == 1 else 'epochs'})" if head.epochs else ""
    check = next((each for each in known.data if each.role == "validation"), None)
    against = f" It was measured on {check.name}{_rows(check)}." if check else " There was no validation set."
    return f"Trained on {named}; {seen}.{against}"


def _how_well(known: Known) -> str:
    head, running = known.headline, known.run.state == "running"
    said = []
    if head.best is not None and head.best.value is not None:
        said.append(f"The best {head.best.metric} was {_figure(head.best.value)}, after step {head.best.step:,}.")
    values = [(name, value) for name, value in known.validation.items() if value is not None]
    if values:
        shown = ", ".join(f"{name} {_figure(value)}" for name, value in values[:SHOWN])
        more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
        said.append(f"{'The newest' if running else 'The last'} evaluation gave {shown}{more}.")
    if head.loss is not None:
        said.append(f"The training loss {'is' if running else 'ended at'} {_figure(head.loss)}.")
    if not head.steps:
        said.append("No step was committed.")
    elif not values:
        said.append("It was not evaluated.")
    return " ".join(said)


def _how_long(known: Known) -> str:
    run, head = known.run, known.headline
    of = f" of {head.total_steps:,}" if head.total_steps else ""
    steps = f"after {head.steps:,}{of} steps"
    if head.total_steps and head.steps >= head.total_steps:
        steps = f"after all {head.steps:,} steps"
    took = f", {time(run.seconds)} after it was begun" if run.seconds is not None else ""
    starts = f" It was started {_often(head.starts)}." if head.starts > 1 else ""
    return f"{_state(run)} {steps}{took}.{starts}"


def _state(run: Run) -> str:
    if run.state == "finished":
        return "Finished early" if run.message.startswith("early") else "Finished"
    if run.state == "failed":
        return {"task": "Failed by the task's own fault", "platform": "Failed by the platform's fault"}.get(
            run.cause or "", "Failed"
        )
    return ENDS.get(run.state, run.state.capitalize())


def _cost(known: Known) -> str:
    apart = f" {_sentence(known.apart[:1].upper() + known.apart[1:])}" if known.apart else ""
    peak = f" Peak memory per worker: {_sentence(known.headline.memory)}" if known.headline.memory else ""
    return _spent(known) + apart + peak


def _spent(known: Known) -> str:
    head = known.headline
    if head.worker_seconds is None:
        return "What it cost is not recorded."
    price = f", which is {dollars(head.dollars)}" if head.dollars is not None else ""
    said = f"It took {time(head.worker_seconds)} of workers' time{price}"
    if head.goodput is None:
        return f"{said}."
    said += f"; {head.goodput:.1%} of it went into steps that count."
    wasted = {CAUSES[cause]: spent for cause, spent in known.ledger.items() if cause in CAUSES and spent > 0}
    if wasted and head.goodput < GOOD:
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
        causes = _and([_because(cause, count) for cause, count in known.lost.items()])
        yield f"{_count(head.losses, 'worker').capitalize()} {_was(head.losses)} lost ({causes})."
        if not known.kept and not known.checkpoint:
            pause = f" after {time(head.longest_pause_s)} at most" if head.longest_pause_s else ""
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
    run = known.run
    if run.state in ("failed", "interrupted"):
        yield f"It {'failed' if run.state == 'failed' else 'was interrupted'}" + (
            f": {_sentence(run.message)}" if run.message else "."
        )
    elif run.message and run.state in ("stopped", "finished"):
        yield f"It ended before its last step: {_sentence(run.message)}"


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


def _because(cause: str, times: int) -> str:
    why = LOST.get(cause, cause)
    return f"{why} {_often(times)}" if times > 1 else why


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


def dollars(value: float) -> str:
    """An amount, for people."""
    return f"${value:,.2f}" if value >= 0.01 or not value else f"${value:.4f}"


def time(seconds: float) -> str:
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
