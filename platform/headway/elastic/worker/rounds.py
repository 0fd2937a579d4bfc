"""Rounds, as a worker lives through them: its replicas go on by themselves, and meet the others' at the round's end.

Between two steps the model has the common weights, those that the round began with: what is evaluated, saved, compared
and handed to a worker that joins is they. A replica's own are put in place for its lanes alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from headway.core import lanes as lanes_
from headway.core import rounds
from headway.core.digest import WORDS, Chain
from headway.elastic.worker import hollow, said, transfer, vote
from headway.elastic.worker import tail as tails
from headway.elastic.worker.arrivals import Arrivals
from headway.elastic.worker.bodies import Bodies, Body, cloned
from headway.elastic.worker.replica import Words
from headway.elastic.worker.served import Served, age
from headway.errors import BadInput
from headway.strategies import PeerLost
from headway.strategies.kept import Tree
from headway.strategies.outer import Change, DiLoCo, Meeting, Met, Round, meeting, shares

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from headway.elastic.worker.engine import Engine


_PLAIN = (int, float, str, type(None))


@dataclass
class Told:
    """Of one step of one replica. Arrays by lane: the mean loss over the lane's rows, rows, and ids' digests."""

    losses: list[float]
    rows: list[int]
    ids: list[list[int]]
    records: list[list[Any]]
    measured: Any


@dataclass
class Live:
    """A replica that is carried here.

    Args:
        next: the step that it does next.
        body: where it is; None: at the round's beginning, with the common weights.
        optimizer: its optimiser's state, where the body is none; None: the common one.
        told: of each step that it did in the round.
    """

    next: int
    body: Body | None = None
    optimizer: dict[Any, dict[str, Any]] | None = None
    told: list[Told] = field(default_factory=list)
    early: torch.Tensor | None = None
    """Its weights where the round's exchange begins, if that is before the round's end."""


@dataclass
class Pending:
    """A round that may be committed: here, or by those ahead while this worker did not hear the end of it."""

    end: int
    met: Met
    told: dict[int, list[Told]]
    samples: list[str]
    """The chain of samples after each step."""
    rest: torch.Tensor
    counters: list[Any]
    optimizer: Any
    """Structure of the common optimiser's state, from the replica that speaks for it; None: there is none."""
    backups: dict[int, Tree]
    flags: dict[str, Any]
    saved: dict[int, Tree] | None


class Rounds:
    """See the module.

    Args:
        engine: of this worker.

    Raises:
        BadInput: what the loop does cannot be done by replicas.
    """

    def __init__(self, engine: Engine) -> None:
        job, replica = engine.job, engine.replica
        self._engine, self._job, self._options = engine, job, job.strategy
        self.every, self.count = job.strategy.round_steps, job.strategy.count(job)
        self.bodies = Bodies(replica)
        self.served = Served(engine, self.bodies) if job.strategy.is_asynchronous else None
        """Where replicas go on against servers' weights."""
        self._meeting: Meeting = self.served or meeting(job.strategy)
        self.lanes = [list(each) for each in lanes_.carried(job.lanes, self.count)]
        """By replica."""
        if unlike := replica.updates.unlike_one:
            raise BadInput(
                f"strategy={job.strategy.kind} with {unlike}",
                "its replicas go on by themselves, each with one optimiser that makes one update a step",
                "Use all_reduce, or one optimiser like SGD or AdamW.",
            )
        self.start = 0
        """The step at which the round began, which all have reached."""
        self.live: dict[int, Live] = {}
        self.replicas: tuple[tuple[int, ...], ...] = ((),)
        """By rank."""
        self._backups: dict[int, Tree] = {}
        self._pending: Pending | None = None
        self._rates: dict[int, list[dict[str, Any]]] = {}
        """Options of the optimiser's groups by step, of this round."""
        self._began: tuple[Any, Any] = (None, None)
        """The schedule's state and those options at the round's beginning."""
        self._fresh = True
        """Whether all begin anew in this generation."""
        self.wanted: str | None = None
        """Why a checkpoint is to be taken at the round's end."""
        self._saved: dict[int, Tree] = {}
        """All replicas' state, on rank 0, where a checkpoint is due."""
        self._flying: list[Change] | None = None
        """The round's exchange, under way."""
        self._settled_in = -1
        """The round in which members changed last: its exchange begins at its end, where all are."""
        self._arrivals: Arrivals | None = None
        self._complete_at: float | None = None
        """When it was seen that the round has its quorum."""
        self.parted = 0
        """The newest generation for which those that leave have handed over what they have."""
        self._gathered = False
        """Whether rank 0 has all of it."""
        self.met_at = -1
        """The step at whose beginning all met last."""

    # Where it is

    @property
    def met(self) -> bool:
        """Whether all have met at the beginning of the step that this worker's loop is at."""
        return self.met_at == self._engine.replica.step

    @property
    def end(self) -> int:
        """Of the round."""
        return rounds.end(self.start, self.every, self._engine.total_steps)

    @property
    def departs(self) -> int:
        """The step before which the round's exchange begins."""
        return self.end if self.end >= self._engine.total_steps else self.end - self._options.overlap

    @property
    def between(self) -> bool:
        """Whether this worker is at the beginning of a round."""
        return self._engine.replica.step == self.start

    @property
    def keeps(self) -> bool:
        """Whether replicas differ when a round begins."""
        return not self._meeting.averages_state

    @property
    def ready(self) -> bool:
        """Whether a checkpoint can be taken here: else after the next round, at whose end all have agreed to it."""
        return self.between and (self._gathered or not self.keeps)

    @property
    def _backs_up(self) -> bool:
        return self.keeps and self._options.inner_state == "backed_up" and self.served is None

    def mine(self, rank: int) -> tuple[int, ...]:
        """Replicas of a rank."""
        return self.replicas[rank]

    # From generation to generation

    def begin(self) -> None:
        """All begin from a state that was kept, or from the first: what replicas were is forgotten, but for what came
        with that state."""
        step = self._engine.replica.step
        kept = self._engine.replica.kept
        own, kept.own = kept.own, {}
        if self.served is not None:
            self.served.begin({r: tree["range"] for r, tree in own.items() if "range" in tree})
        self.live = {r: self._live_of(r, tree) for r, tree in own.items()}
        self._backups, self._pending, self._fresh = {}, None, True
        self._saved, self._gathered = {}, False
        self._open(step)

    def words(self, averages: bool = False) -> Words:
        """Digest of the common state: that of the round's beginning, wherever a worker is in it. averages: those of
        weights as well, which are where the worker is."""
        rates = [float(group.get("lr", 0.0)) for group in self._began[1]]
        return self._engine.replica.words(rates=rates, averages=averages)

    def given(self, given: dict[str, Any]) -> dict[str, Any]:
        """What is handed to another worker: the common state, as it was at the round's beginning; and where this
        worker's loop is in the round, which is where one that joins begins, with the user's own state as of there."""
        replica = self._engine.replica
        parts = self._as_begun(given["parts"])
        parts["session"]["strategy"] = {"common": replica.kept.common}
        here = {
            "at": replica.step,
            "schedule": self._schedule(),
            "options": _options(replica.optimizer),
            "rates": {str(step): options for step, options in self._rates.items()},
        }
        return {**given, "parts": parts, "step": self.start, "round": here}

    def taken(self, level: bool, at: int | None, here: dict[str, Any]) -> None:
        """This worker has taken the common state of those ahead.

        Args:
            level: its own code is where theirs was, and its replicas are its own.
            at: the step that its loop is at; None: it begins where the source's is.
            here: where that is in the round, see `given`.
        """
        replica, pending = self._engine.replica, self._pending
        start = replica.step
        if level and pending is not None and pending.end == start:
            self._promote(pending)
        elif start != self.start or not level:
            self.live, self._backups = {}, {}
        self._pending, self._saved, self._gathered = None, {}, False
        self._open(start)
        self._rates = {int(step): options for step, options in here["rates"].items()}
        self._go_to(max(start, int(here["at"]) if at is None else at), here)

    def _go_to(self, step: int, here: dict[str, Any]) -> None:
        """Have a loop in the middle of the round, with the rates that there are then."""
        replica = self._engine.replica
        schedule, options = replica.schedule, replica.optimizer.param_groups
        if step == here["at"] or isinstance(schedule, ReduceLROnPlateau):  # that goes by evaluations, which all did
            if schedule is not None:
                schedule.load_state_dict(here["schedule"])
            _set_options(options, here["options"] if step == here["at"] else self._rates.get(step, here["options"]))
            replica.step = step
            return
        while replica.step < step:
            self._note_rates(replica.step)
            replica.updates.step_schedules(sometimes=True)
            replica.step += 1
        if step in self._rates:
            _set_options(options, self._rates[step])

    def settle(self) -> None:
        """The members are others: every replica's state goes to its carrier. Raises PeerLost."""
        engine, pact = self._engine, self._engine.pact
        self.drop()
        self._settled_in = self.start
        self.replicas = tuple(tuple(each) for each in pact.gather(list(pact.units)))
        backups = {r: int(tree["next"]) for r, tree in self._backups.items() if tree["next"] >= self.start}
        live = {r: each.next for r, each in self.live.items()}
        found = [rounds.Has(dict(live), dict(backups)) for live, backups in pact.gather([live, backups])]
        plan, lost = rounds.moves(found, self.replicas, self._backs_up)
        for move in plan:
            self._move(move)
        mine = self.mine(pact.rank)
        for r in mine:
            if r not in self.live:
                self.live[r] = Live(self.start)
        if self.served is not None:
            lost = self.served.settle(self.replicas, {r: self.live[r].next for r in mine})
        if lost and not self._fresh and self.keeps and pact.rank == 0:
            names = ", ".join(map(str, lost))
            engine.context.journal.note(
                f"what replica {names} had of its own is lost: it begins anew from the weights of step {self.start}"
            )
        self.live = {r: self.live[r] for r in mine}
        engine.replica.kept.carry(mine)
        keeps = self.mine((pact.rank - 1) % pact.size) if pact.size > 1 else ()
        self._backups = {r: tree for r, tree in self._backups.items() if r in keeps}
        self._watch_arrivals()
        self._fresh = self._gathered = False

    def _move(self, move: rounds.Move) -> None:
        rank, pact = self._engine.pact.rank, self._engine.pact
        tree: Tree | None = None
        if rank == move.source:
            tree = self._backups[move.replica] if move.copy else self._tree_of(move.replica)
            if move.target != rank:
                pact.give(tree, [move.target])
        elif rank == move.target:
            tree = pact.take(move.source, [move.target], None)
        if rank == move.target and tree is not None:
            if move.backup:
                self._backups[move.replica] = transfer.copied(tree) if move.source == rank else tree
            else:
                taken = transfer.copied(tree) if move.copy else tree
                self.live[move.replica] = self._live_of(move.replica, taken)

    def snapshot(self) -> dict[str, Any]:
        """For a checkpoint, as `Replica.snapshot`: as of the round's beginning, with what replicas have of their
        own."""
        kept = self._engine.replica.kept
        own, kept.own = kept.own, self._saved
        try:
            return self._as_begun(self._engine.replica.snapshot())
        finally:
            kept.own = own

    def _as_begun(self, parts: dict[str, Any]) -> dict[str, Any]:
        """A snapshot with the rates that there were at the round's beginning."""
        session = {**parts["session"], "schedule": self._began[0]}
        return {**parts, "session": session, "optimizer": {**parts["optimizer"], "param_groups": self._began[1]}}

    def gather(self) -> None:
        """At the run's end: have on rank 0 what replicas have of their own. Raises PeerLost."""
        if self.keeps and self.between:
            self._saved = self._gather_all({r: self._tree_of(r) for r in self.live})
            self._gathered = True

    def left(self, met: bool) -> None:
        """All leave; what was not exchanged is given up."""
        replica = self._engine.replica
        if met:
            self.open()
        elif not self.between:
            replica.step = self.start
            if replica.schedule is not None:
                replica.schedule.load_state_dict(self._began[0])
            _set_options(replica.optimizer.param_groups, self._began[1])

    def open(self) -> None:
        """The next round begins."""
        self._open(self._engine.replica.step)

    def _open(self, step: int) -> None:
        optimizer = self._engine.replica.optimizer
        self.start, self._rates, self._complete_at = step, {}, None
        numbers = [group["params"] for group in optimizer.state_dict()["param_groups"]]
        options = zip(_options(optimizer), numbers, strict=True)
        self._began = self._schedule(), [{**each, "params": params} for each, params in options]

    def _schedule(self) -> Any:
        """State of the schedule; copied."""
        return copy.deepcopy(
            self._engine.replica.updates.map(lambda each: each.schedule.state_dict() if each.schedule else None)
        )

    # Trees, which travel and are kept

    def _tree_of(self, r: int) -> Tree:
        live = self.live[r]
        tree: Tree = {"next": live.next, "told": [vars(each) for each in live.told]}
        if live.early is not None:
            tree["early"] = live.early
        if live.body is not None:
            tree["body"] = self.bodies.tree(live.body)
        elif live.optimizer is not None:
            tree["optimizer"] = self.bodies.optimizer_tree(live.optimizer)
        memory = self._engine.replica.kept.own.get(r)
        return {**tree, "memory": memory} if memory else tree

    def _live_of(self, r: int, tree: Tree) -> Live:
        self._engine.replica.kept.own[r] = tree.get("memory", {})
        live = Live(int(tree["next"]), told=[Told(**each) for each in tree.get("told", ())], early=tree.get("early"))
        if "body" in tree:
            live.body = self.bodies.body_of(tree["body"], self.bodies.now())
        elif "optimizer" in tree:
            live.optimizer = self.bodies.optimizer_of(tree["optimizer"])
        return live

    # A quorum

    def _watch_arrivals(self) -> None:
        """Of this generation. Raises PeerLost."""
        if self._arrivals is not None:
            self._arrivals.close()
        self._arrivals, self._complete_at = None, None
        pact = self._engine.pact
        if self._options.quorum is not None and self._options.quorum < self.count and pact.size > 1:
            self._arrivals = Arrivals(pact, self._engine.members.address, self.replicas)

    def late(self) -> bool:
        """Whether the round has its quorum without this worker, and for longer than it waits for the others: what its
        replicas have done until now counts in it, and they go on with the next."""
        arrivals, quorum = self._arrivals, self._options.quorum
        if arrivals is None or quorum is None or not all(each.told for each in self.live.values()):
            return False
        if arrivals.there(self.start) < quorum:
            return False
        self._complete_at = self._complete_at or time.monotonic()
        return time.monotonic() - self._complete_at >= self._options.grace_s

    def close(self) -> None:
        """The session is over."""
        self.drop()
        if self._arrivals is not None:
            self._arrivals.close()
        if self.served is not None:
            self.served.close()

    # Steps

    def due(self, step: int) -> Iterator[tuple[int, int]]:
        """What is to be done for this step, as replica and step: one of each replica, and more of those that are
        behind. Each is to be told by `did` before the next."""
        self._note_rates(step)
        served = self.served
        while behind := [r for r, live in self.live.items() if live.next <= step]:
            r = min(behind, key=lambda r: (at := self.live[r].next, r if served is None else served.turn(r, at)))
            live = self.live[r]
            if served is not None and live.next < (reached := min(served.reached, self.end)):
                live.told += [_nothing(self.lanes[r])] * (reached - live.next)
                live.next = reached
                continue
            yield r, live.next

    def _note_rates(self, step: int) -> None:
        self._rates[step] = _options(self._engine.replica.optimizer)

    @contextmanager
    def carrying(self, r: int, step: int) -> Iterator[None]:
        """A replica is in the model's place, with the rates of a step."""
        live, bodies = self.live[r], self.bodies
        common = bodies.now()
        if live.body is None:
            optimizer = common.optimizer if live.optimizer is None else live.optimizer
            live.body = bodies.copy(Body(common.weights, common.buffers, optimizer))
            live.optimizer = None
        groups = self._engine.replica.optimizer.param_groups
        rates = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        bodies.put(live.body)
        for group, options in zip(groups, self._rates[step], strict=True):
            group.update(options)
        try:
            yield
            self._require_alike(groups, self._rates[step])
        finally:
            live.body = bodies.now()
            bodies.put(common)
            for group, options in zip(groups, rates, strict=True):
                group.update(options)

    def _require_alike(self, groups: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
        """Raises BadInput: something is kept in the optimiser's groups, which all replicas share."""
        for group, options in zip(groups, before, strict=True):
            odd = [key for key, value in options.items() if isinstance(value, _PLAIN) and group.get(key) != value]
            odd += sorted(group.keys() - options.keys() - {"params"})
            if odd:
                raise BadInput(
                    f"{', '.join(odd)} of the optimiser's groups changed in a replica's step, "
                    f"with {type(self._engine.replica.optimizer).__name__}",
                    f"strategy={self._options.kind} has replicas that go on by themselves, each with the state of its "
                    "parameters; what is kept in the groups would be one for all",
                    "Use all_reduce, or an optimiser like SGD or AdamW.",
                )

    def did(self, r: int, tail: tails.Tail, rows: int, counts: bool) -> float:
        """A replica has made an update. tail: of its lanes; rows: of these lanes; counts: it is used, else left out of
        what is told. Returns its loss."""
        lanes, losses, of = self.lanes[r], tail.losses(), tail.rows_by_lane()
        means = [losses[lane] * rows / of[lane] if of[lane] else 0.0 for lane in lanes]
        ids = tail.digests()
        values = tails.floats(tail.unnamed.values())
        records = [[name, lane, value] for (name, lane), value in zip(tail.unnamed, values, strict=True)]
        measures = self._engine.replica.measured.measures
        measured = {lane: measures.states(copies) for lane, copies in tail.measured.items()}
        told = Told(
            means,
            [of[lane] for lane in lanes],
            [ids[lane].tolist() for lane in lanes],
            records,
            hollow.written(measured) if measured else None,
        )
        live = self.live[r]
        live.told.append(told if counts else _nothing(lanes))
        live.next += 1
        if live.next == self.departs < self.end:
            live.early = self.bodies.flat(self.bodies.now())
        return sum(losses[lane] for lane in lanes)

    # The end of a round

    def depart(self) -> None:
        """All replicas that are carried here are where the round's exchange begins: have it under way, unless members
        changed in this round, so that some may have been there before."""
        if self._settled_in == self.start or self.departs == self.end or not isinstance(self._meeting, DiLoCo):
            return
        order = self._engine.order
        rows = [
            sum(order.sizes(order.cursor(step).step)[lane] for step in range(self.start, self.end) for lane in lanes)
            for lanes in self.lanes
        ]
        given = self._given(False, rows, {r: self._body(r) for r in self.live})
        self._flying = self._meeting.begin(given, self._engine.replica.kept)

    def drop(self) -> None:
        """What is under way is broken off."""
        for each in self._flying or ():
            each.drop()
        self._flying = None

    def _given(self, last: bool, rows: list[int], mine: dict[int, Body]) -> Round:
        bodies, common = self.bodies, self.bodies.now()
        now = {r: bodies.flat(body) for r, body in mine.items()}
        ends: dict[int, torch.Tensor] = {}
        for r, each in now.items():
            early = self.live[r].early
            ends[r] = each if early is None else early
        return Round(
            number=self.start // self.every,
            last=last,
            start=bodies.flat(common),
            ends=ends,
            now=now,
            shapes=bodies.shapes,
            shares=shares(rows),
            replicas=self.replicas,
            group=self._engine.pact.group,
        )

    def meet(self, step: int) -> bool:
        """All replicas that are carried here have done `step`, the last of the round (or the loop is over before it):
        meet the others. Returns False where all leave instead.

        Raises:
            PeerLost: a member is gone; nothing has changed.
        """
        pact = self._engine.pact
        if self._arrivals is not None:
            self._arrivals.tell(self.start)
        at = {each.next for each in self.live.values()} or {step + 1}
        found = pact.gather(self._flags(at.pop() if len(at) == 1 else -1))  # unlike ones where loops end early
        if any(not isinstance(each, dict) for each in found):
            return False  # somebody is at an evaluation instead
        halting = [each["halting"] for each in found]
        if any(halting) and (not all(halting) or len({each["next"] for each in found}) > 1):
            return False
        end = max(each["next"] for each in found)
        if end <= self.start:
            return False
        self._vote(found)
        told = {int(r): self._read(each) for each in found for r, each in each["told"].items()}
        unequal = said.difference([each["said"] for each in found])
        if unequal is not None:
            raise unequal
        self._pending = pending = self._met(end, found, told)
        pact.seal()  # all have all of it: from here on it counts, also for who does not hear of it
        self._commit(pending)
        return True

    def _flags(self, at: int) -> dict[str, Any]:
        engine = self._engine
        due = engine.job.replica_check_every
        check = due is not None and engine.pact.size > 1 and (self.start % due == 0 or self.start // due != at // due)
        judged = engine.context.validation is not None and self._judged_after(at - 1)
        reason = engine.saver.due(at, time.monotonic(), judged, engine.members.save_wanted) or self.wanted
        if at in engine.context.save_at:
            reason = "for another run"
        return {
            "next": at,
            "halting": engine.halting,
            "stays": list(engine.members.staying or ()),
            "stop": engine.context.journal.stop_requested or bool(engine.members.leaving) or engine.stop_asked,
            "own": engine.stop_asked,
            "said": engine.said.told,
            "words": [engine.lineage, self.words(averages=True).tobytes().hex()] if check else None,
            "save": reason if engine.pact.rank == 0 else None,
            "shape": self._shape(),
            "counters": self.bodies.counters(self._body(0)) if 0 in self.live else None,
            "told": {str(r): self._written(live.told) for r, live in self.live.items()},
        }

    def _shape(self) -> dict[str, Any]:
        """Of the state that is averaged, by replica."""
        return {
            str(r): self.bodies.shape_of_rest(self._body(r), self._meeting.averages_state) for r in sorted(self.live)
        }

    def _body(self, r: int) -> Body:
        """Where a replica is."""
        live = self.live[r]
        if live.body is not None:
            return live.body
        common = self.bodies.now()
        return Body(common.weights, common.buffers, common.optimizer if live.optimizer is None else live.optimizer)

    def _vote(self, found: list[dict[str, Any]]) -> None:
        """Compare the common state. Raises PeerLost: a replica was ill, and is healed."""
        if any(each["words"] is None for each in found) or len(found) < 2:
            return
        engine = self._engine
        votes = [(int(lineage), bytes.fromhex(words)) for lineage, words in (each["words"] for each in found)]
        _, ill = vote.verdict(votes, engine.replica.step)
        if ill and engine.pact.rank in ill:  # what its replicas made of ill weights is worth nothing
            self.live, self._backups = {}, {}
        if not engine.heal(votes):
            raise PeerLost("a worker's weights were not the others'")

    def _met(self, end: int, found: list[dict[str, Any]], told: dict[int, list[Told]]) -> Pending:
        """Exchange; nothing changes but what is returned. Raises PeerLost."""
        bodies, kept = self.bodies, self._engine.replica.kept
        pact = self._engine.pact
        rows = [sum(sum(each.rows) for each in told.get(r, ())) for r in range(self.count)]
        mine = {r: self._body(r) for r in self.live}
        last = end >= self._engine.total_steps or any(each["own"] or each["halting"] for each in found)
        given = self._given(last, rows, mine)
        with pact.waiting():
            if isinstance(self._meeting, DiLoCo):
                flying, self._flying = self._flying, None
                met = self._meeting.meet(given, kept, flying)
            else:
                met = self._meeting.meet(given, kept)
            averaged = self._meeting.averages_state
            shapes = {int(r): shape for each in found for r, shape in each["shape"].items()}
            if len({str(shape) for shape in shapes.values()}) > 1:
                raise BadInput(
                    "replicas differ in what their optimisers keep",
                    "some parameters were used by some replicas only in this round, and the optimisers' state is to be "
                    "averaged",
                    "Set strategy.average to weights.",
                )
            rest = given.mean({r: bodies.rest(body, averaged) for r, body in mine.items()})
        stays = rounds.staying(
            [(each["stays"][0], each["stays"][1]) if each["stays"] else None for each in found], pact.names
        )
        backups = self._send_backups(mine, met, end, stays)
        if self.served is not None:
            self.served.leave(self.replicas, stays)
        counters: list[Any] = next((each["counters"] for each in found if each["counters"] is not None), [])
        reason = found[0]["save"]
        saved = None
        if reason is not None and self.keeps:
            saved = self._gather_all({r: self._after(r, body, met, end) for r, body in mine.items()})
        flags = {"stop": any(each["stop"] for each in found), "own": any(each["own"] for each in found), "save": reason}
        flags["parted"] = max((each["stays"][0] for each in found if each["stays"]), default=0)
        optimizer = None
        if averaged and mine:
            optimizer = mine[min(mine)].optimizer
        samples = self._samples(told, end)
        return Pending(end, met, told, samples, rest, counters, optimizer, backups, flags, saved)

    def _after(self, r: int, body: Body, met: Met, end: int) -> Tree:
        """A replica's state as the next round begins."""
        tree: Tree = {"next": end, "told": []}
        if r in met.own:
            weights = [w.clone() for w in body.weights]
            self.bodies.spread(met.own[r], weights)
            tree["body"] = self.bodies.tree(Body(weights, body.buffers, body.optimizer))
        else:
            tree["optimizer"] = self.bodies.optimizer_tree(body.optimizer)
        return {**tree, "memory": met.memories[r]} if r in met.memories else tree

    def _send_backups(self, mine: dict[int, Body], met: Met, end: int, stays: frozenset[int]) -> dict[int, Tree]:
        """To who keeps copies of each carrier's replicas, in turn; of those that are about to leave in any case.
        Returns those that are kept here. Raises PeerLost."""
        pact = self._engine.pact
        got: dict[int, Tree] = {}
        for rank, replicas in enumerate(self.replicas):
            leaves = rank not in stays and self.served is None and self.keeps
            keeper = rounds.keeper(rank, pact.size, stays) if self._backs_up or leaves else None
            if keeper is None:
                continue
            if pact.rank == rank:
                pact.give({str(r): self._after(r, mine[r], met, end) for r in replicas}, [keeper])
            elif pact.rank == keeper:
                got |= {int(r): tree for r, tree in pact.take(rank, [keeper], None).items()}
        return got

    def _gather_all(self, trees: dict[int, Tree]) -> dict[int, Tree]:
        """All replicas' state at rank 0, for a checkpoint; nothing on others. Raises PeerLost."""
        trees = dict(trees)
        for r, tree in (self.served.trees() if self.served is not None else {}).items():
            # Also a range whose replica is elsewhere: who had the copy may have become its carrier on the way.
            trees[r] = {**trees.get(r, {}), "range": tree}
        whole: dict[int, Tree] = {}
        for each in self._engine.pact.collect({str(r): tree for r, tree in trees.items()}):
            for r, tree in each.items():
                whole[int(r)] = _both(whole.get(int(r), {}), tree)
        return whole

    @torch.no_grad()
    def _commit(self, pending: Pending) -> None:
        engine, replica = self._engine, self._engine.replica
        common = self.bodies.now()
        if pending.met.common is not None:
            self.bodies.spread(pending.met.common, common.weights)
        if pending.optimizer is not None:
            common.optimizer = cloned(pending.optimizer)
        self.bodies.spread_rest(pending.rest, common, self._meeting.averages_state)
        self.bodies.set_counters(pending.counters, common)
        self.bodies.put(common)
        replica.kept.common = pending.met.kept
        self._promote(pending)
        for number, step in enumerate(range(self.start, pending.end)):
            replica.measured.add(self._measured(pending, number))
            if self._judged_after(step):
                measured = replica.measured.recorded()
                if measured.values or measured.tables:
                    tables = [measured.tables] if measured.tables else []
                    engine.context.journal.recorded(step, measured.values, *tables)
        replica.samples = Chain(pending.samples[-1])
        replica.exchanges += 1
        outcome = replica.outcome
        outcome.stopping |= pending.flags["stop"]
        outcome.early = pending.flags["own"]
        engine.said.compared()
        self._saved, self._gathered = pending.saved or {}, pending.saved is not None
        self.wanted = pending.flags["save"]
        self.parted = max(self.parted, pending.flags["parted"])
        self._pending, self.met_at = None, pending.end

    def _promote(self, pending: Pending) -> None:
        """What is this worker's own of a round that is committed, here or by those ahead."""
        for r in self.live:
            state = self._body(r).optimizer if self.keeps else None
            body = None
            if r in pending.met.own:
                body = self._body(r)
                self.bodies.spread(pending.met.own[r], body.weights)
            self.live[r] = Live(pending.end, body, None if body is not None else state)
        kept = self._engine.replica.kept
        kept.own = {r: pending.met.memories.get(r, {}) for r in self.live}
        self._backups = pending.backups
        self._tell(pending)

    def _tell(self, pending: Pending) -> None:
        """Record the round's steps."""
        engine, order, outcome = self._engine, self._engine.order, self._engine.replica.outcome
        rates = self._rates[max(self._rates)]  # of steps that were not done here
        for number, step in enumerate(range(self.start, pending.end)):
            cursor = order.cursor(step)
            each = [_told(pending.told[r], number, self.lanes[r]) for r in range(self.count)]
            rows = sum(sum(one.rows) for one in each)
            lanes = [pair for one in each for pair in zip(one.losses, one.rows, strict=True)]
            outcome.losses = [loss * of / rows if rows else 0.0 for loss, of in lanes]
            outcome.records = _means(each, self.lanes)
            if outcome.records:
                engine.context.journal.recorded(step, outcome.records)
            rate = float(self._rates.get(step, rates)[0].get("lr", 0.0))
            asked = sum(order.sizes(cursor.step))
            samples = pending.samples[number]
            engine.context.journal.step(step, cursor.epoch, sum(outcome.losses), rate, asked, samples)
        if pending.met.figures:
            engine.context.journal.recorded(pending.end - 1, pending.met.figures)

    def _judged_after(self, step: int) -> bool:
        """Whether evaluations are made after a step, as the job says."""
        order, every, done = self._engine.order, self._job.evaluate_every_steps, step + 1
        last = order.cursor(max(0, step)).step + 1 == order.steps_per_epoch
        return (done % every == 0 if every else last) or done == self._engine.total_steps

    def _measured(self, pending: Pending, number: int) -> list[dict[str, Any]]:
        """States of metrics that the lanes updated, in their order."""
        written = (_told(pending.told[r], number, self.lanes[r]).measured for r in range(self.count))
        by_lane = {lane: state for each in written if each for lane, state in hollow.read(each).items()}
        return [by_lane[lane] for lane in sorted(by_lane)]

    def _samples(self, told: dict[int, list[Told]], end: int) -> list[str]:
        """The chain of samples after each step of the round."""
        chain, found = Chain(self._engine.replica.samples.hexdigest()), []
        for number, step in enumerate(range(self.start, end)):
            words = [row for r in range(self.count) for row in _told(told[r], number, self.lanes[r]).ids]
            chain.add(step, np.array(words, dtype=np.uint16))
            found.append(chain.hexdigest())
        return found

    @staticmethod
    def _written(told: list[Told]) -> dict[str, Any]:
        """In few bytes."""
        return {
            "losses": np.array([each.losses for each in told], dtype=np.float64),
            "rows": np.array([each.rows for each in told], dtype=np.int32),
            "ids": np.array([each.ids for each in told], dtype=np.uint16),
            "records": [each.records for each in told] if any(each.records for each in told) else None,
            "measured": [each.measured for each in told] if any(each.measured for each in told) else None,
        }

    @staticmethod
    def _read(found: dict[str, Any]) -> list[Told]:
        steps = len(found["losses"])
        records = found["records"] or [[]] * steps
        measured = found["measured"] or [None] * steps
        numbers = zip(found["losses"].tolist(), found["rows"].tolist(), found["ids"].tolist(), strict=True)
        return [Told(*each, *more) for each, *more in zip(numbers, records, measured, strict=True)]


def _told(told: list[Told], number: int, lanes: list[int]) -> Told:
    """Of a step of the round; nothing of one that a late replica did not do."""
    if number < len(told):
        return told[number]
    return _nothing(lanes)


def _nothing(lanes: list[int]) -> Told:
    """Of a step that a replica left out."""
    return Told([0.0] * len(lanes), [0] * len(lanes), [[0] * WORDS for _ in lanes], [], None)


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Of its groups; copied, for a rate may be a tensor that a schedule fills."""
    return [copy.deepcopy({k: v for k, v in group.items() if k != "params"}) for group in optimizer.param_groups]


def _set_options(groups: list[dict[str, Any]], options: list[dict[str, Any]]) -> None:
    for group, each in zip(groups, options, strict=True):
        group.update({key: copy.deepcopy(value) for key, value in each.items() if key != "params"})


def _both(one: Tree, other: Tree) -> Tree:
    """What two workers have of a replica and of its range; of the range the newest."""
    found = {**one, **other}
    ranges = [each["range"] for each in (one, other) if "range" in each]
    return {**found, "range": max(ranges, key=age)} if ranges else found


def _means(told: list[Told], lanes: list[list[int]]) -> dict[str, float]:
    """Of what lanes recorded, over the rows of those that did."""
    rows = {lane: n for one, of in zip(told, lanes, strict=True) for lane, n in zip(of, one.rows, strict=True)}
    found: dict[str, dict[int, float]] = {}
    for name, lane, value in (record for one in told for record in one.records):
        found.setdefault(name, {})[lane] = value
    weights = {name: sum(rows[lane] for lane in by_lane) for name, by_lane in found.items()}
    return {
        name: sum(by_lane[lane] * rows[lane] for lane in sorted(by_lane)) / weights[name]
        for name, by_lane in sorted(found.items())
        if weights[name]
    }
