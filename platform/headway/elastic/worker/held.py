"""What a strategy keeps of replicas or ranges, where they are carried: it goes where they go, and into checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headway.core import rounds
from headway.elastic.worker.tables import Tables
from headway.errors import BadInput
from headway.strategies import PeerLost, Strategy, create
from headway.strategies.compressed import Compressed
from headway.strategies.kept import Kept, Tree
from headway.strategies.parameter_server.embedding import tables

if TYPE_CHECKING:
    from headway.elastic.worker.engine import Engine
    from headway.strategies.group import Group


class Held:
    """Of a strategy whose workers exchange in every step, and keep what is not the same on all.

    Args:
        engine: of this worker.

    Raises:
        BadInput: what the loop does cannot be done by it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._options = engine, engine.job.strategy
        self.serves = self._options.kind == "parameter_server"
        """Whether the strategy makes the update itself, range by range."""
        self.carried: tuple[tuple[int, ...], ...] = ((),)
        """Replicas, or ranges, by rank."""
        self.engaged: Strategy | None = None
        """That in whose exchange this worker is, or was last."""
        self._saved: tuple[Any, dict[int, Tree]] | None = None
        """On rank 0, for a checkpoint: the optimiser's state, and what is kept of all replicas."""
        if unlike := engine.replica.updates.unlike_one:
            raise BadInput(
                f"strategy={self._named} with {unlike}",
                "what it keeps from step to step belongs to one update of a step",
                "Use all_reduce without compression, or one optimiser like SGD or AdamW.",
            )
        if self.serves and engine.replica.clip is not None:
            raise BadInput(
                "session(clip=...) with strategy=parameter_server",
                "no worker has the whole gradient, which that function is to limit",
                "Set clip_norm in the job.",
            )
        if self.serves:
            from headway.strategies.parameter_server import Cut, is_elementwise

            self._cut = Cut(engine.replica.known, engine.job.units, whole=not is_elementwise(engine.replica.optimizer))
        self.tables: Tables | None = None
        """Of which only rows travel."""
        if self._options.sparse:
            self.tables = Tables(engine, tables(engine.replica.model, self._options.sparse))

    @property
    def _named(self) -> str:
        return "parameter_server" if self.serves else f"all_reduce with {self._options.compression.kind}"

    def strategy(self, group: Group | None) -> Strategy:
        """For what is trained now."""
        engine, job, kept = self._engine, self._engine.job, self._engine.replica.kept
        sizes = {"lanes": job.lanes, "tail": engine.tail.size, "changes": engine.replica.buffers.size, "group": group}
        if not self.serves:
            found = create(
                self._options,
                engine.replica.trainable,
                reproducible=job.reproducible,
                replicas=self.carried,
                kept=kept,
                **sizes,
            )
        else:
            from headway.strategies.parameter_server import Ranged

            bitwise = job.reproducible == "bitwise"
            found = Ranged(
                self._cut,
                engine.replica.trainable,
                carried=self.carried,
                kept=kept,
                bitwise=bitwise,
                fail_over=self._options.fail_over,
                **sizes,
            )
        self.engaged = found
        return found

    # From generation to generation

    def begin(self) -> None:
        """All begin from a state that was kept, or from the first."""
        kept = self._engine.replica.kept
        if self.serves:  # the optimiser has all of it, but for rows of tables
            kept.common.pop("at", None)
            rows, kept.own = kept.own, {}
            if self.tables is not None:
                self.tables.begin(rows)
        kept.backups, kept.doubtful, self.engaged = {}, {}, None

    def levelled(self) -> None:
        """This worker takes the state of those ahead, who have applied the update that it was at."""
        kept, engaged = self._engine.replica.kept, self.engaged
        if self.tables is not None:
            self.tables.levelled()
        if self.serves or engaged is None:
            return
        assert isinstance(engaged, Compressed)
        known = engaged.exchange.summed
        engaged.commit()
        if not known:  # nor what was left out of what it sent
            kept.own = {number: {} for number in kept.own}

    def settle(self) -> None:
        """The members are others: what is kept goes to whoever carries it now.

        Raises:
            PeerLost: a member is gone; or what is lost cannot be replaced, and all begin anew.
        """
        engine, pact, kept = self._engine, self._engine.pact, self._engine.replica.kept
        self.carried = tuple(tuple(each) for each in pact.gather(list(pact.units)))
        if self.serves:
            from headway.strategies.parameter_server import hand_over

            with pact.waiting():
                lost = hand_over(pact.group, self.carried, kept, engine.replica.device, self._options.fail_over)
            rows = self.tables.settle(self.carried) if self.tables is not None else []
            if lost or rows:
                engine.replica.whole, engine.replica.torn = False, True
                if pact.rank == 0:
                    what = f"ranges {lost}" if lost else f"rows of {', '.join(rows)}"
                    engine.context.journal.note(
                        f"workers and those that had their copies are gone together: {what} are lost, and all go on "
                        "from a checkpoint"
                    )
                raise PeerLost("ranges of the parameter server are lost")
            return
        self._move(self.carried)
        kept.carry(self.carried[pact.rank])

    def leave(self) -> None:
        pact, kept, engine = self._engine.pact, self._engine.replica.kept, self._engine
        told = pact.gather(list(engine.members.staying or ()))
        stays = sorted(rounds.staying([(each[0], each[1]) if each else None for each in told], pact.names))
        if not 0 < len(stays) < pact.size:
            return
        left = [number for rank, numbers in enumerate(self.carried) if rank not in stays for number in numbers]
        carried = [list(numbers) if rank in stays else [] for rank, numbers in enumerate(self.carried)]
        for place, number in enumerate(left):
            carried[stays[place % len(stays)]].append(number)
        carried = [sorted(numbers) for numbers in carried]
        if self.serves:
            from headway.strategies.parameter_server import hand_over

            with pact.waiting():
                hand_over(pact.group, carried, kept, engine.replica.device, self._options.fail_over)
        else:
            self._move(carried)

    def _move(self, carried: Sequence[Sequence[int]]) -> None:
        """What replicas left out goes to who carries them now. Raises PeerLost."""
        pact, kept = self._engine.pact, self._engine.replica.kept
        found = pact.gather(sorted(number for number, tree in kept.own.items() if tree))
        holders: dict[int, int] = {}
        for rank, numbers in enumerate(found):
            for number in numbers:
                holders.setdefault(int(number), rank)
        for rank, numbers in enumerate(carried):
            for number in numbers:
                source = rank if number in found[rank] else holders.get(number)
                if source is None or source == rank:
                    continue
                if pact.rank == source:
                    pact.give(kept.own[number], [rank])
                elif pact.rank == rank:
                    kept.own[number] = pact.take(source, [rank], None)

    # Checkpoints

    @property
    def gathered(self) -> bool:
        """Whether a checkpoint can be taken."""
        return self._saved is not None

    def gather(self) -> None:
        """Have all of it on rank 0. Raises PeerLost."""
        engine, pact, kept = self._engine, self._engine.pact, self._engine.replica.kept
        if self.serves:
            from headway.strategies.parameter_server import gathered_state

            optimizer = engine.replica.optimizer
            with pact.waiting():
                found = gathered_state(pact.group, self.carried, kept, self._cut, optimizer, to=0)
            self._saved = (found, self.tables.gather() if self.tables is not None else {})
            return
        trees = {number: tree for number, tree in kept.own.items() if tree}
        told = pact.collect({str(number): tree for number, tree in trees.items()})
        self._saved = (None, {int(number): tree for each in told for number, tree in each.items()})

    def close(self) -> None:
        """The session is over."""
        if self.tables is not None:
            self.tables.close()

    def forget(self) -> None:
        """A checkpoint was taken, or left out."""
        self._saved = None

    def snapshot(self) -> dict[str, Any]:
        """As `Replica.snapshot`, with what was gathered."""
        replica = self._engine.replica
        assert self._saved is not None, "a checkpoint is taken of what was not gathered"
        (optimizer, own), kept = self._saved, replica.kept
        replica.kept = Kept(kept.common, own)
        try:
            found = replica.snapshot()
        finally:
            replica.kept = kept
        return {**found, "optimizer": optimizer} if optimizer is not None else found
