"""One site under attack: a server on its database file, workers, and the store that they share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from pathlib import Path
from random import Random

import yaml
from temporalio.client import Client

from planloom.console.devserver import DevServer, free_port
from planloom.workflows.shell.converter import data_converter
from tests.chaos import world_tools
from tests.chaos.cases import RETRY, Document
from tests.chaos.models import HELPS
from tests.simulation.catalog import TEMPLATES
from tests.support.nursery import NursedWorker, Nursery

STARTS_MAX = 60
STARTS_APART_SECONDS = 0.5
SHORT_HISTORY = 60
"""Events after which the server suggests to continue as new: every run of some length does."""
AGENTS = {
    "helper": {"description": "helps", "system": HELPS, "tools": ["work", "post"]},
    "critic": {"description": "asks", "system": HELPS, "tools": ["ask_human"]},
}
TEAMS = {
    "panel": {
        "description": "two who discuss",
        "links": "all",
        "members": [{"id": i, "role": "voice", "system": HELPS} for i in ("ann", "bob")],
    },
    "crew": {
        "description": "two who share the work",
        "members": [
            {"id": "first", "role": "opener", "system": HELPS, "task": "the first half"},
            {
                "id": "last",
                "role": "closer",
                "system": HELPS,
                "task": "the second half",
                "depends_on": ["first"],
                "tools": ["work"],
            },
        ],
    },
}


class Site:
    """A server, its workers, and everything that can be done to them."""

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        ledger_address: str,
        model_url: str,
        workers: int = 2,
    ) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.store = folder / "store"
        self.server = DevServer(
            data_dir=folder / "server",
            port=free_port(),  # the same after every restart
            headless=True,
            dynamic_config={"limit.historyCount.suggestContinueAsNew": SHORT_HISTORY},
        )
        self.queue = "chaos"
        self.done: Counter[str] = Counter()
        self._nursery = nursery
        self._ledger = ledger_address
        self._model = model_url
        self._count = workers
        self.workers: list[NursedWorker] = []
        self.frozen: set[int] = set()
        self._server_lock = asyncio.Lock()
        self._locks: defaultdict[NursedWorker, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._config = folder / "planloom.toml"
        self._config.write_text(
            "".join(
                f'[pools.{name}]\nbase_url = "{self._model}"\nparallel = 50\n'
                + ('models = ["backup*"]\n' if name == "backup" else "")
                for name in ("default", "backup")
            ),
            encoding="utf-8",
        )
        self._write_definitions()
        shutil.copy(Path(world_tools.__file__), folder / "chaos_tools.py")

    def _write_definitions(self) -> None:
        own = self.workspace / ".planloom"
        templates = {name: _with_retries(document) for name, document in TEMPLATES.items()}
        for kind, files in (("agents", AGENTS), ("teams", TEAMS), ("templates", templates)):
            (own / kind).mkdir(parents=True, exist_ok=True)
            for name, document in files.items():
                named = {"id": name, **document} if kind == "teams" else document
                named = {"name": name, **document} if kind == "agents" else named
                text = yaml.safe_dump(named)
                (own / kind / f"{name}.yaml").write_text(text, encoding="utf-8")

    def new_worker(self, number: int, queue: str = "") -> NursedWorker:
        """A worker that has not been started yet."""
        more = {"PLANLOOM_TASK_QUEUE": queue} if queue else {}
        return self._nursery.worker({**self.env(number), **more}, self.folder)

    def env(self, number: int) -> Mapping[str, str]:
        """Of one worker: a disk of its own, and the store that all share."""
        return {
            "TEMPORAL_ADDRESS": self.server.address,
            "PLANLOOM_CONFIG": str(self._config),
            "PLANLOOM_TASK_QUEUE": self.queue,
            "PLANLOOM_DATA_DIR": str(self.folder / f"worker{number}"),
            "PLANLOOM_BLOB_URL": str(self.store),
            "PLANLOOM_WORKSPACE": str(self.workspace),
            "PLANLOOM_MODEL": "test-model",
            "PLANLOOM_TOOLS": "chaos_tools",
            "OPENAI_API_KEY": "test-key",
            "CHAOS_LEDGER": self._ledger,
            "NO_PROXY": "127.0.0.1",
        }

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Client]:
        """Server and workers, and a client of the server."""
        await asyncio.to_thread(self.server.start)
        try:
            client = await Client.connect(self.server.address, data_converter=data_converter())
            self.workers = [self.new_worker(n) for n in range(self._count)]
            await asyncio.gather(*(w.start() for w in self.workers))
            yield client
        finally:
            for worker in self.workers:
                with contextlib.suppress(AssertionError):
                    await worker.kill()
            await asyncio.to_thread(self.server.stop)

    # -- what is done to it -----------------------------------------------------------------

    def worker_of(self, pid: int) -> NursedWorker | None:
        return next((w for w in self.workers if w.is_running and w.pid == pid), None)

    async def kill(self, worker: NursedWorker) -> None:
        """SIGKILL, and a new process."""
        async with self._locks[worker]:
            self.done["worker killed"] += 1
            await worker.kill()
            await _started(worker)

    async def terminate(self, worker: NursedWorker) -> None:
        """SIGTERM, as a deployment does, and a new process."""
        async with self._locks[worker]:
            self.done["worker stopped"] += 1
            await worker.stop()
            await _started(worker)

    async def freeze(self, worker: NursedWorker, seconds: float) -> None:
        """SIGSTOP, and SIGCONT some time later: the others take over meanwhile, or do not."""
        if not worker.is_running:
            return  # it was killed a moment ago
        self.done["worker frozen"] += 1
        pid = worker.pid
        self.frozen.add(pid)
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):  # it may have been killed meanwhile
            os.kill(pid, signal.SIGCONT)
        self.frozen.discard(pid)

    async def kill_server(self) -> None:
        """SIGKILL, and the same database and port again."""
        async with self._server_lock:
            self.done["server killed"] += 1
            await asyncio.to_thread(self.server.kill)
            await asyncio.to_thread(self.server.start)

    async def restart_server(self) -> None:
        async with self._server_lock:
            self.done["server restarted"] += 1
            await asyncio.to_thread(self.server.stop)
            await asyncio.to_thread(self.server.start)

    async def fill_disk(self, seconds: float) -> None:
        """Every write to a file fails in all workers, at the kernel's word, for some time."""
        self.done["disk full"] += 1
        filled = [w for w in self.workers if w.is_running]
        for worker in filled:
            _limit_files(worker.pid, 0)
        await asyncio.sleep(seconds)
        for worker in filled:
            if worker.is_running:
                _limit_files(worker.pid, resource.RLIM_INFINITY)

    async def hide_blobs(self, random: Random, seconds: float) -> None:
        """Some blobs are gone, and come back."""
        blobs = [p for p in self.blobs() if random.random() < 0.5]
        self.done["blobs hidden"] += 1
        for path in blobs:
            with contextlib.suppress(FileNotFoundError):
                path.rename(path.with_name(f"hidden-{path.name}"))
        await asyncio.sleep(seconds)
        for path in blobs:
            hidden = path.with_name(f"hidden-{path.name}")
            if hidden.exists():
                hidden.rename(path)

    # -- what is left -----------------------------------------------------------------------

    def blobs(self) -> list[Path]:
        """The files of the store that are values (not claims, nor what is being written)."""
        files = self.store.glob("??/*") if self.store.is_dir() else []
        return [p for p in files if len(p.name) == 64]

    def broken_blobs(self) -> list[str]:
        """Blobs whose content is not what their name says."""
        return [p.name for p in self.blobs() if sha256(p.read_bytes()).hexdigest() != p.name]


def _with_retries(template: Document) -> Document:
    """Kills use up attempts: with the few that are the default, a task of it would fail."""
    retried = [t | {"retry": RETRY} if {"tool", "ask"} & t.keys() else t for t in template["tasks"]]
    return template | {"tasks": retried}


async def _started(worker: NursedWorker) -> None:
    """Start it, again and again where the server is away: as a supervisor does."""
    for _ in range(STARTS_MAX):
        with contextlib.suppress(AssertionError):
            await worker.start()
            return
        await asyncio.sleep(STARTS_APART_SECONDS)
    await worker.start()


def _limit_files(pid: int, size: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
