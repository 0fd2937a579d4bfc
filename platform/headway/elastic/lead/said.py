"""What the membership's events are called in a line for people."""

from __future__ import annotations

from typing import Any

CAUSES = {
    "process_died": "its process ended",
    "node_died": "its node is gone",
    "link_cut": "the link to it is cut",
    "stopped": "its process stands still",
    "hung": "its training thread hangs",
    "diverged": "its replica differed again and again",
    "start_failed": "it could not be started",
    "connection_lost": "the workers' connections broke",
    "parted": "the others cannot reach it",
    "hardware": "its machine is ill",
    "unreachable": "it cannot be reached",
    "stuck": "all waited for each other, and nobody got on",
}


def words(event: dict[str, Any]) -> str:
    """A line for an event, or nothing."""
    kind = event["kind"]
    if kind == "recovery":
        return _recovery(event)
    if kind == "pause":
        return f"training pauses: {event['reason']}"
    if kind == "drain":
        return f"{event['worker']}'s machine is taken away in {event['deadline_s']:.0f} s; its lanes move on"
    if kind == "head_drain":
        return f"the machine that leads the run is taken away in {event['deadline_s']:.0f} s"
    if kind == "doubt" and event["reason"]:
        return f"nobody is given up for silence now: {event['reason']}"
    if kind == "doubt":
        return "workers are heard again"
    if kind == "raised" and (event["starting"] or event["fault"] == "machine"):
        did = "could not start" if event["starting"] else "leaves"
        return f"{event['worker']} {did}: {event['fact']}: {event['reason']} (node {event['node_id'][:8]})"
    if kind == "crowded":
        return f"there is no room for a spare ({event['worker']}): training goes on without, until there is"
    if kind == "rounding":
        does = "it is not taken" if event["refused"] else "it is taken all the same"
        return f"{event['worker']}'s machine rounds otherwise than the others: {does}"
    if kind == "refused":
        return f"refused on the run's ports so far: {', '.join(f'{n} {why}' for why, n in event['counts'].items())}"
    if kind == "restart" and event.get("kept"):
        again = f"{event['lost_steps']} steps are done again" if event["lost_steps"] else "nothing is done again"
        return f"going on from the state of step {event['from_step']} that a keeper held: {again}"
    if kind == "restart":
        return f"going on from the checkpoint of step {event['from_step']}: {event['lost_steps']} steps are done again"
    if kind == "replica":
        return f"the replica of {event['worker']} differed before step {event['step']}, and took the majority's state"
    if kind == "quarantine":
        return f"{event['rows']} rows of {event['source']} are set aside: {event['reason']}"
    if kind == "slow" and event["factor"] > 1.0:
        return f"{event['worker']} takes {event['factor']:.1f} times as long per lane as the others"
    return ""


def _recovery(event: dict[str, Any]) -> str:
    who = " and ".join(event["workers"])
    pause = f"{event['pause_s']:.2f} s"
    cause = event["cause"]
    if cause == "joined":
        return f"{who} joined before step {event['step']} (a pause of {pause})"
    if cause == "drained":
        return f"{who} left after step {event['step'] - 1} (a pause of {pause})"
    if cause == "rebalanced":
        return f"lanes are shared anew since step {event['step'] - 1}"
    why = CAUSES.get(cause, cause)
    if event.get("kept"):
        return f"lost {who}: {why}; nobody was left, and training went on from a state that was kept in memory"
    if event.get("lost_steps"):
        lost = event["lost_steps"]
        return f"lost {who}: {why}; nobody was left, and training went on from a checkpoint ({lost} steps back)"
    return f"lost {who}: {why}; the others went on with step {event['step'] - 1} after {pause}, nothing was lost"
