"""The worker process that `dev` and `demo` start beside themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any


def worker_process(environment: dict[str, str], log: Any = None) -> subprocess.Popen[bytes]:
    """A worker beside us, ended with us."""
    return subprocess.Popen(
        # -P: a planloom.py in the current folder is somebody else's.
        [sys.executable, "-P", "-m", "planloom.worker"],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=log,
        stderr=log,
    )


def stop_process(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
