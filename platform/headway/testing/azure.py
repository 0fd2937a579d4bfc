"""Azure's blob storage on loopback: azurite, which npm has (`npm install azurite`), with one container."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import re
import shutil
import subprocess
import tempfile
import time
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, known to all."""
KEYS = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY}
START_S = 60.0
_NAME = "azurite-blob"


def program() -> str | None:
    """Azurite's program: as HEADWAY_AZURITE says, on the path, or in a node_modules of this folder or one above."""
    named = os.environ.get("HEADWAY_AZURITE")
    if named:
        return named if os.access(named, os.X_OK) else None
    beside = (folder / "node_modules" / ".bin" / _NAME for folder in (Path.cwd(), *Path.cwd().parents))
    return shutil.which(_NAME) or next((str(path) for path in beside if os.access(path, os.X_OK)), None)


class Azure:
    """The service; use it as a context manager. What is in it is in memory."""

    def start(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it is not installed, or ends at once.
        """
        found = program()
        if found is None:
            raise RuntimeError("azurite is not installed")
        options = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
        at = ["--blobHost", "127.0.0.1", "--blobPort", "0"]  # one that it finds itself, so that nobody is faster
        with tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen([found, *options, *at], stdout=said, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + START_S
            while not (port := re.search(rb"listens on http://127\.0\.0\.1:(\d+)", os.pread(said.fileno(), 4096, 0))):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError("azurite does not start")
                time.sleep(0.05)
        self._port = int(port[1])
        self.endpoint = f"http://127.0.0.1:{self._port}/{ACCOUNT}"
        return self

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def make_container(self, name: str) -> None:
        """Raises OSError: it was refused."""
        date = formatdate(usegmt=True)
        wanted = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        digest = hmac.new(base64.b64decode(KEY), f"PUT{12 * chr(10)}{wanted}".encode(), hashlib.sha256).digest()
        signed = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": signed}
            connection.request("PUT", f"/{ACCOUNT}/{name}?restype=container", headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise OSError(f"{name}: {answer.status} {content[:200]!r}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
