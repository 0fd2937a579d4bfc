"""The job's own datasets in a process: made by their author's code, and compared with what the run began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headway.carried import code
from headway.carried.pickling import dumped
from headway.data.own import naming
from headway.data.own.content import told_by
from headway.data.own.manifest import Described
from headway.data.own.rows import Rows, begin_alike
from headway.data.own.seeding import lent
from headway.data.own.streams import Stream
from headway.data.own.taking import Own, taken
from headway.errors import BadInput
from headway.faults import blame

if TYPE_CHECKING:
    from headway.job import Job


def opened(job: Job, source: code.Source) -> dict[str, Own]:
    """The job's own datasets, by use; nothing of those that lie in folders. What their code draws while it makes them
    is the same in every process.

    Args:
        job: to be followed.
        source: of the task, in this process.

    Raises:
        BadInput: one cannot be made, or is another than when the run began; carries the user's traceback where their
            code raised.
    """
    names = naming.named(job)
    if not names:
        return {}
    source = code.here(source)
    found = {}
    for use, text in names.items():
        found[use] = _made(use, text, naming.source_of(use, text, job.task, source), job.seed)
        begun = job.data.own.get(use)
        if begun is not None:
            _compare(use, text, found[use], begun.rows, begun.digest)
    return found


def described(found: Mapping[str, Own], job: Job) -> dict[str, Described]:
    """What is known of datasets, by use.

    Raises:
        BadInput: one is empty, does not pickle, or is none that it could be trained on.
    """
    return {use: _described(use, naming.named(job)[use], own, job) for use, own in found.items()}


def _made(use: str, text: str, source: code.Source, seed: int) -> Own:
    name = text.rpartition("/")[2]
    try:
        with lent():
            begin_alike(seed)
            found = code.named(source, f"data.{use}")
            begin_alike(seed)  # its module may be there already
            return taken(found, use, name)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:  # of the user's code
        raise _failed(f"data.{use}={name} cannot be made", error) from None


def _failed(fact: str, error: BaseException, remedy: str = "Mend it.") -> BadInput:
    bad = BadInput(fact, blame.reason(error), remedy)
    bad.traceback = blame.users_traceback(error)
    return bad


def _compare(use: str, text: str, found: Own, rows: int, digest: str) -> None:
    name = text.rpartition("/")[2]
    if isinstance(found, Rows) and len(found) != rows:
        raise BadInput(
            f"data.{use}={name} has {len(found)} rows here, and had {rows} when the run began",
            "every process of a run takes its part of the same rows",
            "Let it give the same rows wherever and whenever it is called: from files that all machines see, say.",
        )
    if found.digest() != digest:
        raise BadInput(
            f"data.{use}={name} has other rows here than when the run began",
            "every process of a run takes its part of the same rows",
            "Let it give the same rows wherever and whenever it is called (what it draws is seeded); or give it a "
            "`digest` of its own, if what differs does not matter.",
        )


def _described(use: str, text: str, own: Own, job: Job) -> Described:
    name = text.rpartition("/")[2]
    fact = f"data.{use}={name}"
    if isinstance(own, Stream):
        return _described_stream(own, use, name, job)
    try:
        rows = len(own)
        if len(own) != rows:
            raise BadInput(f"{fact} has another length each time that it is asked", "", "Let it have one length.")
        if not rows:
            raise BadInput(f"{fact} is empty", "there is nothing to train on", "Give it rows.")
        _demand_pickle(own, fact)
        fields = own.fields()
        digest = own.digest()
        notes = _drifting(own, fact, job)
    except BadInput:
        raise
    except Exception as error:  # of the user's __len__, __getitem__ or digest
        raise _failed(f"{fact} cannot be read", error) from None
    return Described(name, name, rows, 0, fields, (), content=digest, version=0, drifts=bool(notes), notes=notes)


def _drifting(own: Rows, fact: str, job: Job) -> tuple[str, ...]:
    """What to say of rows that differ from one reading to the next.

    Raises:
        BadInput: the run is to have the same bits, or nothing tells by what its rows are known.
    """
    if not own.drifts():
        return ()
    what = f"{fact} gives other rows each time that they are read"
    why = "a generator of its own, a counter or the clock decides"
    bitwise = job.reproducible == "bitwise"
    if bitwise or told_by(own.dataset) is None:
        mild = "" if bitwise else "; or give it a `digest` of its own, if what differs does not matter"
        raise BadInput(
            f"{what}{', and the job says reproducible=bitwise' if bitwise else ''}",
            f"{why}: on other workers, or after a loss, the training would have others",
            "Draw with torch.rand, numpy.random or random in __getitem__, which are seeded for every row, or make the "
            f"generator there, from the row's number{mild}.",
        )
    return (
        f"{what}: {why}, so a run that is resumed or has other workers trains on others. Drawn with torch.rand, "
        "numpy.random or random in __getitem__, which are seeded for every row, they would be the same",
    )


def _described_stream(own: Stream, use: str, name: str, job: Job) -> Described:
    fact = f"data.{use}={name}"
    if use == "validation":
        remedy = "Give a Dataset with a length, or a folder."
        raise BadInput(f"{fact} is a stream", "an evaluation is of all rows, which must be known", remedy)
    if job.steps is None:
        raise BadInput(
            f"epochs={job.epochs}: {fact} is a stream", "it has no length, and so no epochs", "Say steps instead."
        )
    try:
        fields = own.fields(job.seed, job.lanes)
    except Exception as error:  # of the user's code
        raise _failed(f"{fact} cannot be read", error) from None
    if fields is None:
        raise BadInput(f"{fact} is empty", "there is nothing to train on", "Give it rows.")
    return Described(name, name, 0, 0, fields, (), content=own.digest(), version=0, stream=True)


def _demand_pickle(own: Rows, fact: str) -> None:
    """Raises BadInput: naming the path to what cannot be pickled."""
    try:
        dumped(own.dataset, fact.partition("=")[0])
    except BadInput as error:
        raise BadInput(
            f"{fact} does not pickle: {error.fact}",
            "its rows are also read by processes beside the worker, which are handed it",
            "Open it where a row is read, or leave it out of the state with __getstate__.",
        ) from None
