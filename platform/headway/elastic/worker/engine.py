"""What a worker's session is made of, and how it gets from one generation into the next."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from headway.checkpoint.fork import ORIGIN
from headway.checkpoint.writing import Share
from headway.core import digest, footprints, lanes
from headway.core.gate import Word
from headway.core.membership import seats
from headway.core.schedules import SCHEDULES
from headway.core.watch import At
from headway.elastic.worker import garbage, together, transfer, vote
from headway.elastic.worker.draws import seed
from headway.elastic.worker.footprint import Footprint
from headway.elastic.worker.logged import Logged
from headway.elastic.worker.nearest import as_bytes, nearest
from headway.elastic.worker.replica import GIVEN, Outcome, TornState, Words
from headway.elastic.worker.said import Said
from headway.elastic.worker.saver import Together
from headway.elastic.worker.standing import Standing
from headway.elastic.worker.tail import Tail
from headway.errors import BadCheckpoint, BadInput
from headway.strategies import PeerLost, Strategy, create

if TYPE_CHECKING:
    import torch

    from headway.elastic.worker.carried import Carried, OfRounds, OfSteps
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.keeping import Keeping
    from headway.elastic.worker.line import Start
    from headway.elastic.worker.pact import Pact
    from headway.elastic.worker.replica import Replica
    from headway.strategies.group import Group

now = time.monotonic
"""The clock of ledgers and pauses."""
HOLDS = 3
"""Attempts to keep the last state: the first may have to ask for room."""
PAUSED = "paused"
"""Why all leave who may come back, see `wire.Leave`."""


def _nothing() -> None:
    pass


class Engine:
    """See the module. Fields are for the session, its steps and its evaluations.

    Args:
        context: of this worker.
        replica: its state.
    """

    def __init__(self, context: Context, replica: Replica) -> None:
        job = context.job
        self.context, self.job, self.order = context, job, context.train.order
        self.replica, self.members, self.saver = replica, context.members, context.saver
        self.footprint = Footprint(replica.device, replica.host_bytes, self._tell_memory)
        self.together = together.Together(job, replica, context.journal, self.footprint)
        self.tail = Tail(job.lanes, seats(job.lanes, job.workers.max))
        self.standing = Standing.OUTSIDE
        self.total_steps = context.total_steps
        self.pact: Pact = context.members.alone()
        self.busy = False
        """Whether an evaluation is under way: nobody can be seated in its middle."""
        self.stop_asked = False
        """Whether this worker's loop asked for the end of the run."""
        self.halting = False
        """Whether its loop is over, and the others are to be told so in the exchange of the step that they are at."""
        self.left = False
        """Whether all have left at a gate: what the rest of the loop's body says is of no step."""
        self.said = Said()
        self.logged = Logged(self)
        self.rounds: OfRounds | None = None
        """Where replicas differ between exchanges."""
        self.held: OfSteps | None = None
        """Where the strategy keeps what is not the same on all."""
        self._unit_lanes = lanes.carried(job.lanes, job.units)
        self._save_agreed = False
        self._wanted: str | None = None
        self.lineage = 0
        self._parts: int | None = None
        """In how many parts replicas are compared; None: to be found anew, as on all who enter a generation."""
        self._equal = vote.Equal()
        self.start = 0
        """The generation in which all began, or began anew: from a checkpoint, wherever their code was."""
        self.news = False
        """Whether all have agreed that another generation comes after this step."""
        self.begun: Callable[[], None] = _nothing
        """Called when all have begun from a state that was kept."""
        self.saved: Callable[[], None] = _nothing
        """Called when this worker has begun a checkpoint."""
        self._made = self._of = ""
        """Names of the start in which all began, and of the one whose kept state it went on from, if it did."""
        self._abreast = False
        """Whether what it was taking, when that broke off, was the state that its own code is at."""
        self._owed: dict[str, Any] | None = None
        """The state that this worker was given while its code was behind, until that is where the others' was."""
        self._first = True
        self._compiled = False
        self._committed_at = now()

    def finish(self, why: str) -> None:
        """The run has come to its end after this step. What decides it is the same on all workers."""
        outcome, between = self.replica.outcome, self.rounds is None or self.rounds.between
        if outcome.finished != why:
            verb = "finished" if between else "finishes with the round that it is in,"
            text = f"{verb} after step {self.replica.step} of {self.total_steps}: {why}"
            self.context.journal.note(text, ends=why)
        outcome.finished = why
        if between:
            outcome.stopping = True
        else:
            self.stop_asked = True

    def _tell_memory(self, found: dict[str, int]) -> None:
        """Of a few workers, which carry the most lanes: the recorder's work is bounded, whatever their number."""
        if self.pact.rank < footprints.MOST:
            self.context.journal.memory(found)

    # What the time goes to

    @contextmanager
    def account(self, cause: str, at: At | None = None) -> Iterator[None]:
        """Time inside goes to a cause of the ledger; at: what the lead is told of this worker meanwhile."""
        before, place = self.context.ledger.switch(cause, now()), self.members.at
        if at is not None:
            self.members.at = at
        try:
            yield
        finally:
            self.context.ledger.switch(before, now())
            self.members.at = place

    def spend(self, cause: str) -> None:
        """From now on time goes to a cause."""
        self.context.ledger.switch(cause, now())

    @property
    def at_work(self) -> At:
        """What a step is to the lead: the first is slow, for things are built and compiled in it."""
        return At.STEP if self._compiled else At.FIRST_STEP

    # Changing generations

    def settle(self) -> None:
        """Before whatever all do together. Those ahead had run their hooks, and the rest of their loop's body, on the
        state that they gave. This worker's code has run on it once more by now, and is where theirs was: it has theirs.
        """
        owed, self._owed = self._owed, None
        if owed is not None:
            ending, own = self.replica.outcome.stopping, self.replica.kept.own
            self.replica.take(owed)
            self.replica.outcome.stopping, self.replica.kept.own = ending, own

    def boundary(self) -> None:
        """Between two steps: into the next generation, if all have agreed to it, or one has broken. Those whose
        replicas go on by themselves agree to nothing: each comes after the step that it is at."""
        self.settle()
        if self.held is not None and self.news and not self.members.broken:
            self._leave_behind()
        if (
            (self.rounds is not None and self.leaves_round)
            or self.news
            or self.members.broken
            or (self.pact.size == 1 and self.members.news)
        ):
            self.regroup()

    @property
    def carried(self) -> Carried | None:
        """What the strategy keeps of replicas or ranges, in rounds or in steps."""
        return self.rounds or self.held

    @property
    def leaves_round(self) -> bool:
        """Whether this worker goes into the next generation now. Where somebody is to leave, all meet first, so that
        what its replicas have done stays here."""
        members, rounds = self.members, self.rounds
        assert rounds is not None
        staying = members.staying
        if not members.news or staying is None:
            return members.news
        return rounds.parted >= staying[0] or set(self.pact.names) <= set(staying[1])

    def _leave_behind(self) -> None:
        """All go into the next generation, and some of them to none: what they keep goes to the others."""
        assert self.held is not None
        try:
            with self.account("regroup"):
                self.held.leave()
        except PeerLost as error:
            self.members.lost(self.pact, error)

    def stand(self) -> None:
        """At the gate, if it is here: until it is moved, or all are asked to leave, which ends the loop. Whatever comes
        of the membership meanwhile is lived through here."""
        members, replica = self.members, self.replica
        while members.until >= 0 and replica.step < self.total_steps and not replica.outcome.stopping:
            word = members.stand(replica.step, wait=False)
            if word is Word.WAIT:
                self.evaluated(stands=True)
                with self.account("idle", At.IDLE):
                    word = members.stand(replica.step, wait=True)
            if word is Word.PASS:
                return
            if word is Word.LEAVE:
                replica.outcome.stopping = self.left = True
            else:
                self.regroup()

    def evaluated(self, stands: bool) -> None:
        """Say what the newest evaluation gave, where the run goes by gates; and what memory was taken until then."""
        self.footprint.due(now())
        if self.members.until >= 0 and self.pact.rank == 0:
            self.members.evaluated(self.replica.step, dict(self.replica.outcome.metrics), stands)

    @property
    def may_halt(self) -> bool:
        """Whether all may leave here: not in the middle of a round, at whose end it is told that one asked for it."""
        return self.rounds is None or self.rounds.between

    @property
    def at_gate(self) -> bool:
        """Whether all stand after this step, at a gate or at the run's end."""
        return self.replica.step >= min(self.members.until, self.total_steps)

    def repair(self, error: PeerLost) -> None:
        """The exchange broke: find the others again."""
        if self.rounds is None or not self.members.news:  # there, the others have left for the next generation
            self.members.lost(self.pact, error)
        self.regroup()

    def regroup(self) -> None:
        """Enter the next generation: meet its members, build the group, and be level with whoever is ahead.

        Raises:
            Dismissed: it does not include this worker.
        """
        self.settle()
        context, members, replica = self.context, self.members, self.replica
        before, place = context.ledger.switch("regroup", now()), members.at
        led = replica.whole and self.pact.rank == 0
        aim: tuple[tuple[int, ...], int] | None = None
        while True:
            self.pact.close()
            at = replica.step if self.rounds is None else self.rounds.start
            position = (at if replica.whole else -1, replica.exchanges)
            # In a step's middle nobody new can come in either: its code would begin with the step's first pass.
            start = members.meet(*position, self.busy or bool(replica.passes), self._pause, self.spend)
            if (
                self.standing <= Standing.REHEARSING
            ):  # until now nobody was kept waiting by it, for however long it stood by
                self._committed_at = now()
            self.spend("regroup")
            if replica.whole or start.source is not None:
                # Where it will go on is known before it is level with the others: it reads while the group is built.
                aim = (
                    self._lanes_of(start.news.lanes),
                    replica.step if start.source is None else start.positions[start.source][0],
                )
                context.train.carry(*aim)
            context.trouble("regroup", replica.model, replica.step)
            try:
                self.pact = members.join(start)
                self.pact.lanes = self._lanes_of(self.pact.units)
                self._level(start)
                if self.carried is not None:
                    self.carried.settle()
                break
            except PeerLost as error:
                members.lost(self.pact, error)
        if aim != (self.pact.lanes, replica.step):
            context.train.carry(self.pact.lanes, replica.step)
        if context.keeping is not None:
            context.keeping.carried(start.spot.nodes)
        self.together.neighbours = start.spot.local_size
        self.fit()
        self._parts, self._save_agreed = None, False
        self.news, self._first, context.rank = False, True, self.pact.rank
        context.journal.enter(leads=self.pact.rank == 0)
        if self.pact.rank == 0 and not led:
            self.saver.lead()
        self._sweep()
        context.ledger.switch(before if before != "idle" else "compute", now())
        members.at = place

    def _lanes_of(self, units: tuple[int, ...]) -> tuple[int, ...]:
        """Lanes of what membership moves."""
        return tuple(sorted(lane for unit in units for lane in self._unit_lanes[unit]))

    def fit(self) -> None:
        """Have a strategy for what is trained now, and for what rides on it.

        Raises:
            BadInput: something is trained that cannot be.
        """
        replica, tail = self.replica, self.tail
        replica.check_groups()
        if not tail.fits(replica.outcome.names, self.pact.size):
            tail.know(replica.outcome.names, self.pact.size)
        if replica.updates.passing:
            sizes = tail.size, replica.buffers.size
            self.pact.use(replica.trainable, self.strategy_for, sizes, replica.updates.now.name)

    def check_fit(self) -> None:
        """Raises BadInput where the loop over lanes changed what is trained: others may have no lane to know it by."""
        if not self.pact.serves(self.replica.trained):
            raise BadInput(
                f"parameters were frozen or let go (requires_grad_) in the lanes of step {self.replica.step}",
                "the lanes of a step, here and on other workers, must train the same",
                "Do it before the loop over step.lanes(), on every worker.",
            )

    def agree_on_buffers(self) -> None:
        """Somebody's lanes made buffers that were not there. They begin, on all workers alike, as the lowest lane that
        made them began with; the step is then done again.

        Raises:
            PeerLost: a worker went away meanwhile.
            BadInput: they come anew again and again, or in modules that others do not have.
        """
        pact, replica, modules = self.pact, self.replica, self.replica.modules
        replica.buffers.rewind()
        mine = modules.found()
        told = pact.gather(sorted(mine.items()))
        by_key: dict[str, tuple[int, int]] = {}
        for rank, found in enumerate(told):
            for key, lane in found:
                by_key[key] = min(by_key.get(key, (lane, rank)), (lane, rank))
        given: dict[str, torch.Tensor] = {}
        for source in sorted({rank for _, rank in by_key.values()}):
            others = [rank for rank in range(pact.size) if rank != source]
            if pact.rank == source:
                tree = {key: modules.first(key) for key, (_, rank) in sorted(by_key.items()) if rank == source}
                if others:
                    pact.give(tree, others)
            else:
                tree = pact.take(source, others, None)
            given |= tree
        for key, value in sorted(given.items()):
            modules.adopt(key, value)
        replica.buffers.settle()
        replica.exchanges += 1

    def strategy_for(self, group: Group | None) -> Strategy:
        """Of the job, for what is trained now."""
        if self.held is not None:
            return self.held.strategy(group)
        return self.plain_strategy(None if self.rounds is not None else group)

    def plain_strategy(self, group: Group | None) -> Strategy:
        """That sums gradients as they are."""
        job = self.job
        return create(
            "all_reduce",
            self.replica.trainable,
            reproducible=job.reproducible,
            lanes=job.lanes,
            tail=self.tail.size,
            changes=self.replica.buffers.size,
            group=group,
        )

    def _sweep(self) -> None:
        """Let go of the group before at once: an exception's traceback may hold its sockets and threads in a cycle.

        What was there when the session began (in a pool's process: when the run did) is left out of the search, which
        then takes a millisecond.
        """
        garbage.leave_out()
        gc.collect()

    def _level(self, start: Start) -> None:
        """Have the newest state of all."""
        positions, pact = list(start.positions), self.pact
        if start.source is None:
            self._begin()
            return
        ahead = [rank for rank, position in enumerate(positions) if position == positions[start.source]]
        behind = [rank for rank in range(pact.size) if rank not in ahead]
        if behind:
            source, ill = self._agreed(ahead)
            self._hand_on(source, sorted({*behind, *ill}), ill)

    def _agreed(self, ahead: list[int]) -> tuple[int, list[int]]:
        """Who hands its state on, and which of those level with it must take it too: a corrupted one may not spread.

        Raises:
            RunFailed: they differ, and nobody can tell who is right.
        """
        if len(ahead) == 1:
            return ahead[0], []
        mine = (self.lineage, self._words().tobytes().hex()) if self.pact.rank in ahead else None
        found = self.pact.gather(mine)
        votes = [(found[rank][0], bytes.fromhex(found[rank][1])) for rank in ahead]
        right, ill = vote.verdict(votes, self.replica.step)
        return ahead[right], [ahead[place] for place in ill]

    def _words(self) -> Words:
        """Digest of what is the same on all."""
        return self.replica.words() if self.rounds is None else self.rounds.words()

    def _hand_on(self, source: int, receivers: list[int], ill: list[int]) -> None:
        """Give the source's state to those that need it; all others go on at once."""
        pact, replica = self.pact, self.replica
        if pact.rank == source:
            given = {**replica.given(), "lineage": self.lineage, "ending": self.standing is Standing.ENDING}
            given |= {"journal": self.context.journal.journal(), "saved_step": self.saver.saved_step}
            given["course"] = (self._made, self._of)
            given = given if self.rounds is None else self.rounds.given(given)
            pact.give(given, receivers)
        elif pact.rank in receivers:
            self._take_from(source, receivers, (replica.whole or self._abreast) and pact.rank not in ill)
            if pact.rank in ill and self.context.keeping is not None:
                self.context.keeping.restart()  # what was kept of late was ill as well
        for rank in ill:
            self.members.diverged(pact.names[rank], replica.step)

    def _take_from(self, source: int, receivers: list[int], level: bool) -> None:
        """level: its own code goes on where the others' is, and keeps its own state."""
        replica, kept = self.replica, self.replica.whole
        # A large state is put straight into its place: until all of it is there, there is none. A survivor that has a
        # small one keeps it meanwhile.
        staged = kept and level and replica.bytes() <= transfer.EXTRA_BYTES
        replica.whole, replica.torn, self._abreast = staged, replica.torn or not staged, level
        given = self.pact.take(source, receivers, None if staged else replica.places(registered=not level))
        if level and self.held is not None:
            self.held.levelled()
        own = (kept or level) and self.standing >= Standing.ABREAST
        at = replica.step if own else None
        replica.take(given, registered=not level)
        if self.rounds is not None:
            self.rounds.taken(level, at, given["round"])
        self._abreast = False
        self.said.miss()
        replica.outcome.stopping |= given["ending"]
        # In rounds each comes to what they did in its own time, on the same common state.
        owes = level and self.rounds is None
        self._owed = transfer.copied({key: given[key] for key in GIVEN}) if owes else None
        self.lineage = given["lineage"]
        self._equal.clear()
        if not level:
            self.context.journal.take(given["journal"])
            self.saver.begin(given["saved_step"])
            self._made, self._of = given["course"]
        if not kept and self.standing < Standing.WATCHING:
            self.standing = Standing.WATCHING

    def part_due(self, step: int) -> tuple[int, int] | None:
        """Which part of the replicas is compared before a step, and of how many; None: none is. Those of a large state
        are compared in turn, so that all of it is within `replica_check_every` steps, and none of them takes long."""
        every = self.job.replica_check_every
        if every is None or self.pact.size < 2:
            return None
        if self._parts is None or step % every == 0:  # it is larger once the optimiser has stepped
            self._parts = digest.parts(self.replica.bytes(), every)
        part = digest.due(step, every, self._parts)
        return None if part is None else (part, self._parts)

    def heal(self, votes: list[tuple[int, bytes]], part: int = 0, of: int = 1) -> bool:
        """Compare the replicas' digests before a step; whoever differs takes the majority's state. Returns whether all
        were equal: once all parts were, each stands for itself again.

        Args:
            part: of the state, this one of `of`.

        Raises:
            RunFailed: there is no majority.
            PeerLost: a worker went away meanwhile.
        """
        step = self.replica.step
        right, ill = vote.verdict(votes, step)
        if not ill:
            if self._equal.add(part, of, votes[right][1]):
                self.lineage = vote.lineage_of(self.pact.names[self.pact.rank])
                self.context.journal.replicas(step, self._equal.told())
            return True
        self.replica.buffers.rewind()  # the state that was compared is that before the step
        self._hand_on(right, ill, ill)
        return False

    def _begin(self) -> None:
        """Nobody has a state: from the newest sound checkpoint, or the weights that rank 0 made.

        Raises:
            TornState: this worker is in the middle of an evaluation, which its loop cannot go back from.
        """
        if self.busy:
            raise TornState("the worker that handed its state on died half way, in an evaluation")
        context, pact, replica = self.context, self.pact, self.replica
        self._owed = None
        self.lineage, self._abreast, self._of = vote.lineage_of(pact.names[0]), False, ""
        self._equal.clear()
        if pact.rank == 0:
            with self.account("regroup", At.RESTORING):
                context.trouble("restore", replica.model, replica.step)
                self._restore()
        if pact.size > 1:
            if pact.rank == 0 and self.carried is not None:
                self.carried.begin()
            with self.account("regroup", At.RESTORING):
                self._hand_on(0, list(range(1, pact.size)), [])
        if self.carried is not None and (pact.rank or pact.size == 1):
            self.carried.begin()
        if self.start:
            self.said.miss()
        replica.whole = True  # not before: where the handing on breaks off, this is no begin, and comes once more
        self.standing = max(self.standing, Standing.ABREAST)
        self.start = pact.generation
        self._made = context.keeping.made(pact.generation) if context.keeping is not None else ""
        context.journal.restart(pact.generation, bool(self._of))
        context.journal.began(replica.step, self.total_steps, self.order.steps_per_epoch, self._made, self._of)
        self.members.began(replica.step)
        self.begun()
        if context.keeping is not None:
            context.keeping.restart()
            self.keep_if_due()

    def _restore(self) -> None:
        """From the nearest good copy of the newest state.

        Raises:
            TornState: there is none, and this worker's state is not that of the beginning any more.
        """
        saved = self._take_kept()
        if saved is None:
            self._restore_saved()
            saved = self.replica.step
        self.saver.begin(saved)

    def _take_kept(self) -> int | None:
        """From what a keeper holds, if that is newer than the newest checkpoint; returns that one's step, or None."""
        context, replica = self.context, self.replica
        records = context.journal.records() if context.keeping is not None else None
        if context.keeping is None or records is None:
            return None
        saved, say = cache(self.saver.newest_step), context.journal.note
        kept = nearest(context.keeping, records, self.total_steps, saved, say)
        if kept is None:
            return None
        replica.torn = True
        try:
            replica.take(kept.tree["given"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:  # the task was changed, say
            say(f"passed over a state of step {kept.step} that a keeper held: {str(error).splitlines()[0]}")
            return None
        finally:
            replica.whole = False  # until all have it
        replica.outcome = replace(replica.outcome, stopping=False, left=False, early=False, finished="")  # seen anew
        context.journal.find(kept.journal(), records["start"])
        self._of = str(kept.about["made"])
        return max(0, saved())

    def _restore_saved(self) -> None:
        """From the newest sound checkpoint, if there is one.

        Raises:
            TornState: there is none, and this worker's state is not that of the beginning any more.
        """
        replica, job = self.replica, self.job
        checkpoint, parts, passed_over = self.saver.restore(replica.names())
        for reason in passed_over:
            self.context.journal.note(f"passed over a damaged checkpoint: {reason}")
        if checkpoint is None:
            if replica.torn:
                raise TornState("the worker that handed its state on died half way, and there is no checkpoint")
            return
        origin = checkpoint.facts.get(ORIGIN)
        anew = checkpoint.facts.get("total_steps") != self.total_steps
        if origin is not None:  # one of the job's by name is what it is at that step; of any other the state is taken
            anew |= not origin["exact"] or (job.schedule is not None and job.schedule.name in SCHEDULES)
        try:
            steps = min(checkpoint.step, self.total_steps) if anew else None
            replica.load(parts, steps=steps, options=origin is not None and not origin["exact"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadCheckpoint(
                f"checkpoint {checkpoint.where} does not fit the task's model or optimiser",
                str(error).splitlines()[0],
                "Put the task back as it was when the run began, or start a new run.",
            ) from error
        replica.step, replica.torn = checkpoint.step, False
        metrics = dict(checkpoint.facts.get("metrics", {}))
        evaluated = checkpoint.step if metrics else -1
        replica.outcome = Outcome(metrics=metrics, evaluated_step=evaluated, names=replica.outcome.names)

    def _pause(self) -> None:
        """All are about to be taken away: nothing may be lost with them. (What is in the middle of a step is no state
        to go on from: the step's beginning is not there any more.)"""
        alone = not self._in_parts
        # What is common is as at a round's beginning; the user's own state is where the loop is.
        alone &= self.rounds is None or self.rounds.between or not self.replica.registers
        if self.replica.whole and self.pact.rank == 0 and not self.replica.passes and alone:
            self.make_safe("all workers are being taken away")

    # Steps

    def begin_step(self) -> None:
        """Whatever is drawn outside of lanes follows the step, on every worker alike."""
        self.members.at = At.USER
        seed("step", self.job.seed, self.replica.step)

    def halt(self) -> None:
        """All leave before the step that was under way: somebody's loop is over. Nothing of it was applied."""
        self.context.ledger.abandon(now())
        self.replica.buffers.rewind()
        self.replica.exchanges += 1
        outcome = self.replica.outcome
        outcome.stopping = outcome.early = outcome.left = self.left = True

    def advance(self) -> None:
        """A pass is applied that is not the step's last."""
        self.replica.passes += 1
        self.replica.exchanges += 1
        self.context.ledger.commit(now())

    def commit(self) -> None:
        """The step's update is applied; of several, the last."""
        replica, at = self.replica, now()
        replica.samples.add(replica.step, self.tail.digests())
        replica.step += 1
        replica.exchanges += 1
        replica.passes = 0
        self.said.compared()
        replica.outcome.stopping, self.news = self.tail.stopping(), self.tail.news()
        self._save_agreed = self.held is not None and self.tail.saving()
        replica.outcome.early = self.tail.own_end()
        self.context.ledger.commit(at)
        self.members.committed(self.pact, replica.step, at - self._committed_at, self._first)
        if self._first:  # with these lanes
            self.footprint.say()
        self._first, self._committed_at, self._compiled = False, at, True

    def commit_alone(self, until: int) -> None:
        """The replicas carried here have made their updates up to, not including, this step, or let those be that are
        left of the round; after its last, all have met."""
        rounds, replica, at = self.rounds, self.replica, now()
        assert rounds is not None
        while replica.step < until:
            replica.updates.step_schedules(sometimes=True)
            replica.step += 1
        self.context.ledger.commit(at)
        if rounds.met:
            rounds.open()
        self.members.committed(self.pact, replica.step, at - self._committed_at, self._first)
        self._first, self._committed_at, self._compiled = False, at, True

    # Checkpoints

    def save(self, reason: str) -> None:
        """Take a checkpoint of this moment, together with the others; it is written in the background."""
        self.settle()
        replica = self.replica
        if self.rounds is not None and not self.rounds.ready:
            self.rounds.wanted = reason  # as soon as there is a state that is common to all
            return
        if self.held is not None and not self.held.gathered:
            self._wanted = reason  # after the next step, when all have agreed to it
            return
        with self.account("checkpoint"):
            arguments = (replica.step, self._snapshot, self._facts(), reason, replica.names(), self._together())
            begun = self.saver.save(*arguments)
        if begun:
            self.context.trouble("checkpoint", replica.model, replica.step)
            self.saved()
        if self.held is not None:
            self.held.forget()
        self.footprint.due(now())

    def _together(self) -> Together | None:
        """Whom a checkpoint is written with. The attempt's name is the same on all: no generation comes again in an
        epoch, and none saves a step twice."""
        pact = self.pact
        if pact.size == 1 or self._in_parts:
            return None  # of what replicas keep for themselves only the one that leads has all
        return Together(Share(pact.rank, pact.size), f"g{pact.generation:06d}-{pact.size}")

    def _snapshot(self) -> dict[str, Any]:
        return self.replica.snapshot() if self.carried is None else self.carried.snapshot()

    @property
    def _at(self) -> int:
        """The step of the state that is common to all."""
        return self.replica.step if self.rounds is None else self.rounds.start

    def _facts(self) -> dict[str, Any]:
        replica, outcome = self.replica, self.replica.outcome
        cursor = self.order.cursor(self._at)
        return {
            "run": self.context.run,
            "cursor": {"seed": cursor.seed, "epoch": cursor.epoch, "step": cursor.step},
            "samples_sha256": replica.samples.hexdigest(),
            "metrics": outcome.metrics if outcome.evaluated_step == self._at else {},
            "total_steps": self.total_steps,
            "workers": self.pact.size,
        }

    def save_if_due(self) -> None:
        """As the job says, and as the lead asks."""
        replica = self.replica
        if self.rounds is not None:
            if self.rounds.wanted is not None and self.rounds.between:
                wanted, self.rounds.wanted = self.rounds.wanted, None
                if replica.step in self.context.save_at and replica.step != self.saver.saved_step:
                    with self.account("checkpoint", At.SAVING):
                        self.saver.finish()  # this one is not left out
                self.save(wanted)
            return
        if self.held is not None:
            self._save_kept()
            return
        evaluated = replica.outcome.evaluated_step == replica.step
        if replica.step in self.context.save_at and replica.step != self.saver.saved_step:
            with self.account("checkpoint", At.SAVING):
                self.saver.finish()  # this one is not left out
            self.save("for another run")
            return
        reason = self.saver.due(replica.step, now(), evaluated, self.members.save_wanted)
        if reason is not None:
            self.save(reason)

    def save_due(self) -> bool:
        """Whether the worker that leads has a checkpoint taken after the step that is under way, where all must do it
        together."""
        if self.held is None or self.pact.rank:
            return False
        step = self.replica.step + 1
        due = self.saver.due(step, now(), False, self.members.save_wanted or self._wanted)
        return due is not None or step in self.context.save_at

    def _save_kept(self) -> None:
        assert self.held is not None
        agreed, self._save_agreed = self._save_agreed, False
        if not agreed or self.replica.outcome.stopping:
            return
        try:
            with self.account("checkpoint", At.SAVING):
                self.held.gather()
        except PeerLost as error:  # the next one comes; the others are found before the next step
            self.members.lost(self.pact, error)
            return
        due = self.saver.due(self.replica.step, now(), False, self.members.save_wanted or self._wanted)
        self._wanted = None
        self.save(due or "asked for")

    @property
    def _in_parts(self) -> bool:
        """Whether each worker has a part of the state."""
        return self.held is not None or (self.rounds is not None and self.rounds.keeps)

    def keep_if_due(self) -> None:
        """In the node's memory, as the job says and as it costs."""
        keeping, replica = self.context.keeping, self.replica
        if self._in_parts or (self.rounds is not None and not self.rounds.between):
            return
        if keeping is not None and keeping.due(replica.step, now()):
            with self.account("checkpoint"):
                self._keep(keeping)

    def _keep(self, keeping: Keeping) -> bool:
        self.settle()
        context, replica = self.context, self.replica
        journal = context.journal.kept()

        def tree() -> dict[str, Any]:
            return {"given": replica.given(), "journal": as_bytes(journal)}

        about = {"made": self._made, "total_steps": self.total_steps}
        about |= {"start": journal["start"], "whole_from": journal["whole_from"]}
        done = keeping.keep(replica.step, tree, about)
        if done:
            context.trouble("kept", replica.model, replica.step)
        return done

    def hold(self) -> None:
        """Where the run is to go on later from here: have this state in the node's memory, if there is a keeper."""
        context, keeping = self.context, self.context.keeping
        if keeping is None or self.members.leaving != PAUSED or self._in_parts:
            return
        context.goes_on = True
        with self.account("checkpoint", At.SAVING):
            for _ in range(HOLDS):
                if not keeping.ready() or self._keep(keeping):
                    return

    def make_safe(self, reason: str) -> None:
        """Wait until this state is on the disk, with all records before it."""
        self.settle()
        self.footprint.say()
        replica = self.replica
        with self.account("checkpoint", At.SAVING):
            arguments = (self._at, self._snapshot, self._facts(), reason, replica.names(), self._together())
            before = self.saver.saved_step
            self.saver.end(*arguments)
            if self.pact.rank == 0 and self.saver.saved_step != before:
                self.saved()
            if self.pact.rank == 0:
                self.context.journal.settle()
