"""The parent's side of child processes: start, ask, bound, kill."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Literal

from planloom import planner
from planloom.activities.tools.processes.limits import (
    JOB_SECONDS,
    MEMORY_MAX_BYTES,
    REPLY_MAX_BYTES,
    Job,
)
from planloom.activities.tools.turns import NoTurnError, Turns

PROCESSES_MAX = 4
"""Each may take 2 GB and two cores."""
KEPT_MAX = 2
"""Idle processes that wait for the next job, which then starts at once and not after 0.3 s."""
POLL_SECONDS = 0.05
FOLDER_PREFIX = "planloom-job-"
LOCK_NAME = "lock"
LEFT_AFTER_SECONDS = 60.0
"""A younger folder may be one whose lock is not held yet."""
READ_BYTES = 1 << 20
CHILD = "planloom.activities.tools.processes.child"
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""The rest of the environment, with its keys, stays here."""


class JobError(Exception):
    """A job without an answer: refused (the job is wrong), over a limit, or cancelled."""

    def __init__(self, message: str, reason: Literal["refused", "limit", "cancelled"]) -> None:
        self.reason = reason
        super().__init__(message)


class Child:
    """One process, used by one caller at a time."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        try:
            self._lock = (self.folder / LOCK_NAME).open("wb")
            # Held by both processes: free when both have ended, however they did.
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.process = self._started()
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.is_usable = True

    def _started(self) -> subprocess.Popen[bytes]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        # Where this process found Planloom; not its own path, which may hold the workspace.
        home = Path(planner.__file__).parent.parent.parent
        with (self.folder / "stderr").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self.folder,
                env={**kept, "TMPDIR": str(self.folder), "PYTHONPATH": str(home)},
                start_new_session=True,
                pass_fds=[self._lock.fileno()],
            )

    def ask(self, job: Job, seconds: float, cancelled: threading.Event) -> Any:
        """The value of one job.

        Raises:
            JobError: refused, over a limit, or cancelled; the process is not usable afterwards
                unless it said so itself.
        """
        self.is_usable = False
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise JobError(self._end(), "limit") from None
        reply = json.loads(self._line(time.monotonic() + seconds, seconds, cancelled))
        self.is_usable = not reply["is_last"]
        if (error := reply.get("error")) is not None:
            raise JobError(error, reply["reason"])
        return reply["value"]

    def _line(self, deadline: float, seconds: float, cancelled: threading.Event) -> bytes:
        assert self.process.stdout is not None
        source = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(source, select.POLLIN)
        parts: list[bytes] = []
        size = 0
        while True:
            if cancelled.is_set():
                raise JobError("it was cancelled", "cancelled")
            if time.monotonic() > deadline:
                raise JobError(f"it took longer than {seconds:g} s and was stopped", "limit")
            if not poll.poll(POLL_SECONDS * 1000):
                continue
            part = os.read(source, READ_BYTES)
            if not part:
                raise JobError(self._end(), "limit")
            parts.append(part)
            size += len(part)
            if part.endswith(b"\n"):
                return b"".join(parts)
            if size > REPLY_MAX_BYTES:
                raise JobError(f"its result is larger than {REPLY_MAX_BYTES:,} bytes", "limit")

    def _end(self) -> str:
        """Why the process ended in the middle of a job."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        lines = (self.folder / "stderr").read_bytes()[-2000:].decode(errors="replace").splitlines()
        more = f": {lines[-1][:200]}" if lines else ""
        return (
            f"its process ended (code {self.process.returncode}){more}. "
            f"It may take at most {MEMORY_MAX_BYTES // 10**6:,} MB"
        )

    def close(self) -> None:
        self.is_usable = False
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not written is for nobody
                    pipe.close()
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_left_folders() -> None:
    """Remove folders of processes that were killed together with their worker."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime < LEFT_AFTER_SECONDS:
                continue
            with (folder / LOCK_NAME).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


class ChildPool:
    """Processes for jobs of all runs of this worker, at most `size` at once."""

    def __init__(self, size: int = PROCESSES_MAX) -> None:
        self.turns = Turns(size)
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._has_looked = False

    def run(
        self,
        job: Job,
        *,
        owner: str,
        cancelled: threading.Event,
        seconds: float | None = None,
    ) -> Any:
        """The value of a job. Blocks: call it in a thread that may wait.

        `seconds` is how long the job itself may take, `JOB_SECONDS` by default.

        Raises:
            JobError: see `Child.ask`.
        """
        try:
            with self.turns.turn(owner, cancelled):
                return self._run(job, JOB_SECONDS if seconds is None else seconds, cancelled)
        except NoTurnError as error:
            raise JobError(str(error), "cancelled") from None

    def _run(self, job: Job, seconds: float, cancelled: threading.Event) -> Any:
        child: Child | None = None
        try:
            child = self._child()
            return child.ask(job, seconds, cancelled)
        except OSError as error:
            message = f"no process can be started: {error.strerror or error}"
            raise JobError(message, "limit") from None
        finally:
            if child is not None and not self._keeps(child):
                child.close()

    def _keeps(self, child: Child) -> bool:
        with self._lock:
            is_kept = child.is_usable and len(self._idle) < KEPT_MAX
            if is_kept:
                self._idle.append(child)
        return is_kept

    def close(self) -> None:
        """End the processes that wait for work."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()

    def _child(self) -> Child:
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
                is_first, self._has_looked = not self._has_looked, True
            if is_first:
                remove_left_folders()
            if child is None:
                return Child()
            if child.process.poll() is None:
                return child
            child.close()  # it was ended from outside


POOL = ChildPool()
"""One for the worker process: its size is a promise about the machine."""
atexit.register(POOL.close)
