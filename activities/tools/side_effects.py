"""A tool with side effects acts at most once, whatever becomes of its attempts (DESIGN §7)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from planloom.activities.storage.blobs import BlobError
from planloom.activities.storage.claims import Claim, ClaimStore, claim_id
from planloom.activities.storage.patience import Patience, patiently
from planloom.activities.tools.call import ToolCall, ToolCallError, cut_off
from planloom.activities.tools.decorator import ToolError
from planloom.activities.tools.threads import in_thread_to_the_end
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.values import Outcome, Stored

NOTE_MAX_CHARS = 1000


class SideEffect:
    """One attempt of one act. `run` makes the call, `store` keeps what a `check` found."""

    def __init__(
        self,
        call: ToolCall,
        claims: ClaimStore,
        *,
        run: Callable[[ToolCall], Awaitable[TaskOutput]],
        store: Callable[[ToolCall, Any], Awaitable[Stored]],
    ) -> None:
        self._call = call
        self._claims = claims
        self._run = run
        self._store = store
        self._attempt = call.context.attempt
        self._patience = Patience()

    async def act_once(self) -> TaskOutput:
        """Claim, act, record. The order of the three is what makes an act happen once."""
        call = self._call
        try:
            claim = await self._claim(call.nothing_done)
        except BlobError as error:
            raise call.failure(
                str(error), error_class="unknown", retry=True, nothing_done=call.is_accounted_for
            ) from error
        if claim.result is not None:
            return _on_record(claim.result)
        if claim.state != "new" and not call.tool.spec.idempotent:
            settled = await self._settled(claim)
            if isinstance(settled, TaskOutput):
                return settled
            claim = settled
        output = await self._act(claim)
        await self._finish(claim, output)
        return output

    async def _claim(self, nothing_done: int) -> Claim:
        call = self._call
        make = partial(
            self._claims.claim,
            claim_id(call.job.key, call.name, call.args),
            tool=call.name,
            attempt=self._attempt,
            workflow=call.context.run_id,
            execution=call.execution,
            nothing_done=nothing_done,
            nonce=uuid.uuid4().hex,
        )
        seconds = self._patience.write_seconds
        return await patiently(lambda: in_thread_to_the_end(make), seconds)

    async def _finish(self, claim: Claim, output: TaskOutput) -> None:
        record = partial(self._claims.finish, claim, output)
        # Also when it is cancelled now: what was done is recorded.
        await patiently(lambda: in_thread_to_the_end(record), self._patience.write_seconds)

    async def _act(self, claim: Claim) -> TaskOutput:
        try:
            return await self._run(self._call)
        except asyncio.CancelledError:
            await self._leave(claim, f"attempt {self._attempt} was cancelled while it acted")
            raise
        except BlobError as error:
            await self._leave(claim, f"attempt {self._attempt} could not store its result: {error}")
            raise
        except ToolCallError as failure:
            if isinstance(failure.__cause__, ToolError) and claim.state == "new":
                # The tool's own word: nothing was done. The retry carries it too, so that it holds
                # also for a worker that does not see this store, or when the store cannot be used.
                failure.nothing_done = True
                with contextlib.suppress(BlobError):
                    await self._release(claim, self._attempt)
                raise
            await self._leave(claim, f"attempt {self._attempt} ended with: {failure.message}")
            raise self._after_act(failure) from failure.__cause__

    async def _release(self, claim: Claim, attempt: int) -> None:
        execution = self._call.execution
        await in_thread_to_the_end(
            partial(self._claims.release, claim, attempt=attempt, execution=execution)
        )

    async def _leave(self, claim: Claim, note: str) -> None:
        # For people to read: no decision is made from it.
        with contextlib.suppress(BlobError):
            await in_thread_to_the_end(partial(self._claims.leave, claim, note))

    def _after_act(self, failure: ToolCallError) -> ToolCallError:
        tool = self._call.tool
        can_repeat = tool.spec.idempotent or tool.check is not None
        if can_repeat or failure.error_class == "timeout" or not failure.retry:
            return failure
        return ToolCallError(
            failure.message + " (not tried again: it has side effects and may have acted. "
            "If it had not, let it raise ToolError(…, retry=True), or give it a `check`.)",
            error_class=failure.error_class,
            usage=failure.usage,
        )

    async def _settled(self, claim: Claim) -> TaskOutput | Claim:
        """What became of the act: its result, `unknown`, or a claim to act with."""
        call, check = self._call, self._call.tool.check
        doubt = self._doubt(claim)
        if claim.state == "unseen":
            note = f"attempt {self._attempt} found no claim of the attempts before it"
            await self._leave(claim, note)
        if check is None:
            return _unknown(doubt + "Look for yourself, then complete the task or run it again.")
        try:
            checked = await call.outcome_of(lambda: check(call.context, dict(call.kwargs)))
        except ToolCallError as failure:
            if self._attempt >= call.job.max_attempts:
                return _unknown(f"{doubt}Its check failed: {failure.message}")
            raise call.failure(
                f"its check could not tell whether it acted: {failure.message}",
                retry=True,
                retry_after=failure.retry_after,
            ) from failure
        if checked is None:
            return await self._taken_over(claim, doubt)
        output = await self._store(call, checked)
        found = TaskOutput(output=output, note="done by an earlier attempt, as its check found")
        await self._finish(claim, found)
        return found

    async def _taken_over(self, claim: Claim, doubt: str) -> TaskOutput | Claim:
        """The check found that nothing was done: of all attempts that hear so, one acts."""
        if claim.is_held:
            return replace(claim, state="new")
        await self._release(claim, self._attempt - 1)
        again = await self._claim(self._attempt - 1)
        if again.result is not None:
            return _on_record(again.result)
        if again.state != "new":
            return _unknown(doubt + "Another attempt has gone on from there.")
        return again

    def _doubt(self, claim: Claim) -> str:
        if claim.state == "open":
            before = f" ({claim.note})" if claim.note else ""
            what = f"was begun by an earlier attempt that left no result{before}"
        else:
            what = (
                f"had an earlier attempt that left no claim in {self._claims.place}: it ended "
                "before it made one, or its worker uses another blob store"
            )
        return f'tool "{self._call.name}" {what}; whether it acted is not known. '


def _on_record(result: TaskOutput) -> TaskOutput:
    return result.model_copy(
        update={"note": "done by an earlier attempt, whose result was on record"}
    )


def _unknown(note: str) -> TaskOutput:
    return TaskOutput(output=Stored(), outcome=Outcome.UNKNOWN, note=cut_off(note, NOTE_MAX_CHARS))
