"""Workers that start in a moment: forked from a process that has imported everything already.

Each is a process of its own, as `python worker.py` is, with its own environment and its own client
of the server. `python worker.py` takes two seconds of a quiet machine to start, most of them to
import; whoever kills workers by the hundred waits for little else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

READY_TEXT = "is polling"
READY_SECONDS = 60.0
STOP_SECONDS = 30.0


class Nursery:
    """The process that forks; `with` ends it, and the workers that are left."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="planloom-nursery-")
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._lock = threading.Lock()
        self.workers: list[NursedWorker] = []

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery"],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        for worker in self.workers:
            worker.end()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._folder.cleanup()

    def worker(self, env: dict[str, str], folder: Path) -> NursedWorker:
        """A worker that has not been started yet."""
        worker = NursedWorker(self, env, folder)
        self.workers.append(worker)
        return worker

    def pipe(self) -> Path:
        """A new named pipe."""
        self._count += 1
        path = Path(self._folder.name) / f"output{self._count}"
        os.mkfifo(path)
        return path

    def fork(self, env: dict[str, str], folder: Path, output: Path) -> int:
        """The process id of a new worker."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"env": env, "folder": str(folder), "output": str(output)}
        with self._lock:  # each answer is the next line
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


class NursedWorker:
    """A worker that can be killed and started again; `output` is all it printed."""

    def __init__(self, nursery: Nursery, env: dict[str, str], folder: Path) -> None:
        self._nursery = nursery
        self._env = env
        self._folder = folder
        self._pid = 0
        self._lines: list[str] = []
        self._reader: asyncio.Task[None] | None = None

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        assert self._pid, "the worker was not started"
        return self._pid

    @property
    def is_running(self) -> bool:
        return bool(self._pid) and is_alive(self._pid)

    async def start(self) -> NursedWorker:
        """Start it and wait for its line "… is polling …"."""
        output = self._nursery.pipe()
        descriptor = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
        self._pid = await asyncio.to_thread(self._nursery.fork, self._env, self._folder, output)
        ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read(descriptor, output, ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait(
            {waiting, self._reader}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if not ready.is_set() and self._pid:
            self.end()
            raise AssertionError(f"the worker did not say that it is polling:\n{self.output}")
        return self

    async def kill(self) -> None:
        """SIGKILL, as a crash or an out-of-memory kill."""
        await self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, as a deployment does."""
        await self._signal(signal.SIGTERM)

    async def _signal(self, sign: signal.Signals) -> None:
        pid, self._pid = self._pid, 0
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while is_alive(pid):  # noqa: ASYNC110 - it is no child of this process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{sign.name} did not end the worker:\n{self.output}") from None
        if self._reader is not None:
            self._reader.cancel()  # children of the worker may hold its output open

    def end(self) -> None:
        """SIGKILL, without waiting."""
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _read(self, descriptor: int, path: Path, ready: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        file = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, file)
        path.unlink()
        try:
            while line := await reader.readline():
                self._lines.append(line.decode(errors="replace"))
                if READY_TEXT in self._lines[-1]:
                    ready.set()
        finally:
            transport.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Fork a worker for each line of the input, and print its process id."""
    from temporalio.worker import _worker

    from planloom import worker

    # The hash of all loaded code, half of the time that is left: known to all who are forked.
    _worker.load_default_build_id()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    forked = []
    for line in sys.stdin:
        order = json.loads(line)
        # Opened before the answer: whoever reads from a pipe that nobody writes to reads its end.
        output = os.open(order["output"], os.O_WRONLY)
        if pid := os.fork():
            os.close(output)
            forked.append(pid)
            print(pid, flush=True)
            continue
        _become(order["env"], order["folder"], output)
        worker.main([])
    for pid in forked:  # whoever asked for them is gone
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _become(env: dict[str, str], folder: str, output: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ.update(env)
    os.chdir(folder)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.path[:0] = [folder]


if __name__ == "__main__":
    main()
