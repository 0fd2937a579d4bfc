"""The document that tells a run: what `headway.report.page` draws, and anything else may. JSON as well as objects.

All times are seconds since the run was made, but for those of `Run`, which are Unix seconds. What is not known is null,
or an empty list. Numbers that are none (NaN, infinities) are null.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

VERSION = 1


class Part(BaseModel):
    """Of a document."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null")


class Run(Part):
    name: str
    state: str
    """running, finished, stopped, interrupted, failed."""
    message: str
    cause: str | None
    """Whose failure it was, where it failed: task or platform."""
    by: str
    """Who submitted it; empty where nobody did, or that is left out."""
    created: float
    started: float | None
    """The newest start."""
    ended: float | None
    seconds: float | None
    """From the first start to the end, or to the last that was heard."""
    path: str
    """Folder or URL."""
    local: bool
    """Trained in one process, without a cluster."""
    notes: list[str]
    """What does not hold of it, and what of its records could not be read."""


class Words(Part):
    """The first lines, in whole sentences."""

    what: str
    """Was trained."""
    data: str
    """On what."""
    how_well: str
    how_long: str
    cost: str
    trouble: str
    """What went wrong, and what came of it."""
    again: str
    """How to run it again."""


class Task(Part):
    name: str
    description: str
    """The first sentence of its docstring."""
    model: str
    """What kind it is, where that is known."""
    parameters: int | None
    """Trainable elements."""
    arguments: dict[str, Any]


class Job(Part):
    yaml: str
    """As it was run, with what is not as by default."""
    digest: str
    """Of all that decides the result."""
    code_digest: str
    """Of the task's files."""


class Data(Part):
    role: str
    """train, validation, or train[0], ... of a mixture."""
    name: str
    digest: str
    rows: int | None
    bytes: int | None
    version: int | None
    source: str
    label: str
    place: str
    columns: list[dict[str, Any]]
    """name, type, and what of min, max, mean, std, missing, distinct, top ([value, rows] each) is known."""
    quarantined: int
    """Rows that were set aside."""


class Best(Part):
    metric: str
    mode: str
    value: float | None
    step: int


class Headline(Part):
    steps: int
    total_steps: int | None
    epochs: float | None
    samples: int
    goodput: float | None
    """Share of worker-seconds that ended in committed steps."""
    exchanged_bytes: int | None = None
    """That workers sent to each other; null where nobody counted them."""
    workers_max: int
    worker_seconds: float | None
    dollars: float | None
    best: Best | None
    metrics: dict[str, float | None]
    """The latest."""
    loss: float | None
    """The latest."""
    losses: int
    """Workers that were lost."""
    joins: int
    """Workers that joined later."""
    recoveries: int
    repeated_steps: int
    """Steps that were done again."""
    repeated_seconds: float | None
    """Worker-seconds of work that was done for nothing."""
    longest_pause_s: float | None
    starts: int
    """How often it was started."""
    checkpoints: int
    """That were written."""
    memory: str = ""
    """The most that a worker took, in words; empty where that is not known."""
    memory_bytes: int | None = None
    """That: of its device where it has one, else of its process."""
    memory_planned: int | None = None
    """Bytes that the plan said, beside what the process takes by itself."""


class Series(Part):
    name: str
    group: Literal["loss", "validation", "recorded", "rate"]
    unit: str
    step: list[int]
    seconds: list[float | None]
    value: list[float | None]
    of: int
    """Points before it was thinned; the lowest and highest of all stretches are there."""


class Mark(Part):
    step: int
    """Committed steps at that moment."""
    seconds: float
    kind: Literal[
        "joined",
        "lost",
        "restart",
        "resize",
        "stop",
        "start",
        "end",
        "checkpoint",
        "slow",
        "quarantine",
        "warned",
    ]
    cause: str
    workers: list[str]
    words: str


class Size(Part):
    """So many workers from a step on."""

    step: int
    seconds: float
    workers: int
    cause: str


class Lanes(Part):
    """Which worker carries which lanes, from a step on."""

    generation: int
    step: int
    seconds: float
    members: list[str]
    lanes: list[list[int]]


class OverTime(Part):
    seconds: list[float]
    causes: dict[str, list[float]]
    """Worker-seconds so far."""


class Account(Part):
    seconds: dict[str, float]
    """Worker-seconds by cause."""
    over_time: OverTime
    dollars: dict[str, float] = {}
    """By cause, head and storage; empty where machines have no prices."""


class Recovery(Part):
    cause: str
    workers: list[str]
    step: int
    seconds: float
    silent_s: float | None
    pause_s: float | None
    lost_steps: int
    kept: bool
    """It went on from a state that a node's keeper held."""
    words: str


class Saved(Part):
    """A checkpoint that is there."""

    step: int
    seconds: float | None
    bytes: int
    metrics: dict[str, float | None]
    path: str


class Figure(Part):
    """Something that the task logged; the newest of its name."""

    name: str
    step: int
    kind: str
    """figure, text, table, artifact."""
    mime: str
    data: str
    """Base64, of a picture."""
    text: str
    table: dict[str, Any] | None
    """columns and rows."""
    caption: str


class Event(Part):
    seconds: float
    step: int | None
    words: str
    count: int
    """So often one after another; the time is that of the first."""


class Reproduce(Part):
    commands: list[str]
    digests: dict[str, str]
    git: dict[str, Any]
    """commit, dirty."""


class Story(Part):
    """A run, told."""

    version: int = VERSION
    kind: Literal["run"] = "run"
    run: Run
    words: Words
    task: Task
    job: Job
    data: list[Data]
    headline: Headline
    series: list[Series]
    marks: list[Mark]
    workers: list[Size]
    lanes: list[Lanes]
    ledger: Account
    recoveries: list[Recovery]
    checkpoints: list[Saved]
    evaluations: list[dict[str, Any]]
    """The newest with numbers, and the newest with tables: step, values, tables."""
    figures: list[Figure]
    events: list[Event]
    nodes: list[dict[str, Any]]
    """Of each: name, seconds, cpu, memory, gpu (0 to 1), network, disk (bytes a second)."""
    environment: dict[str, Any]
    reproduce: Reproduce
    redacted: bool = False
