"""What every activity that calls a model does around the call: counts, beats, reports failures."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic_core import to_json
from temporalio.exceptions import ApplicationError

from planloom.activities.cut_answers import wider_limit
from planloom.activities.models.chat import ChatReply, ChatRequest, Message, cautious_tokens
from planloom.activities.models.client import ModelClient
from planloom.activities.models.errors import (
    ModelError,
    as_application_error,
    classify,
    is_free_wait,
    is_turn_wait,
    requested_wait_seconds,
)
from planloom.activities.models.heartbeats import (
    Attempts,
    Heartbeat,
    attempts_now,
    deadline_seconds,
)
from planloom.planner.contract.requests import Role
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import Usage

T = TypeVar("T")

ATTEMPTS_MAX = 3
"""For calls whose job names no limit: planner and joiner."""
ROOM_MIN_TOKENS = 16
LOST_MAX = 20
"""Attempts that ended without a word (killed workers) before the call is given up."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which call this is, for limits and for messages."""

    pool: str
    model: str | None
    max_attempts: int = ATTEMPTS_MAX
    retry: Retry | None = None
    tokens_max: int | None = None
    """What is reserved for the whole call, its repairs and failed attempts included."""
    before: Mapping[str, Any] | None = None
    """Counts of an activity that this one goes on for."""
    has_fallback: bool = False
    """Another pool takes the call when this one cannot serve it."""


class Attempt:
    """One attempt of a model activity: what came before it, and what it has paid so far."""

    def __init__(
        self,
        before: Attempts,
        beat: Heartbeat,
        timeout_seconds: float,
        tokens_max: int | None = None,
    ) -> None:
        self.before = before
        self.timeout_seconds = timeout_seconds
        self.tokens_max = tokens_max
        self.usage = Usage()
        self.model: str | None = None
        """Set once known, for the message of a failure."""
        self._beat = beat

    @property
    def number(self) -> int:
        """From 1, without the waits that an endpoint asked for."""
        return self.before.counted_attempt

    @property
    def total(self) -> Usage:
        """What the call has paid over all attempts, as far as known."""
        return self.before.usage + self.usage

    def paid(self, usage: Usage) -> None:
        """Keep count, so that a later failure still says what this attempt cost."""
        self.usage += usage
        self.is_writing(Usage())

    def is_writing(self, so_far: Usage) -> None:
        """Beat with what is paid so far: if this attempt dies, the next one still knows it."""
        self._beat.set(replace(self.before, usage=self.total + so_far).details())

    def room_left(self, messages: Sequence[Message]) -> int | None:
        """Tokens that another answer may have; None when nothing limits it."""
        return None if self.tokens_max is None else self._left(messages)

    def room(self, messages: Sequence[Message], max_tokens: int | None) -> int | None:
        """`max_tokens` for the next request, so that the whole call stays within its reservation.

        Raises:
            ModelError: what earlier attempts and repairs have left is too little for an answer.
        """
        if self.tokens_max is None:
            return max_tokens
        left = self._left(messages)
        if self.total.tokens and left < ROOM_MIN_TOKENS:
            raise ModelError(
                "refused",
                f"{self.total.tokens:,} of {self.tokens_max:,} reserved tokens are used: the rest "
                "is too little for another try",
            )
        # A first request whose prompt is longer than was thought has less room for its answer.
        return max(ROOM_MIN_TOKENS, min(left, max_tokens or left))

    def _left(self, messages: Sequence[Message]) -> int:
        return (self.tokens_max or 0) - self.total.tokens - cautious_tokens(messages)


def _storable(result: T) -> T:
    """What an activity gives back, known to be such that the server takes it.

    Raises:
        ModelError: it cannot be stored. Unseen, Temporal would have the whole work paid again.
    """
    try:
        to_json(result)
    except (ValueError, TypeError, RecursionError) as exc:
        text = f"the result cannot be stored: {type(exc).__name__}"
        raise ModelError("refused", text) from None
    return result


async def whole_reply(
    client: ModelClient, pool: str, request: ChatRequest, attempt: Attempt
) -> ChatReply:
    """One answer within the attempt's reservation; where a limit cut it, asked for once more with
    more room, if there is any. What is still cut then says so (`is_cut_off`).

    Raises:
        ModelError: usage already paid is in `attempt`.
    """
    reply = await _paid_reply(client, pool, request, attempt)
    if not reply.is_cut_off:
        return reply
    written = reply.usage.output_tokens
    # A limit that somebody set stays; the endpoint's own may be lower, and is passed by naming one.
    limit = request.max_tokens or wider_limit(None, written)
    left = attempt.room_left(request.messages)
    if limit <= written or (left is not None and min(left, limit) <= written):
        return reply
    return await _paid_reply(client, pool, replace(request, max_tokens=limit), attempt)


async def _paid_reply(
    client: ModelClient, pool: str, request: ChatRequest, attempt: Attempt
) -> ChatReply:
    room = attempt.room(request.messages, request.max_tokens)
    reply = await client.chat(pool, replace(request, max_tokens=room))
    attempt.paid(reply.usage)
    return reply


async def attempt_model(
    work: Callable[[Attempt], Awaitable[T]], client: ModelClient, target: Target
) -> T:
    """Run `work` as one attempt of the running activity, with heartbeats.

    Raises:
        ApplicationError: the failure with its class; final when our own count is used up.
    """
    before = attempts_now(target.before)
    limits = [client.timeout_seconds(target.pool), deadline_seconds()]
    async with Heartbeat(before.details()) as beat:
        limit = min(x for x in limits if x is not None)
        attempt = Attempt(before, beat, limit, target.tokens_max)
        attempt.model = target.model
        try:
            if before.lost > LOST_MAX:
                raise ModelError("refused", f"{before.lost} workers were lost during this call")
            return _storable(await work(attempt))
        except ApplicationError:
            raise
        except Exception as exc:
            # Without a cause: its text, and the code around it, may hold parts of a prompt.
            raise _failure(exc, attempt, client, target, beat) from None


def _failure(
    exc: Exception, attempt: Attempt, client: ModelClient, target: Target, beat: Heartbeat
) -> ApplicationError:
    before = attempt.before
    spent = attempt.total + (getattr(exc, "usage", None) or Usage())
    after = replace(before, usage=spent)
    table = client.settings.retry_table
    if classify(exc) == "schema_violation" and not getattr(exc, "is_of_call", False):
        client.report_schema_violation(target.pool)  # the call has ended well, its answer not
    if is_turn_wait(exc):
        beat.set(replace(after, turns=before.turns + 1).details())
    elif is_free_wait(exc, before.waits, table, has_fallback=target.has_fallback):
        beat.set(replace(after, waits=before.waits + 1).details())
    else:
        beat.set(replace(after, failures=before.failures + 1).details())
    return as_application_error(
        exc,
        endpoint=client.endpoint(target.pool),
        model=attempt.model,
        counted_attempt=before.counted_attempt,
        max_attempts=target.max_attempts,
        waits=before.waits,
        retry_after=requested_wait_seconds(exc, time.time()),
        retry=target.retry,
        usage=spent,
        table=table,
        has_fallback=target.has_fallback,
    )


async def model_for(client: ModelClient, named: str | None, role: Role, pool: str) -> str:
    """The model of a call: the job's, else the role's, else the worker's, else what is served.

    Raises:
        ModelError: nobody names one and the endpoint lists none.
    """
    settings = client.settings
    model = named or settings.models.get(role) or settings.models.get("worker") or settings.model
    return model or await client.default_model(pool)
