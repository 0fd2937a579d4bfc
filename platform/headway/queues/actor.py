"""The keeper on a cluster: a detached actor on the head, and the Ray job that begins it where there is none.

Ray begins the actor anew where its process ends. Whoever else begins one finds this one, by its name, and lets it be
if it answers and is of the same release; and where two of them are after all, the book's lease lets one act.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import headway
from headway.errors import BAD_INPUT, FINISHED, PLATFORM_FAILED, BadInput, HeadwayError
from headway.jobs.api.client import RayJobs
from headway.jobs.spec import FILE, Spec, from_json
from headway.jobs.there import before
from headway.jobs.there.telling import teller
from headway.queues.keeper import Keeper
from headway.queues.place import QueuePlace, book_of, storage_of
from headway.queues.rays import RayCluster
from headway.runs.epochs import Superseded
from headway.runs.lease import Lease
from headway.runs.place import Place, slug
from headway.runs.refusals import Led

logger = logging.getLogger(__name__)

NAMESPACE = "headway-queue"
TURN_S, FAR_TURN_S = 0.1, 0.5
"""Between two turns, where the queue lies in a folder, and in a store, which counts requests."""
READY_S = 60.0
AGAIN_S = 2.0
ANSWERS_S = 20.0
"""A keeper that has not answered by then is one that hangs, or that Ray finds no node for any more."""
END_S = 5.0
"""So long one may take to give the book up before it is killed; and then so long Ray may take to know that."""
ANEW = "anew"
"""Among the settings of a submission: the one who keeps the queue is replaced, whoever it is."""


def actor_name(place: Place) -> str:
    """Of the keeper of a place's queue, for Ray."""
    return f"queue:{slug(place.url or str(place.folder.resolve()))}"


class QueueKeeper:
    """The actor.

    Args:
        spec: the submission that began it: where runs are, and how stores are spoken to.
        address: of the job API.
        cluster: its name, for people.
    """

    def __init__(self, spec: dict[str, Any], address: str, cluster: str) -> None:
        spec["python"] = tuple(spec["python"])
        for name in ("settings", "allow"):
            spec[name] = tuple(spec[name])
        self._spec, self._address, self._cluster = Spec(**spec), address, cluster
        self._led, self._over = threading.Event(), threading.Event()
        self._error: dict[str, str] | None = None
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)
        self._thread.start()

    def ready(self) -> dict[str, Any]:
        """Waits until it leads, or cannot: {"pid"}, or an error's sentences."""
        if not self._led.wait(READY_S):
            said = {"fact": f"the keeper does not lead the queue after {READY_S:.0f} s", "reason": "", "remedy": ""}
            said["reason"] = "the place of its runs does not answer, or whoever led it has not given it up"
            return {**said, "remedy": "Look at Ray's log of the actor on the head; it goes on trying.", "late": True}
        return self._error or {"pid": os.getpid()}

    def release(self) -> str:
        """Of Headway, that it is of."""
        return headway.__version__

    def end(self) -> None:
        """Let another keep the queue."""
        self._over.set()
        self._thread.join(AGAIN_S)

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                with before.laid(self._spec):
                    self._keep()
            except (Led, Superseded, BadInput) as error:
                self._error = {"fact": error.fact, "reason": error.reason, "remedy": error.remedy}
                self._led.set()
                time.sleep(AGAIN_S)  # it is told
                os._exit(0) if isinstance(error, Superseded) else self._leave()
            except Exception:  # the store, or a fault of ours: what nobody keeps must not look alive
                logger.exception("the queue is begun again")
                self._over.wait(AGAIN_S)

    def _leave(self) -> None:
        """Not to be begun again by Ray."""
        import ray

        with suppress(Exception):
            ray.kill(ray.get_runtime_context().current_actor)

    def _keep(self) -> None:
        place = Place.of(self._spec.runs)
        queue = QueuePlace(storage_of(place))
        lease = self._lead(queue)
        self._led.set()
        cluster = RayCluster(RayJobs.at(self._address), place, queue)
        keeper = Keeper(queue, lease, book_of(lease.head), cluster)
        try:
            turn(keeper, self._over, TURN_S if place.url is None else FAR_TURN_S)
        finally:
            cluster.close()
            keeper.release()

    def _lead(self, queue: QueuePlace) -> Lease:
        found = queue.read()
        if found is not None and self._is_reconstructed():
            owner = found[1].owner
            if owner.host == socket.gethostname() and _is_gone(owner.pid):
                lease = queue.take_over((owner.host, owner.pid))
                if lease is not None:
                    return lease
        return queue.lead(self._cluster)

    def _is_reconstructed(self) -> bool:
        import ray

        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def turn(keeper: Keeper, over: threading.Event, every_s: float) -> None:
    """Turn by turn, until it is over. A turn that fails is no reason to leave the queue alone."""
    while not over.wait(every_s):
        try:
            keeper.turn()
        except Superseded:
            raise
        except Exception:  # of any kind: the next turn may go well, and nobody else would take one
            logger.exception("a turn of the queue failed")
            over.wait(AGAIN_S)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def begin(spec: Spec, tell: Callable[..., None]) -> int:
    """See to it that the cluster that this process is a job of has a keeper. Returns the exit code."""
    import ray
    from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]

    place = Place.of(spec.runs)
    context = ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level=logging.ERROR)
    here = ray.get_runtime_context().get_node_id()
    options: dict[str, Any] = {"name": actor_name(place), "namespace": NAMESPACE, "get_if_exists": True}
    options |= {"lifetime": "detached", "max_restarts": -1, "label_selector": {RAY_NODE_ID_KEY: here}}
    options |= {"num_cpus": 0, "max_concurrency": 4}
    make_way(ray, options["name"], anew=ANEW in spec.settings)
    actor: Any = ray.remote(QueueKeeper).options(**options)
    address = f"http://{context.dashboard_url}"
    keeper = actor.remote(asdict(spec), address, str(ray.get_runtime_context().gcs_address))
    found = ray.get(keeper.ready.remote(), timeout=READY_S + ANSWERS_S)
    if "fact" in found:
        kind = HeadwayError if found.get("late") else BadInput
        raise kind(found["fact"], found["reason"], found["remedy"])
    tell("ended", state="kept", message=f"by process {found['pid']}", exit_code=FINISHED)
    return FINISHED


def make_way(ray: Any, name: str, anew: bool) -> None:
    """End the keeper that is there where it does not answer, or is of another release.

    Args:
        ray: the module.
        anew: also any other.

    Raises:
        HeadwayError: Ray has it still.
    """
    there = _there(ray, name)
    if there is None or not (anew or _is_useless(ray, there)):
        return
    with suppress(Exception):  # it hangs, or is nowhere, or has no such method
        ray.get(there.end.remote(), timeout=END_S)
    ray.kill(there, no_restart=True)
    since = time.monotonic()
    while _there(ray, name) is not None:
        if time.monotonic() - since > END_S:
            remedy = "Look at the actor in Ray's dashboard."
            raise HeadwayError("the queue's keeper was killed", f"Ray has it still after {END_S:.0f} s", remedy)
        time.sleep(0.05)


def _there(ray: Any, name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _is_useless(ray: Any, keeper: Any) -> bool:
    try:
        return bool(ray.get(keeper.release.remote(), timeout=ANSWERS_S) != headway.__version__)
    except Exception as error:  # Ray's own, of many kinds; of an earlier release it has no such method
        logger.warning("the keeper that is there does not answer: %s", error)
        return True


def main() -> int:
    """Of the Ray job; returns its exit code."""
    tell, spec = teller(), from_json(Path(FILE).read_text(encoding="utf-8"))
    try:
        with before.laid(spec):
            return begin(spec, tell)
    except HeadwayError as error:
        said = {"fact": error.fact, "reason": error.reason, "remedy": error.remedy}
        code = BAD_INPUT if isinstance(error, BadInput) else PLATFORM_FAILED
        tell("refused", **said, traceback="", exit_code=code)
        return code
    except Exception as error:  # Ray's own, of many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [repr(error)])[-1]
        remedy = "Look at Ray's logs on the head."
        tell(
            "refused",
            fact="the queue's keeper could not be begun",
            reason=reason,
            remedy=remedy,
            traceback="",
            exit_code=3,
        )
        return PLATFORM_FAILED


if __name__ == "__main__":
    sys.exit(main())
