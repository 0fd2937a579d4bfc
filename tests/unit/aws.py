"""What tests of clusters on AWS share: a cluster's file, and ssh and its like by programs that do nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from headway.cluster import known
from headway.cluster.file import ClusterFile, parse
from headway.cluster.known import Known
from headway.testing.ec2 import REGION, Ec2

TEXT = """
cluster_name: {name}
max_workers: 2
provider:
  type: aws
  region: {region}
  headway: {{stop_when_idle_minutes: 30, stop_after_hours: 8, notices: aws, runs: s3://bucket/runs, reads: [s3://data]}}
head_node_type: head
available_node_types:
  head:
    resources: {{CPU: 0}}
    one_of:
      - {{type: m7i.large, zone: {region}a, price_per_hour: 0.11}}
      - {{type: m6i.large, zone: {region}b, price_per_hour: 0.12}}
    node_config: {{ImageId: {image}}}
  worker:
    resources: {{CPU: 4}}
    one_of:
      - {{type: c7i.xlarge, zone: {region}a, spot: true, price_per_hour: 0.07}}
      - {{type: c6i.xlarge, spot: true, price_per_hour: 0.08}}
    node_config: {{ImageId: {image}}}
"""
_STUB = """#!/bin/sh
printf '%s' "{name}" >> {log}
for word in "$@"; do printf '\\t%s' "$word" >> {log}; done
printf '\\n' >> {log}
{body}
"""


def text(ec2: Ec2, name: str) -> str:
    return TEXT.format(name=name, region=REGION, image=ec2.image())


def file(ec2: Ec2, name: str, path: Path) -> ClusterFile:
    """The file of a cluster of that name."""
    path.write_text(text(ec2, name))
    return parse(path, path.read_text())


def made(file: ClusterFile, since: float = 1_000_000_000.0) -> Known:
    """The cluster as `up` knows it before it asks AWS for anything."""
    return known.make(file, since, "somebody", "token")


class Programs:
    """ssh, rsync and others that do nothing, and say what they were called with.

    Args:
        folder: for them, to be put first on PATH.
        bodies: shell lines for each, in place of nothing.
    """

    def __init__(self, folder: Path, bodies: Mapping[str, str]) -> None:
        self.folder, self._log = folder, folder / "calls"
        folder.mkdir()
        for name, body in {"ssh": "", "rsync": "", "aws": "", "session-manager-plugin": "", **bodies}.items():
            (folder / name).write_text(_STUB.format(name=name, log=self._log, body=body))
            (folder / name).chmod(stat.S_IRWXU)

    @property
    def calls(self) -> list[list[str]]:
        """Each with the program's name first."""
        said = self._log.read_text() if self._log.exists() else ""
        return [line.split("\t") for line in said.splitlines() if line]

    @property
    def said(self) -> str:
        """All of it, as one text."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def path(self) -> str:
        """A value of PATH by which they are found first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def service() -> Iterator[Ec2]:
    with Ec2() as ec2:
        yield ec2
