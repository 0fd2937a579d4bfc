"""Ray's launcher in a process of its own, and ssh to a machine: how they are started, heard, and ended."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.cluster.aws.head import CONFIG
from headway.errors import BadInput, HeadwayError

LOG, HOSTS = "up.log", "known_hosts"
TOLD = 15
"""Lines of the log that are shown where it fails."""
SSH_S = 60.0
_STEP = re.compile(r"\[(\d+)/(\d+)\]\s*(.*)")


def programs(auth: Mapping[str, Any]) -> None:
    """See that what is needed to sign in is here.

    Raises:
        BadInput: a program is missing.
    """
    wanted = {"ssh": "openssh-client", "rsync": "rsync"}
    if str(auth.get("ssh_proxy_command", "")).startswith("aws "):
        wanted |= {"aws": "the AWS CLI", "session-manager-plugin": "AWS's session-manager-plugin"}
    for program, package in wanted.items():
        if shutil.which(program) is None:
            remedy = f"Install {package}."
            if program in ("aws", "session-manager-plugin"):
                remedy += " Or let ssh in yourself: see cluster/aws/README.md, Signing in."
            raise BadInput(f"the program {program} is not here", "the head is set up by it", remedy)


def run(folder: Path, say: Callable[[str], None], restart: bool = True) -> None:
    """Have the head set up. What it prints is in `LOG`; its steps are said.

    Raises:
        HeadwayError: it fails; with the end of what it printed.
    """
    command = [sys.executable, "-m", "headway.cluster.aws.head", str(folder), *([] if restart else ["--no-restart"])]
    own = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_UP_enable_autoscaler_v2": "1", "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    opened = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with (
        os.fdopen(opened, "w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **own},
            start_new_session=True,  # ssh and rsync end with it
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                log.flush()
                lines = [*lines[-200:], line.rstrip()]
                if step := _STEP.search(line):
                    say(f"{step[1]}/{step[2]} {step[3]}".rstrip())
            code = process.wait()
        except BaseException:  # an interruption too: what it has started does not go on
            _end(process)
            raise
    if code != 0:
        said = "\n".join(f"    {line}" for line in lines[-TOLD:])
        raise HeadwayError(f"the head could not be set up; the end of what was said:\n{said}\n", f"exit code {code}")


def command(folder: Path, machine: str, address: str = "") -> list[str]:
    """The ssh command line to a machine.

    Args:
        folder: of the cluster.
        machine: its id.
        address: by which it is reached where no session of AWS is used.
    """
    auth = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["auth"]
    options = {
        "StrictHostKeyChecking": "accept-new",  # whoever answers first; another one later does not get the token
        "UserKnownHostsFile": '"{}"'.format(str(folder / HOSTS).replace("%", "%%")),
        "HostKeyAlias": machine,  # an address may be another machine's tomorrow
        "IdentitiesOnly": "yes",
        "ConnectTimeout": "20",
        "LogLevel": "ERROR",
        "ServerAliveInterval": "5",
    }
    if proxy := auth.get("ssh_proxy_command"):
        options["ProxyCommand"] = proxy
    target = machine if auth.get("ssh_proxy_use_node_id") else address or machine
    flags = [flag for name, value in options.items() for flag in ("-o", f"{name}={value}")]
    return ["ssh", "-i", auth["ssh_private_key"], *flags, f"{auth['ssh_user']}@{target}"]


def there(folder: Path, machine: str, asked: str, address: str = "") -> str:
    """Run a command on a machine; returns what it printed.

    Raises:
        HeadwayError: it cannot be reached, or the command fails.
    """
    line = [*command(folder, machine, address), f"bash -lc {shlex.quote(asked)}"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=SSH_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HeadwayError(f"{machine} cannot be reached by ssh", str(error)) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise HeadwayError(f"{machine} did not do it", said[-1] if said else f"exit code {done.returncode}")
    return done.stdout


def _end(process: subprocess.Popen[str]) -> None:
    """End it and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
            return
