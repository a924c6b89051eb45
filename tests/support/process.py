"""`python worker.py` as a process of its own, for tests that kill it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
READY_TEXT = "is polling"
READY_SECONDS = 30.0
STOP_SECONDS = 15.0


class WorkerProcess:
    """A worker that can be killed and started again; `output` is all it printed."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self._env = env
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._lines: list[str] = []

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the worker was not started"
        return self._process.pid

    async def start(self) -> WorkerProcess:
        """Start it and wait for its line "… is polling …"."""
        self._ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CHECKOUT / "worker.py"),
            cwd=self._folder,
            env={**os.environ, **self._env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        waiting = asyncio.create_task(self._ready.wait())
        await asyncio.wait(
            {waiting, self._reader}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if not self._ready.is_set():
            await self.kill()
            raise AssertionError(f"the worker did not say that it is polling:\n{self.output}")
        return self

    async def kill(self) -> None:
        """SIGKILL, as a crash or an out-of-memory kill."""
        await self._signal(signal.SIGKILL)

    async def stop(self) -> int | None:
        """SIGTERM, as a deployment does; gives back the exit code."""
        return await self._signal(signal.SIGTERM)

    async def _signal(self, sign: signal.Signals) -> int | None:
        process = self._process
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise AssertionError(f"{sign.name} did not end the worker:\n{self.output}") from None
        finally:
            self._process = None
        if self._reader is not None:
            await self._reader
        return process.returncode

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self._lines.append(line.decode(errors="replace"))
            if READY_TEXT in self._lines[-1]:
                self._ready.set()
