"""Ray's job API, as its dashboard serves it: plain HTTP, with the cluster's token.

Nothing of Ray is imported. That something could not be asked (`Unreachable`) and that it is not there (None) are told
apart: the one says nothing of the other.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from headway.errors import BadInput
from headway.jobs.api import call, tokens
from headway.jobs.api.call import ANSWER_S, Failed, NoEntry, NotARay, Unasked, Unreachable

SERIES = "2.60"
"""Releases of Ray that this Headway can lead runs on."""
PATIENCE_S = 20.0
"""So long a question is asked again, while no answer comes."""
KNOCK_S = 3.0
"""The same for the first one: a wrong address is more likely then."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
LARGEST = 100 << 20
"""Bytes of an upload; Ray's dashboard takes no more (its DASHBOARD_CLIENT_MAX_SIZE)."""
ABSENT = b"does not exist"
"""Stands in Ray's own 404."""
LONGEST = 300
"""Characters of Ray's words on a job."""
ALIVE = ("PENDING", "RUNNING")
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Version:
    """What answers. session: of this start of the head; another one knows nothing of the jobs of those before it."""

    ray: str
    session: str


@dataclass(frozen=True)
class RayJob:
    """A job in Ray's list.

    Args:
        id: that it was submitted under.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED, as Ray believes.
        message: Ray's words, in a line.
        detail: all of them; of an entry point that failed, with thousands of characters of its log.
        started, ended: Unix seconds, by the head's clock.
        exit_code: of its entry point.
        metadata: shown to every holder of the cluster's token.
    """

    id: str
    status: str
    message: str = ""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    detail: str = field(default="", repr=False)

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as Ray knows."""
        return self.status in ALIVE

    @property
    def run(self) -> str:
        """The run of ours that it is for; "" of another's job."""
        return self.metadata.get("headway_run", "")

    @property
    def attempt(self) -> str:
        return self.metadata.get("headway_attempt", "")

    @property
    def kind(self) -> str:
        return self.metadata.get("headway_kind", "")

    @property
    def by(self) -> str:
        return self.metadata.get("headway_by", "")

    @property
    def runs(self) -> str:
        """Where the run is kept; "" for what the node says."""
        return self.metadata.get("headway_runs", "")

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> RayJob:
        """From Ray's description of it."""
        return cls(
            id=str(tree["submission_id"]),
            status=str(tree["status"]),
            message=_first(str(tree.get("message") or "")),
            detail=str(tree.get("message") or ""),
            started=_seconds(tree.get("start_time")),
            ended=_seconds(tree.get("end_time")),
            exit_code=tree.get("driver_exit_code"),
            metadata={str(name): str(value) for name, value in (tree.get("metadata") or {}).items()},
        )


def _first(message: str) -> str:
    line = message.strip().partition("\n")[0].strip()
    return line.partition(", last available logs")[0][:LONGEST]


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else None


@dataclass(frozen=True)
class RayJobs:
    """The job API of one cluster. Every method may raise Unreachable, NoEntry or BadInput (it is no Ray).

    Args:
        address: http://HOST:PORT of the dashboard, or that with a path, or https.
        token: of the cluster; None for one that has none.
        patience_s: for which a question is asked again that was not answered.
        answer_s: after which an answer is given up.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    patience_s: float = PATIENCE_S
    answer_s: float = ANSWER_S

    @classmethod
    def at(cls, address: str | None = None, patience_s: float = PATIENCE_S) -> RayJobs:
        """The API at an address as a user says it, with the token that this user has.

        Raises:
            BadInput: it is none, or the token cannot be read.
        """
        found = call.where(address)
        return cls(found, tokens.find(), patience_s)

    def admit(self) -> Version:
        """Whether there is a cluster that runs can be led on, and that lets us in.

        Raises:
            BadInput: another Ray, none at all, or it does not take the token.
        """
        found = self.version()
        if found.ray.split(".")[:2] != SERIES.split("."):
            reason = f"it runs Ray {found.ray}, and this release of Headway goes with Ray {SERIES}"
            remedy = f"Give the cluster Ray {SERIES}, or use the release of Headway that goes with its Ray."
            raise BadInput(f"{self.address} cannot take the job", reason, remedy)
        self.get(f"/api/jobs/{quote('headway-nobody')}", absent=None)  # the version is told without a token too
        return found

    def version(self) -> Version:
        """What answers there."""
        tree = self.get("/api/version", patience_s=min(self.patience_s, KNOCK_S))
        try:
            return Version(str(tree["ray_version"]), str(tree.get("session_name") or ""))
        except (KeyError, TypeError, AttributeError):
            raise call.not_a_ray(self.address, "its /api/version is not Ray's") from None

    def guarded(self) -> bool:
        """Whether the cluster wants a token."""
        return bool(self.get("/api/authentication_mode", absent={}).get("authentication_mode") == "token")

    def jobs(self) -> list[RayJob]:
        """All that were submitted and are in the list, by whomever."""
        found = self.get("/api/jobs/")
        try:
            return [RayJob.of(tree) for tree in found if tree.get("submission_id")]
        except (KeyError, TypeError, AttributeError):
            raise call.not_a_ray(self.address, "its list of jobs is not Ray's") from None

    def busy(self) -> bool:
        """Whether a job has not ended: one that was submitted, or a driver that somebody started by themselves."""
        found = self.get("/api/jobs/")
        try:
            return any(tree["status"] in ALIVE for tree in found)
        except (KeyError, TypeError):
            raise call.not_a_ray(self.address, "its list of jobs is not Ray's") from None

    def job(self, name: str) -> RayJob | None:
        """One of them; None where Ray knows of none: it never was, was deleted, or the head was replaced."""
        tree = self.get(f"/api/jobs/{quote(name)}", absent=None)
        try:
            return None if tree is None else RayJob.of(tree)
        except (KeyError, TypeError, AttributeError):
            raise call.not_a_ray(self.address, "its description of a job is not Ray's") from None

    def logs(self, name: str) -> str | None:
        """All that its entry point has printed; None where Ray knows of no such job."""
        tree = self.get(f"/api/jobs/{quote(name)}/logs", absent=None)
        return None if tree is None else str(tree.get("logs") or "")

    def submit(self, name: str, entrypoint: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Ask once for a job.

        Raises:
            Failed: it is not known whether it was taken, or it was there: ask `job`.
            BadInput: Ray refuses it.
        """
        body = {"entrypoint": entrypoint, "submission_id": name, "runtime_env": runtime_env, "metadata": metadata}
        answer = self._once("POST", "/api/jobs/", json.dumps(body).encode(), "application/json")
        if answer.status in _TRANSIENT or answer.status in (404, 405):  # what takes jobs may not be up yet
            raise Failed(answer.said())
        if answer.status != 200:
            raise BadInput(f"{self.address} does not take the job", answer.said(), "Mend that, then submit again.")

    def stop(self, name: str) -> bool:
        """Ask that a job be ended: SIGTERM first. Whether Ray knew of it and it was not over.

        Never to be believed of one that is PENDING: Ray answers that it was stopped, and leaves it so for ever.
        """
        tree = self._told("POST", f"/api/jobs/{quote(name)}/stop", absent={})
        return bool(tree.get("stopped"))

    def delete(self, name: str) -> bool:
        """Take a job that is over from the list. Whether it is not there any more."""
        answer = self._patient("DELETE", f"/api/jobs/{quote(name)}", lasting=b"non-terminal")
        return answer.status in (200, 404)

    def has_package(self, uri: str) -> bool:
        """Whether the cluster holds a package; asking keeps it there for a while."""
        answer = self._patient("GET", _package(uri))
        if answer.status == 404 and ABSENT in answer.body:
            return False
        if answer.status != 200 or answer.body:  # a page to sign in at, say
            raise call.not_a_ray(self.address, answer.said())
        return True

    def put_package(self, uri: str, content: bytes) -> None:
        """Hand a package to the cluster."""
        answer = self._patient("PUT", _package(uri), content, lasting=b"exceeds")
        if answer.status == 200 and answer.body:
            raise call.not_a_ray(self.address, answer.said())
        if answer.status != 200:
            remedy = "Mend that, or make what travels smaller: see `files:` in the job."
            raise BadInput(f"{self.address} does not take the task's code", answer.said(), remedy)

    def get(self, path: str, *, absent: Any = ..., patience_s: float | None = None) -> Any:
        """What the dashboard answers to a question, as JSON. absent: the answer where it has nothing (404)."""
        return self._told("GET", path, absent=absent, patience_s=patience_s)

    def _told(self, method: str, path: str, *, absent: Any, patience_s: float | None = None) -> Any:
        answer = self._patient(method, path, patience_s=patience_s)
        if answer.status == 404 and absent is not ... and ABSENT in answer.body:
            return absent
        if answer.status != 200:
            raise call.not_a_ray(self.address, answer.said())
        try:
            return json.loads(answer.body)
        except ValueError:
            raise call.not_a_ray(self.address, f"{path} answers something else than JSON") from None

    def _patient(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        patience_s: float | None = None,
        lasting: bytes | None = None,
    ) -> call.Answer:
        """The answer to what may be asked again and again. lasting: stands in an error that will not pass."""
        patience_s = self.patience_s if patience_s is None else patience_s
        deadline, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
        while True:
            try:
                answer = self._once(method, path, body, "application/octet-stream" if body else "")
                if answer.status not in _TRANSIENT or (lasting is not None and lasting in answer.body):
                    return answer
                reason = answer.said()
            except Failed as error:
                reason = str(error)
            if time.monotonic() + pause_s > deadline:
                raise call.unreachable(self.address, reason)
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _once(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> call.Answer:
        """Raises Failed: no answer came. NoEntry: it is not for us."""
        headers = {"Content-Type": kind} if kind else {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        answer = call.ask(self.address, method, path, headers, body, self.answer_s)
        if answer.status in (401, 403):
            raise tokens.refused(self.address, answer.status, self.token is not None)
        if 300 <= answer.status < 400:
            raise call.not_a_ray(self.address, f"it sends elsewhere, to {answer.location}")
        return answer


def _package(uri: str) -> str:
    protocol, _, name = uri.partition("://")
    return f"/api/packages/{protocol}/{quote(name)}"


__all__ = [
    "ALIVE",
    "LARGEST",
    "SERIES",
    "Failed",
    "NoEntry",
    "NotARay",
    "RayJob",
    "RayJobs",
    "Unasked",
    "Unreachable",
    "Version",
]
