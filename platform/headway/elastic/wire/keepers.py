"""How keepers are spoken to (see `headway.elastic.worker.keeper`): a line of JSON each way, and memory beside it.

Both sides show that they know the run's token before anything else is said, over TCP and over a node's own socket
alike. Only Python's own library is imported here: a keeper is to be small.
"""

from __future__ import annotations

import array
import contextlib
import hmac
import json
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import Any

WORD_BYTES = 1 << 20
"""Longest line."""
GREET_S = 5.0
READ_S = 60.0
"""For a state to come, for memory to be had for a large one, and for its digest."""
CALL_S = 1.0
"""For reaching a keeper that may be gone with its machine."""
AT_ONCE = 32


class Refused(OSError):
    """It is no keeper of this run, or does not do what it was asked."""


def send(connection: socket.socket, word: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Say a word; files: descriptors that go with it, over a node's own socket. Raises OSError: nobody hears it."""
    line = json.dumps(word, separators=(",", ":")).encode() + b"\n"
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    sent = connection.sendmsg([line], ancillary, socket.MSG_NOSIGNAL)
    if sent < len(line):
        connection.sendall(line[sent:])


def offer(connection: socket.socket, word: dict[str, Any]) -> None:
    """Say a word without waiting. Raises OSError: nobody hears it now, and the connection is of no more use."""
    patience_s = connection.gettimeout()
    connection.settimeout(0.0)  # a socket with a timeout waits for room, whatever MSG_DONTWAIT says
    try:
        send(connection, word)
    finally:
        connection.settimeout(patience_s)


class Words:
    """What comes in over a connection: lines, and bytes between them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._read = bytearray()
        self.files: list[int] = []
        """Descriptors that came with what was read; whoever takes one out closes it."""

    def next(self) -> dict[str, Any]:
        """The next word.

        Raises:
            EOFError: there is none.
            OSError, ValueError: it is none.
        """
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > WORD_BYTES:
                raise ValueError("too long a word")
            self._more()
        word = json.loads(self._read[:end])
        del self._read[: end + 1]
        if not isinstance(word, dict):
            raise ValueError("no word")
        return word

    def fill(self, memory: memoryview) -> None:
        """Take so many bytes. Raises EOFError, OSError."""
        taken = min(len(self._read), len(memory))
        memory[:taken] = self._read[:taken]
        del self._read[:taken]
        while taken < len(memory):
            got = self.connection.recv_into(memory[taken:])
            if not got:
                raise EOFError("the connection ended")
            taken += got

    def close(self) -> None:
        for file in self.files:
            os.close(file)
        self.files.clear()
        self.connection.close()

    def _more(self) -> None:
        if self.connection.family == socket.AF_UNIX:
            data, files, _, _ = socket.recv_fds(self.connection, 1 << 16, 4)
            self.files += files
        else:
            data = self.connection.recv(1 << 16)
        if not data:
            raise EOFError("the connection ended")
        self._read += data


def patiently(words: Words) -> dict[str, Any]:
    """The next word, which may need a while. Raises OSError, EOFError, ValueError."""
    patience_s = words.connection.gettimeout()
    words.connection.settimeout(READ_S)
    try:
        return words.next()
    finally:
        words.connection.settimeout(patience_s)


def greet(connection: socket.socket, token: str) -> Words:
    """Show that one belongs to the run, and see that the keeper does.

    Raises:
        Refused: it does not.
        OSError: nobody is there.
    """
    words, mine = Words(connection), secrets.token_hex(16)
    try:
        theirs = str(words.next()["nonce"])
        send(connection, {"nonce": mine, "mac": _mac(token, "to", theirs, mine)})
        shown = str(words.next()["mac"])
    except (EOFError, ValueError, KeyError) as error:
        raise Refused(f"no keeper of this run: {error}") from error
    if not hmac.compare_digest(shown, _mac(token, "from", theirs, mine)):
        raise Refused("a keeper of another run")
    return words


def admit(connection: socket.socket, token: str) -> Words:
    """The keeper's side of `greet`. Raises Refused, OSError."""
    words, mine = Words(connection), secrets.token_hex(16)
    send(connection, {"nonce": mine})
    try:
        said = words.next()
        theirs, shown = str(said["nonce"]), str(said["mac"])
    except (EOFError, ValueError, KeyError) as error:
        raise Refused(f"no worker of this run: {error}") from error
    if not hmac.compare_digest(shown, _mac(token, "to", mine, theirs)):
        raise Refused("a worker of another run")
    send(connection, {"mac": _mac(token, "from", mine, theirs)})
    return words


def call(where: str | tuple[str, int], token: str, within_s: float = CALL_S, run: str = "") -> Words:
    """A connection to a keeper: by the path of a node's own socket, or by host and port. run: whose shelf it is about,
    where it may have several. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(within_s)
        connection.connect(where)
        connection.settimeout(GREET_S)
        words = greet(connection, token)
        if run:
            send(connection, {"op": "shelf", "run": run})
        return words
    except BaseException:  # raised again: nothing stays open
        connection.close()
        raise


def end(where: str | tuple[str, int], token: str, run: str = "") -> None:
    """Tell a keeper that its run is over; one that is not there has ended already. run: this one of several."""
    with contextlib.suppress(OSError, EOFError, ValueError), contextlib.closing(call(where, token, run=run)) as words:
        send(words.connection, {"op": "drop" if run else "end"})
        words.next()


def measure(where: str | tuple[str, int], token: str) -> dict[str, Any]:
    """What the keeper's machine does, see `headway.core.nodes.Reading`. Raises OSError, EOFError, ValueError, KeyError:
    nobody is there, or it is of another release."""
    with contextlib.closing(call(where, token)) as words:
        send(words.connection, {"op": "measure"})
        return dict(words.next()["machine"])


def end_all(places: Iterable[str | tuple[str, int]], token: str, run: str = "") -> None:
    """`end` for each, at once: some may be on machines that are gone, which takes a while to see."""
    from concurrent.futures import ThreadPoolExecutor  # no keeper needs it

    wheres = list(places)
    if wheres:
        with ThreadPoolExecutor(min(len(wheres), AT_ONCE), "end-keepers") as threads:
            list(threads.map(lambda where: end(where, token, run), wheres))


def mac(key: str, text: str) -> str:
    """What only somebody with the key can say of a text."""
    return hmac.digest(key.encode(), f"keeper:{text}".encode(), "sha256").hex()


def _mac(token: str, way: str, first: str, second: str) -> str:
    return mac(token, f"{way}:{first}:{second}")
