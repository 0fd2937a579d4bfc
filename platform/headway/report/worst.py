"""What a job can cost at most, before it starts: `headway cost --worst JOB`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from headway.cluster import file as files
from headway.cluster import known as kept
from headway.cluster.prices.book import STORAGE, Book, of_rows, shipped
from headway.core.ledger import PRODUCTIVE
from headway.core.worst import machines_for, worst
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.cluster.file import ClusterFile
    from headway.job import Job


class Told(BaseModel):
    """See the module."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    job: str
    per_hour: float
    """Dollars, with workers.max and the spares, all on the dearest machine that they may get, and the head."""
    machines: str
    """Which, in words."""
    hours: float | None
    """That it can last; null where nothing says."""
    dollars: float | None
    why: str
    """What the hours are, or why they are not known."""
    notes: list[str]


def told(
    path: Path, settings: list[str], cluster: str | None, pace: str | None, hours: float | None, runs: str | None
) -> Told:
    """Args:
        path: of the job.
        settings: that override its keys.
        cluster: a file, or the name of one that is known; None: the job's own prices count.
        pace: seconds of one worker for a step, or a run's name; None: unknown.
        hours: after which it is ended in any case; None: never.
        runs: where runs are kept.

    Raises:
        BadInput: the job or the cluster cannot be used, a machine has no price, or none holds a worker.
    """
    from headway import plan
    from headway.job import load

    job = load(path, settings)
    file = _file(cluster) if cluster is not None else None
    return of(job, plan.check(job).total_steps, file, _pace(pace, runs), None if hours is None else 3600.0 * hours)


def of(
    job: Job,
    steps: int,
    file: ClusterFile | None = None,
    step_worker_s: float | None = None,
    deadline_s: float | None = None,
) -> Told:
    """The same of a job that was checked.

    Args:
        job: checked.
        steps: of the run.
        file: of the cluster that it goes to; None: the job's own prices count.
        step_worker_s: seconds of one worker for a step; None: unknown.
        deadline_s: seconds after which it ends in any case; None: never.

    Raises:
        BadInput: a machine has no price, or none holds a worker.
    """
    number, each, head, machines, notes = _machines(job, file)
    found = worst(number, each, head, deadline_s, steps, step_worker_s, job.workers.min)
    notes = [*notes, "Steps that are done again after a loss of all workers, and storage, are not in it."]
    return Told(
        job=job.name,
        per_hour=found.per_hour,
        machines=machines,
        hours=found.hours,
        dollars=found.dollars,
        why=found.why,
        notes=notes,
    )


def _machines(job: Job, file: ClusterFile | None) -> tuple[int, float, float, str, list[str]]:
    """How many, dollars an hour of each and of the head, in words, and notes."""
    most = job.workers.most
    rows = [] if job.prices is None else [price.model_dump() for price in job.prices]
    own = of_rows(rows, "prices")
    if file is None:
        if job.workers.price_per_hour is not None:
            words = f"{most} workers at ${job.workers.price_per_hour:g} (workers.price_per_hour)"
            return most, job.workers.price_per_hour, 0.0, words, []
        machines = [price for price in own if price.type != STORAGE]
        if not machines:
            remedy = "Name the cluster: --cluster FILE; or give the job a list of prices, or workers.price_per_hour."
            raise BadInput(f"{job.name}: nothing says what its machines cost", "", remedy)
        dear = max(machines, key=lambda price: price.per_hour)
        return most, dear.per_hour, 0.0, f"{most} machines, a worker each: {dear.type} at ${dear.per_hour:g}", []
    listed = of_rows(file.headway.rows, "provider.headway.prices")
    book, region = Book(own, listed, shipped(file.kind)), str(file.tree["provider"].get("region") or "")
    found: list[tuple[float, int, float, str]] = []
    for name, kind in file.workers.items():
        number = machines_for(most, job.workers.each, {key: float(value) for key, value in kind.resources.items()})
        for option in kind.options(name) if number is not None else ():
            price = _dearest(file, book, name, option.zone or region, option.type, option.spot, option.price_per_hour)
            assert number is not None
            words = f"{number} x {option.type}{' spot' if option.spot else ''}"
            found.append((number * price, number, price, f"{words} at ${price:g}"))
    if not found:
        reason = f"a worker takes {', '.join(f'{key} {value:g}' for key, value in job.workers.each.items())}"
        raise BadInput(f"no machine of {file.path} holds a worker of {job.name}", reason, "Give a type more resources.")
    _, number, price, words = max(found)
    head = _head(file, book, region)
    notes = [f"The head ({file.head}) has no price, and is not in it."] if head is None else []
    return number, price, head or 0.0, words + (f", and the head at ${head:g}" if head else ""), notes


def _dearest(file: ClusterFile, book: Book, name: str, zone: str, type: str, spot: bool, said: float | None) -> float:
    """Of an option; of a spot machine what it costs on demand where that is known, since its price may rise so far."""
    kind = file.spec.available_node_types[name].node_config.get("InstanceType")
    type = str(kind) if kind and type == name else type
    if spot:
        on_demand = book.per_hour(type, zone)
        known = [price for price in (on_demand, said, book.per_hour(type, zone, True)) if price is not None]
        return max(known) if known else book.needed(type, zone, spot=True)
    return said if said is not None else book.needed(type, zone)


def _head(file: ClusterFile, book: Book, region: str) -> float | None:
    spec = file.spec.available_node_types[file.head]
    prices = []
    for option in spec.options(file.head):
        kind = spec.node_config.get("InstanceType")
        type = str(kind) if kind and option.type == file.head else option.type
        prices.append(option.price_per_hour if option.price_per_hour is not None else book.per_hour(type, region))
    known = [price for price in prices if price is not None]
    return max(known) if known else None


def _file(cluster: str) -> ClusterFile:
    if Path(cluster).suffix in (".yaml", ".yml") or Path(cluster).is_file():
        return files.load(cluster)
    known = kept.get(cluster)
    return files.load(known.file, known.name)


def _pace(pace: str | None, runs: str | None) -> float | None:
    """Seconds of one worker for a step."""
    if pace is None:
        return None
    try:
        found = float(pace)
    except ValueError:
        found = _of_run(pace, runs)
    if not 0 < found < float("inf"):
        raise BadInput(f"--pace {pace}", "a step takes some time", "Give the seconds, or a run with steps.")
    return found


def _of_run(name: str, runs: str | None) -> float:
    from headway.runs import Place, accounts, find

    run = find(Place.of(runs), name)
    steps, account = run.last_step() + 1, accounts.known(run.path, run.read())
    return sum(account.get(cause, 0.0) for cause in PRODUCTIVE) / steps if steps else 0.0
