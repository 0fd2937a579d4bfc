"""A real PostgreSQL of its own, for tests: Debian's, in a folder that goes with it, never as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from tests import waiting

USER, PASSWORD = "mlflow", "s3cret/word"
START_S = 120.0


def programs() -> Path | None:
    """The folder of its programs, the newest version's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    path = shutil.which("postgres") if not found else str(found[-1])
    return Path(path).resolve().parent if path else None


class Postgres:
    """Runs while it is entered; `uri` is of its one database, `explicit` names the module that speaks to it."""

    def __enter__(self) -> Self:
        found = programs()
        if found is None:
            pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
        pytest.importorskip("psycopg2", reason="psycopg2 is not installed (pip install psycopg2-binary)")
        self._folder = Path(tempfile.mkdtemp(prefix="headway-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _nobody()
            shutil.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start(found)
        except BaseException:  # raised again: also who is interrupted leaves no server
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def uri(self) -> str:
        return f"postgresql://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{self.port}/postgres"

    @property
    def explicit(self) -> str:
        return self.uri.replace("postgresql:", "postgresql+psycopg2:", 1)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Do something in the database; gives the rows."""
        with closing(self._connected()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall()) if cursor.description else []

    def _connected(self) -> Any:
        import psycopg2

        place = {"host": "127.0.0.1", "port": self.port, "dbname": "postgres"}
        return psycopg2.connect(user=USER, password=PASSWORD, connect_timeout=5, **place)

    def _start(self, found: Path) -> None:
        data, secret = self._folder / "data", self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        made = [
            "-D",
            str(data),
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
        ]
        options = {"cwd": self._folder, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **self._as}
        done = subprocess.run([found / "initdb", *made], stdout=subprocess.PIPE, check=False, **options)
        assert done.returncode == 0, done.stdout.decode(errors="replace")
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self._folder), "fsync": "off"}
        told = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [found / "postgres", "-D", str(data), "-p", str(self.port), *told]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, **options)
        waiting.until(self._answers, within_s=START_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "postgres ended"
        with suppress(Exception):
            self._connected().close()
            return True
        return False

    def _end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGINT)  # a fast shutdown
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _nobody() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("there is no user but root, as whom PostgreSQL does not run")
