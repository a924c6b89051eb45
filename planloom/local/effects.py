"""One function per kind of command: it calls the activity that a worker would call, in-process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from planloom.activities.write_plan import Runs
from planloom.local.parts import LocalParts
from planloom.planner.compile.expand import compile_request
from planloom.planner.contract.jobs import Resolved, ResolveJob
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.language.catalog import Catalog, PoolSpec
from planloom.planner.language.expressions import Meter
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import Bindings, JsonValue, Problem, Stored
from planloom.workflows.machines.run.values import RESOLVED_MAX_BYTES, resolve_now
from planloom.workflows.machines.shared.commands import (
    AskModel,
    JoinOutcomes,
    LoadDefinition,
    LookAtChild,
    PatchPlan,
    PlanPrepared,
    Prepare,
    PreparePlan,
    ReadOutput,
    Resolve,
    RunGroup,
    RunTool,
    TakePermit,
    TakeTurn,
    WritePlan,
)
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.shell.ends import CommandFailed
from planloom.workflows.shell.pools import on_pools

TOOL_SECONDS = 600.0
MODEL_SECONDS = 900.0
RESOLVE_SECONDS = 600.0
"""A wide map's list may take a while."""
MODEL_RETRY = Retry(max_attempts=100, initial_seconds=1, backoff=2, max_seconds=30)
"""The activity counts its own failures and says itself when it is over."""
ONCE = Retry(max_attempts=1)
TWICE = Retry(max_attempts=2, initial_seconds=0.1)

Activity = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Effects:
    """Carries out the commands of one process. `runs` is how the planner reaches it."""

    parts: LocalParts
    runs: Runs
    process: str

    async def end_of(self, command: Any) -> Any:
        """The result of a command.

        Raises:
            CommandFailed, ApplicationError: it failed.
        """
        parts = self.parts
        match command:
            case Prepare():
                return await self._call(parts.prepare.prepare_run, command.job)
            case PreparePlan():
                return await self._prepare_plan(command)
            case LoadDefinition():
                return await self._call(parts.definitions.load_definition, command.job)
            case RunTool():
                return await self._call(
                    parts.tools.run_tool,
                    command.job,
                    id=command.activity_id,
                    retry=command.retry,
                    seconds=command.timeout or TOOL_SECONDS,
                )
            case RunGroup():
                run_group = parts.groups.run_group
                return await self._call(run_group, command.job, id=command.key, retry=TWICE)
            case AskModel():
                return await self._on_pools(parts.asks.ask_model, command)
            case TakeTurn():
                return await self._on_pools(parts.turns.agent_turn, command)
            case WritePlan():
                name = f"plan.{command.job.call}"
                write = parts.planner(self.runs).write_plan
                return await self._model(write, command.job, name)
            case JoinOutcomes():
                join = parts.joins.join_outcomes
                return await self._model(join, command.job, command.activity_id)
            case Resolve():
                return await self._call(
                    parts.values.resolve_value, command.job, seconds=RESOLVE_SECONDS
                )
            case ReadOutput():
                read = parts.turns.read_output
                return await self._call(read, command.stored, command.start, command.end)
            case PatchPlan():
                return await self._call(parts.values.patch_plan, command.job)
            case TakePermit() | LookAtChild():
                raise AssertionError("a local run has no reservations, and continues nothing")
            case _:
                raise TypeError(type(command))

    async def _prepare_plan(self, command: PreparePlan) -> PlanPrepared:
        """A large plan takes no other way here: nothing limits a step of this process."""
        request = command.request
        plan = request.plan
        if plan is None:
            message = "a local run is given its plan itself"
            problem = Problem(path="plan_blob", code="local", message=message)
            return PlanPrepared(Catalog(), request, [problem])
        catalog = await self._call(self.parts.prepare.prepare_run, prepare_job(request))
        compiled = compile_request(request, plan, catalog, depth=command.depth, given=command.given)
        found = None if compiled.problems else compiled
        return PlanPrepared(catalog, request, compiled.problems, found)

    async def resolved(self, value: JsonValue, bound: Bindings, limit: int | None) -> Stored:
        """A value with its references resolved.

        Raises:
            CommandFailed: a path that does not fit the value.
        """
        found = resolve_now(value, bound, Meter(), limit=limit or RESOLVED_MAX_BYTES)
        if isinstance(found, Failure):
            raise CommandFailed(found)
        if found is not None:
            return found
        job = ResolveJob(value=value, bindings=bound, inline_max_bytes=limit)
        made: Resolved = await self._call(self.parts.values.resolve_value, job)
        return made.stored

    async def _on_pools(self, activity: Activity, command: AskModel | TakeTurn) -> Any:
        seconds = command.timeout or MODEL_SECONDS

        async def there(job: Any, pool: PoolSpec, name: str) -> Any:
            return await self._model(activity, job, name, seconds)

        job: Any = command.job
        return await on_pools(command.pools, job, command.activity_id, there)

    async def _model(
        self, activity: Activity, job: Any, id: str, seconds: float = MODEL_SECONDS
    ) -> Any:
        return await self._call(activity, job, id=id, retry=MODEL_RETRY, seconds=seconds)

    async def _call(
        self,
        activity: Activity,
        *args: Any,
        id: str = "",
        retry: Retry = ONCE,
        seconds: float = 60.0,
    ) -> Any:
        """An activity's result after its retries, in the context that activities know."""
        details: list[Any] = []
        attempt = 1
        while True:
            environment = ActivityEnvironment()
            now = datetime.now(UTC)
            environment.info = replace(
                environment.info,
                activity_id=id or activity.__name__,
                activity_type=activity.__name__,
                attempt=attempt,
                heartbeat_details=list(details),
                scheduled_time=now,
                current_attempt_scheduled_time=now,
                started_time=now,
                start_to_close_timeout=timedelta(seconds=seconds),
                schedule_to_close_timeout=None,
                task_queue="local",
                workflow_id=self.process,
                workflow_run_id=f"{self.process}/local",
            )

            def beat(*now: Any) -> None:
                details[:] = now

            environment.on_heartbeat = beat
            try:
                async with asyncio.timeout(seconds) as clock:
                    return await environment.run(activity, *args)
            except TimeoutError:
                if not clock.expired():
                    raise
                if attempt >= retry.max_attempts or retry is MODEL_RETRY:
                    failure = Failure(f"timed out after {seconds:g} s", "timeout", attempt)
                    raise CommandFailed(failure) from None
                wait = _wait(retry, attempt)
            except ApplicationError as error:
                if error.non_retryable or attempt >= retry.max_attempts:
                    raise
                asked = error.next_retry_delay
                wait = asked.total_seconds() if asked is not None else _wait(retry, attempt)
            await asyncio.sleep(wait)
            attempt += 1


def _wait(retry: Retry, attempt: int) -> float:
    seconds: float = retry.initial_seconds * retry.backoff ** (attempt - 1)
    return min(seconds, max(retry.max_seconds, retry.initial_seconds))
