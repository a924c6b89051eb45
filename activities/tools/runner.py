"""One tool call from arguments to outcome: bind, check, cache or claim, run, store. No Temporal."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from planloom.activities.storage.blobs import BlobError, BlobStore
from planloom.activities.storage.cache import CacheEntry, ResultCache, cache_key
from planloom.activities.storage.claims import ClaimStore
from planloom.activities.storage.json_values import ValueNotJsonError, json_text
from planloom.activities.tools.call import ToolCall, ToolCallError, cut_off
from planloom.activities.tools.closed import Trusted
from planloom.activities.tools.decorator import ToolContext, ToolError
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.side_effects import SideEffect
from planloom.activities.tools.signature import ToolArgumentsError
from planloom.activities.tools.threads import in_thread
from planloom.activities.tools.times import ToolTimes
from planloom.planner.contract.jobs import TaskOutput, ToolJob
from planloom.planner.language.values import JsonValue, Outcome, Stored, Usage


class ToolRunner:
    """Makes tool calls for one worker."""

    def __init__(
        self,
        registry: ToolRegistry,
        blobs: BlobStore,
        *,
        workspace: Path,
        cache: ResultCache | None = None,
        claims: ClaimStore | None = None,
        times: ToolTimes | None = None,
        trusted: Trusted | None = None,
    ) -> None:
        self.registry = registry
        self.blobs = blobs
        self.times = times or ToolTimes()
        self._workspace = workspace
        self._cache = cache
        self._claims = claims
        self._trusted = trusted or Trusted()

    async def call(
        self,
        job: ToolJob,
        *,
        attempt: int = 1,
        run_id: str = "",
        deadline_seconds: float | None = None,
        execution: str = "",
        nothing_done: int = 0,
    ) -> TaskOutput:
        """The outcome of one attempt of a job, within the tool's own timeout and the deadline.

        `execution` names the scheduled activity whose attempts `attempt` counts. Its attempts 1 to
        `nothing_done` are known to have done nothing, so that a side effect may still happen.

        Raises:
            ToolCallError: with a message that says what, where and how to fix it.
        """
        started = time.monotonic()
        try:
            call = await self._prepared(job, attempt, run_id, deadline_seconds)
        except ToolCallError as failure:
            failure.nothing_done = nothing_done >= attempt - 1
            raise
        call = replace(call, execution=execution, nothing_done=nothing_done)
        spec = call.tool.spec
        try:
            if spec.side_effects and self._claims is not None and job.key:
                output = await SideEffect(
                    call, self._claims, run=self._run, store=self._stored
                ).act_once()
            elif self._cache and job.cache != "off" and spec.idempotent and not spec.side_effects:
                output = await self._cached(call, self._cache)
            else:
                output = await self._run(call)
        except BlobError as error:
            raise call.failure(str(error), error_class="unknown", retry=True) from error
        except BaseException:
            call.context.cancelled.set()
            raise
        seconds = time.monotonic() - started
        return output.model_copy(update={"attempts": attempt, "seconds": round(seconds, 6)})

    async def _prepared(
        self, job: ToolJob, attempt: int, run_id: str, deadline: float | None
    ) -> ToolCall:
        if job.allow is not None and job.tool not in job.allow:
            listed = ", ".join(job.allow[:20]) or "none"
            raise ToolCallError(f'tool "{job.tool}" is not allowed here. Allowed: {listed}')
        tool = self.registry.get(job.tool)
        if tool is None:
            near = self.registry.nearest(job.tool)
            raise ToolCallError(
                f'tool "{job.tool}" is not registered in this worker.'
                + (f' Did you mean "{near}"?' if near else "")
                + " Own tools are loaded from PLANLOOM_TOOLS."
            )
        try:
            args = dict(job.args) if job.literal is None else await self.blobs.load(job.literal)
            bound = await self.blobs.bind(args, job.bindings)
            assert isinstance(bound, dict)
            kwargs = tool.validate(bound)
        except BlobError as error:
            raise ToolCallError(
                f'tool "{job.tool}": {error}', error_class="unknown", retry=True
            ) from error
        except ToolArgumentsError as error:
            raise ToolCallError(str(error)) from error
        except ValueError as error:  # a reference that leads nowhere
            raise ToolCallError(f'tool "{job.tool}": {error}') from error
        context = ToolContext(
            key=job.key,
            workspace=self._workspace,
            task=job.task,
            run_id=run_id,
            tenant=job.tenant,
            attempt=attempt,
            trusted=self._trusted,
        )
        limits = [t for t in (tool.spec.timeout_seconds, deadline) if t is not None]
        return ToolCall(tool, job, bound, kwargs, context, min(limits, default=None))

    async def _cached(self, call: ToolCall, cache: ResultCache) -> TaskOutput:
        async def make() -> CacheEntry:
            outcome = await self._run(call)
            return CacheEntry(
                output=outcome.output, usage=outcome.usage, seconds=outcome.seconds, name=call.name
            )

        job = call.job
        fingerprint = ""
        if call.tool.fingerprint is not None:
            try:
                ask = call.tool.fingerprint
                fingerprint = await in_thread(lambda: ask(call.context, call.kwargs))
            except ToolError:
                return await self._run(call)  # it will say the same, as its own failure
        key = cache_key(
            "tool",
            call.name,
            call.tool.spec.version,
            call.args,
            mode=job.cache,
            scope=job.cache_scope,
            tenant=job.tenant,
            depends_on=f"{self._workspace.resolve()}|{fingerprint}",
        )
        entry, was_there = await cache.get_or_run(key, make)
        if not was_there:
            return TaskOutput(output=entry.output, usage=entry.usage)
        return TaskOutput(
            output=entry.output,
            outcome=Outcome.CACHED,
            usage=Usage(cache_hits=1),
            saved_usd_nano=entry.usage.usd_nano,
            saved_tokens=entry.usage.tokens,
        )

    async def _run(self, call: ToolCall) -> TaskOutput:
        started = time.monotonic()
        result = await call.outcome_of(
            lambda: call.tool.call(call.kwargs, call.context), is_async=call.tool.is_async
        )
        output = await self._stored(call, result)
        seconds = time.monotonic() - started
        self.times.record(call.name, seconds)
        return TaskOutput(output=output, usage=call.usage, seconds=seconds)

    async def _stored(self, call: ToolCall, result: Any) -> Stored:
        try:
            return await self.blobs.store_value(_as_json(result))
        except ValueNotJsonError as error:
            raise call.failure(f"its result cannot travel as JSON: {error}") from error


def _as_json(value: Any) -> JsonValue:
    """A tool's result as JSON: models, dataclasses, dates, sets and arrays become plain values.

    Raises:
        ValueNotJsonError: with the type that cannot.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    try:
        plain: JsonValue = to_jsonable_python(value, by_alias=True, fallback=_array_values)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise ValueNotJsonError(cut_off(str(error))) from error
    if isinstance(plain, float):
        json_text(plain)  # NaN and Infinity are found here, and inside values when they are stored
    return plain


def _array_values(value: Any) -> Any:
    # numpy scalars and arrays, without a dependency on numpy
    if callable(tolist := getattr(value, "tolist", None)):
        return tolist()
    raise ValueNotJsonError(f"a value of type {type(value).__name__} has no JSON form")
