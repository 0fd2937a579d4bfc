"""A Ray node as a program: started by `headway.cluster.local.cluster`, and gone with its starter.

Not `ray start`, which brings a dashboard, an autoscaler and a client server that most have no use for here and that
take most of its seconds: a head that is to take jobs has of the dashboard what takes them, and no page; one that is to
grow has Ray's autoscaler. Orders come as JSON lines on standard input, answers go to standard output. When the input
ends, because whoever started the node ended it or is gone, everything below it is killed. Where the node has a PID
namespace of its own, this program is the first in it, as init is on a machine, and all else ends with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from headway.cluster.local.processes import adopt, kill_below

MODULES = "JobHead,NodeHead,ReportHead"
"""Of Ray's dashboard: what takes jobs, and what tells of the cluster. Each is a process."""
ASK_S = 10.0
"""So long Ray is asked before it counts as silent."""
_JOBS, _SENT = b"job", b"_ray_internal_job_info_"
"""Where Ray keeps the jobs that were sent to it."""
ALONE = "--alone"
"""The argument that says: nothing but this node is in the PID namespace."""


def main() -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()  # begun by `unshare --fork`, whose session it still had
    adopt()
    orders = (json.loads(line) for line in sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Ray prints is no answer
    settings = next(orders)
    folder = Path(settings["temp_dir"])
    try:
        try:
            node = _start(settings)
        except Exception as error:  # its folder goes with it, and what stands there
            print(json.dumps({"gone": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
            raise
        signal.signal(signal.SIGCHLD, _reap)
        for order in chain([{}], orders):
            print(json.dumps(_obey(node, order)), file=answers, flush=True)
    finally:
        if ALONE in sys.argv and os.getpid() == 1:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all of this namespace but ourselves
        kill_below(os.getpid(), spare=os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # the last node to go takes the cluster's folder along
            folder.parent.rmdir()


def _start(settings: dict[str, Any]) -> Any:
    from ray._private import utils
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    if settings.pop("bare"):
        _without_headway()
    if settings["include_dashboard"]:
        _only_jobs()
    else:
        # What a minimal Ray leaves out anyway: the dashboard's agent with its metrics and log pages, and the API server
        utils.get_dashboard_dependency_error = lambda: ImportError("left out of a drill")
        setattr(Node, "start_api_server", _no_api_server)  # noqa: B010
    head = settings.pop("head")
    node = Node(RayParams(**settings), head=head, shutdown_at_exit=False, spawn_reaper=False)
    if head and node.webui_url:
        # Where what runs a job looks for its cluster: it would look among all processes of this machine else.
        utils.write_ray_address(node.gcs_address, settings["temp_dir"])
    return node


def _without_headway() -> None:
    """Hide the package from all that is started from here on: as on a machine that has Ray, and nothing of ours.

    In this node's own mount namespace, and after what this program needs of it has been imported.
    """
    os.environ.pop("PYTHONPATH", None)
    for folder in {Path(each) / "headway" for each in sys.path if each}:
        if folder.is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)


def _only_jobs() -> None:
    """Of the dashboard only what takes jobs: all of it is a dozen processes."""
    from ray._private import services

    start = services.start_ray_process

    def start_less(command: list[str], kind: str, *given: Any, **options: Any) -> Any:
        less = [f"--modules-to-load={MODULES}"] if kind == "dashboard" else []
        return start([*command, *less], kind, *given, **options)

    setattr(services, "start_ray_process", start_less)  # noqa: B010


def _no_api_server(node: Any, **_: Any) -> None:
    node._webui_url = ""


def _reap(*_: Any) -> None:
    """As init does on a real machine: workers take a raylet that nobody has reaped for alive, and outlive it."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _obey(node: Any, order: dict[str, Any]) -> dict[str, Any]:
    if "drain" in order:
        return _drain(node, order)
    if "alive" in order:
        return {"alive": _alive(node)}
    if "look" in order:
        return _look(node)
    if "read" in order:
        return _read(node, *order["read"])
    jobs = f"http://{node.webui_url}" if node.webui_url else ""
    return {"node_id": node.node_id, "address": node.gcs_address, "logs": node.get_logs_dir_path(), "jobs": jobs}


def _look(node: Any) -> dict[str, Any]:
    """What Ray says of its nodes, and how many jobs there are that have not ended; `error` where it does not say."""
    from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply, NodeStatus  # type: ignore[attr-defined]

    gcs = node.get_gcs_client()
    try:
        answer = GetClusterResourceStateReply.FromString(gcs.get_cluster_resource_state(timeout_s=ASK_S))
        jobs = gcs.get_all_job_info(timeout=ASK_S)
        waiting = gcs.internal_kv_multi_get(gcs.internal_kv_keys(_SENT, _JOBS, ASK_S), _JOBS, ASK_S)
    except Exception as error:  # Ray's own errors have no common kind; none of them ends a node
        return {"error": str(error).splitlines()[0][:300] if str(error) else type(error).__name__}
    nodes = [
        {
            "id": state.node_id.hex(),
            "status": NodeStatus.Name(state.status).lower(),
            "machine": state.instance_id,
            "idle_s": state.idle_duration_ms / 1000.0,
        }
        for state in answer.cluster_resource_state.node_states
    ]
    drivers = [job for job in jobs.values() if not job.is_dead and not job.config.ray_namespace.startswith("_ray")]
    pending = [each for each in waiting.values() if json.loads(each).get("status") in ("PENDING", "RUNNING")]
    return {"nodes": nodes, "jobs": max(len(drivers), len(pending))}


def _read(node: Any, namespace: str, key: str) -> dict[str, Any]:
    """What stands in Ray's own store, as text; None where nothing does."""
    try:
        found = node.get_gcs_client().internal_kv_get(key.encode(), namespace.encode(), timeout=ASK_S)
    except Exception as error:  # as above
        return {"error": str(error)[:300]}
    return {"text": None if found is None else found.decode(errors="replace")}


def _drain(node: Any, order: dict[str, Any]) -> dict[str, Any]:
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

    deadline_ms = int((time.time() + order["deadline_s"]) * 1000)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, said = node.get_gcs_client().drain_node(order["drain"], reason, order["why"], deadline_ms)
    return {"accepted": accepted, "said": said}


def _alive(node: Any) -> list[str]:
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

    nodes = node.get_gcs_client().get_all_node_info(timeout=10, state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
    return [node_id.hex() for node_id in nodes]


if __name__ == "__main__":
    main()
