"""Other policies over the same trace, with costs that were measured on them.

Both are kinder to the peers than life: shares are even whatever the number of workers, checkpoints cost nothing, and
nothing ever has to be tried twice.
"""

from __future__ import annotations

from headway.sim.account import Account, Training
from headway.sim.costs import Costs
from headway.sim.trace import Trace


def restart(trace: Trace, costs: Costs, most: int, restart_s: float, name: str) -> Account:
    """All restart from the newest checkpoint at each change, as stock elastic Ray Train does.

    New nodes are looked for every `costs.resize_every_s`. restart_s: from a change to the next step.
    """
    account = Account(name)
    training = Training(account, costs.checkpoint_every_s)
    up: set[str] = set()
    members: set[str] = set()
    now, down_until, look_at = 0.0, 0.0, costs.resize_every_s
    changes = [*trace.changes, None]
    index = 0
    while now < trace.until:
        change = changes[index]
        at = min(change.at if change else trace.until, trace.until)
        if not members and up:
            at = min(at, max(now, down_until))
        if members and len(up) > len(members) and len(members) < most:
            at = min(at, max(now, look_at))
        busy = len(members)
        account.lose("idle" if busy else "restart", (at - now) * (len(up) - busy))
        now = at
        if now >= trace.until:
            break
        while look_at <= now:
            look_at += costs.resize_every_s
            if members and min(len(up), most) > len(members):
                training.stop(now)
                training.fall_back()
                members, down_until = set(), now + restart_s
                account.changes += 1
        if change is not None and change.at <= now:
            index += 1
            if change.up:
                up.add(change.node)
            else:
                up.discard(change.node)
                if change.node in members:
                    training.stop(now)
                    training.fall_back()
                    members = set()
                    account.changes += 1
                if not members:
                    down_until = now + restart_s
        elif not members and up and now >= down_until:
            members = set(sorted(up)[:most])
            training.begin(now, len(members), costs.step_s * most / len(members))
        account.points.append((now, len(up), len(members), len(members) / most))
    if members:
        training.stop(trace.until)
    return account


def groups(trace: Trace, costs: Costs, most: int) -> Account:
    """A fixed number of replica groups with a quorum at each step, in the manner of torchft.

    A group that loses a worker is out until the place is taken again, has warmed up, and has healed from the others.
    """
    account = Account(f"groups of {costs.group}")
    training = Training(account, costs.checkpoint_every_s)
    slots: list[set[str]] = [set() for _ in range(max(1, most // costs.group))]
    ready_at: list[float | None] = [None] * len(slots)
    active: set[int] = set()
    free: list[str] = []
    resume_at, now, cause = 0.0, 0.0, "regroup"
    running, lost_all = False, False
    changes = [*trace.changes, None]
    index = 0

    def halt(reason: str, seconds: float) -> None:
        nonlocal running, resume_at, cause
        if running:
            workers, steps = training.workers, training.stop(now)
            # The quorum's part of each step is no progress.
            account.committed_s -= steps * costs.quorum_s * workers
            account.lose("quorum", steps * costs.quorum_s * workers)
            account.changes += 1
            running = False
        resume_at, cause = max(resume_at, now + seconds), reason

    while now < trace.until:
        change = changes[index]
        at = min(change.at if change else trace.until, trace.until)
        at = min([at, *(t for t in ready_at if t is not None)])
        if active and not running:
            at = min(at, resume_at)
        at = max(at, now)
        members = sum(len(slots[i]) for i in active)
        warming = sum(len(slots[i]) for i, t in enumerate(ready_at) if t is not None)
        if not running:
            account.lose(cause, (at - now) * members)
        account.lose("start", (at - now) * warming)
        account.lose("idle", (at - now) * (len(free) + sum(map(len, slots)) - members - warming))
        now = at
        if now >= trace.until:
            break
        if change is not None and change.at <= now:
            index += 1
            if change.up:
                free.append(change.node)
            elif change.node in free:
                free.remove(change.node)
            else:
                i = next(i for i, slot in enumerate(slots) if change.node in slot)
                slots[i].discard(change.node)
                ready_at[i] = None
                if i in active:
                    active.discard(i)
                    halt("detect", costs.group_detect_s)
                    lost_all = not active
            for i in sorted(range(len(slots)), key=lambda i: -len(slots[i])):
                while free and len(slots[i]) < costs.group:
                    slots[i].add(free.pop())
                    if len(slots[i]) == costs.group:
                        ready_at[i] = now + costs.warm_up_s
        for i, t in enumerate(ready_at):
            if t is not None and t <= now:
                ready_at[i] = None
                halt("regroup", costs.heal_s)
                active.add(i)
                if lost_all:
                    training.fall_back()
                    lost_all = False
        if active and not running and now >= resume_at:
            running = True
            workers = sum(len(slots[i]) for i in active)
            training.begin(now, workers, costs.step_s * most / workers + costs.quorum_s)
        members = sum(len(slots[i]) for i in active) if running else 0
        account.points.append((now, len(free) + sum(map(len, slots)), members, members / most))
    halt("regroup", 0.0)
    return account
