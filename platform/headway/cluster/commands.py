"""The shell commands by which a bare machine with Ubuntu becomes a node: what Ray's cluster launcher runs over ssh.

All is pinned and travels from the machine that calls `up`: Headway itself as files, everything else by the versions
that are here. A machine whose image has these already (see cluster/aws/README.md) installs nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

FOLDER = "~/.headway"
"""On every machine: package/headway, requirements.txt, token, agent.log."""
PYTHON = "~/.headway/venv/bin/python"
RAY = "~/.headway/venv/bin/ray"
PORT, JOBS = 6379, 8265
HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Of the head: a machine that is cut off is given up after some 9 s, not 65."""
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "$HOME/.headway/token"}
"""Of every process that speaks to the cluster."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}


def mounts(requirements: Path, token: Path, package: Path | None = None) -> dict[str, str]:
    """What every machine is sent: by the place there, the file or folder here.

    Args:
        requirements: a file with what is installed.
        token: the cluster's.
        package: the folder of Headway's code; that which runs here if left out.
    """
    if package is None:
        import headway

        package = Path(headway.__file__).parent
    return {
        f"{FOLDER}/package/headway": str(package),
        f"{FOLDER}/requirements.txt": str(requirements),
        f"{FOLDER}/token": str(token),
    }


def set_up() -> list[str]:
    """What makes a machine ready; again, it does nothing."""
    venv, listed = f"{FOLDER}/venv", f"{FOLDER}/requirements.txt"
    return [
        f"chmod 700 {FOLDER} && chmod 600 {FOLDER}/token",
        f"test -x {PYTHON} || python3 -m venv {venv} || (sudo apt-get update -qq && "
        f"sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv && python3 -m venv --clear {venv})",
        f"cmp -s {listed} {venv}/requirements.txt || ({PYTHON} -m pip install -q --disable-pip-version-check "
        f"-r {listed} && cp {listed} {venv}/requirements.txt)",
        f'{PYTHON} -c "import pathlib, site; '
        "pathlib.Path(site.getsitepackages()[0], 'headway.pth').write_text("
        "str(pathlib.Path.home() / '.headway/package'))\"",
    ]


def start_head(environment: Mapping[str, str]) -> list[str]:
    """What starts Ray on the head; its job API answers on its own loopback only.

    Args:
        environment: of Ray's processes there and of all jobs, beside HEALTH and TOKEN.
    """
    said = _exports({**_QUIET, **TOKEN, **HEALTH, **environment})
    return [
        f"{RAY} stop",
        f"{said} ulimit -n 65536; {RAY} start --head --port={PORT} --dashboard-host=127.0.0.1 "
        f"--dashboard-port={JOBS} --autoscaling-config=~/ray_bootstrap_config.yaml",
    ]


def start_worker(environment: Mapping[str, str]) -> list[str]:
    """What starts Ray on a worker. Ray puts the head's address into RAY_HEAD_IP."""
    said = _exports({**_QUIET, **TOKEN, **environment})
    return [f"{RAY} stop", f"{said} ulimit -n 65536; {RAY} start --address=$RAY_HEAD_IP:{PORT}"]


def agent(notices: str) -> list[str]:
    """What starts the agent that hears of this machine's end: by systemd where there is any.

    Args:
        notices: aws, gcp, azure, none, or the URL of such a service.
    """
    cloud, url = ("aws", f" --url {shlex.quote(notices)}") if "://" in notices else (notices, "")
    options = f"--notices {cloud}{url}"
    said = _exports(TOKEN)
    unit = "/etc/systemd/system/headway-agent.service"
    return [
        f"if test -d /run/systemd/system; then {said} {PYTHON} -m headway.cluster.agent unit {options} | "
        f"sudo tee {unit} >/dev/null && sudo systemctl daemon-reload && sudo systemctl enable -q headway-agent && "
        "sudo systemctl restart headway-agent; "
        f"else {said} setsid nohup {PYTHON} -m headway.cluster.agent watch {options} "
        f">>{FOLDER}/agent.log 2>&1 </dev/null & fi"
    ]


def end_at(when: float) -> list[str]:
    """What shuts a machine down at a time, whatever becomes of the rest; it is gone then, see `aws.market`.

    Args:
        when: Unix seconds.
    """
    return [f"sudo shutdown -P +$(( ({when:.0f} - $(date +%s)) / 60 + 1 ))"]


def ends_by_itself(when: float) -> str:
    """The same as the script that a machine runs first, as root: one that is never set up has an end too.

    Args:
        when: Unix seconds.
    """
    return (
        f"#!/bin/sh\nleft=$(( ({when:.0f} - $(date +%s)) / 60 + 1 ))\n[ $left -gt 1 ] || left=1\nshutdown -P +$left\n"
    )


def keeper(idle_minutes: float) -> list[str]:
    """What ends the cluster from its head once nothing has run for so long."""
    said = _exports(TOKEN)
    return [
        f"{said} setsid nohup {PYTHON} -m headway.cluster.keeper ~/ray_bootstrap_config.yaml "
        f"--idle-minutes {idle_minutes:g} >>{FOLDER}/keeper.log 2>&1 </dev/null &"
    ]


def _exports(environment: Mapping[str, str]) -> str:
    """`export A=b …;` with what `$HOME` means there."""
    return "export " + " ".join(f"{name}={_quoted(environment[name])}" for name in environment) + ";"


def _quoted(value: str) -> str:
    return f'"{value}"' if value.startswith("$HOME/") and value == value.strip('"`\\') else shlex.quote(value)
