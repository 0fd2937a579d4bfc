"""`headway dashboards`: a Prometheus over the runs of a place, and the dashboards as files."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from headway.cli import serving
from headway.cli.options import Runs
from headway.driver import signals
from headway.errors import RunFailed

app = typer.Typer(help="Figures of runs over time, in Prometheus, Grafana and Perses.", no_args_is_help=True)


@app.command()
def up(
    runs: Runs = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 9090,
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine reaches the default.")
    ] = "127.0.0.1",
    ray: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What a Ray cluster wrote for Prometheus, if not in its usual folder."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where figures are kept; if not given, they go at the end.")
    ] = None,
) -> None:
    """Scrape the runs of a place with the installed Prometheus, until Ctrl-C."""
    import yaml

    from headway.dashboards import scraping
    from headway.runs import Place
    from headway.tracking.prometheus import discovery

    program, place = scraping.program(), Place.of(runs)
    signals.begin()  # SIGTERM as Ctrl-C, so that the server never outlives this process
    port = serving.free_port(host, port)
    discovery.clear(place.folder)
    with ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headway-prometheus-")))
        log = stack.enter_context((made / "log").open("w+"))
        tree = scraping.configuration(place.folder, ray or [scraping.discovered_by_ray()])
        (made / "prometheus.yml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        address = f"{serving.in_url(host)}:{port}"
        server = serving.start(scraping.command(program, made / "prometheus.yml", data or made / "data", address), log)
        stack.callback(serving.stop, server)
        try:
            serving.wait_until_up(server, "Prometheus", host, port, "/-/ready", log)
            print(f"Prometheus scrapes {place} at http://{address} (Ctrl-C ends it)", flush=True)
            print(_next(scraping.GRAFANA), flush=True)
            server.wait()
            raise RunFailed("Prometheus ended by itself", serving.tail(log), "")
        except KeyboardInterrupt:
            pass


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where they are written to.")],
) -> None:
    """Write the dashboards for Grafana and Perses, and rules and alerts for Prometheus."""
    from headway.dashboards import files

    for path in files.export(folder):
        print(path)


def _next(grafana: str) -> str:
    return (
        f"Grafana ({grafana}): add it there as a datasource, and import the files of "
        "`headway dashboards export FOLDER`; docs/dashboards.md tells how, and for Perses"
    )
