"""What a job's strategy comes to, as a plan tells it: in words, who carries what, and how many bytes that takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from headway.core.lanes import carried
from headway.strategies.catalogue import STRATEGIES
from headway.strategies.options import Job, Strategy
from headway.strategies.traffic import Size, copies_per_step, dense, per_step


class Planned(Job, Protocol):
    """A job with a strategy."""

    @property
    def strategy(self) -> Strategy: ...


@dataclass(frozen=True)
class Summary:
    """Of a job.

    Args:
        options: of its strategy.
        lanes: of the run.
        workers: at most.
        replicas: their number; 0 where it does not matter which lanes are one.
        repeatable: whether what comes of it does not hang on the cluster; else why it does, in `why`.
    """

    options: Strategy
    lanes: int
    workers: int
    replicas: int
    why: str

    @classmethod
    def of(cls, job: Planned) -> Summary:
        options = job.strategy
        replicas = options.count(job) if options.has_replicas else 0
        return cls(options, job.lanes, job.workers.max, replicas, options.why_not_repeatable(job))

    def carried(self, workers: int) -> int:
        """States of their own that each of so many workers holds at most: of replicas that differ."""
        return -(-self.replicas // workers) if self.options.is_local else 1

    def shown(self, parameters: int | None, checkpoint_bytes: int | None) -> dict[str, Any]:
        """As plain values, for people and JSON.

        Returns:
            kind, words, replicas (first and last lane of each), round_steps, repeatable, why_not; and the bytes that
            each worker sends for a step where there are most workers: step, copies besides, and all_reduce, each None
            where it is not known.
        """
        parts = carried(self.lanes, self.replicas) if self.replicas else []
        return {
            "kind": self.options.kind,
            "words": words(self.options),
            "replicas": [[part.start, part.stop - 1] for part in parts],
            "round_steps": self.options.round_steps,
            "repeatable": not self.why,
            "why_not": self.why,
            "bytes": self._bytes(parameters, checkpoint_bytes),
        }

    def _bytes(self, parameters: int | None, checkpoint_bytes: int | None) -> dict[str, Any] | None:
        if parameters is None:
            return None
        state = None if checkpoint_bytes is None else max(0, checkpoint_bytes // 4 - parameters)
        size = Size(self.workers, self.replicas or self.workers, parameters, state)
        step, copies = per_step(self.options, size), copies_per_step(self.options, size)
        return {
            "workers": self.workers,
            "step": None if step is None else round(step),
            "copies": None if copies is None else round(copies),
            "all_reduce": round(dense(size)),
        }

    def notes(self) -> Iterator[str]:
        """What a user should know before it starts, where there is something."""
        options = self.options
        if self.why:
            yield (
                f"results differ from run to run and with the number of workers, by strategy={options.kind} with "
                f"{self.why}"
            )
        averages = options.kind == "local_sgd" and options.average == "all"
        if options.inner_state == "own" and not averages:
            yield (
                f"strategy.inner_state=own: a worker that is lost without notice takes its replicas' inner optimisers "
                f"with it; they go on with fresh ones from the round's beginning, which costs up to "
                f"{options.round_steps} steps of those replicas, and changes the result"
            )
        if options.replicas is not None and not options.has_replicas:
            yield (
                f"strategy.replicas={options.replicas} changes nothing: with {options.kind} as it is here, nothing is "
                "a replica's own"
            )


def words(options: Strategy) -> str:
    """A strategy as its options have it, in a sentence."""
    told = [STRATEGIES[options.kind].what]
    steps = "every step" if options.round_steps == 1 else f"rounds of {options.round_steps} steps"
    if options.kind == "parameter_server":
        told += [_consistency(options)]
        told += [f"rows of {', '.join(options.sparse)} travel alone"] if options.sparse else []
        told += ["the optimiser's state of a range is on one worker alone"] if not options.fail_over else []
    elif options.is_local:
        told += [steps]
    if options.kind == "diloco":
        outer = options.outer
        kind = "Nesterov momentum" if outer.nesterov else "momentum"
        told += [f"outer SGD with rate {outer.lr:g} and {kind} {outer.momentum:g}"]
        told += [f"{options.fragments} fragments in turn"] if options.fragments > 1 else []
        told += [f"{options.overlap} steps go on meanwhile"] if options.overlap else []
    if options.kind == "local_sgd" and options.average == "weights":
        told += ["weights alone are averaged"]
    if options.kind == "gossip":
        told += [
            f"a graph that is {_ARTICLE[options.graph]}",
            f"an average over all in every {options.average_every}. round",
        ]
    if options.quorum is not None:
        told += [f"complete with {options.quorum} replicas and {options.grace_s:g} s of grace"]
    if options.compresses:
        told += [_compression(options)]
    return "; ".join(told)


_ARTICLE = {"ring": "a ring", "exponential": "exponential", "complete": "complete"}


def _consistency(options: Strategy) -> str:
    if options.consistency == "ssp":
        return f"ssp: nobody is more than {options.ahead} steps ahead of the slowest"
    if options.consistency == "asp":
        return "asp: each goes on as fast as it can"
    if options.backup_workers:
        last = "the last one" if options.backup_workers == 1 else f"the last {options.backup_workers}"
        return f"bsp: one update a step, of all replicas but {last} to come; rounds of {options.round_steps} steps"
    return "bsp: one update a step of all"


def _compression(options: Strategy) -> str:
    found = options.compression
    more = {"top_k": f" of {found.ratio:.3%}".replace(".000", ""), "power_sgd": f" of rank {found.rank}"}
    late = f", from step {found.start_step} on" if found.start_step else ""
    if found.momentum:
        late += f", with momentum {found.momentum:g}"
    if found.warm_up:
        late += f", more in the first {found.warm_up} steps"
    fed = "" if found.error_feedback or found.kind in ("fp16", "bf16") else ", what is left out is lost"
    return f"sent as {found.kind}{more.get(found.kind, '')}{late}{fed}"
