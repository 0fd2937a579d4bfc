"""Certificates of a cluster's own authority: made, renewed, and judged in words before Ray tries them for ever."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headway import certificates
from headway.certificates import AUTHORITY, CERTIFICATE, KEY, SWITCH
from headway.cli.cluster_certs import certs
from headway.cluster.certs import Authority, Issued, said
from headway.driver import handshake
from headway.errors import BadInput
from headway.jobs.there import machine

HOST = "127.0.0.1"
DAY = 86400.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.begin(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def node(authority: Authority) -> Issued:
    return authority.issue("n0", ["10.0.0.7", "head.internal"])


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return Authority.begin(tmp_path_factory.mktemp("other"), "ours").issue("n0", ["10.0.0.7"])


def test_a_machines_files_are_its_own_and_say_whom_they_are_for(authority: Authority, node: Issued) -> None:
    for secret in (node.key, authority.folder / "ca.key"):
        assert secret.stat().st_mode & 0o777 == 0o600
    found = certificates.read(node.certificate)
    assert (found.name, set(found.hosts)) == ("n0", {"127.0.0.1", "localhost", "10.0.0.7", "head.internal"})
    assert found.by == certificates.read(authority.certificate).name
    assert 89 < found.days_left(time.time()) <= 90
    assert certificates.check(time.time(), node.environment) == []
    assert said(found) == "n0: expires in 90 days; for 10.0.0.7, head.internal"


def test_a_network_stands_for_all_its_addresses(authority: Authority) -> None:
    hosts = certificates.read(authority.issue("any", ["10.0.3.0/28"]).certificate).hosts
    assert {f"10.0.3.{number}" for number in range(1, 15)} < set(hosts)


@pytest.mark.parametrize("host", ["10.0.0.0/8", "10.0.0.300", "a b", "", "-x", "http://x", "x" * 300])
def test_what_is_no_address_is_refused_and_nothing_is_made(authority: Authority, host: str) -> None:
    with pytest.raises(BadInput):
        authority.issue("refused", [host])
    with pytest.raises(BadInput, match="no machine's name"):
        authority.issue("../x", ["10.0.0.1"])
    assert not (authority.folder / "nodes" / "refused").exists()


def test_a_renewed_certificate_is_for_the_same_addresses(authority: Authority) -> None:
    before = certificates.read(authority.issue("r", ["10.0.0.9"], days=1).certificate)
    files = authority.issue("r")
    after = certificates.read(files.certificate)
    assert (after.name, after.hosts) == (before.name, before.hosts)
    assert after.number != before.number
    assert after.ends > before.ends
    assert certificates.check(time.time(), files.environment) == []


def test_a_certificate_that_expires_soon_is_said_and_one_that_has_is_refused(authority: Authority) -> None:
    issued, now = authority.issue("soon", ["10.0.0.9"], days=10), time.time()
    assert "expires in 10 days" in certificates.check(now, issued.environment)[0]
    for at, why in ((now + 11 * DAY, "has expired"), (now - DAY, "not good yet.*clock")):
        with pytest.raises(BadInput, match=why):
            certificates.check(at, issued.environment)
    with pytest.raises(BadInput, match=r"authority .* has expired"):
        Authority.begin(authority.folder / "old", "old", days=-1).issue("n")


def test_a_machine_tells_the_doctor_of_its_certificate(
    authority: Authority, strange: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(now: float, environment: Mapping[str, str]) -> dict[str, str]:
        for name in (SWITCH, *certificates.NAMES):
            monkeypatch.setenv(name, environment.get(name, ""))
        return machine.certificate(now)

    issued, now = authority.issue("told", ["10.0.0.9"], days=20), time.time()
    assert told(now, {}) == told(now, issued.environment) == {"expires": ""}
    assert "expires in 10 days" in told(now + 10 * DAY, issued.environment)["expires"]
    assert "has expired: it was good until" in told(now + 21 * DAY, issued.environment)["certificate"]
    assert "is of no use" in told(now, {**issued.environment, KEY: str(strange.key)})["certificate"]


def test_files_that_do_not_fit_are_named(node: Issued, strange: Issued, tmp_path: Path) -> None:
    def refused(why: str, **changed: str) -> None:
        with pytest.raises(BadInput, match=why):
            certificates.check(time.time(), {**node.environment, **changed})

    junk = tmp_path / "junk"
    junk.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    empty = dict.fromkeys((KEY, AUTHORITY), "")
    refused(f"{KEY} and {AUTHORITY} name no file", **empty)
    for name in (CERTIFICATE, KEY, AUTHORITY):
        refused(f"{name}=.*gone cannot be read: No such file", **{name: str(tmp_path / "gone")})
        refused(f"{name}=.*junk holds no", **{name: str(junk)})
    refused(f"{KEY}=.* is of no use: it is not the key of", **{KEY: str(strange.key)})
    refused(f"which {AUTHORITY}=.* does not hold", **{AUTHORITY: str(strange.authority)})
    assert certificates.check(time.time(), {}) == certificates.check(time.time(), {SWITCH: "0"}) == []
    with pytest.raises(BadInput, match="cannot be used"):
        certificates.context(server=True, environ={**node.environment, KEY: str(strange.key)})


@contextmanager
def serving(environment: Mapping[str, str] | None, host: str = HOST) -> Iterator[str]:
    """Something that takes connections: under TLS, or none at all."""
    context = certificates.context(server=True, environ=environment) if environment else None
    listener = socket.create_server((host, 0))

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with suppress(OSError), connection:
                if context is not None:
                    context.wrap_socket(connection, server_side=True).close()
                else:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 what?\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"{host}:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()


def test_a_new_authority_takes_over_without_a_day_on_which_machines_refuse_each_other(tmp_path: Path) -> None:
    """Each step of a rotation: all pairs of machines, old and new, take each other; after `forget` only the new do."""
    authority = Authority.begin(tmp_path / "ca", "c")
    old = copied(authority.issue("old", [HOST]), tmp_path / "old")
    authority.renew()
    assert certificates.read(authority.certificate).name != certificates.read(old.certificate).by
    bridging = copied(authority.issue("new", [HOST]), tmp_path / "new")
    both = Issued("old", old.certificate, old.key, bridging.authority)
    for server, client in ((both, bridging), (bridging, both), (both, both), (bridging, bridging)):
        assert certificates.check(time.time(), client.environment) == []
        assert shakes(server, client)
    authority.forget()
    final = authority.issue("new")
    assert certificates.check(time.time(), final.environment) == []
    assert shakes(final, bridging)
    assert not shakes(final, both)


def copied(issued: Issued, folder: Path) -> Issued:
    """As on the machine itself, which keeps what it was given."""
    folder.mkdir()
    paths = [Path(shutil.copy(path, folder)) for path in (issued.certificate, issued.key, issued.authority)]
    return Issued(issued.name, *paths)


def shakes(server: Issued, client: Issued) -> bool:
    """Whether the two take each other."""
    mine = certificates.context(server=False, environ=client.environment)
    theirs = certificates.context(server=True, environ=server.environment)
    assert mine is not None
    assert theirs is not None
    one, other = socket.socketpair()
    done: list[bool] = []

    def serve() -> None:
        try:
            with theirs.wrap_socket(other, server_side=True) as connection:
                connection.sendall(b"x")
                done.append(True)
        except OSError:
            other.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        one.settimeout(30)
        with mine.wrap_socket(one, server_hostname=HOST) as connection:
            return connection.recv(1) == b"x"
    except OSError:
        return False
    finally:
        one.close()
        thread.join(30)


def test_why_a_cluster_and_a_process_do_not_come_together(
    authority: Authority, strange: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "PATIENCE_S", 60.0)  # the machine may be busy
    ours = authority.issue("loop", [HOST])

    def told(address: str, environment: Mapping[str, str]) -> str:
        return str(handshake.why(address, "--address A", environment))

    with serving(ours.environment) as address:
        assert "there is none here" in told(address, {})
        assert told(address, ours.environment) == "None", "this is not what keeps them apart"
        assert "is of another authority" in told(address, strange.environment)
        mixed = {**strange.environment, AUTHORITY: str(ours.authority)}
        assert f"does not take {CERTIFICATE}=" in told(address, mixed)
        expired = authority.issue("expired", [HOST], days=-1)
        assert "certificate expired" in told(address, expired.environment)
    with serving(authority.issue("old", [HOST], days=-1).environment) as address:
        assert "its certificate has expired" in told(address, ours.environment)
    with serving(ours.environment, "127.0.0.2") as address:
        assert "is not for 127.0.0.2" in told(address, ours.environment)
    with serving(None) as address:
        assert told(address, {}) == "None"
        assert f"not under TLS, and {SWITCH}=1 here" in told(address, ours.environment)
    assert told(address, ours.environment) == "None", "nobody is there any more"


def test_the_command_makes_them_renews_them_and_says_when_they_expire(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(certs)
    folder = str(tmp_path / "certs")

    def run(*arguments: str) -> str:
        found = CliRunner().invoke(app, [folder, *arguments])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found.stdout

    with pytest.raises(BadInput, match="holds no authority"):
        run()
    with pytest.raises(BadInput, match="is no address"):
        run("--node", "n0=a b")
    assert not (tmp_path / "certs").exists()
    made = run("--node", "head=10.0.0.1,head.internal", "--node", "n1=10.0.1.0/29", "--days", "5")
    assert "head: expires in 5 days; for 10.0.0.1, head.internal" in made
    assert f"export {KEY}={folder}/nodes/head/tls.key" in made
    told = json.loads(run("--renew", "--new-authority", "--json"))
    assert {node["name"] for node in told["nodes"]} == {"head", "n1"}
    assert all(node["days_left"] > 80 for node in told["nodes"])
    for name in ("head", "n1"):
        assert certificates.check(time.time(), told["environment"][name]) == []
    run("--forget")
    assert certificates.check(time.time(), told["environment"]["head"]) == []
    assert "authority" in run()


def test_ssl_here_knows_tls_1_3() -> None:
    assert ssl.HAS_TLSv1_3
