"""A process on each node that holds the newest state of the node's worker in shared memory, for when the worker dies.

It holds a *shelf* for each run that has workers there: a run of its own has one, the runs of a sweep have one each in
the same process. A shelf has two slots. The worker writes into the older one, straight into its memory, and then seals
it with a word: a slot that nobody has sealed counts for nothing, so that a worker that is killed in mid-copy tears
nothing. The keeper takes the digest in its own time, gives the state to workers that start (on its node the memory
itself, elsewhere over TCP), and has it copied to another node's keeper where the worker asks for that.

It is started by a worker (`begin`), and survives SIGKILL of the worker, of its process group and session, `ray.kill`,
and the driver: it forks twice and leads a session of its own. It ends when the run does, and when nobody has spoken to
it for a while. Its memory has no name and goes with it. It ends with its machine, which is a container where that is
what the worker runs in.

It tells what the machine does, too (see `headway.tracking.system`), so that nobody else need be there for that.

Only Python's own library is imported, and xxhash where it is there: some 10 MB; psutil once somebody asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from headway.elastic.wire import keepers
from headway.elastic.wire.keepers import Refused, Words
from headway.elastic.worker.shelf import HEAD, HEAD_BYTES, Busy, Shelf, Slot, digest

_PEER = struct.Struct("=iII")
"""Process, user and group at the other end of a node's own socket."""
LINGER_S = 600.0
"""So long a keeper stays that nobody speaks to."""
START_S, AGAIN_S = 10.0, 2.0
MOST_TALKS = 64
"""Over the network, and as many on the node: strangers keep no worker out."""
PIECE_BYTES = 1 << 22


def machine() -> str:
    """A name for what dies together: all in one PID namespace, a machine's or a container's."""
    try:
        return "".join(filter(str.isdigit, Path("/proc/self/ns/pid").readlink().name))
    except OSError:
        return "0"


def folder() -> Path:
    """This user's, for sockets; nobody else can enter it.

    Raises:
        OSError: it cannot be made, or somebody else has made it.
    """
    place = Path(tempfile.gettempdir())
    if len(os.fsencode(place)) > 45:  # a socket's path has 107 bytes, and run, machine and user are in it
        place = Path("/tmp")
    found = place / f"headway-keepers-{os.getuid()}"
    found.mkdir(mode=0o700, exist_ok=True)
    told = found.lstat()
    if told.st_uid != os.getuid() or told.st_mode & 0o7777 != 0o700 or found.is_symlink():
        raise OSError(f"{found} is not this user's alone")
    return found


def begin(config: dict[str, Any]) -> str:
    """Have a keeper on this machine, unless there is one; returns the path of its socket. Takes some 0.1 s.

    Args:
        config: run (its id, or a sweep's), token, machine, host (to be reached at by others), folder; linger_s; memory:
            bytes for states of runs that have no worker here, where there are several.

    Raises:
        OSError: none could be started.
    """
    path = socket_path(config)
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": paths}
    deadline = time.monotonic() + START_S
    started_at = float("-inf")
    while True:
        try:
            keepers.call(path, config["token"]).close()
            return path
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(f"no keeper could be started: {error}") from error
        if time.monotonic() - started_at > AGAIN_S:  # once more: another may have held the right to be and gone
            started_at = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a machine with much to do: it may come yet
                subprocess.run(
                    [sys.executable, "-c", "from headway.elastic.worker.keeper import main; main()"],
                    input=json.dumps(config).encode(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                    timeout=START_S,
                )
        time.sleep(0.005)


def socket_path(config: dict[str, Any]) -> str:
    """Of this machine's keeper of a run."""
    return _path(config, "sock")


def _path(config: dict[str, Any], kind: str) -> str:
    return str(Path(config["folder"]) / f"{config['run'][:16]}-{config['machine']}.{kind}")


def main() -> None:
    """Of the process: the words of `begin` come on its standard input."""
    config = json.load(sys.stdin)
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # where memory runs out, this goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    held = _held(_path(config, "lock"))
    if held is None:
        os._exit(0)  # another is there
    _sweep(Path(config["folder"]))
    Keeper(config).serve()


def _held(path: str) -> int | None:
    """The right to be the only one, for as long as the process lives."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        with contextlib.suppress(OSError):
            if Path(path).stat().st_ino == os.fstat(lock).st_ino:
                return lock
        os.close(lock)  # one that has ended took the name away meanwhile


def _sweep(folder: Path) -> None:
    """Remove the names of keepers that were killed."""
    for path in folder.glob("*.lock"):
        lock = _held(str(path))
        if lock is not None:
            for name in (path.with_suffix(".sock"), path):
                with contextlib.suppress(OSError):
                    name.unlink()
            os.close(lock)


class Keeper:
    """See the module.

    Args:
        config: see `begin`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config, self._token = config, config["token"]
        self._linger_s = float(config.get("linger_s", LINGER_S))
        self._memory: int | None = config.get("memory")
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.RLock()
        self._talks: set[_Talk] = set()
        self._quiet_since = time.monotonic()
        self._port = 0
        self._news = threading.Condition(self._lock)

    def serve(self) -> None:
        """Until the end of the process."""
        path = socket_path(self._config)
        with contextlib.suppress(OSError):
            Path(path).unlink()
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        others = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with contextlib.suppress(OSError):  # it serves its own node then
            others.bind((self._config["host"], 0))
            others.listen(16)
            self._port = others.getsockname()[1]
            threading.Thread(target=self._accept, args=(others,), daemon=True).start()
        local.bind(path)
        local.listen(16)
        threading.Thread(target=self._accept, args=(local,), daemon=True).start()
        threading.Thread(target=self._copy, daemon=True).start()
        while True:
            time.sleep(min(1.0, self._linger_s / 4))
            with self._lock:
                talks, quiet_s = list(self._talks), time.monotonic() - self._quiet_since
                if not talks and quiet_s > self._linger_s:
                    self._end()
            for talk in talks:
                talk.end_if_orphaned()

    def _end(self) -> None:
        for kind in ("sock", "lock"):
            with contextlib.suppress(OSError):
                Path(_path(self._config, kind)).unlink()
        os._exit(0)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                time.sleep(0.1)  # out of descriptors, say
                continue
            with self._lock:
                talk = _Talk(connection)
                if sum(each.local is talk.local for each in self._talks) >= MOST_TALKS:
                    connection.close()
                    continue
                self._talks.add(talk)
            threading.Thread(target=self._talk, args=(talk,), daemon=True).start()

    def _talk(self, me: _Talk) -> None:
        connection = me.connection
        words: Words | None = None
        try:
            connection.settimeout(keepers.GREET_S)
            words = keepers.admit(connection, self._token)
            connection.settimeout(None if me.local else self._linger_s)
            while True:
                self._do(me, words, words.next())
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
            pass  # it went, or is a stranger
        finally:
            with self._lock:
                for slot in me.reads:
                    slot.read(-1)
                shelf = self._shelves.get(me.run)
                if shelf is not None and shelf.writer is me:
                    shelf.rest()
                self._make_do()
                self._talks.discard(me)
                if not me.looks:
                    self._quiet_since = time.monotonic()
            (words or connection).close()

    def _do(self, me: _Talk, words: Words, word: dict[str, Any]) -> None:
        op, connection = word["op"], words.connection
        if op == "end":
            keepers.send(connection, {"ok": True})
            self._end()
        elif op == "shelf":
            me.run = str(word["run"])
        elif op == "drop":
            with self._lock:
                shelf = self._shelves.get(me.run)
                if shelf is not None:
                    shelf.let_go()
                    if shelf.writer is None and not shelf.bytes:
                        del self._shelves[me.run]
            keepers.send(connection, {"ok": True})
        elif op == "list":
            keepers.send(connection, {"states": self._states(me), "port": self._port, "pid": os.getpid()})
        elif op == "measure":
            me.looks = True
            from headway.tracking import system  # psutil with it, once somebody asks

            keepers.send(connection, {"machine": system.reading()})
        elif op == "read":
            self._give(me, words, int(word["number"]))
        elif op == "put":
            self._take(me, words, word)
        elif not me.local:
            raise Refused("only for workers of this node")
        elif op == "write":
            with self._lock:
                shelf = self._of(me)
                if word["now"] and shelf.writer is None:
                    shelf.writer = me
                mine = shelf.writer is (me if word["now"] else None)
                told = {"ok": mine, "newest": shelf.newest, "slot": shelf.newest_slot, "port": self._port}
            keepers.send(connection, told)
        elif self._of(me).writer is not me:
            raise Refused("another writes")
        elif op == "room":
            self._make_room(words, self._of(me).slots[int(word["slot"])], int(word["bytes"]))
        elif op == "seal":
            self._seal(self._of(me).slots[int(word["slot"])], dict(word["about"]))
        elif op == "copies":
            with self._news:
                self._of(me).to = [(str(host), int(port)) for host, port in word["to"]]
                self._news.notify_all()

    def _of(self, me: _Talk) -> Shelf:
        with self._lock:
            return self._shelves.setdefault(me.run, Shelf())

    def _make_do(self) -> None:
        """Runs without a worker here have so much memory together: the one that has rested longest goes first."""
        if self._memory is None:
            return
        resting = [shelf for shelf in self._shelves.values() if shelf.writer is None]
        for shelf in resting:
            shelf.thin()
        resting.sort(key=lambda shelf: shelf.rests_since)
        while resting and sum(shelf.bytes for shelf in resting) > self._memory:
            resting.pop(0).let_go()
        for run in [run for run, shelf in self._shelves.items() if shelf.writer is None and not shelf.bytes]:
            del self._shelves[run]

    # States

    def _states(self, me: _Talk) -> list[dict[str, Any]]:
        with self._lock:
            return self._shelves[me.run].states() if me.run in self._shelves else []

    def _make_room(self, words: Words, slot: Slot, size: int) -> None:
        try:
            with self._lock:
                slot.grow(size)
        except (OSError, ValueError, AttributeError) as error:
            later = isinstance(error, Busy)
            keepers.send(words.connection, {"ok": False, "reason": _said(error), "later": later})
            return
        keepers.send(words.connection, {"ok": True}, [slot.file])

    def _seal(self, slot: Slot, about: dict[str, Any]) -> None:
        """What the worker has written counts from now on; its digest follows."""
        size = int(about["bytes"])
        if slot.memory is None or not 0 < size <= len(slot.memory) - HEAD_BYTES or slot.number != about["number"]:
            return
        with self._lock:
            slot.about = about
        found = digest(slot.content(size))
        with self._news:
            if slot.about is about and slot.number == about["number"]:
                about["digest"] = found
                self._news.notify_all()

    def _find(self, shelf: Shelf | None, number: int) -> Slot | None:
        """The slot of a state that is whole and sound; it is being read from now on."""
        for slot in shelf.slots if shelf is not None else ():
            with self._lock:
                about = slot.about
                if about is None or about["number"] != number or slot.number != number:
                    continue
                slot.read(1)
            # Nobody writes to it, and a large one takes a while: others are heard meanwhile.
            if slot.number == number and about.get("digest", "") in ("", digest(slot.content(about["bytes"]))):
                return slot
            with self._lock:
                slot.read(-1)
        return None

    def _give(self, me: _Talk, words: Words, number: int) -> None:
        slot = self._find(self._shelves.get(me.run), number)
        if slot is None or slot.about is None:
            keepers.send(words.connection, {"ok": False})
            return
        me.reads.append(slot)  # until the connection ends
        keepers.send(words.connection, {"ok": True, "about": slot.about}, [slot.file] if me.local else [])
        if not me.local:
            _pour(words.connection, slot.content(slot.about["bytes"]))

    def _take(self, me: _Talk, words: Words, word: dict[str, Any]) -> None:
        """A state that another node's keeper brings, where no worker of this node writes."""
        about, connection, shelf = dict(word["about"]), words.connection, self._of(me)
        with self._lock:
            free = shelf.writer is None
            known = any(int(a["step"]) >= int(about["step"]) for a in shelf.states() if a["made"] == about["made"])
            if free and not known:
                shelf.writer = me
        if not free or known:
            keepers.send(connection, {"ok": False, "known": known})
            return
        try:
            slot, number = shelf.slots[1 - shelf.newest_slot], shelf.newest + 1
            if slot.reading:
                raise Busy("it is being read")
            with self._lock:
                slot.grow(int(about["bytes"]))
                slot.about = None
                assert slot.memory is not None
                HEAD.pack_into(slot.memory, 0, 0, 0)
            keepers.send(connection, {"ok": True})
            content = slot.content(int(about["bytes"]))
            words.fill(content)
            if digest(content) != about["digest"]:
                raise Refused("damaged on its way")
            with self._lock:
                HEAD.pack_into(slot.memory, 0, number, 0)
                slot.about = {**about, "number": number}
            keepers.send(connection, {"ok": True})
        except OSError as error:
            keepers.send(connection, {"ok": False, "reason": _said(error)})
        finally:
            with self._lock:
                shelf.rest()

    # Copies on another node

    def _copy(self) -> None:
        """Bring the newest states to keepers elsewhere, one after the other, and rest as long as each took."""
        while True:
            with self._news:
                self._news.wait_for(lambda: any(shelf.uncopied for shelf in self._shelves.values()))
                run, shelf = next((run, shelf) for run, shelf in self._shelves.items() if shelf.uncopied)
                (where, number), slot = shelf.next_copy, None
            begun = time.monotonic()
            try:
                slot = self._find(shelf, number)
                if slot is not None and slot.about is not None:
                    _bring(where, self._token, run, slot.about, slot.content(slot.about["bytes"]))
                shelf.copied = (where, number)
            except (OSError, EOFError, ValueError, KeyError):
                with self._lock:  # the next of them, if there is one
                    shelf.to = [*shelf.to[1:], *shelf.to[:1]]
                time.sleep(1.0)
            finally:
                if slot is not None:
                    with self._lock:
                        slot.read(-1)
            time.sleep(time.monotonic() - begun)


class _Talk:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.local = connection, connection.family == socket.AF_UNIX
        self.run = ""
        """Whose shelf it is about."""
        self.reads: list[Slot] = []
        self.looks = False
        """Whether it only asks what the machine does, for which no keeper stays."""
        self._pid = 0
        """Whose it is, on this node; 0: not known."""
        if self.local and hasattr(socket, "SO_PEERCRED"):
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            self._pid = int(_PEER.unpack(told)[0])

    def end_if_orphaned(self) -> None:
        """Whoever began it may have left children, forked, that know nothing of it and hold it open."""
        if self._pid:
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is there, and another user's


def _bring(where: tuple[str, int], token: str, run: str, about: dict[str, Any], content: memoryview) -> None:
    with contextlib.closing(keepers.call(where, token, run=run)) as words:
        keepers.send(words.connection, {"op": "put", "about": about})
        answer = keepers.patiently(words)
        if not answer["ok"]:
            if answer.get("known"):
                return
            raise Refused(str(answer.get("reason", "another worker writes there")))
        _pour(words.connection, content)
        answer = keepers.patiently(words)
        if not answer["ok"]:
            raise Refused(str(answer["reason"]))


def _pour(connection: socket.socket, content: memoryview) -> None:
    for first in range(0, len(content), PIECE_BYTES):
        connection.sendall(content[first : first + PIECE_BYTES])


def _said(error: BaseException) -> str:
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)
