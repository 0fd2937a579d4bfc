"""What the agent asks of a cluster's control store (GCS): to drain a node, and to keep a word about it.

By Ray's gRPC protocol and not by its own client, which ends the process when the store is away for a minute. A drain
takes some milliseconds; the command `ray drain-node` more than a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headway.core.news import NAMESPACE

ANSWER_S = 5.0
"""Of each answer. A store that is not there says so at once; one that stands still may go on meanwhile."""
LONGEST = 64 << 10
"""Characters of a token's file that are read."""
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
]


class Away(Exception):
    """The control store does not answer, or takes no order from us, for this reason."""


class Gcs:
    """A cluster's control store; use it as a context manager.

    Args:
        address: HOST:PORT of the cluster's head.
        environment: variables with the token and the certificates, by Ray's names.
        owner: the user whose environment and address these are, where they are not ours: their token is one of their
            files, and no other's.
    """

    def __init__(self, address: str, environment: Mapping[str, str] = os.environ, owner: int | None = None) -> None:
        self.address, self._environment, self._owner = address, environment, owner
        self._channel: Any = None

    def __enter__(self) -> Self:
        import grpc

        with_tls = self._environment.get("RAY_USE_TLS", "0").lower() in ("1", "true")
        if with_tls:
            key, chain, root = (self._file(f"RAY_TLS_{each}") for each in ("SERVER_KEY", "SERVER_CERT", "CA_CERT"))
            self._channel = grpc.secure_channel(
                self.address, grpc.ssl_channel_credentials(root, key, chain), options=_OPTIONS
            )
        else:
            self._channel = grpc.insecure_channel(self.address, options=_OPTIONS)
        token = _token(self._environment, self._owner)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def drain(self, node: str, deadline: float, reason: str) -> None:
        """Have a node drained: nothing new is placed on it, and Ray ends it as soon as nothing runs there.

        Args:
            node: its id.
            deadline: Unix seconds; at its end the machine goes. Ray takes it for what it is told, and ends nothing.
            reason: kept with the node.

        Raises:
            Away: not done.
        """
        pb, stubs = _generated("autoscaler_pb2"), _generated("autoscaler_pb2_grpc")

        request = pb.DrainNodeRequest(
            node_id=bytes.fromhex(node),
            reason=pb.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            reason_message=reason,
            deadline_timestamp_ms=int(deadline * 1000),
        )
        reply = self._call(stubs.AutoscalerStateServiceStub(self._channel).DrainNode, request)
        if not reply.is_accepted:
            raise Away(f"Ray does not drain the node: {reply.rejection_reason_message}")

    def draining(self) -> dict[str, float]:
        """Nodes that are drained, with their deadlines in Unix seconds; 0 for none. Raises Away."""
        pb, stubs = _generated("gcs_service_pb2"), _generated("gcs_service_pb2_grpc")

        reply = self._call(
            stubs.NodeResourceInfoGcsServiceStub(self._channel).GetDrainingNodes, pb.GetDrainingNodesRequest()
        )
        return {each.node_id.hex(): each.draining_deadline_timestamp_ms / 1000 for each in reply.draining_nodes}

    def alive(self, node: str) -> bool:
        """Whether Ray counts a node among the living. Raises Away."""
        pb, stubs = _generated("gcs_service_pb2"), _generated("gcs_service_pb2_grpc")

        only = pb.GetAllNodeInfoRequest.NodeSelector(node_id=bytes.fromhex(node))
        reply = self._call(
            stubs.NodeInfoGcsServiceStub(self._channel).GetAllNodeInfo, pb.GetAllNodeInfoRequest(node_selectors=[only])
        )
        return any(each.node_id.hex() == node and each.state == 0 for each in reply.node_info_list)

    def idle(self, node: str) -> bool:
        """Whether nothing runs on a node, or it is no more. Raises Away."""
        pb, stubs = _generated("autoscaler_pb2"), _generated("autoscaler_pb2_grpc")
        request = pb.GetClusterResourceStateRequest()
        reply = self._call(stubs.AutoscalerStateServiceStub(self._channel).GetClusterResourceState, request)
        found = [each for each in reply.cluster_resource_state.node_states if each.node_id.hex() == node]
        return all(each.status in (pb.NodeStatus.Value("IDLE"), pb.NodeStatus.Value("DEAD")) for each in found)

    def drivers(self) -> list[str]:
        """Ids of the jobs whose drivers live, without Ray's own. Raises Away."""
        pb, stubs = _generated("gcs_service_pb2"), _generated("gcs_service_pb2_grpc")
        request = pb.GetAllJobInfoRequest(skip_submission_job_info_field=True, skip_is_running_tasks_field=True)
        reply = self._call(stubs.JobInfoGcsServiceStub(self._channel).GetAllJobInfo, request)
        alive = [each for each in reply.job_info_list if not each.is_dead]
        return [each.job_id.hex() for each in alive if not each.config.ray_namespace.startswith("_ray")]

    def put(self, key: str, value: bytes) -> None:
        """Keep something in Ray's internal store. Raises Away."""
        pb, stubs = _generated("gcs_service_pb2"), _generated("gcs_service_pb2_grpc")

        request = pb.InternalKVPutRequest(key=key.encode(), value=value, overwrite=True, namespace=NAMESPACE)
        self._call(stubs.InternalKVGcsServiceStub(self._channel).InternalKVPut, request)

    def keys(self, prefix: str) -> list[str]:
        """What is kept there under keys that begin so. Raises Away."""
        pb, stubs = _generated("gcs_service_pb2"), _generated("gcs_service_pb2_grpc")
        request = pb.InternalKVKeysRequest(prefix=prefix.encode(), namespace=NAMESPACE)
        reply = self._call(stubs.InternalKVGcsServiceStub(self._channel).InternalKVKeys, request)
        return [key.decode() for key in reply.results]

    def delete(self, key: str) -> None:
        """Forget it. Raises Away."""
        pb, stubs = _generated("gcs_service_pb2"), _generated("gcs_service_pb2_grpc")

        request = pb.InternalKVDelRequest(key=key.encode(), namespace=NAMESPACE, del_by_prefix=False)
        self._call(stubs.InternalKVGcsServiceStub(self._channel).InternalKVDel, request)

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        import grpc

        try:
            return method(request, timeout=ANSWER_S, metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code().name.lower().replace("_", " ")
            raise Away(f"the cluster's head, {self.address}, does not answer ({code})") from None

    def _file(self, name: str) -> bytes:
        path = self._environment.get(name, "")
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise Away(f"{name}={path} cannot be read: {error.strerror}") from None


def drain(address: str, node: str, deadline_s: float, reason: str, environment: Mapping[str, str] = os.environ) -> None:
    """Have a node drained that goes in `deadline_s` seconds; see `Gcs.drain`."""
    with Gcs(address, environment) as gcs:
        gcs.drain(node, time.time() + deadline_s, reason)


def _generated(name: str) -> Any:
    """Ray's protocols: importing one imports Ray."""
    return import_module(f"ray.core.generated.{name}")


def _token(environment: Mapping[str, str], owner: int | None) -> str:
    """The cluster's token, from where Ray takes it; "" where there is none."""
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return ""
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return environment["RAY_AUTH_TOKEN"].strip()
    path = environment.get("RAY_AUTH_TOKEN_PATH") or f"{environment.get('HOME', '')}/.ray/auth_token"
    with suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8", opener=_at_once) as file:
        if owner in (None, os.fstat(file.fileno()).st_uid):
            return file.read(LONGEST).strip()
    return ""


def _at_once(path: str, flags: int) -> int:
    """Open a file that may be a pipe, for which nobody is to wait."""
    return os.open(path, flags | os.O_NONBLOCK)
