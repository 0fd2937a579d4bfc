"""headway cluster certs"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json
from headway.errors import BadInput


def certs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="That holds the cluster's authority, or will.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the cluster; the folder's when not given.")] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="NAME[=ADDRESS,...]",
            help="Issue, or renew, this machine's certificate: for its addresses, names, or a network (10.0.3.0/24).",
        ),
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Renew those of all machines.")] = False,
    days: Annotated[float, typer.Option("--days", min=0.01, help="A certificate is good for so long.")] = 90.0,
    new_authority: Annotated[
        bool, typer.Option("--new-authority", help="Make another; machines of both take each other until --forget.")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Take nobody any more of an earlier authority.")] = False,
    json: Json = False,
) -> None:
    """Make the certificates of a cluster's machines, for mutual TLS; without options, say what there is."""
    import json as encoder
    import time
    from dataclasses import asdict

    from headway import certificates
    from headway.cluster.certs import Authority, demand_usable, said

    wanted = [_machine(text) for text in node or []]
    for machine, hosts in wanted:
        demand_usable(machine, hosts)
    authority = Authority(folder)
    if not authority.is_there:
        if not wanted or renew or new_authority or forget:
            remedy = f"Make one: headway cluster certs {folder} --node NAME=ADDRESS"
            raise BadInput(f"{folder} holds no authority", "", remedy)
        authority = Authority.begin(folder, name or folder.resolve().name)
    else:
        if new_authority:
            authority.renew()
        if forget:
            authority.forget()
        wanted += [(each.name, []) for each in authority.issued() if renew and each.name not in dict(wanted)]
    made = [authority.issue(machine, hosts, days) for machine, hosts in wanted]
    found, now = authority.issued(), time.time()
    if json:
        there = [{**asdict(each), "days_left": each.days_left(now)} for each in found]
        told = {"authority": asdict(certificates.read(authority.certificate)), "nodes": there}
        print(encoder.dumps({**told, "environment": {each.name: each.environment for each in made}}))
        return
    print(f"{authority.certificate}: {said(certificates.read(authority.certificate), now)}")
    for each in found:
        print(f"  {said(each, now)}")
    for issued in made:
        print(f"\nOn {issued.name}, for all of Ray and Headway there (a certificate counts for what is started later):")
        for variable, value in issued.environment.items():
            print(f"  export {variable}={value}")


def _machine(text: str) -> tuple[str, list[str]]:
    name, _, hosts = text.partition("=")
    return name, [host.strip() for host in hosts.split(",") if host.strip()]
