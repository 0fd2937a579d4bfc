"""`headway tunnel`: a way by ssh that ends with either side, and comes back; with an ssh that does as it is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from tests.waiting import until

from headway.cli.tunnel import _reached as reached
from headway.cluster import file, known, verbs
from headway.cluster import tunnel as tunnels
from headway.cluster.tunnel import Forward, Tunnel, Way, answers, free_port, opened
from headway.errors import BadInput, RunFailed

SSH = '''#!{python}
"""An ssh whose far side is this machine. FOLDER: what it was told, and what it is to do."""
import os, socket, subprocess, sys, threading
from pathlib import Path
folder = Path({folder!r})
with (folder / "calls").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
(folder / "pid").write_text(str(os.getpid()))
if (folder / "says").exists():
    print((folder / "says").read_text(), file=sys.stderr)
    sys.exit(255)
at = sys.argv.index("--")
def copy(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for each in (a, b):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(listening, to):
    while True:
        taken = listening.accept()[0]
        try:
            there = socket.create_connection(to)
        except OSError:
            taken.close()
            continue
        for pair in ((taken, there), (there, taken)):
            threading.Thread(target=copy, args=pair, daemon=True).start()
for option in sys.argv[1:at]:
    if option.startswith("-L"):
        here, port, host, remote = option[2:].split(":")
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((here, int(port)))
        listening.listen()
        threading.Thread(target=serve, args=(listening, (host, int(remote))), daemon=True).start()
print("Welcome to the far side", flush=True)
os._exit(subprocess.call(["sh", "-c", sys.argv[at + 2]]))
'''


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def remote() -> Iterator[int]:
    """Port of a dashboard."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(30)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the stub on PATH; gives its folder."""
    folder = tmp_path / "ssh"
    folder.mkdir()
    (folder / "ssh").write_text(SSH.format(python=sys.executable, folder=str(folder)))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(tunnels, "AGAIN", tunnels.Policy(first_pause_s=0.05, longest_pause_s=0.2))
    return folder


def way(remote: int, to: str = "me@head") -> Way:
    return Way(to, [Forward(any_port(), remote)])


def any_port() -> int:
    """Not the preferred one, which another test may be about to take."""
    return free_port(None, "127.0.0.1", preferred=0)


def gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_what_ssh_is_asked_for(tmp_path: Path) -> None:
    asked = Way("me@head", [Forward(1, 2), Forward(3, 4)], "::1", tmp_path, 2222, ["ProxyJump=b"]).command()
    assert "-L[::1]:1:127.0.0.1:2" in asked
    assert "-L[::1]:3:127.0.0.1:4" in asked
    assert "-oExitOnForwardFailure=yes" in asked
    assert "-oProxyJump=b" in asked
    assert asked[asked.index("-p") + 1] == "2222"
    assert asked[asked.index("--") + 1] == "me@head"
    assert Way("h", [Forward(1, 2)], more=["-o", "ProxyCommand=x"]).command().count("ProxyCommand=x") == 1
    for strange in ("-oProxyCommand=rm", "a b", "", "$(x)"):
        with pytest.raises(BadInput, match="is no host"):
            Way(strange, [Forward(1, 2)]).command()


def test_a_port_that_is_taken_is_named_and_another_is_taken_where_none_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f":{port} cannot be used"):
            free_port(port, "127.0.0.1")
        assert free_port(None, "127.0.0.1", preferred=port) != port
    with pytest.raises(BadInput, match="cannot be used"):
        free_port(None, "192.0.2.1")


def test_it_is_up_on_loopback_and_ends(ssh: Path, remote: int) -> None:
    asked = way(remote)
    with opened(asked) as tunnel:
        assert tunnel.up.is_set()
        assert answers("127.0.0.1", asked.forwards[0].local)
        pid = int((ssh / "pid").read_text())
    assert gone(pid)
    assert not answers("127.0.0.1", asked.forwards[0].local)


def test_nothing_that_listens_there_is_seen(ssh: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        asked = way(nobody.getsockname()[1])
        with opened(asked):
            assert not answers("127.0.0.1", asked.forwards[0].local)


def test_it_comes_back_when_ssh_dies_at_the_same_port(ssh: Path, remote: int) -> None:
    said: list[str] = []
    asked = way(remote)
    with opened(asked, said.append) as tunnel:
        keeping = threading.Thread(target=tunnel.keep, daemon=True)
        keeping.start()
        for number in (1, 2):
            os.kill(int((ssh / "pid").read_text()), signal.SIGKILL)
            until(lambda: sum("again" in text and "connected" in text for text in said) == number, within_s=60)  # noqa: B023
            assert answers("127.0.0.1", asked.forwards[0].local)
    keeping.join(30)
    assert not keeping.is_alive()


def test_what_ssh_says_is_the_reason(ssh: Path, remote: int) -> None:
    (ssh / "says").write_text("me@head: Permission denied (publickey).")
    with pytest.raises(RunFailed, match=r"no tunnel to me@head: me@head: Permission denied"), opened(way(remote)):
        pass


def test_a_far_side_that_is_away_is_waited_for_and_one_that_refuses_is_not(ssh: Path, remote: int) -> None:
    said: list[str] = []
    ended: list[BaseException] = []

    def keep(tunnel: Tunnel) -> None:
        try:
            tunnel.keep()
        except RunFailed as error:
            ended.append(error)

    with opened(way(remote), said.append) as tunnel:
        keeping = threading.Thread(target=keep, args=(tunnel,), daemon=True)
        keeping.start()
        (ssh / "says").write_text("connect to host head port 22: No route to host")
        os.kill(int((ssh / "pid").read_text()), signal.SIGKILL)
        until(lambda: len((ssh / "calls").read_text().splitlines()) > 3, within_s=60)
        assert keeping.is_alive()
        (ssh / "says").write_text("Host key verification failed.")
        keeping.join(60)
        assert "Host key verification failed" in str(ended[0])
    assert [text for text in said if "gone" in text] == said, "said once, not at each try"


def test_there_is_no_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="no ssh on this machine"):
        Tunnel(way(1))


@pytest.fixture
def command(ssh: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `headway tunnel`."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "headway.cli.app", "tunnel", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, start_new_session=True))
        return started[-1]

    yield start
    for each in started:
        with suppress(ProcessLookupError):
            each.kill()
        each.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_command_says_the_address_and_leaves_no_ssh_behind_however_it_ends(
    command: Callable[..., subprocess.Popen[str]], ssh: Path, remote: int, how: signal.Signals
) -> None:
    ports = ["--port", str(any_port()), "--also", f"{remote}:{any_port()}"]
    running = command("me@head", "--remote", str(remote), *ports)
    assert running.stdout is not None
    found = re.fullmatch(r"export RAY_API_SERVER_ADDRESS=http://127\.0\.0\.1:(\d+)\n", running.stdout.readline())
    assert found is not None
    assert answers("127.0.0.1", int(found[1]))
    pid = int((ssh / "pid").read_text())
    running.send_signal(how)
    code = running.wait(60)
    until(lambda: gone(pid), within_s=30)
    assert code == (0 if how is signal.SIGINT else -signal.SIGKILL)


def test_a_cluster_is_reached_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the way that its kind knows; one of this machine needs none, and what is no cluster is a host."""
    monkeypatch.setenv(known.VARIABLE, str(tmp_path / "clusters"))
    text = "cluster_name: {}\nprovider: {{type: {}}}\navailable_node_types: {{head: {{}}}}\n"
    for name, kind in (("here", "this-machine"), ("far", "this-machine")):
        known.make(file.parse(Path("c.yaml"), text.format(name, kind), name), 5.0, "me", "secret")
    assert reached("ubuntu@10.0.0.1") == ("ubuntu@10.0.0.1", [])
    with pytest.raises(BadInput, match="cluster here needs no tunnel"):
        reached("here")
    module = ModuleType("far_kind")
    module.ssh = lambda _: ["ssh", "-i", "key.pem", "-o", "ProxyCommand=aws", "ubuntu@i-1"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "far_kind", module)
    monkeypatch.setitem(verbs.KINDS, "this-machine", "far_kind")
    assert reached("far") == ("ubuntu@i-1", ["-i", "key.pem", "-o", "ProxyCommand=aws"])


def test_bad_input_of_the_command_starts_nothing(command: Callable[..., subprocess.Popen[str]], ssh: Path) -> None:
    for arguments in (["-x"], ["head", "--also", "99999"], ["head", "--port", "70000"], ["he ad"]):
        running = command(*arguments)
        _, words = running.communicate(timeout=120)
        assert running.returncode == 2, words
        assert "Traceback" not in words
    assert not (ssh / "calls").exists()


def test_a_real_ssh_and_sshd(tmp_path: Path, remote: int) -> None:
    """Where there is an sshd: with keys of this test's own, on loopback."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ["-f", "/dev/null", "-D", "-e", "-p", str(port), "-h", str(tmp_path / "host"), "-o", "StrictModes=no"]
    settings += [
        "-o",
        f"AuthorizedKeysFile={tmp_path / 'user.pub'}",
        "-o",
        "ListenAddress=127.0.0.1",
        "-o",
        "PidFile=none",
    ]
    with (tmp_path / "sshd.log").open("w") as log:
        server = subprocess.Popen([sshd, *settings], stderr=log)
    try:
        until(lambda: listens(port) or server.poll() is not None, within_s=30)
        if server.poll() is not None:
            pytest.skip(f"sshd does not start here: {(tmp_path / 'sshd.log').read_text()[-200:]}")
        options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={tmp_path / 'known'}", "IdentitiesOnly=yes"]
        forward = Forward(any_port(), remote)
        asked = Way("127.0.0.1", [forward], identity=tmp_path / "user", port=port, options=options)
        with opened(asked):
            assert answers("127.0.0.1", forward.local)
        assert not answers("127.0.0.1", forward.local)
        stranger = Way(
            "127.0.0.1", [forward], identity=tmp_path / "host", port=port, options=[*options, "BatchMode=yes"]
        )
        with pytest.raises(RunFailed, match="Permission denied"), opened(stranger):
            pass
    finally:
        server.terminate()
        server.wait(30)


def listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False
