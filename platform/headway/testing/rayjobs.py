"""A double of Ray's job API, in this process, that fails on purpose. Its answers are those of Ray 2.60.

    with RayJobsDouble(script, token="word") as ray:
        ray.fail("POST", "/api/jobs/", "lost")  # the job is taken, and nobody hears of it
        headway.jobs.submit(job, address=ray.address)

A script is what a job's driver does; it runs in a thread of its own. Without one, entry points run as processes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from headway.jobs import told
from headway.jobs.spec import FILE, Spec, from_json

How = Literal["refused", "lost", "cut", "302", "401", "404", "500", "503", "html", "slow"]
"""refused: hung up on, unheard. lost: done, and hung up on. cut: answered, but for the end. slow: answered late."""
SLOW_S = 1.0
MONITOR_S = 0.1
"""Between two looks of the monitor that Ray has for each job: 1 s, in Ray."""
LARGEST = 100 << 20
OVER = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass
class DoubleJob:
    """A job that was taken. A script prints, tells and ends it."""

    id: str
    request: dict[str, Any]
    working_dir: dict[str, bytes]
    modules: list[dict[str, bytes]]
    status: str = "PENDING"
    message: str = "Job has not started yet."
    exit_code: int | None = None
    logs: str = ""
    started: float = field(default_factory=time.time)
    ended: float | None = None
    stop_asked: threading.Event = field(default_factory=threading.Event)
    """Ray's stop, or its head is gone."""

    @property
    def spec(self) -> Spec:
        """What was asked for."""
        return from_json(self.working_dir[FILE].decode())

    @property
    def is_seen(self) -> bool:
        """Whether Ray's monitor has seen its end."""
        return self.ended is not None and time.time() - self.ended > MONITOR_S

    def print(self, text: str) -> None:
        """A line into the job's log."""
        self.logs += f"{text}\n"

    def tell(self, what: told.Told, **content: Any) -> None:
        """A line for whoever submitted."""
        self.logs += told.line(what, **content)

    def end(self, exit_code: int, message: str = "") -> None:
        """The entry point is over."""
        if self.status in OVER:
            return
        self.exit_code, self.ended = exit_code, time.time()
        self.message = message or (
            "Job finished successfully."
            if exit_code == 0
            else f"Job entrypoint command failed with exit code {exit_code}, last available logs (truncated to 20,000 "
            f"chars):\n{self.logs[-20000:]}"
        )
        self.status = "STOPPED" if self.stop_asked.is_set() else "FAILED" if exit_code else "SUCCEEDED"

    def shown(self) -> dict[str, Any]:
        """As the API describes it."""
        return {
            "type": "SUBMISSION",
            "job_id": None,
            "submission_id": self.id,
            "driver_info": None,
            "status": self.status,
            "entrypoint": self.request["entrypoint"],
            "message": self.message,
            "error_type": None,
            "start_time": int(self.started * 1000),
            "end_time": None if self.ended is None else int(self.ended * 1000),
            "metadata": self.request.get("metadata"),
            "runtime_env": self.request.get("runtime_env"),
            "driver_exit_code": self.exit_code,
        }


Script = Callable[[DoubleJob], None]


@dataclass
class _Fault:
    method: str
    path: str
    how: How
    times: int


class RayJobsDouble:
    """Ray's job API at `address`.

    Args:
        script: what drivers do; None runs the entry points as processes.
        token: that is asked for; None for a cluster without.
        version: of Ray.
        pending: whether jobs stay PENDING, as where no node has what they ask for, until one is `let` begin.

    Attributes:
        jobs: in Ray's list, by id.
        asked: every request, as (method, path); headers: of the newest.
        taken: ids of all jobs that ever were taken, those before the head was replaced among them.
    """

    def __init__(
        self, script: Script | None = None, token: str | None = None, version: str = "2.60.0", pending: bool = False
    ) -> None:
        self.script, self.token, self.version, self.pending = script, token, version, pending
        self.jobs: dict[str, DoubleJob] = {}
        self.packages: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.taken: list[str] = []
        self.session = "session_1"
        self.is_down = False
        self._faults: list[_Fault] = []
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="headway-rayjobs-", ignore_cleanup_errors=True)
        self._server = _Server(self)

    @property
    def address(self) -> str:
        """http://127.0.0.1:PORT"""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="rayjobs", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._end_all()
        for thread in self._threads:
            thread.join(10.0)
        self._scratch.cleanup()

    def fail(self, method: str, path: str, how: How, times: int = 1) -> None:
        """Fail the next requests of a kind, whose path begins so."""
        with self._lock:
            self._faults.append(_Fault(method, path, how, times))

    def let(self, name: str) -> None:
        """Let the driver of a job begin that is PENDING."""
        thread = threading.Thread(target=self._lead, args=(self.jobs[name],), name=f"driver of {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def replace_head(self) -> None:
        """Another head at the same address, with the same token: nothing is known there of what was before."""
        with self._lock:
            self._end_all()
            self.jobs, self.packages = {}, {}
            self.session = f"session_{int(self.session.rpartition('_')[2]) + 1}"

    def _end_all(self) -> None:
        for job in self.jobs.values():
            job.stop_asked.set()

    def fault(self, method: str, path: str) -> How | None:
        """How this request is to fail."""
        with self._lock:
            self.asked.append((method, path))
            if self.is_down:
                return "refused"
            for fault in self._faults:
                if fault.times > 0 and fault.method == method and path.startswith(fault.path):
                    fault.times -= 1
                    return fault.how
        return None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        """What Ray would answer: a status, and a text."""
        with self._lock:
            parts = [unquote(part) for part in path.strip("/").split("/")]
            match method, parts:
                case "GET", ["api", "version"]:
                    found = {
                        "version": "4",
                        "ray_version": self.version,
                        "session_name": self.session,
                    }
                    return 200, json.dumps(found)
                case "GET", ["api", "authentication_mode"]:
                    return 200, json.dumps({"authentication_mode": "token" if self.token else "disabled"})
                case "GET", ["api", "jobs"]:
                    return 200, json.dumps([job.shown() for job in self.jobs.values()])
                case "POST", ["api", "jobs"]:
                    return self._submit(json.loads(body))
                case "GET" | "PUT", ["api", "packages", protocol, name]:
                    return self._package(method, f"{protocol}://{name}", body)
                case _, ["api", "jobs", name, *rest]:
                    if name not in self.jobs:
                        return 404, f"Job {name} does not exist"
                    return self._job(method, self.jobs[name], rest)
        return 404, "404: Not Found"

    def _package(self, method: str, uri: str, body: bytes) -> tuple[int, str]:
        if method == "PUT":
            if len(body) > LARGEST:
                return 413, f"Maximum request body size {LARGEST} exceeded."
            self.packages[uri] = body
            return 200, ""
        return (200, "") if uri in self.packages else (404, f"Package {uri} does not exist")

    def _job(self, method: str, job: DoubleJob, rest: list[str]) -> tuple[int, str]:
        match method, rest:
            case "GET", []:
                return 200, json.dumps(job.shown())
            case "GET", ["logs"]:
                return 200, json.dumps({"logs": job.logs})
            case "POST", ["stop"]:
                stopped = job.status not in OVER
                if job.status != "PENDING":  # Ray says so of one that is PENDING too, and leaves it so
                    job.stop_asked.set()
                return 200, json.dumps({"stopped": stopped})
            case "DELETE", []:
                if job.status not in OVER:
                    return 500, f"Traceback\nRuntimeError: it is in a non-terminal state {job.status}.\n."
                del self.jobs[job.id]
                if not job.is_seen:
                    self._return(job)
                return 200, json.dumps({"deleted": True})
        return 404, "404: Not Found"

    def _return(self, job: DoubleJob) -> None:
        """Ray's monitor has not seen its end, and writes it down as one that died."""
        stray = DoubleJob(job.id, {"entrypoint": "Entrypoint not found."}, {}, [])
        stray.status, stray.message, stray.ended = "FAILED", "Job supervisor actor died: ...", time.time()

        def later() -> None:
            time.sleep(MONITOR_S)
            with self._lock:  # somebody may be listing them
                self.jobs[job.id] = stray

        threading.Thread(target=later, name="monitor", daemon=True).start()

    def _submit(self, request: dict[str, Any]) -> tuple[int, str]:
        name = request["submission_id"]
        metadata = request.get("metadata") or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            return 400, "Traceback (most recent call last):\nTypeError: metadata values must be strings"
        if name in self.jobs:
            reason = f"ValueError: Job with submission_id {name} already exists. Please use a different submission_id."
            return 500, f"Traceback (most recent call last):\n{reason}\n."
        environment = request.get("runtime_env") or {}
        uris = [environment.get("working_dir"), *environment.get("py_modules", [])]
        contents = [_unzipped(self.packages[uri]) for uri in uris if uri in self.packages]
        job = DoubleJob(name, request, contents[0] if contents else {}, contents[1:])
        self.jobs[name] = job
        self.taken.append(name)
        lacking = [uri for uri in uris if uri and uri not in self.packages]
        if lacking:
            job.end(1, f"runtime_env setup failed: Failed to download {lacking[0]}")
            job.exit_code = None
        elif not self.pending:
            self.let(name)
        return 200, json.dumps({"job_id": name, "submission_id": name})

    def _lead(self, job: DoubleJob) -> None:
        job.status, job.message = "RUNNING", "Job is currently running."
        try:
            if self.script is not None:
                self.script(job)
                job.end(0)
            else:
                self._run(job)
        except BaseException:  # of the script; shown as a driver's would be
            job.print(traceback.format_exc())
            job.end(1)

    def _run(self, job: DoubleJob) -> None:
        """The entry point as a process, in the job's folder, with its modules on the import path."""
        home = Path(tempfile.mkdtemp(dir=self._scratch.name))
        folders = [home / "working_dir", *(home / f"module-{number}" for number in range(len(job.modules)))]
        for folder, files in zip(folders, [job.working_dir, *job.modules], strict=True):
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        folders[0].mkdir(exist_ok=True)
        environment = {**os.environ, **(job.request.get("runtime_env") or {}).get("env_vars", {})}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, [*folders[1:], folders[0]]))
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        process = subprocess.Popen(
            job.request["entrypoint"],
            shell=True,
            cwd=folders[0],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        threading.Thread(target=_stopping, args=(job, process), daemon=True).start()
        for line in process.stdout:
            job.logs += line
        job.end(process.wait())
        process.stdout.close()


def _stopping(job: DoubleJob, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if job.stop_asked.wait(0.1):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            return


def _unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, double: RayJobsDouble) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.double = double

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has hung up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _serve(self) -> None:
        double, path = self.server.double, urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        double.headers = dict(self.headers.items())
        how = double.fault(self.command, path)
        if how == "refused":
            self.close_connection = True
            return
        if how == "slow":
            time.sleep(SLOW_S)
        if how in ("302", "401", "404", "500", "503"):
            self._send(int(how), "not now")
            return
        if how == "html":
            self._send(200, "<html>Sign in</html>")
            return
        status, text = self._refusal(path) or double.answer(self.command, path, body)
        if how == "lost":
            self.close_connection = True
            return
        self._send(status, text, cut=how == "cut")

    def _refusal(self, path: str) -> tuple[int, str] | None:
        token = self.server.double.token
        if token is None or path == "/api/authentication_mode":
            return None
        given = self.headers.get("Authorization")
        if given is None:
            return 401, "Unauthorized: Missing authentication token"
        return None if given == f"Bearer {token}" else (403, "Forbidden: Invalid authentication token")

    def _send(self, status: int, text: str, cut: bool = False) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if text[:1] in "[{" else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
