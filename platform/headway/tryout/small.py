"""A run in small: a task is built, takes one step on a few rows, is judged, saved and loaded, as a worker would do it.

What fails on a few rows is tried again on the run's own first batches, where the number of rows may be the reason: only
what would fail in the run itself is refused.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from headway.carried import code, fitted
from headway.checkpoint.copies import Copies
from headway.checkpoint.store import Store
from headway.data.own.opening import opened
from headway.data.own.taking import Own
from headway.data.read.streams import collate_of, transform_of
from headway.elastic.worker import blocks, update
from headway.elastic.worker import context as contexts
from headway.elastic.worker.batches import tensors_of
from headway.elastic.worker.context import Context
from headway.elastic.worker.draws import seed
from headway.elastic.worker.failures import of_machine
from headway.elastic.worker.journal import Journal
from headway.elastic.worker.loop import run_step, session_of
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.elastic.worker.step import Step
from headway.errors import BadData, BadInput, HeadwayError
from headway.faults import blame
from headway.job import Checkpoint, Job
from headway.metrics.merging import Measures
from headway.strategies import fit
from headway.strategies.options import Strategy
from headway.task import Task
from headway.tryout import rows, words
from headway.tryout.activations import per_row

KEPT_BYTES = 256 * 2**20
"""A state up to this size is written to the disk and read back; of a larger one its kinds of values are looked at."""
BUILT_S = 1.0
"""A task that is built within this time is built a second time, as a resumed run would."""

LOSS_S = 0.5
"""A loss that takes less is called once more, and the metrics, to see what they keep for themselves."""


@dataclass(frozen=True)
class Tried:
    """What was learnt.

    Args:
        parameters: trainable elements; None for a loop of the user's own.
        checkpoint_bytes: of one checkpoint, about; None likewise.
        notes: what could not be tried, in words.
        together: whether lanes go together, in words: empty where they do, else why not; None where that is not known.
        state_bytes: of model, optimiser and gradients.
        row_bytes: that a row takes beside them, about, until its backward pass.
        checkpointed: which blocks compute their activations again, in words; empty: none was found; None: none is to.
    """

    parameters: int | None = None
    checkpoint_bytes: int | None = None
    notes: list[str] = field(default_factory=list)
    together: str | None = None
    state_bytes: int | None = None
    row_bytes: int | None = None
    checkpointed: str | None = None


class Unclear(Exception):
    """The trial failed in a way that says nothing sure of the run. Args: why, in words."""


Tell = Callable[[str], None]
_NEEDED = (
    ("model", "self", "nothing would be trained"),
    ("loss", "self, model, batch", "nothing says what to train for"),
)
_METHODS = ("model", "optimizer", "schedule", "updates", "hooks", "transform", "loss", "measures", "metrics")


def try_out(
    job: Job,
    source: code.Source,
    total_steps: int,
    room: Path,
    tell: Tell = lambda place: None,
    values: bytes | None = None,
) -> Tried:
    """Try a task.

    Args:
        job: checked; its datasets' versions are pinned.
        source: of the task, as workers get it.
        total_steps: of the run.
        room: an empty folder for a checkpoint.
        tell: called with where the task is, before its code is called.
        values: that it was fitted to, packed; None for none.

    Raises:
        BadInput: the run would fail; carries the user's traceback where their code raised.
    """
    tell("the task's file")
    found = code.load(source)
    tell("the datasets")
    own = opened(job, source)
    if not inspect.isclass(found):
        return _function(job, found, own, tell)
    for method, signature, reason in _NEEDED:
        if getattr(found, method) is getattr(Task, method):
            raise BadInput(f"task {found.__name__} has no {method}", reason, f"Write {method}({signature}).")
    trial = _Trial(job, found, own, total_steps, room, tell, values)
    try:
        trial.run(rows.few)
    except Unclear as unclear:
        return trial.found([str(unclear)])
    return trial.found(trial.notes)


def _function(job: Job, found: Any, own: Mapping[str, Own], tell: Tell) -> Tried:
    """A loop of the user's own: its arguments and the first batch."""
    try:
        inspect.signature(found).bind(**job.call())
    except TypeError as error:
        raise BadInput(f"arguments={job.arguments}", f"{found.__name__}(): {error}", "Mend the arguments.") from None
    tell("the first batch")
    for batch in rows.few(job, None, own=own)[0]:
        tensors_of(batch, torch.device("cpu"))
    return Tried(notes=[f"{found.__name__} is a loop of its own: only its arguments and a batch of rows were tried"])


class _Trial:
    """Arguments as of `try_out`."""

    def __init__(
        self,
        job: Job,
        found: Any,
        own: Mapping[str, Own],
        total_steps: int,
        room: Path,
        tell: Tell,
        values: bytes | None,
    ) -> None:
        self._job, self._found, self._total_steps, self._room, self._tell = job, found, total_steps, room, tell
        self._own, self._values = own, values
        self._name = found.__name__
        self._optimizer = self._hook = ""
        self._place = self._before = ""
        self._sparse: set[str] = set()
        self._changed: set[str] = set()
        self._built_s = self._loss_s = 0.0
        self._measures = Measures({})
        self._gpu = bool(job.workers.gpus) and torch.cuda.is_available()
        self.parameters: int | None = None
        self.bytes: int | None = None
        self.notes: list[str] = []
        self._together: str | None = None
        self._state_bytes: int | None = None
        self._row_bytes: int | None = None
        self._checkpointed: str | None = None

    def run(self, chosen: Callable[..., rows.Batches]) -> None:
        """Try it on the rows chosen.

        Raises:
            BadInput: it fails.
            Unclear: nothing can be said.
        """
        try:
            self._run(chosen)
        except (BadData, Unclear):
            raise
        except BaseException as error:  # the task's, which may be anything, sys.exit among it
            again = chosen is rows.few and self._place in words.ROWS_MATTER
            refused = self._judged(error)
            if not again:
                raise refused from None
        else:
            return
        self.run(rows.first)

    def found(self, notes: list[str]) -> Tried:
        """What was learnt, with these notes."""
        sizes = self._state_bytes, self._row_bytes
        return Tried(self.parameters, self.bytes, notes, self._together, *sizes, self._checkpointed)

    def _judged(self, error: BaseException) -> BadInput:
        """Raises Unclear."""
        reason = blame.reason(error)
        if isinstance(error, HeadwayError) and not isinstance(error, BadInput) and self._place == "save":
            raise Unclear(f"it could not be tried whether the state can be saved: {error}") from None
        if not isinstance(error, HeadwayError):
            if not self._place or blame.is_ours(error):
                fault = f"the task could not be tried, through a fault of Headway's own: {reason}"
                raise Unclear(f"{fault}\n{blame.whole_traceback(error)}") from None
            if of_machine(error, starting=False):
                raise Unclear(f"the task could be tried only so far: {self._at}, {reason}") from None
            if self._job.workers.gpus and not self._gpu:
                raise Unclear(
                    f"the task was tried without a GPU, for this machine has none: {self._at}, {reason}"
                ) from None
            if _last_module(error).startswith("ray."):
                raise Unclear(f"the task could be tried only so far: {self._at} asks Ray, {reason}") from None
        if self._sparse and self._place == "backward" and isinstance(error, BadInput):
            return words.sparse(self._sparse)
        names = {"name": self._name, "arguments": self._job.arguments, "optimizer": self._optimizer}
        names["hook"] = self._hook
        return words.refusal(error, self._place or "built", names)

    @property
    def _at(self) -> str:
        if self._place in _METHODS:
            return f"{self._name}.{self._place}()"
        if self._place == "hook":
            return self._hook
        return {
            "built": f"{self._name}()",
            "backward": "the backward pass",
            "rate": "the schedule",
            "rows": "the rows",
        }.get(self._place, f"the {self._place}")

    def _go(self, place: str) -> None:
        """The task is about to be called there; '' for what is ours."""
        self._place = place
        self._tell(self._at if place else "")

    # The run in small

    def _run(self, chosen: Callable[..., rows.Batches]) -> None:
        task = self._task()
        lost = transform_of(task) is not None and collate_of(task) is None
        if lost and set(self._own) >= set(self._job.data.places):
            raise BadInput(
                f"{self._name}.transform() would never be called",
                "it is of Arrow tables, and the job's datasets are given by code, row by row",
                "Do it in __getitem__, or in collate(self, rows).",
            )
        self._go("rows" if self._own else "transform")
        with torch.random.fork_rng(devices=[]):  # the model's first weights are to be the run's
            batches, held_out = chosen(self._job, transform_of(task), collate_of(task), self._own)
            for batch in (*batches, *([held_out] if held_out else [])):
                tensors_of(batch, torch.device("cpu"))
        self._go("")
        if not batches:
            raise Unclear("the task could not be tried: the first rows of data.train are all set aside")
        job = self._small(len(batches), max(len(batch.ids) for batch in batches))
        store = Store(self._room / f"checkpoints-{chosen.__name__}", "tried", job.checkpoint)
        if self._step(task, self._context(job, batches, held_out, store)) and self._built_s < BUILT_S:
            del task
            self._again(self._context(job, batches, None, store))

    def _task(self) -> Task:
        """The task, which tells from now on where it is, and is checked for what it returns."""
        torch.manual_seed(self._job.seed)
        self._go("built")
        begun = time.monotonic()
        task = cast(Task, self._found(**self._job.call()))
        if self._values is not None:
            task.fitted = fitted.unpack(self._values)
        self._built_s = time.monotonic() - begun
        self._go("")
        name = self._name

        def model(made: Any) -> None:
            for each in made.values() if isinstance(made, Mapping) else [made]:
                words.check_type(name, "model", each, nn.Module)

        def optimizer(made: Any, given: nn.Module) -> None:
            words.check_state(given)
            for each in made.values() if isinstance(made, Mapping) else [made]:
                words.check_type(name, "optimizer", each, torch.optim.Optimizer)

        def loss(made: Any, *_: Any) -> None:
            if torch.is_grad_enabled():
                words.check_loss(name, made)

        checks: dict[str, Callable[..., None]] = {"model": model, "optimizer": optimizer, "loss": loss}
        checks["schedule"] = lambda made, *_: words.check_schedule(name, made)
        checks["updates"] = lambda *_: None
        checks["hooks"] = lambda made: words.check_hooks(made)
        checks["measures"] = lambda made: self._take_measures(made)
        checks["metrics"] = lambda made, *_: words.check_metrics(name, made, self._measures)
        if transform_of(task) is not None:
            checks["transform"] = lambda *_: None
        for method, check in checks.items():
            vars(task)[method] = self._checked(method, getattr(task, method), check)
        return task

    def _checked(self, method: str, call: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
        def checked(*arguments: Any) -> Any:
            before, begun = self._place, time.monotonic()
            if before != "metrics":  # the default ones are the loss
                self._go(method)
            made = call(*arguments)
            check(made, *arguments)
            if method == "model":
                self._built_s += time.monotonic() - begun
            if method == "loss":
                self._loss_s = time.monotonic() - begun
            self._go(before)
            return made

        return checked

    def _take_measures(self, made: Any) -> None:
        self._measures = Measures(made)

    def _small(self, lanes: int, lane_batch: int) -> Job:
        job = self._job
        sparse = job.strategy.sparse  # tables may be too large for one process
        served = Strategy(kind="parameter_server", sparse=sparse) if sparse else None
        return job.model_copy(
            update={
                # A worker alone has nobody to exchange with, and few lanes for replicas.
                "strategy": served or Strategy(),
                "lanes": lanes,
                "lane_batch": lane_batch,
                "steps": self._total_steps,
                "epochs": None,
                "workers": job.workers.model_copy(update={"min": 1, "max": 1}),
                "data": job.data.model_copy(update={"on_bad_data": "fail"}),
                "checkpoint": Checkpoint(every_steps=None, fail_after=1.0),
            }
        )

    def _context(self, job: Job, batches: list[Any], held_out: Any, store: Store) -> Context:
        journal = _Unheard(None, "tried")
        return Context(
            job=job,
            device="cuda" if self._gpu else "cpu",
            train=rows.Shown(batches, job.seed),
            validation=rows.Shown([held_out] * len(batches), job.seed) if held_out is not None else None,
            saver=Saver(store, job.checkpoint, journal),
            journal=journal,
            run="tried",
            members=Alone(job.lanes),
        )

    @contextmanager
    def _entered(self, context: Context) -> Iterator[None]:
        contexts.enter(context)
        try:
            yield
        except _Enough:
            pass
        finally:
            contexts.enter(None)
            context.saver.close()

    def _step(self, task: Task, context: Context) -> bool:
        """One step, and what follows it in a run. Returns whether the state was saved, and could be loaded."""
        with self._entered(context):
            session = self._session(task)
            with session:
                self._steps(session, task)
                self.parameters = sum(p.numel() for p in session.replica.trainable)
                self.bytes = session.replica.bytes()
                gradients = sum(p.numel() * p.element_size() for p in session.replica.trainable)
                self._state_bytes, self._together = self.bytes + gradients, session.engine.together.said
                self._go("metrics")
                session.evaluate(task.metrics, task.measures())
                if self._loss_s < LOSS_S:
                    self._note_changed(session, task)
                    self._measure_rows(session, task)
                    self._note_unsteady(session, task)
                self._go("save")
                Copies().take(_hollow(session.replica.snapshot()))
                if self.bytes > KEPT_BYTES:
                    raise _Enough
                session.stop()
            context.saver.finish()
            self._go("load")
            committed = context.saver.store.committed()
            if committed:  # a state with NaN in it is not kept
                session.replica.load(committed[-1].load())
                self._go("")
                return True
        self._go("")
        return False

    def _again(self, context: Context) -> None:
        """A task that is built anew takes the state, and a step, as in a resumed run. In a process where one was built
        before, its failure is no proof."""
        try:
            with self._entered(context):
                task = self._task()
                session = self._session(task)
                self._go("load")
                with session:
                    self._go("")
                    self._steps(session, task)
                    raise _Enough
        except Exception as error:  # the task's
            if self._place == "load":
                self.notes.append(f"a resumed run may not take its state: {words.cause(error)}")

    def _session(self, task: Task) -> Session:
        session = session_of(task)
        if self._job.activation_checkpointing:
            self._checkpointed = blocks.words(session.checkpointed)
            if not self._checkpointed and blocks.NONE not in self.notes:
                self.notes.append(blocks.NONE)
        self._optimizer = type(session.optimizer).__name__
        if not session.replica.trainable:
            reason = "its model has no trainable parameter"
            raise BadInput(f"task {self._name}", reason, "Return the model to train.")
        self._watch(session)
        session.hooks.tell = self._in_hook
        return session

    def _in_hook(self, hook: str) -> None:
        if hook:
            self._hook, self._before = hook, self._place
        self._go("hook" if hook else self._before)

    def _steps(self, session: Session, task: Task) -> None:
        """As `headway.elastic.worker.loop` does."""
        for step in session.steps():
            self._follow(step, session, task)
            run_step(task, session, step)
            for name in step.done_updates:
                words.check_trained(session.optimizers[name])
            return

    def _follow(self, step: Step, session: Session, task: Task) -> None:
        """Know where the task is, and what it changes, in the step's lanes."""
        before, backward = _state(task, session), step.backward

        def followed(loss: torch.Tensor) -> None:
            nonlocal before
            after = {**_state(task, session), **_rates(session)}
            self._changed.update(name for name, value in before.items() if after.get(name, value) != value)
            before = {**_rates(session), **before}  # to set them alike in every lane is fine
            self._go("backward")
            backward(loss)
            self._go("update")

        vars(step)["backward"] = followed

    def _note_changed(self, session: Session, task: Task) -> None:
        """It is called for each lane that a worker carries, and again where a worker is lost."""
        before = _state(task, session)
        session.model.train()
        with suppress(Exception):  # once more, for a moving average begins as the model does
            task.loss(session.model, tensors_of(session.context.train.batch(0, 0, 0), session.device))
        after = _state(task, session)
        self._changed.update(name for name, value in before.items() if after.get(name, value) != value)
        if self._changed and self._job.lanes > 1:
            names = ", ".join(sorted(self._changed))
            self.notes.append(
                f"{self._name}.loss() changes {names}: what follows from it depends on the number of workers, and is "
                "not kept for a resume. Let it follow from buffers of the model, or from a hook of the optimiser"
            )

    def _measure_rows(self, session: Session, task: Task) -> None:
        """What a row takes."""
        if session.replica.updates.several:
            return
        found = session.context.train.batch(0, 0, 0)
        batch, rows = tensors_of(found, session.device), len(found.ids)
        with update.autocast(self._job.precision, session.device):
            self._row_bytes = per_row(lambda part: task.loss(session.model, part), session.model, batch, rows)

    @torch.no_grad()
    def _note_unsteady(self, session: Session, task: Task) -> None:
        """Metrics of the same rows are the same, whatever came between: else somebody keeps a sum over batches."""
        reader = session.context.validation
        if reader is None:
            return

        def found(rows: int | None) -> dict[str, float]:
            seed("lane", self._job.seed, -1, 0, 0)
            batch = tensors_of(reader.batch(0, 0, 0), session.device)
            with update.autocast(self._job.precision, session.device):
                made = task.metrics(session.model, {name: column[:rows] for name, column in batch.items()})
            return {name: float(value) for name, value in made.items() if name not in self._measures}

        session.model.eval()
        try:
            before, _, after = found(None), found(1), found(None)
        except Exception:  # a row may be too little
            return
        odd = [name for name, value in before.items() if abs(value - after.get(name, value)) > 1e-6 * abs(value)]
        if odd:
            self.notes.append(
                f"{self._name}.metrics() gives another {', '.join(odd)} for the same rows when it is called again: it "
                "keeps something between batches, which depends on the number of workers. Return the batch's own "
                "means: they are averaged over the set, by rows"
            )

    def _watch(self, session: Session) -> None:
        """Know whether the strategy fits the model, which gradients are sparse, and when the optimiser is done."""

        def look(name: str) -> Callable[[torch.Tensor], None]:
            def seen(gradient: torch.Tensor) -> None:
                if gradient.layout is not torch.strided:
                    self._sparse.add(name)

            return seen

        fit.refuse(self._job.strategy, session.model)
        for name, parameter in session.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(look(name))
        for optimizer in session.optimizers.values():
            optimizer.register_step_post_hook(lambda *_: self._go("rate"))


class _Enough(Exception):
    """Leaves a session without its end."""


class _Unheard(Journal):
    """Nobody hears of it."""

    def _begin(self) -> None:
        pass

    def settle(self, patience_s: float | None = None) -> bool:
        return True

    def allows(self, step: int) -> bool:
        return True


def _state(task: Task, session: Session) -> dict[str, Any]:
    """What a task may count or average on its own, by name: its numbers, and weights beside the model."""
    numbers = {f"self.{name}": value for name, value in vars(task).items() if type(value) in (int, float)}
    return {**numbers, **{f"self.{name.replace(':', '.')}": mark for name, mark in session.replica.marks().items()}}


def _rates(session: Session) -> dict[str, Any]:
    rates = enumerate(session.replica.updates.rates())
    return {f"the rate of the optimiser's group {number}": rate for number, rate in rates}


def _hollow(tree: Any) -> Any:
    """The tree with nothing in its tensors."""
    if isinstance(tree, torch.Tensor):
        return torch.empty(0)
    if isinstance(tree, dict):
        return {key: _hollow(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)([_hollow(value) for value in tree])
    return tree


def _last_module(error: BaseException) -> str:
    """Where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
