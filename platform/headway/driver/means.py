"""What a run may spend, and by when it is to be done: looked at before machines are asked for, handed to its lead."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headway.cluster.prices.book import Book, of_rows
from headway.core.alarms import span
from headway.core.cost import so_far
from headway.core.offers import Offer, Stock
from headway.core.policy import Means, Policy
from headway.core.prospect import COME_S, WARM_S
from headway.core.purses import HOUR_S, Purse
from headway.core.rates import Rates
from headway.elastic.lead.spending import more
from headway.elastic.lead.wishing import Wishing
from headway.errors import BadInput
from headway.job import Budget, Job
from headway.runs import RunFolder, accounts

LEAST_S = 10.0
"""To begin, to make a step and to take a checkpoint takes so long at least."""
NOTHING = Stock()
PACES = 50
"""Steps of a start before, by which its pace is known."""


@dataclass(frozen=True)
class Known:
    """What is known of a run before it begins, or goes on.

    Args:
        created: Unix seconds of its first start.
        spent: dollars of the starts before.
        steps: that are left.
        paces: (workers, steps per second) of starts before.
    """

    created: float
    spent: float = 0.0
    steps: int | None = None
    paces: tuple[tuple[int, float], ...] = ()


def minds(job: Job) -> bool:
    """Whether a job says anything of money or time by which its run is led."""
    budget = job.budget or Budget()
    return job.deadline is not None or any((budget.usd, budget.usd_per_hour, budget.on_demand_min))


def means(job: Job, created: float) -> Means:
    """What the job allows."""
    budget, saves = job.budget or Budget(), job.checkpoint
    deadline = None if job.deadline is None else created + job.deadline
    purse = Purse(budget.usd, budget.usd_per_hour)
    return Means(purse, deadline, budget.on_demand_min, saves.every_steps, saves.every_s)


def known(run: RunFolder, total_steps: int) -> Known:
    """What is known of a run."""
    facts = run.read()
    done = run.last_step() + 1
    spent = so_far(facts, sum(accounts.known(run.path, facts).values())) or 0.0
    return Known(facts.get("created", time.time()), spent, max(0, total_steps - done), tuple(_paces(run)))


def admit(job: Job, about: Known, stock: Stock, now: float, there: Stock = NOTHING) -> None:
    """Look whether the run can be at all, with what is known.

    Args:
        stock: what the cluster sells; an empty one where it does not say.
        now: Unix seconds.
        there: the machines that Ray has, as if they were sold: those for which the job's list of prices has to do where
            the cluster does not say what it sells.

    Raises:
        BadInput: a price is missing; the money is spent, or too little for a step; the deadline is over, or cannot be
            met, or nobody could hold it; machines on demand are not sold.
    """
    budget, listed = job.budget or Budget(), _listed_price(job)
    stock = stock if listed is None else stock.listed(listed)
    if budget.on_demand_min and stock.offers and not stock.sold(job.workers.each, False):
        raise BadInput(
            f"budget.on_demand_min={budget.on_demand_min}",
            f"the cluster sells spot machines alone: {_listed(stock.offers)}",
            "Add an option without `spot` to one_of in the cluster's file, or leave the key out.",
        )
    if budget.usd is not None or budget.usd_per_hour is not None:
        _admit_money(job, budget, about, stock, there if listed is None else there.listed(listed))
    if job.deadline is not None:
        _admit_time(job, about, stock, now)


def _admit_money(job: Job, budget: Budget, about: Known, stock: Stock, there: Stock) -> None:
    each, least = job.workers.each, job.workers.min
    floor = min(least, budget.on_demand_min)
    key = "budget.usd" if budget.usd is not None else "budget.usd_per_hour"
    unpriced = (stock if stock.offers or job.prices is None else there).unpriced(each)
    if unpriced and job.workers.price_per_hour is None:
        raise _missing(key, unpriced)
    price = _price(job, stock, None, key, least - floor)
    if floor:
        price += _price(job, stock, False if stock.offers else None, key, floor)
    if budget.usd_per_hour is not None and budget.usd_per_hour < price * (1 - 1e-9):
        raise BadInput(
            f"budget.usd_per_hour={budget.usd_per_hour:g}",
            f"workers.min={least} cost {price:g} dollars an hour, at the cheapest of {_listed(_fits(stock, each))}"
            if stock.offers
            else f"workers.min={least} cost {price:g} dollars an hour",
            f"Set it to {price:g} or more, or workers.min lower.",
        )
    if budget.usd is None:
        return
    if about.spent >= budget.usd:
        raise BadInput(
            f"budget.usd={budget.usd:g} is spent",
            f"the run has cost {about.spent:.2f} dollars so far",
            f"Give it more: --set {more(max(budget.usd, about.spent))[0]}.",
        )
    left, needed_s = budget.usd - about.spent, LEAST_S + stock.idle_s
    if left < price * needed_s / HOUR_S:
        lasts_s = left / price * HOUR_S
        idle = f", and machines cost on for {span(stock.idle_s)} until they are given back" if stock.idle_s else ""
        raise BadInput(
            f"budget.usd={budget.usd:g}",
            f"at {price:g} dollars an hour it lasts for {span(lasts_s)}, in which no step is made{idle}",
            f"Set it to {about.spent + 2 * price * needed_s / HOUR_S:.2g} or more.",
        )


def _admit_time(job: Job, about: Known, stock: Stock, now: float) -> None:
    assert job.deadline is not None
    if all(stock.sold(job.workers.each, spot) for spot in (True, False)):  # one is weighed against the other
        for spot in (True, False):
            _price(job, stock, spot, "deadline")
    each = job.workers.each
    left_s = about.created + job.deadline - now
    later = f"--set deadline={job.deadline - left_s + max(600.0, job.deadline):.0f}"
    if left_s <= 0:
        raise BadInput(
            f"deadline={span(job.deadline)} was over {span(-left_s)} ago",
            "it counts from the run's first start",
            f"Give it another: {later}, or --set deadline=null.",
        )
    saves, floor = job.checkpoint, (job.budget or Budget()).on_demand_min
    if saves.every_steps is None and saves.every_s is None and not floor and any(o.spot for o in _fits(stock, each)):
        raise BadInput(
            f"deadline={span(job.deadline)} without checkpoints",
            "all spot machines may be taken at once, and then every step is done again, however late it is",
            "Set checkpoint.every_s or checkpoint.every_steps, or keep a worker on demand: budget.on_demand_min=1.",
        )
    if not about.paces or about.steps is None:
        return
    rates = Rates(job.units)
    for workers, per_s in about.paces:
        rates.note(workers, per_s)
    fastest = rates.at(job.workers.max) or 0.0
    needs_s = about.steps / fastest + (COME_S + WARM_S if stock.offers else 0.0) if fastest else 0.0
    if needs_s > left_s:
        raise BadInput(
            f"deadline={span(job.deadline)} cannot be met",
            f"{about.steps} steps take {span(needs_s)} on workers.max={job.workers.max} (by the pace so far), "
            f"and {span(left_s)} are left",
            f"Raise workers.max, or give it another: --set deadline={job.deadline + 1.2 * (needs_s - left_s):.0f}.",
        )


def _price(job: Job, stock: Stock, spot: bool | None, key: str, workers: int = 1) -> float:
    """Dollars for an hour of workers. Raises BadInput: nobody tells, and a key of the job needs it."""
    own = job.workers.price_per_hour
    found = stock.whole(job.workers.each, spot, workers, own)
    if found is None and own is not None:
        found = own * workers
    if found is not None:
        return found
    offers = [offer for offer in _fits(stock, job.workers.each) if spot in (None, offer.spot)]
    if not offers and job.prices is not None:
        return 0.0  # by the labels of machines, once they are there
    raise _missing(key, offers)


def _missing(key: str, offers: Sequence[Offer]) -> BadInput:
    """That these machines have no price, which a key of the job needs."""
    fact = f"{key} needs to know what machines cost"
    if not offers:
        reason = "the cluster tells no prices, and the job names none"
        return BadInput(fact, reason, "Set workers.price_per_hour, the dollars of one worker's hour, or `prices`.")
    return BadInput(
        fact,
        f"there is no price of {_listed(offers)}",
        "Give price_per_hour to the options of one_of in the cluster's file, write them into a list of prices "
        "(provider.headway.prices there, or the job's `prices`), or set workers.price_per_hour.",
    )


def _listed_price(job: Job) -> Callable[[str, str, bool], float | None] | None:
    """Dollars per hour by the job's list of prices; None where it has none."""
    if job.prices is None:
        return None
    return Book(of_rows([each.model_dump() for each in job.prices], "prices")).per_hour


def wishing(job: Job, run: RunFolder, total_steps: int) -> Callable[[], Wishing] | None:
    """Makes what the run's lead decides by; None where the job says nothing of money or time."""
    if not minds(job):
        return None
    rates = Rates(job.units)
    about = known(run, total_steps)
    for workers, per_s in about.paces:
        rates.note(workers, per_s)
    policy = Policy(means(job, about.created), job.units, job.workers.min, job.workers.max, rates)
    price = job.workers.price_per_hour
    done, listed = total_steps - (about.steps or 0), _listed_price(job)
    return partial(Wishing, policy, run.name, job.workers.each, total_steps, price, about.spent, done, listed)


def stock() -> Stock:
    """What the cluster that this process is connected to sells."""
    from ray.experimental.internal_kv import _internal_kv_get

    from headway.core import offers
    from headway.core.news import NAMESPACE

    return Stock.decode(_internal_kv_get(offers.KEY, namespace=NAMESPACE))


def nodes() -> Stock:
    """The machines of the Ray that this process is connected to, by their labels, as if they were sold."""
    import ray

    from headway.elastic.lead.purchases import GROUP, MARKET, ZONE

    living = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    labels = {id: node.get("Labels") or {} for id, node in living.items()}
    offers = [
        Offer(id, each.get(GROUP, "node"), each.get(ZONE, ""), each.get(MARKET) == "spot")
        for id, each in labels.items()
    ]
    return Stock(tuple(offers), {id: node["Resources"] for id, node in living.items()})


def _paces(run: RunFolder) -> Iterable[tuple[int, float]]:
    """Of the newest steps, by the number of workers that made them."""
    steps = list(deque(run.steps(), PACES))
    sizes = [(event["step"], event["workers"]) for event in run.workers() if event["workers"]]
    if len(steps) < 3 or not sizes:
        return
    workers = sizes[-1][1]
    alone = [step["time"] for step in steps if step["step"] > sizes[-1][0]]
    if len(alone) >= 3 and alone[-1] > alone[0]:
        yield workers, (len(alone) - 1) / (alone[-1] - alone[0])


def _fits(stock: Stock, each: Mapping[str, Any]) -> list[Offer]:
    return [offer for offer in stock.offers if stock.share(offer.node_type, each) > 0]


def _listed(offers: Iterable[Offer]) -> str:
    named = list(dict.fromkeys(str(offer) for offer in offers))
    return ", ".join(named[:6]) + (", ..." if len(named) > 6 else "")
