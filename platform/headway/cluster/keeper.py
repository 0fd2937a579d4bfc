"""On the head of a cluster in a cloud: ends all of it once no job has run for so long, and itself last.

    python -m headway.cluster.keeper ~/ray_bootstrap_config.yaml --idle-minutes 30

Whoever started the cluster may have forgotten it, and their machine may be off.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from headway.cluster import commands
from headway.cluster.market import FORBIDDEN, Market, Refused
from headway.cluster.markets import open_market
from headway.core.lifetime import Lifetime, said
from headway.errors import HeadwayError

log = logging.getLogger("headway.keeper")
LOOK_S = 20.0
PAUSE_S = 5.0
UNKNOWN_S = 1800.0
"""For so long at least a head that does not say whether a job runs is believed to work: Ray there may be dead."""
STOP_S = 60.0
FORBIDDEN_S = 600.0
"""So long it is tried to end machines that this head is not allowed to end; then it ends itself the other way."""
JOBS, GCS = f"http://127.0.0.1:{commands.JOBS}", f"127.0.0.1:{commands.PORT}"
_KIND, _HEAD = "ray-node-type", "head"


def keep(
    lifetime: Lifetime,
    works: Callable[[], bool | None],
    end: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Look until the cluster is to end, and end it.

    Args:
        lifetime: what it may have.
        works: whether a job runs, or waits; None where that cannot be told. One does, then, but not for ever.
        end: ends all, for a reason.
        clock: seconds.
        sleep: waits for so many seconds.
    """
    began = worked = heard = clock()
    patience_s = max(lifetime.idle_s or 0.0, UNKNOWN_S)
    while True:
        now, found = clock(), works()
        if found is not None:
            heard = now
        if found is not False:
            worked = now
        why = lifetime.over(began, worked, now)
        if now - heard >= patience_s:
            why = f"it could not be told for {said(patience_s)} whether a job runs on it"
        if why:
            end(why)
            return
        sleep(LOOK_S)


def working(jobs: str = JOBS, gcs: str = GCS) -> bool | None:
    """Whether a job runs or waits: one that was submitted, or a driver that somebody started. None: nobody says.

    Args:
        jobs: the job API's URL.
        gcs: HOST:PORT of the control store, which knows of drivers too where the job API is away.
    """
    from headway.cluster.agent.gcs import Away, Gcs
    from headway.jobs.api.client import RayJobs

    try:
        return RayJobs.at(jobs, patience_s=LOOK_S).busy()
    except HeadwayError as error:
        log.warning("it is not known whether a job runs: %s", error)
    try:
        with Gcs(gcs) as store:
            return True if store.drivers() else None
    except Away as error:
        log.warning("nor whether there is a driver: %s", error)
    return None


def end(
    market: Market,
    stop: Callable[[], None],
    off: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """End a cluster from its own head.

    Args:
        market: of the cluster.
        stop: stops Ray here: else its autoscaler would buy anew what is ended.
        off: shuts this machine down: it costs nothing more then.
        sleep: waits for so many seconds.
    """
    stop()
    forbidden_s = 0.0
    while forbidden_s < FORBIDDEN_S:
        try:
            running = [each for each in market.machines() if each.state != "stopping"]
            heads = [each.id for each in running if each.tags.get(_KIND) == _HEAD]
            others = [each.id for each in running if each.id not in heads]
            log.warning("ending %s", ", ".join(others or heads))
            market.terminate(others or heads)
            if not others:
                return
        except (Refused, OSError) as error:
            log.warning("%s: it is tried again", error)
            forbidden = isinstance(error, Refused) and error.kind == FORBIDDEN
            forbidden_s = forbidden_s + PAUSE_S if forbidden else 0.0
        sleep(PAUSE_S)
    log.error("this head may not end machines any more: it shuts itself down")
    off()


def _stop_ray() -> None:
    with suppress(subprocess.TimeoutExpired):
        subprocess.run([str(Path(sys.executable).with_name("ray")), "stop"], check=False, timeout=STOP_S)


def _shut_down() -> None:
    subprocess.run(["sudo", "shutdown", "-P", "now"], check=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until the cluster ends."""
    parser = argparse.ArgumentParser(prog="python -m headway.cluster.keeper", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--idle-minutes", type=float, required=True)
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    config = json.loads(given.config.expanduser().read_text(encoding="utf-8"))
    market = open_market(config["provider"], config["cluster_name"])

    def over(why: str) -> None:
        log.warning("the cluster ends: %s", why)
        end(market, _stop_ray, _shut_down)

    keep(Lifetime(idle_s=60.0 * given.idle_minutes), working, over)


if __name__ == "__main__":
    main()
