"""The host of a local cluster: the process that owns its head and its nodes, and takes orders for them.

    python -m headway.cluster.local.host FOLDER DESCRIPTOR

`headway cluster up` starts it in a session of its own, and is told how it goes through the descriptor, a pipe; should
the command end before the cluster is up, so does the cluster. From then on orders come over the socket in FOLDER. The
host ends everything when it is told to (also by SIGTERM), when the cluster's time is over, when it has been idle for
too long, or when its head is gone. Nothing outlives it: the nodes end with it, even if it is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from headway.cluster import known as kept
from headway.cluster.file import load
from headway.cluster.local import orders
from headway.cluster.local.caller import Caller
from headway.cluster.local.desk import Desk
from headway.cluster.local.owner import Owner

_NOT_INHERITED = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
"""Of whoever calls `up`: they may be meant for another cluster."""


def main() -> None:
    folder, caller = Path(sys.argv[1]), Caller(int(sys.argv[2]))
    ignore(signal.SIGHUP, signal.SIGINT, signal.SIGPIPE)
    for name in _NOT_INHERITED:
        os.environ.pop(name, None)
    os.environ[kept.VARIABLE] = str(folder.parent)
    known = kept.get(folder.name)
    owner = Owner(known, load(known.file, known.name))
    desk = Desk(owner)
    signal.signal(signal.SIGTERM, lambda *_: owner.end("its host was told to end, by SIGTERM"))
    if not host(owner, desk, caller):
        kept.forget(folder.name)


def ignore(*numbers: int) -> None:
    """Do nothing where these signals come; what is started from here hears them all the same, unlike with SIG_IGN."""
    for number in numbers:
        signal.signal(number, lambda *_: None)


def host(owner: Owner, desk: Desk, caller: Caller) -> bool:
    """Have a cluster from its start to its end; returns whether it ever was up."""
    left = threading.Event()

    def leave() -> None:
        left.set()
        owner.end("whoever started it went away")

    up = False
    try:
        caller.watch(leave)
        desk.open()
        owner.start(caller.say)
        up = not left.is_set() and caller.release()
        if up:
            owner.run()
    except Exception as error:  # told to whoever waits for the cluster
        caller.tell(**orders.refusal(error))
        owner.end(str(error))
    finally:
        owner.close()
        desk.close()
    return up


if __name__ == "__main__":
    main()
