"""One tool call from arguments to outcome: bind, check, cache or claim, run, store. No Temporal."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from planloom.activities.storage.blobs import BlobError, BlobStore
from planloom.activities.storage.cache import CacheEntry, ResultCache, cache_key
from planloom.activities.storage.claims import Claim, ClaimStore, claim_id
from planloom.activities.storage.json_values import ValueNotJsonError, json_text
from planloom.activities.tools.decorator import Tool, ToolContext, ToolError
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.signature import ToolArgumentsError
from planloom.activities.tools.times import ToolTimes
from planloom.planner.contract.jobs import ErrorClass, TaskOutput, ToolJob
from planloom.planner.language.values import NANO, JsonValue, Outcome, Stored, Usage

TOOL_ERROR_MAX_CHARS = 500


class ToolCallError(Exception):
    """A call that failed: its class, and whether and when the same call may be made again."""

    def __init__(
        self,
        message: str,
        *,
        error_class: ErrorClass = "tool",
        retry: bool = False,
        retry_after: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.message = message
        self.error_class: ErrorClass = error_class
        self.retry = retry
        self.retry_after = retry_after
        self.usage = usage or Usage()
        super().__init__(message)


@dataclass(frozen=True)
class _Call:
    """One attempt of one job, bound and checked."""

    tool: Tool[..., Any]
    job: ToolJob
    args: dict[str, JsonValue]
    kwargs: dict[str, Any]
    context: ToolContext
    timeout_seconds: float | None

    @property
    def name(self) -> str:
        return self.tool.spec.name

    @property
    def usage(self) -> Usage:
        cost = self.tool.spec.cost_usd or 0.0
        return Usage(tool_calls=1, usd_nano=-int(-cost * NANO // 1))

    def failure(self, message: str, **more: Any) -> ToolCallError:
        text = message.removeprefix(f"{self.name}: ")
        return ToolCallError(f'tool "{self.name}": {text}', usage=self.usage, **more)


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
    ) -> None:
        self.registry = registry
        self.blobs = blobs
        self.times = times or ToolTimes()
        self._workspace = workspace
        self._cache = cache
        self._claims = claims

    async def call(
        self,
        job: ToolJob,
        *,
        attempt: int = 1,
        run_id: str = "",
        deadline_seconds: float | None = None,
    ) -> TaskOutput:
        """The outcome of one attempt of a job, within the tool's own timeout and the deadline.

        Raises:
            ToolCallError: with a message that says what, where and how to mend it.
        """
        started = time.monotonic()
        call = await self._prepared(job, attempt, run_id, deadline_seconds)
        spec = call.tool.spec
        try:
            if spec.side_effects and self._claims is not None and job.key:
                output = await self._act_once(call, self._claims)
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
    ) -> _Call:
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
        )
        limits = [t for t in (tool.spec.timeout_seconds, deadline) if t is not None]
        return _Call(tool, job, bound, kwargs, context, min(limits, default=None))

    async def _cached(self, call: _Call, cache: ResultCache) -> TaskOutput:
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

    async def _act_once(self, call: _Call, claims: ClaimStore) -> TaskOutput:
        """Claim, act, record. The order of the three is what makes an act happen once."""
        act = claim_id(call.job.key, call.name, call.args)
        claim = await asyncio.to_thread(
            claims.claim, act, tool=call.name, attempt=call.context.attempt
        )
        if claim.result is not None:
            return claim.result.model_copy(
                update={"note": "done by an earlier attempt, whose result was on record"}
            )
        if claim.state == "open" and not call.tool.spec.idempotent:
            settled = await self._settled(call, claim)
            if settled is not None:
                if settled.outcome is Outcome.SUCCEEDED:
                    await asyncio.to_thread(claims.finish, act, settled)
                return settled
        try:
            output = await self._run(call)
        except asyncio.CancelledError:
            claims.leave(act, f"attempt {call.context.attempt} was cancelled while it acted")
            raise
        except ToolCallError as failure:
            if isinstance(failure.__cause__, ToolError):
                # The tool's own word: nothing was done.
                await asyncio.to_thread(claims.release, act)
                raise
            claims.leave(act, f"attempt {call.context.attempt} ended with: {failure.message}")
            raise self._after_act(call, failure) from failure.__cause__
        # In a thread, which a cancel does not stop: what was done is recorded.
        await asyncio.to_thread(claims.finish, act, output)
        return output

    def _after_act(self, call: _Call, failure: ToolCallError) -> ToolCallError:
        can_repeat = call.tool.spec.idempotent or call.tool.check is not None
        if can_repeat or failure.error_class == "timeout" or not failure.retry:
            return failure
        return ToolCallError(
            failure.message + " (not tried again: it has side effects and may have acted. "
            "If it had not, let it raise ToolError(…, retry=True), or give it a `check`.)",
            error_class=failure.error_class,
            usage=failure.usage,
        )

    async def _settled(self, call: _Call, claim: Claim) -> TaskOutput | None:
        """What became of a claimed act: its result, `unknown`, or None when it was not done."""
        before = f" ({claim.note})" if claim.note else ""
        doubt = (
            f'tool "{call.name}" was begun by an earlier attempt that left no result{before}; '
            "whether it acted is not known. "
        )
        check = call.tool.check
        if check is None:
            return _unknown(doubt + "Look for yourself, then complete the task or run it again.")
        try:
            checked = await self._outcome_of(call, lambda: check(call.context, dict(call.kwargs)))
        except ToolCallError as failure:
            if call.context.attempt >= call.job.max_attempts:
                return _unknown(f"{doubt}Its check failed: {failure.message}")
            raise call.failure(
                f"its check could not tell whether it acted: {failure.message}",
                retry=True,
                retry_after=failure.retry_after,
            ) from failure
        if checked is None:
            return None
        return TaskOutput(
            output=await self._stored(call, checked),
            note="done by an earlier attempt, as its check found",
        )

    async def _run(self, call: _Call) -> TaskOutput:
        started = time.monotonic()
        result = await self._outcome_of(
            call, lambda: call.tool.call(call.kwargs, call.context), is_async=call.tool.is_async
        )
        output = await self._stored(call, result)
        seconds = time.monotonic() - started
        self.times.record(call.name, seconds)
        return TaskOutput(output=output, usage=call.usage, seconds=seconds)

    async def _outcome_of(
        self, call: _Call, function: Callable[[], Any], *, is_async: bool = False
    ) -> Any:
        """What `function` gives within the tool's time, its exceptions as `ToolCallError`."""
        limit = call.timeout_seconds
        try:
            async with asyncio.timeout(limit) as clock:
                result = function() if is_async else await in_thread(function)
                return await result if inspect.isawaitable(result) else result
        except ToolError as error:
            raise call.failure(
                _cut(error.message), retry=error.retry, retry_after=error.retry_after
            ) from error
        except TimeoutError as error:
            call.context.cancelled.set()
            if clock.expired():
                raise call.failure(
                    f"it took longer than its timeout of {limit:.3g} s",
                    error_class="timeout",
                    retry=True,
                ) from error
            raise call.failure(_said(error), error_class="timeout", retry=True) from error
        except Exception as error:
            raise call.failure(_said(error), retry=True) from error

    async def _stored(self, call: _Call, result: Any) -> Stored:
        try:
            return await self.blobs.store_value(_as_json(result))
        except ValueNotJsonError as error:
            raise call.failure(f"its result cannot travel as JSON: {error}") from error


def _unknown(note: str) -> TaskOutput:
    return TaskOutput(output=Stored(), outcome=Outcome.UNKNOWN, note=_cut(note, 1000))


def _cut(text: str, max_chars: int = TOOL_ERROR_MAX_CHARS) -> str:
    return text if len(text) <= max_chars else text[:max_chars] + "… (cut)"


def _said(error: BaseException) -> str:
    text = str(error)
    return _cut(f"{type(error).__name__}: {text}" if text else type(error).__name__)


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
        raise ValueNotJsonError(_cut(str(error))) from error
    if isinstance(plain, float):
        json_text(plain)  # NaN and Infinity are found here, and inside values when they are stored
    return plain


def _array_values(value: Any) -> Any:
    # numpy scalars and arrays, without a dependency on numpy
    if callable(tolist := getattr(value, "tolist", None)):
        return tolist()
    raise ValueNotJsonError(f"a value of type {type(value).__name__} has no JSON form")


async def in_thread(function: Callable[[], Any]) -> Any:
    """Run a blocking function in a thread of its own, with the caller's context variables.

    A daemon thread, unlike an executor's: a tool that never returns must keep neither the others
    waiting for a place nor the worker from stopping. Cancelled, the caller goes on at once and the
    thread's result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(function)
        except StopIteration as stop:  # a future cannot carry it
            error = RuntimeError(f"StopIteration: {stop}")
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more

    threading.Thread(target=work, name="planloom-tool", daemon=True).start()
    return await future


__all__ = ["ToolCallError", "ToolRunner", "in_thread"]
