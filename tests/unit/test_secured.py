"""The line between workers and coordinator under mutual TLS: who shows no good certificate does not come in."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.unit.lead import DEADLINE_S, HOST, Cluster, wait

from headway import certificates
from headway.cluster.certs import Authority, Issued
from headway.elastic.wire import messages as wire
from headway.elastic.wire.secured import Secured

WORKERS = ("w0", "w1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.begin(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture
def secure(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Issued:
    """TLS in this process, by a certificate that is good for loopback."""
    issued = authority.issue("here", ["127.0.0.0/29"])
    use(monkeypatch, issued.environment)
    return issued


def use(patch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        patch.setenv(name, value)


def client(environment: Mapping[str, str]) -> ssl.SSLContext:
    context = certificates.context(server=False, environ=environment)
    assert context is not None
    return context


def test_workers_train_as_they_do_without(secure: Issued) -> None:
    with Cluster() as here:
        workers = here.train(*WORKERS)
        assert here.coordinator.refused == {}
        workers[0].line.put(workers[0].started[-1].news.number, "key", b"value" * 50_000)
        number = workers[1].started[-1].news.number
        assert workers[1].line.fetch(number, "key", DEADLINE_S) == b"value" * 50_000, "the rendezvous goes over it"
        with (
            socket.create_connection((HOST, here.port)) as plain,
            client(secure.environment).wrap_socket(plain, server_hostname=HOST) as shown,
        ):
            assert shown.version() == "TLSv1.3"


def answer(connection: socket.socket, hello: bytes) -> bytes:
    """What comes back to a hello; empty where the connection is ended instead."""
    connection.settimeout(DEADLINE_S)
    try:
        connection.sendall(hello)
        return connection.recv(1000)
    except (ConnectionError, ssl.SSLError):
        return b""


def test_who_has_no_good_certificate_does_not_come_in_though_it_has_the_token(
    secure: Issued, authority: Authority, tmp_path: Path
) -> None:
    strange = Authority.begin(tmp_path / "other", "ours").issue("here", ["127.0.0.0/29"])
    expired = authority.issue("old", ["127.0.0.0/29"], days=-1)
    none = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    none.load_verify_locations(str(secure.authority))
    stranger = client(strange.environment)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with Cluster() as here:
        here.train(*WORKERS)
        hello = wire.encode(wire.Hello("w0", here.coordinator.token, 0.0, 1, HOST, 0))
        tried = 0

        def shut_out(wrap: Callable[[socket.socket], socket.socket]) -> None:
            nonlocal tried
            tried += 1
            plain = socket.create_connection((HOST, here.port), timeout=DEADLINE_S)
            try:
                plain = wrap(plain)
                assert answer(plain, hello) == b""
            except (ssl.SSLError, ConnectionError):
                pass
            finally:
                plain.close()
            wait(lambda: here.coordinator.refused["bad handshake"] == tried)

        shut_out(lambda plain: plain)
        shut_out(lambda plain: none.wrap_socket(plain, server_hostname=HOST))
        shut_out(lambda plain: stranger.wrap_socket(plain, server_hostname=HOST))
        shut_out(lambda plain: client(expired.environment).wrap_socket(plain, server_hostname=HOST))
        wait(lambda: not here.coordinator._server.strangers)
        assert not here.coordinator._server.securing
        assert here.over == []


def test_a_worker_does_not_speak_to_a_coordinator_that_is_not_its_clusters(
    secure: Issued, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster() as here:
        here.train(*WORKERS)
        strange = Authority.begin(tmp_path / "other", "ours").issue("here", ["127.0.0.0/29"])
        elsewhere = authority.issue("elsewhere", ["10.9.8.7"])
        for environment, why in ((strange.environment, "verify failed"), (secure.environment, "not valid for")):
            connection = socket.create_connection((HOST, here.port), timeout=DEADLINE_S)
            with pytest.raises(ssl.SSLCertVerificationError, match=why):
                Secured(connection, client(environment), HOST if "verify" in why else elsewhere.name)
            assert connection.fileno() == -1


def test_one_reads_while_others_write_and_all_of_it_arrives(secure: Issued) -> None:
    """Both ways at once, more than the kernel holds."""
    size = 8 << 20
    context = certificates.context(server=True)
    assert context is not None
    listening = socket.create_server((HOST, 0))
    back = bytearray()

    def echo() -> None:
        taken, _ = listening.accept()
        with context.wrap_socket(taken, server_side=True) as connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    server = threading.Thread(target=echo, daemon=True)
    server.start()
    host, port = listening.getsockname()
    line = Secured(socket.create_connection((host, port), timeout=DEADLINE_S), client(secure.environment), HOST)
    line.settimeout(None)
    reader = threading.Thread(target=lambda: back.extend(line.makefile("rb").read(size)), daemon=True)
    reader.start()
    sent = bytes(range(256)) * (size // 256)
    for at in range(0, size, 100_000):
        line.sendall(sent[at : at + 100_000])
    reader.join(DEADLINE_S)
    assert back == sent
    waiting = threading.Thread(target=lambda: line.recv(10), daemon=True)
    waiting.start()
    line.shutdown(socket.SHUT_RDWR)
    waiting.join(DEADLINE_S)
    assert not waiting.is_alive(), "who reads wakes up"
    line.close()
    assert line.recv(10) == b""
    with pytest.raises(OSError, match="closed"):
        line.sendall(b"x")
    server.join(DEADLINE_S)
    listening.close()


def test_a_read_that_takes_too_long_ends(secure: Issued) -> None:
    context = certificates.context(server=True)
    assert context is not None
    with socket.create_server((HOST, 0)) as listening:
        held: list[ssl.SSLSocket] = []

        def serve() -> None:
            held.append(context.wrap_socket(listening.accept()[0], server_side=True))

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        plain = socket.create_connection(listening.getsockname(), timeout=DEADLINE_S)
        line = Secured(plain, client(secure.environment), HOST)
        server.join(DEADLINE_S)
        line.settimeout(0.05)
        with pytest.raises(TimeoutError):
            line.recv(10)
        line.close()
        held[0].close()
