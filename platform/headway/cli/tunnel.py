"""headway tunnel"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.saying import say

if TYPE_CHECKING:
    from headway.cluster.tunnel import Forward


def tunnel(
    to: Annotated[
        str,
        typer.Argument(metavar="NAME|HOST", help="A cluster that is known here; else its head, as ssh takes it."),
    ],
    port: Annotated[
        int | None,
        typer.Option("--port", show_default="8265, or any that is free", help="Of this machine, for the job API."),
    ] = None,
    remote: Annotated[int, typer.Option("--remote", help="Port of the job API and dashboard there.")] = 8265,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="PORT[:HERE]", help="Another port there: 3000 of Grafana, 9090 of Prometheus."),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="Of this machine. Others reach it if it is no loopback.")
    ] = "127.0.0.1",
    identity: Annotated[
        Path | None, typer.Option("--identity", "-i", metavar="FILE", help="Key for ssh.", exists=True)
    ] = None,
    ssh_port: Annotated[int | None, typer.Option("--ssh-port", help="Port of ssh there.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Of ssh: ProxyJump=bastion, StrictHostKeyChecking=…"),
    ] = None,
) -> None:
    """Bring a cluster's job API and dashboard to this machine by ssh, until Ctrl-C; it connects again when it must."""
    from headway.cluster.tunnel import LOOPBACK, Forward, Way, answers, free_port, opened

    forwards = [Forward(free_port(port, listen), remote)]
    forwards += [_also(text, listen) for text in also or []]
    host, more = _reached(to)
    way = Way(host, forwards, listen, identity, ssh_port, option or [], more)
    try:
        with opened(way, say) as tunnel:
            here = LOOPBACK if listen in ("0.0.0.0", "::") else listen
            address = f"http://{f'[{here}]' if ':' in here else here}:{forwards[0].local}"
            print(f"export RAY_API_SERVER_ADDRESS={address}", flush=True)
            say(f"{address} is the job API and the dashboard of {to}; Ctrl-C ends it")
            for each in forwards[1:]:
                say(f"{here}:{each.local} is port {each.remote} there")
            if listen not in (LOOPBACK, "::1", "localhost"):
                say(f"Whoever reaches {listen} here reaches the cluster; only its token keeps them out.")
            if not answers(here, forwards[0].local):
                say(f"Nothing answers at port {remote} there (yet): is the dashboard up, and on loopback there?")
            tunnel.keep()
    except KeyboardInterrupt:
        say("The tunnel is closed.")


def _reached(to: str) -> tuple[str, list[str]]:
    """The host that ssh is given, and arguments before it, for a known cluster or any other host."""
    from headway.cluster import known, verbs

    if to not in [each.name for each in known.every()]:
        return to, []
    line = verbs.ssh(to)
    return line[-1], line[1:-1]


def _also(text: str, listen: str) -> Forward:
    from headway.cluster.tunnel import Forward, free_port
    from headway.errors import BadInput

    there, _, here = text.partition(":")
    if not all(part.isdigit() and 0 < int(part) < 65536 for part in (there, here or there)):
        raise BadInput(f"--also {text}", "it is no port", "Write it like 3000, or 3000:3001 for another port here.")
    return Forward(free_port(int(here) if here else None, listen, int(there)), int(there))
