"""What the agent asks of a control store: with the cluster's token, over its certificates, and not for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray  # noqa: F401  # before its protocols
from ray.core.generated import gcs_service_pb2 as pb
from ray.core.generated import gcs_service_pb2_grpc as services

from headway.cluster.agent import gcs
from headway.cluster.agent.gcs import Away, Gcs
from headway.cluster.certs import Authority

TOKEN = "a-token-of-the-cluster"
NOBODY = {"HOME": "/nowhere"}


class Kept(services.InternalKVGcsServiceServicer):
    """Ray's internal store, as much of it as is asked for here."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def InternalKVPut(self, request: Any, context: Any) -> Any:  # noqa: N802  # Ray's name
        if ("authorization", f"Bearer {TOKEN}") not in [tuple(each) for each in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token, or another")
        assert request.namespace == b"headway-cluster"
        self.kept[request.key] = request.value
        return pb.InternalKVPutReply(added=True)


class Drivers(services.JobInfoGcsServiceServicer):
    """A live driver, one that has ended, and one of Ray's own."""

    def GetAllJobInfo(self, request: Any, context: Any) -> Any:  # noqa: N802  # Ray's name
        return pb.GetAllJobInfoReply(
            job_info_list=[
                {"job_id": b"\1", "config": {"ray_namespace": "mine"}},
                {"job_id": b"\2", "is_dead": True},
                {"job_id": b"\3", "config": {"ray_namespace": "_ray_internal_dashboard"}},
            ]
        )


Serve = Callable[..., tuple[str, Kept]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a store; gives its address."""
    servers = []

    def start(certificates: Mapping[str, str] | None = None) -> tuple[str, Kept]:
        server, kept = grpc.server(ThreadPoolExecutor(2)), Kept()
        services.add_InternalKVGcsServiceServicer_to_server(kept, server)
        services.add_JobInfoGcsServiceServicer_to_server(Drivers(), server)
        if certificates is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            key, chain, root = (
                Path(certificates[f"RAY_TLS_{each}"]).read_bytes() for each in ("SERVER_KEY", "SERVER_CERT", "CA_CERT")
            )
            credentials = grpc.ssl_server_credentials([(key, chain)], root, require_client_auth=True)
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}", kept

    yield start
    for server in servers:
        server.stop(None).wait()


def put(address: str, environment: Mapping[str, str]) -> None:
    with Gcs(address, environment) as store:
        store.put("agent/x", b"{}")


def test_the_token_is_found_where_ray_finds_it(serve: Serve, tmp_path: Path) -> None:
    address, store = serve()
    (tmp_path / ".ray").mkdir()
    for path in (tmp_path / "named", tmp_path / ".ray" / "auth_token"):
        path.write_text(f"{TOKEN}\n")
    for environment in (
        {"RAY_AUTH_TOKEN": TOKEN},
        {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "named")},
        {"HOME": str(tmp_path)},
    ):
        store.kept.clear()
        put(address, environment)
        assert store.kept == {b"agent/x": b"{}"}


def test_a_token_named_by_another_user_is_only_a_file_of_theirs(tmp_path: Path) -> None:
    path, pipe, mine = tmp_path / "token", tmp_path / "pipe", os.geteuid()
    path.write_text(TOKEN)
    named = {"RAY_AUTH_TOKEN_PATH": str(path)}
    assert gcs._token(named, None) == gcs._token(named, mine) == TOKEN
    assert gcs._token(named, mine + 1) == "", "a process of another user's names our file"
    os.mkfifo(pipe)
    assert gcs._token({"RAY_AUTH_TOKEN_PATH": str(pipe)}, mine) == "", "and nobody waits for a pipe"


@pytest.mark.parametrize("environment", [NOBODY, {"RAY_AUTH_TOKEN": "another"}])
def test_a_wrong_token_is_told_and_never_shown(serve: Serve, environment: dict[str, str]) -> None:
    address, store = serve()
    with pytest.raises(Away, match="unauthenticated") as raised:
        put(address, environment)
    assert "another" not in str(raised.value)
    assert store.kept == {}


def test_a_store_with_certificates_takes_who_has_one(serve: Serve, tmp_path: Path) -> None:
    """And the token besides."""
    authority = Authority.begin(tmp_path, "c")
    address, store = serve(authority.issue("head", ["127.0.0.1"]).environment)
    put(address, {**authority.issue("node", ["127.0.0.1"]).environment, "RAY_AUTH_TOKEN": TOKEN})
    assert store.kept
    with pytest.raises(Away, match="unavailable"):
        put(address, {"RAY_AUTH_TOKEN": TOKEN})
    with pytest.raises(Away, match=r"RAY_TLS_SERVER_KEY=/nowhere.*cannot be read"):
        put(address, {"RAY_USE_TLS": "1", "RAY_TLS_SERVER_KEY": "/nowhere"})


def test_drivers_that_live_are_told(serve: Serve) -> None:
    address, _ = serve()
    with Gcs(address, NOBODY) as store:
        assert store.drivers() == ["01"]


def test_nobody_there_and_nobody_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process lives on: Ray's own client ends it."""
    monkeypatch.setattr(gcs, "ANSWER_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(Away, match="does not answer"):
            put(f"127.0.0.1:{silent.getsockname()[1]}", NOBODY)
        silent.listen()
        with pytest.raises(Away, match="does not answer"):
            put(f"127.0.0.1:{silent.getsockname()[1]}", NOBODY)
