"""The cluster that a keeper runs on: Ray's job API, what runs tell of themselves, and Ray's own view of its machines.

A start is a submission as `headway submit` makes one; its name is the start's, so Ray takes it once. A size and an end
are asked for by what lies beside the run (`headway.runs.requests`), as `headway resize` and `stop` do; a size is told
to the run's controller too, which need not look for it then.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from headway import runs as kept
from headway.core.ends import OVER
from headway.core.enqueued import Entry, Seen, each_of
from headway.core.queued import Each, Node
from headway.errors import BadInput, HeadwayError
from headway.jobs import entry as begins
from headway.jobs import told
from headway.jobs.api.client import RayJob, RayJobs, Unasked
from headway.jobs.send import sending
from headway.jobs.send.parcel import Parcel
from headway.jobs.send.sending import Packed
from headway.jobs.spec import FILE, PREFIX, Spec, from_json, to_json
from headway.notation.plain import read, write
from headway.queues.place import QueuePlace
from headway.runs import Brief, Place
from headway.runs.requests import Box, Resize, Stop, of_attempt

logger = logging.getLogger(__name__)

US = "the queue"
JOBS_S = 1.0
"""Between two looks at Ray's list of jobs."""
BRIEFS_S = 0.25
"""Between two looks at what a run tells of itself."""
NODES_S = 0.5
OTHERS_S = 5.0
"""What others than the queue's jobs hold counts once they have held it for so long: what Ray says is free is a moment
old, and a worker that has just ended must not look like somebody else's."""
ORDER_S = 10.0
"""Room that was found for an order is given away within so long; what is lacking even then is ordered again."""
FIND_S = 1.0
"""Between two looks for a run's controller."""
PATIENCE_S = 5.0
AT_ONCE = 8
NOTHING = Each(0.0, 0.0, 0.0)
_WHEN = (1980, 1, 1, 0, 0, 0)
"""Of files in an archive: the same start is the same archive."""


@dataclass
class _Free:
    """Of a node: what others seemed to hold, as it was seen lately.

    Args:
        still: whether what is new of it is not theirs, as far as is known.
    """

    seen: list[tuple[float, Each]]
    still: bool = False
    last: Each = NOTHING

    def others(self, now: float, held: Each) -> Each:
        """What they have held for a while: the least of it."""
        if self.still:
            held = least([held, self.last])
        self.last = self._others(now, held)
        return self.last

    def _others(self, now: float, held: Each) -> Each:
        self.seen = [*((at, each) for at, each in self.seen if now - at < OTHERS_S), (now, held)]
        if now - self.seen[0][0] < OTHERS_S / 2:  # not known for long enough
            return NOTHING
        return least([each for _, each in self.seen])


def least(every: Sequence[Each]) -> Each:
    """What all of them have."""
    return Each(min(e.cpus for e in every), min(e.gpus for e in every), min(e.memory for e in every))


class RayCluster:
    """See the module.

    Args:
        api: the cluster's job API.
        runs: where the runs are.
        queue: where what travels lies.
    """

    def __init__(self, api: RayJobs, runs: Place, queue: QueuePlace) -> None:
        self._api, self._runs, self._queue = replace(api, patience_s=PATIENCE_S), runs, queue
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="queue")
        self._lock = threading.Lock()
        self._starting: set[str] = set()
        self._refused: dict[str, str] = {}
        """Starts that Ray does not take."""
        self._jobs: tuple[float, dict[str, RayJob] | None] = (float("-inf"), None)
        self._briefs: dict[str, tuple[float, Brief | None]] = {}
        self._nodes: tuple[float, list[Node] | None] = (float("-inf"), None)
        self._others: dict[str, _Free] = {}
        self._begin: set[str] = set()
        """Runs that were given workers, as they were seen in this turn, and have not trained."""
        self._ordered: tuple[tuple[Any, int], Any] | None = None
        """What is lacking, and the placement group that waits for it."""
        self._ordered_at = float("-inf")
        """When such a group had found room."""
        self._ends: dict[str, Seen] = {}
        self._controllers: dict[str, list[Any]] = {}
        """Of starts that train, or are prepared."""
        self._found_at: dict[str, float] = {}

    # What there is

    def nodes(self, runs: Sequence[str]) -> list[Node] | None:
        at, found = self._nodes
        begin, self._begin = self._begin, set()
        if time.monotonic() - at >= NODES_S:
            try:
                self._stand_still(begin)
                found = self._looked(set(runs))
            except Exception as error:  # Ray's own: its control store may be away for a moment
                logger.warning("the nodes' states are not known: %s", error)
                found = None
            self._nodes = (time.monotonic(), found)
        return found

    def _stand_still(self, begin: set[str]) -> None:
        """A run that begins may be fitted to its data first, by tasks of Ray's on the whole cluster, and asks for its
        workers' places after that: nobody takes those tasks for others'."""
        from ray.util.placement_group import placement_group_table

        groups = placement_group_table().values() if begin else ()
        names = [str(each.get("name") or "").split(":") for each in groups if each.get("state") != "REMOVED"]
        asked = {name[1] for name in names if len(name) == 3 and name[0] == "headway"}
        for free in self._others.values():
            free.still = bool(begin - asked)

    def _looked(self, runs: set[str]) -> list[Node]:
        import ray
        from ray._private.state import available_resources_per_node, state
        from ray.util.placement_group import placement_group_table

        groups = [_Group.of(each) for each in placement_group_table().values()]
        ours: dict[str, list[_Group]] = {}
        for group in groups:
            if group is not None and group.run in runs:
                ours.setdefault(group.node, []).append(group)
        free, leaving, now = available_resources_per_node(), state.get_draining_nodes(), time.monotonic()
        found = []
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            name = node["NodeID"]
            here, all_of_it = ours.get(name, []), each_of(node["Resources"])
            of_ours = [each_of(group.each) for group in here]
            rest = each_of(free.get(name, {}))
            held = Each(
                max(0.0, all_of_it.cpus - rest.cpus - sum(each.cpus for each in of_ours)),
                max(0.0, all_of_it.gpus - rest.gpus - sum(each.gpus for each in of_ours)),
                max(0.0, all_of_it.memory - rest.memory - sum(each.memory for each in of_ours)),
            )
            others = self._others.setdefault(name, _Free([])).others(now, held)
            has = Each(
                all_of_it.cpus - others.cpus, all_of_it.gpus - others.gpus, max(0.0, all_of_it.memory - others.memory)
            )
            counts: dict[str, int] = {}
            for group in here:
                counts[group.run] = counts.get(group.run, 0) + 1
            found.append(Node(name, has, tuple(sorted(counts.items())), name in leaving, all_of_it))
        return sorted(found, key=lambda each: each.node)

    def grows(self) -> bool:
        from headway.elastic.lead import room

        try:
            return room.has_autoscaler()
        except Exception as error:  # as above
            logger.warning("it is not known whether the cluster grows: %s", error)
            return True

    def order(self, entry: Entry | None, workers: int) -> None:
        """By a placement group that waits: its bundles are what an autoscaler buys machines for. Once it has found room
        it is removed, for that is the entry's."""
        from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

        wanted = (tuple(sorted(entry.each.items())), workers) if entry is not None and workers else None
        now = time.monotonic()
        try:
            if self._ordered is not None:
                what, group = self._ordered
                if what == wanted and placement_group_table(group).get("state") != "CREATED":
                    return
                self._ordered, self._ordered_at = None, now if what == wanted else float("-inf")
                remove_placement_group(group)
            if wanted is not None and entry is not None and now - self._ordered_at >= ORDER_S:
                self._ordered = wanted, placement_group([dict(entry.each)] * workers, name=f"headway-queue:{entry.run}")
        except Exception as error:  # Ray's own, as above; it is ordered again
            logger.warning("no machine could be ordered: %s", error)

    def seen(self, entry: Entry) -> Seen:
        name = f"{PREFIX}{entry.run}-{entry.start}"
        if entry.state == "starting":
            self._begin.add(entry.run)
        if entry.start in self._refused:
            return Seen("over", "failed", self._refused[entry.start], "task")
        if name in self._ends:
            return self._ends[name]
        jobs = self._listed()
        brief = self._brief(entry.run)
        job = jobs.get(name) if jobs is not None else None
        ours = brief is not None and brief.submission == name
        if brief is not None and ours and brief.state in OVER and not brief.unclosed:
            closing = jobs is None or (job is not None and job.alive)  # it leads the run still, and nobody else can
            return Seen("unknown") if closing else self._told(brief, "over")
        if brief is not None and ours and brief.state == "running":
            if (brief.workers or entry.prepared) and not self._controllers.get(entry.start):
                self._pool.submit(self._find, entry)
            return self._told(brief, "running")
        if jobs is None:
            return Seen("unknown")
        if job is not None and job.alive:
            return self._told(brief, "running") if brief is not None and ours else Seen("pending")
        if job is not None:
            return self._ended(name, job, brief if ours else None)
        if brief is not None and ours:  # Ray has forgotten it, and nobody seems to lead it
            return replace(self._told(brief, "over"), end="interrupted", message="what led it is gone")
        with self._lock:
            return Seen("pending" if entry.start in self._starting else "absent")

    def _told(self, brief: Brief, phase: Any) -> Seen:
        rest_s = done_s = None
        workers = brief.workers or 0
        if brief.steps_per_s and workers and brief.total_steps:
            each_s = workers / brief.steps_per_s  # as if it were as many times faster as it has workers
            rest_s, done_s = (brief.total_steps - brief.steps) * each_s, brief.steps * each_s
        over = phase == "over"
        return Seen(
            phase,
            brief.state if over else "",
            brief.message if over else "",
            brief.cause if over else "",
            brief.steps,
            workers,
            brief.request,
            rest_s,
            done_s,
        )

    def _ended(self, name: str, job: RayJob, brief: Brief | None) -> Seen:
        """What a start came to that Ray says has ended, and that no run tells the end of."""
        text = self._api.logs(name) or ""
        last: dict[str, Any] = next(
            (each for each in reversed(told.read(text.splitlines())) if each["told"] in ("ended", "refused")), {}
        )
        steps = brief.steps if brief is not None else 0
        if last.get("told") == "refused":
            said = f"{last.get('fact')}: {last.get('reason')}" if last.get("reason") else str(last.get("fact"))
            cause = "platform" if int(last.get("exit_code", 2)) == 3 else "task"
            found = Seen("over", "failed", f"{said}. {last.get('remedy') or ''}".strip(), cause, steps)
        elif last and last.get("state") != "failed":
            found = Seen("over", str(last.get("state")), str(last.get("message") or ""), "", steps)
        else:
            words = str(last.get("message") or job.message or "what led it ended without a word")
            found = Seen("over", "failed" if last else "interrupted", words, "platform", steps)
        self._ends[name] = found
        return found

    def _listed(self) -> dict[str, RayJob] | None:
        at, found = self._jobs
        if time.monotonic() - at >= JOBS_S:
            try:
                found = {job.id: job for job in self._api.jobs()}
            except (Unasked, BadInput) as error:
                logger.warning("Ray's list of jobs cannot be asked: %s", error)
                found = None
            self._jobs = (time.monotonic(), found)
        return found

    def _brief(self, run: str) -> Brief | None:
        at, found = self._briefs.get(run, (float("-inf"), None))
        if time.monotonic() - at >= BRIEFS_S:
            with suppress(HeadwayError, OSError, ValueError):  # what was known counts until it can be asked
                found = kept.glance(self._runs, run)
            self._briefs[run] = (time.monotonic(), found)
        return found

    def _find(self, entry: Entry) -> None:
        """Its controller, before it is wanted."""
        now = time.monotonic()
        if now - self._found_at.get(entry.start, float("-inf")) < FIND_S:
            return
        self._found_at[entry.start] = now
        try:
            self._controllers[entry.start] = controllers(entry.run)
        except Exception as error:  # Ray's own; it is looked for again
            logger.info("the controller of %s is not found: %s", entry.run, error)

    # What is done

    def start(self, entry: Entry) -> None:
        with self._lock:
            if entry.start in self._starting:
                return
            self._starting.add(entry.start)
        self._pool.submit(self._start, entry)

    def _start(self, entry: Entry) -> None:
        try:
            spec, packed = self._packed(entry)
            sending.send(self._api, spec, packed)
            self._jobs = (float("-inf"), self._jobs[1])
        except BadInput as error:
            self._refused[entry.start] = str(error)
        except Exception as error:  # the store or Ray is away: it is not there, and is begun again
            logger.warning("%s could not be started: %s", entry.run, error)
        finally:
            with self._lock:
                self._starting.discard(entry.start)

    def _packed(self, entry: Entry) -> tuple[Spec, Packed]:
        """What is sent: the submission as it came, with this start's name and size.

        Raises:
            BadInput: it is not there any more, or damaged; it will not be there later.
        """
        try:
            first, code, *modules = [self._queue.parcel(name) for name in entry.parcels]
            came, content = from_json(first.decode()), io.BytesIO(code)
            zipfile.ZipFile(content).close()  # to be added to, anything will do
        except (FileNotFoundError, zipfile.BadZipFile, ValueError) as error:
            reason, remedy = f"what the queue keeps of it is gone, or damaged ({error})", "Submit it again."
            raise BadInput(f"{entry.run} cannot be started", reason, remedy) from None
        spec = self._spec(entry, came)
        with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, text in ((FILE, to_json(spec)), (begins.FILE, begins.script())):
                archive.writestr(zipfile.ZipInfo(name, _WHEN), text, zipfile.ZIP_DEFLATED)
        return spec, Packed(Parcel(content.getvalue(), 0), tuple(Parcel(each, 0) for each in modules))

    def _spec(self, entry: Entry, spec: Spec) -> Spec:
        """With all the workers that its job may ever have: what it computes, and what its budget means, must not hang
        on how many there is room for now. Those it begins with are told beside that."""
        held, there = not entry.holds, kept.glance(self._runs, entry.run)
        granted, most = 0 if held else entry.workers, entry.most
        if there is not None and there.submission.startswith(f"{PREFIX}{entry.run}-{entry.attempt}-"):
            sizes = (f"workers.min={entry.least}", f"workers.max={most}", "workers.spares=0")
            again = replace(spec, kind="resume", attempt=entry.start, job=None, settings=sizes)
            return replace(again, granted=granted, held=held, warm=entry.warm, tried=True)
        tree = read(spec.job or "")
        tree["workers"] = {**(tree.get("workers") or {}), "min": entry.least, "max": most, "spares": 0}
        return replace(
            spec, kind="train", attempt=entry.start, job=write(tree), granted=granted, held=held, warm=entry.warm
        )

    def resize(self, entry: Entry) -> None:
        at = entry.resized_at or entry.since  # asked again it is the same
        wish = Resize(US, at, entry.least, entry.workers, entry.order, entry.workers, entry.leave)
        self._pool.submit(self._resize, entry, wish)

    def _resize(self, entry: Entry, wish: Resize) -> None:
        try:
            for controller in self._controllers.get(entry.start) or controllers(entry.run):
                controller.resize.remote(wish.min, wish.max, wish.by, wish.id, wish.at_once, wish.leave)
        except Exception as error:  # it is told by the other way
            logger.info("the controller of %s cannot be told: %s", entry.run, error)
        try:
            Box.of(self._runs, entry.run).ask(of_attempt(entry.start), wish)
        except (HeadwayError, OSError) as error:
            logger.warning("the size of %s could not be asked for: %s", entry.run, error)

    def pause(self, entry: Entry) -> None:
        self._pool.submit(self._pause, entry)

    def _pause(self, entry: Entry) -> None:
        try:
            # Asked again it is the same: who hears of another end is asked twice, and saves nothing.
            Box.of(self._runs, entry.run).ask(of_attempt(entry.start), Stop(US, entry.since))
        except (HeadwayError, OSError) as error:
            logger.warning("the end of %s could not be asked for: %s", entry.run, error)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Group:
    """A worker's placement group."""

    run: str
    node: str
    each: dict[str, float]

    @classmethod
    def of(cls, tree: dict[str, Any]) -> _Group | None:
        """None: it is nobody's of ours, or has no place."""
        parts = str(tree.get("name") or "").split(":")
        nodes = list(tree.get("bundles_to_node_id", {}).values())
        if len(parts) != 3 or parts[0] != "headway" or tree.get("state") != "CREATED" or not nodes or not nodes[0]:
            return None
        return cls(parts[1], nodes[0], dict(next(iter(tree["bundles"].values()), {})))


def controllers(run: str) -> list[Any]:
    """The run's controllers that Ray knows of: one, or none; of a start before it one may linger."""
    import ray
    from ray.util import list_named_actors

    found = []
    for each in list_named_actors(all_namespaces=True):
        if each["name"] == f"headway:{run}:controller":
            with suppress(ValueError):
                found.append(ray.get_actor(each["name"], each["namespace"]))
    return found


def plain(spec: Spec) -> bytes:
    """A submission as it lies in the queue."""
    return json.dumps(json.loads(to_json(spec))).encode()
