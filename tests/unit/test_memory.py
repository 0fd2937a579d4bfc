"""The C library takes the settings; what they bring is measured by benchmarks/step_time.py."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_glibc_takes_every_setting() -> None:
    # apart: they hold for a whole process
    code = "from headway.elastic.worker.memory import keep_freed; print(keep_freed())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"
