"""A cluster that is somewhere else, and a shell on no machine of it, for the tests of submitted jobs."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.dear import Dear
from tests.ray.conftest import Project

from headway.jobs.api.client import RayJob, RayJobs
from headway.runs.head import Head
from headway.runs.remote import RemoteRun
from headway.storage.opener import open_storage
from headway.storage.options import Options
from headway.storage.protocol import Storage
from headway.testing.cluster import Cluster
from headway.testing.s3 import KEYS, S3

OURS = ("RAY_", "MLFLOW_", "AWS_", "HEADWAY_")


class Laptop:
    """A shell with a home of its own, the cluster's token, and the keys of the store."""

    def __init__(self, home: Path, cluster: Cluster, s3: S3) -> None:
        self.home, self.cluster, self.s3 = home, cluster, s3
        self.url = f"s3://bucket/{secrets.token_hex(4)}"  # all services of one process have the same buckets
        self.place: Storage = open_storage(self.url, Options(endpoint=s3.endpoint))
        self._begun: list[subprocess.Popen[str]] = []
        home.mkdir(exist_ok=True)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        own = {"HOME": str(self.home), "HEADWAY_CACHE": str(self.home / "cache"), "HEADWAY_RUNS": self.url}
        own |= {"HEADWAY_STORE_ENDPOINT": self.s3.endpoint, "RAY_AUTH_TOKEN": self.cluster.token}
        return {**kept, **KEYS, **own, "RAY_API_SERVER_ADDRESS": self.cluster.jobs, **more}

    def begin(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Start a `headway` command."""
        process = subprocess.Popen(
            [sys.executable, "-m", "headway.cli.app", *map(str, arguments)],
            env=self.environment(**variables),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._begun.append(process)
        return process

    def headway(self, *arguments: object, code: int = 0, **variables: str) -> tuple[str, str]:
        """What a command prints to standard output and error."""
        return ended(self.begin(*arguments, **variables), code)

    def told(self, *arguments: object, code: int = 0) -> Any:
        """The JSON object that a command prints."""
        return json.loads(self.headway(*arguments, "--json", code=code)[0])

    def head(self, name: str) -> Head:
        return RemoteRun(self.place, name).head()

    def steps(self, name: str) -> int:
        """That the run's store knows of."""
        if name not in self.place.folders():
            return 0
        return int((self.head(name).brief or {}).get("steps", 0))

    def jobs(self, run: str = "") -> list[RayJob]:
        """What Ray has in its list, oldest first; run: only those for this one."""
        found = RayJobs(self.cluster.jobs, token=self.cluster.token).jobs()
        return sorted((job for job in found if run in ("", job.run)), key=lambda job: job.started or 0.0)

    def listed(self) -> list[str]:
        return [job.id for job in self.jobs()]

    def close(self) -> None:
        for process in self._begun:
            if process.poll() is None:
                process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str], code: int = 0, within_s: float = 300) -> tuple[str, str]:
    """Wait for a command's end; what it printed."""
    out, err = process.communicate(timeout=within_s)
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}\n{err}"
    return out, err


@contextmanager
def elsewhere(folder: Path, hidden: Path) -> Iterator[Laptop]:
    """A cluster of two nodes that share no folder, with a store and a shell that is on none of them."""
    with (
        pytest.MonkeyPatch.context() as patch,
        S3() as s3,
        Cluster(nodes=2, environment=KEYS, apart=[hidden], jobs=True) as cluster,
    ):
        for variable, value in KEYS.items():  # for the tests' own look into the store
            patch.setenv(variable, value)
        laptop = Laptop(folder / "laptop", cluster, s3)
        try:
            yield laptop
        finally:
            laptop.close()


_elsewhere = Dear[Laptop]("laptop")


def shared(temporary: pytest.TempPathFactory, project: Project) -> Laptop:
    """One that modules share by fixtures of the name `laptop`, with the project's data in its store.

    What it has seen before is anybody's: nodes that went, another head, other runs.
    """

    @contextmanager
    def make() -> Iterator[Laptop]:
        with elsewhere(temporary.mktemp("elsewhere"), temporary.getbasetemp()) as found:
            for part in ("train", "test"):
                found.s3.put("bucket", f"digits/{part}", project.folder / part)
            yield found

    return _elsewhere.get(make)
