"""A process on each node that holds the newest state of the node's worker in shared memory, for when the worker dies.

There are two slots. The worker writes into the older one, straight into its memory, and then seals it with a word: a
slot that nobody has sealed counts for nothing, so that a worker that is killed in mid-copy tears nothing. The keeper
takes the digest in its own time, gives the state to workers that start (on its node the memory itself, elsewhere over
TCP), and has it copied to another node's keeper where the worker asks for that.

It is started by a worker (`begin`), and survives SIGKILL of the worker, of its process group and session, `ray.kill`,
and the driver: it forks twice and leads a session of its own. It ends when the run does, and when nobody has spoken to
it for a while. Its memory has no name and goes with it. It ends with its machine, which is a container where that is
what the worker runs in.

Only Python's own library is imported, and xxhash where it is there: some 10 MB.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from headway.elastic.wire import keepers
from headway.elastic.wire.keepers import Refused, Words

SLOTS = 2
HEAD = struct.Struct("<QQ")
"""What a slot begins with: the number of its seal (0 while it is written), and how many read it."""
HEAD_BYTES = 64
_PEER = struct.Struct("=iII")
"""Process, user and group at the other end of a node's own socket."""
LINGER_S = 600.0
"""So long a keeper stays that nobody speaks to."""
START_S, AGAIN_S = 10.0, 2.0
TIGHT = 0.9
"""Share of the memory that may be in use with a keeper's; Ray ends workers from 0.95 on."""
MOST_TALKS = 64
"""Over the network, and as many on the node: strangers keep no worker out."""
PIECE_BYTES = 1 << 22


class Digest:
    """By which damage is seen; it need not withstand malice."""

    def __init__(self) -> None:
        self._sum, self._fast = 0, None
        with contextlib.suppress(ImportError):
            import xxhash

            self._fast = xxhash.xxh3_64()

    def add(self, data: Any) -> None:
        if self._fast is not None:
            self._fast.update(data)
        else:
            self._sum = zlib.crc32(data, self._sum)

    def told(self) -> str:
        return f"crc32:{self._sum:08x}" if self._fast is None else f"xxh3:{self._fast.hexdigest()}"


def digest(data: memoryview) -> str:
    """Of bytes that are all there."""
    found = Digest()
    found.add(data)
    return found.told()


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
        config: run (its id), token, machine, host (to be reached at by others), folder; linger_s.

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


class Busy(OSError):
    """Somebody reads what is in a slot."""


class Slot:
    """Memory for one state."""

    def __init__(self) -> None:
        self.file = -1
        self.memory: mmap.mmap | None = None
        self.about: dict[str, Any] | None = None
        """Of what is sealed in it."""
        self.reading = 0

    def grow(self, size: int) -> None:
        """Have room for so many bytes behind the head.

        Raises:
            Busy: what is in it is needed.
            OSError: the machine has none.
        """
        if self.memory is not None and len(self.memory) >= HEAD_BYTES + size:
            return
        if self.reading:
            raise Busy("it is being read")
        whole = HEAD_BYTES + size
        lacking = shortage(whole - (len(self.memory) if self.memory is not None else 0))
        if lacking:
            raise OSError(lacking)
        self.about = None
        file = os.memfd_create("headway-state", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(file, 0, whole)
            memory = mmap.mmap(file, whole)
        except BaseException:  # raised again: nothing stays
            os.close(file)
            raise
        if self.file >= 0:
            os.close(self.file)
        self.file, self.memory, self.reading = file, memory, 0

    @property
    def number(self) -> int:
        """Of the seal, as the memory says; 0 while it is written."""
        return int(HEAD.unpack_from(self.memory)[0]) if self.memory is not None else 0

    def read(self, more: int) -> None:
        """So many more read it: whoever writes looks at that."""
        assert self.memory is not None
        self.reading += more
        struct.pack_into("<Q", self.memory, 8, self.reading)

    def content(self, size: int) -> memoryview:
        assert self.memory is not None
        return memoryview(self.memory)[HEAD_BYTES : HEAD_BYTES + size]


class Keeper:
    """See the module.

    Args:
        config: see `begin`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config, self._token = config, config["token"]
        self._linger_s = float(config.get("linger_s", LINGER_S))
        self._slots = [Slot() for _ in range(SLOTS)]
        self._lock = threading.RLock()
        self._writer: _Talk | None = None
        self._talks: set[_Talk] = set()
        self._quiet_since = time.monotonic()
        self._port = 0
        self._to: list[tuple[str, int]] = []
        self._news = threading.Condition(self._lock)
        self._copied: tuple[tuple[str, int], int] | None = None

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
                if self._writer is me:
                    self._writer, self._to = None, []
                self._talks.discard(me)
                self._quiet_since = time.monotonic()
            (words or connection).close()

    def _do(self, me: _Talk, words: Words, word: dict[str, Any]) -> None:
        op, connection = word["op"], words.connection
        if op == "end":
            keepers.send(connection, {"ok": True})
            self._end()
        elif op == "list":
            keepers.send(connection, {"states": self._states(), "port": self._port, "pid": os.getpid()})
        elif op == "read":
            self._give(me, words, int(word["number"]))
        elif op == "put":
            self._take(me, words, word)
        elif not me.local:
            raise Refused("only for workers of this node")
        elif op == "write":
            with self._lock:
                if word["now"] and self._writer is None:
                    self._writer = me
                mine = self._writer is (me if word["now"] else None)
                newest = max((s.about["number"] for s in self._slots if s.about), default=0)
            keepers.send(connection, {"ok": mine, "newest": newest, "slot": self._newest_slot(), "port": self._port})
        elif self._writer is not me:
            raise Refused("another writes")
        elif op == "room":
            self._make_room(words, int(word["slot"]), int(word["bytes"]))
        elif op == "seal":
            self._seal(int(word["slot"]), dict(word["about"]))
        elif op == "copies":
            with self._news:
                self._to = [(str(host), int(port)) for host, port in word["to"]]
                self._news.notify_all()

    # States

    def _states(self) -> list[dict[str, Any]]:
        """What is sealed, the newest first."""
        with self._lock:
            found = [slot.about for slot in self._slots if slot.about and slot.number == slot.about["number"]]
            return sorted(found, key=lambda about: -int(about["number"]))

    def _newest_slot(self) -> int:
        with self._lock:
            numbers = [slot.about["number"] if slot.about else 0 for slot in self._slots]
        return numbers.index(max(numbers))

    def _make_room(self, words: Words, place: int, size: int) -> None:
        slot = self._slots[place]
        try:
            with self._lock:
                slot.grow(size)
        except (OSError, ValueError, AttributeError) as error:
            later = isinstance(error, Busy)
            keepers.send(words.connection, {"ok": False, "reason": _said(error), "later": later})
            return
        keepers.send(words.connection, {"ok": True}, [slot.file])

    def _seal(self, place: int, about: dict[str, Any]) -> None:
        """What the worker has written counts from now on; its digest follows."""
        slot, size = self._slots[place], int(about["bytes"])
        if slot.memory is None or not 0 < size <= len(slot.memory) - HEAD_BYTES or slot.number != about["number"]:
            return
        with self._lock:
            slot.about = about
        found = digest(slot.content(size))
        with self._news:
            if slot.about is about and slot.number == about["number"]:
                about["digest"] = found
                self._news.notify_all()

    def _find(self, number: int) -> Slot | None:
        """The slot of a state that is whole and sound; it is being read from now on."""
        for slot in self._slots:
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
        slot = self._find(number)
        if slot is None or slot.about is None:
            keepers.send(words.connection, {"ok": False})
            return
        me.reads.append(slot)  # until the connection ends
        keepers.send(words.connection, {"ok": True, "about": slot.about}, [slot.file] if me.local else [])
        if not me.local:
            _pour(words.connection, slot.content(slot.about["bytes"]))

    def _take(self, me: _Talk, words: Words, word: dict[str, Any]) -> None:
        """A state that another node's keeper brings, where no worker of this node writes."""
        about, connection = dict(word["about"]), words.connection
        with self._lock:
            free = self._writer is None
            known = any(int(a["step"]) >= int(about["step"]) for a in self._states() if a["made"] == about["made"])
            if free and not known:
                self._writer = me
        if not free or known:
            keepers.send(connection, {"ok": False, "known": known})
            return
        try:
            slot = self._slots[1 - self._newest_slot()]
            number = max((s.about["number"] for s in self._slots if s.about), default=0) + 1
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
                self._writer = None

    # Copies on another node

    def _copy(self) -> None:
        """Bring the newest state to a keeper elsewhere, one after the other, and rest as long as each took."""
        while True:
            with self._news:
                self._news.wait_for(self._uncopied)
                (where, number), slot = self._next_copy(), None
            begun = time.monotonic()
            try:
                slot = self._find(number)
                if slot is not None and slot.about is not None:
                    _bring(where, self._token, slot.about, slot.content(slot.about["bytes"]))
                self._copied = (where, number)
            except (OSError, EOFError, ValueError, KeyError):
                with self._lock:  # the next of them, if there is one
                    self._to = [*self._to[1:], *self._to[:1]]
                time.sleep(1.0)
            finally:
                if slot is not None:
                    with self._lock:
                        slot.read(-1)
            time.sleep(time.monotonic() - begun)

    def _uncopied(self) -> bool:
        return bool(self._to) and self._newest_sound() > 0 and self._copied != self._next_copy()

    def _next_copy(self) -> tuple[tuple[str, int], int]:
        return self._to[0], self._newest_sound()

    def _newest_sound(self) -> int:
        return max((int(about["number"]) for about in self._states() if about.get("digest")), default=0)


class _Talk:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.local = connection, connection.family == socket.AF_UNIX
        self.reads: list[Slot] = []
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


def _bring(where: tuple[str, int], token: str, about: dict[str, Any], content: memoryview) -> None:
    with contextlib.closing(keepers.call(where, token)) as words:
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


def shortage(size: int) -> str:
    """Why so many more bytes should not be taken of this machine's memory; empty where they may."""
    total, used = memory()
    if total and used + size > TIGHT * total:
        return f"{size / 1e6:,.0f} MB more would leave too little of {total / 1e6:,.0f} MB, {used / 1e6:,.0f} in use"
    return ""


def memory() -> tuple[int, int]:
    """Bytes there are, and that are in use, of the machine or of the container's limit; (0, 0) where not known."""
    found: list[tuple[int, int]] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        told = {line[0]: int(line[1]) * 1024 for line in lines if len(line) > 1}
        found.append((told["MemTotal:"], told["MemTotal:"] - told["MemAvailable:"]))
    for limit, used, stat, cache in _CGROUPS:
        with contextlib.suppress(OSError, ValueError, KeyError):
            pages = dict(line.split() for line in Path(stat).read_text().splitlines())
            found.append((int(Path(limit).read_text()), int(Path(used).read_text()) - int(pages[cache])))
    return min(found, default=(0, 0), key=lambda each: each[0] - each[1])


_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


def _said(error: BaseException) -> str:
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)
