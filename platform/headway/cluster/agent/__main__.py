"""The agent's command line. By Python's own library, for it runs where little else is installed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from headway.cluster.agent.nodes import RayNode, here
from headway.errors import BAD_INPUT, PLATFORM_FAILED, BadInput

CLOUDS = ("aws", "gcp", "azure", "none")
STOP_S = 25.0
"""Kubernetes and systemd give a program that is to stop 30 seconds or more."""
UNIT = """\
[Unit]
Description=Headway's agent: drains this machine's Ray node before the machine goes
Wants=network-online.target
# What begins later is stopped earlier: while Ray (if it is a unit of this name) and the network are still there.
After=network-online.target ray.service

[Service]
User={user}
ExecStart={command}
# Only when the machine stops is the node drained, not when this unit is restarted.
ExecStop=/bin/sh -c 'if [ "$(systemctl is-system-running)" = stopping ]; then exec {drain}; fi'
KillSignal=SIGINT
TimeoutStopSec={stop:.0f}
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as error:
        return BAD_INPUT if error.code else 0
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        return int(options.run(options))
    except BadInput as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headway.cluster.agent", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    watch = verbs.add_parser("watch", help="hear of this machine's end, and drain its node before", allow_abbrev=False)
    unit = verbs.add_parser("unit", help="print a unit for systemd that watches", allow_abbrev=False)
    drain = verbs.add_parser("drain", help="drain this machine's node now", allow_abbrev=False)
    for verb in (watch, unit):
        verb.add_argument("--notices", required=True, choices=CLOUDS, help="the cloud; none: signals only")
        verb.add_argument("--url", type=_url, help="of its metadata service, where it is another")
        verb.add_argument("--instance", default="", help="the cloud's id of this machine")
        rebalance = "what is done when a spot machine is said to be at risk"
        verb.add_argument("--rebalance", choices=("ignore", "replace"), default="ignore", help=rebalance)
        verb.add_argument("--stop-s", type=_seconds, default=STOP_S, help="seconds from SIGTERM to the machine's end")
    for verb in (watch, drain, unit):
        verb.add_argument("--node-id", type=_node, help="of the Ray node; else all of this machine")
    drain.add_argument("--address", default="", help="HOST:PORT of the head, for a node of another machine")
    drain.add_argument("--deadline", type=_seconds, default=STOP_S, help="seconds until the machine goes: 30, 30s, 2m")
    drain.add_argument("--reason", default="it was asked for", help="kept with the node, and shown")
    drain.add_argument("--wait", action="store_true", help="until nothing runs there any more, or the time is over")
    watch.add_argument("--alone", action="store_true", help="without the process that starts it anew if it ends")
    watch.set_defaults(run=_watch)
    drain.set_defaults(run=_drain)
    unit.set_defaults(run=_unit)
    return parser


def _watch(options: argparse.Namespace) -> int:
    if options.alone:
        return asyncio.run(_listen(options))
    from headway.cluster.agent.keeping import keep

    drain = _itself("drain", *_of_node(options), "--deadline", str(options.stop_s), "--wait", "--reason", STOPS)
    return keep(_itself("watch", *_flags(options), "--alone"), last=drain)


STOPS = "the machine stops (SIGTERM)"


async def _listen(options: argparse.Namespace) -> int:
    """Listen until a signal comes."""
    from headway.cluster.agent.asking import Asker
    from headway.cluster.agent.services import CLOUDS as KNOWN
    from headway.cluster.agent.services import LINK_LOCAL
    from headway.cluster.agent.watching import Watch
    from headway.core.notices import Judge

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    heard: list[int] = []

    def tell(number: int) -> None:
        heard.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number)
    async with Asker(options.url or LINK_LOCAL) as asker:
        cloud = KNOWN.get(options.notices)
        watch = Watch(
            options.notices,
            cloud(asker) if cloud is not None else None,
            Judge(options.rebalance),
            _nodes(options),
            options.instance,
        )
        listening, stopped = asyncio.create_task(watch.run()), asyncio.create_task(stop.wait())
        await asyncio.wait([listening, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await listening  # it raises
        if heard[0] == signal.SIGTERM:
            await watch.stop(options.stop_s, STOPS)
        listening.cancel()
        stopped.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await watch.forget()
    return 0


def _drain(options: argparse.Namespace) -> int:
    from headway.cluster.agent.leaving import Leaving

    leaving = Leaving(_nodes(options, options.address), logging.getLogger("headway.agent").warning)
    deadline = time.time() + options.deadline
    if not leaving.drain(deadline, options.reason):
        return PLATFORM_FAILED
    if options.wait:
        leaving.wait(deadline)
    return 0


def _unit(options: argparse.Namespace) -> int:
    drain = _itself("drain", *_of_node(options), "--deadline", str(options.stop_s), "--wait")
    user = os.environ.get("USER") or "root"
    command = " ".join(map(_quoted, _itself("watch", *_flags(options))))
    told = " ".join(map(_quoted, [*drain, "--reason", "the-machine-stops"]))
    print(UNIT.format(user=user, command=command, drain=told, stop=options.stop_s + 10), end="")
    return 0


def _itself(*arguments: str) -> list[str]:
    safe = ["-P"] if sys.flags.safe_path else []
    return [sys.executable, *safe, "-m", "headway.cluster.agent", *arguments]


def _flags(options: argparse.Namespace) -> list[str]:
    """Of `watch`, as they were given."""
    found = ["--notices", options.notices, "--rebalance", options.rebalance, "--stop-s", f"{options.stop_s:g}"]
    found += ["--url", options.url] if options.url else []
    found += ["--instance", options.instance] if options.instance else []
    return found + _of_node(options)


def _of_node(options: argparse.Namespace) -> list[str]:
    return ["--node-id", options.node_id] if options.node_id else []


def _nodes(options: argparse.Namespace, address: str = "") -> Callable[[], list[RayNode]]:
    """Gives the nodes that are meant, at the time it is asked."""
    if address:
        if not options.node_id:
            raise BadInput("--address without --node-id", "it is not said which node of that cluster", "Give both.")
        return lambda: [RayNode(options.node_id, address, dict(os.environ))]
    return lambda: [node for node in here() if options.node_id in (None, node.id)]


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 30, 30s, 2m, 1h")
    return float(found[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[found[2]]


def _node(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{56}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no id of a Ray node: 56 hexadecimal digits")
    return text


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address: http://HOST:PORT")
    return text


def _quoted(word: str) -> str:
    """For systemd, which takes $, % and quotes for its own; what is given here has none."""
    if not re.fullmatch(r"[\w@:,./=+-]+", word):
        raise BadInput(f"{word!r} cannot stand in a unit", "systemd would read it otherwise", "Leave it out.")
    return word


if __name__ == "__main__":
    sys.exit(main())
