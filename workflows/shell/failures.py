"""What an activity's or child's failure means for the work it was part of."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    TimeoutError,
    is_cancelled_exception,
)

from planloom.planner.language.values import Usage


class OutOfBudget(Exception):
    """The budget ends the run (`on_budget: partial`): what was lacking, in words."""


class BodyFailed(Exception):
    """A body failed for good, after its retries."""

    def __init__(self, message: str, error_class: str, *, attempts: int = 1) -> None:
        self.message = message
        self.error_class = error_class
        self.attempts = attempts
        self.usage = Usage()
        self.tasks = 1
        super().__init__(message)


class BodyCancelled(Exception):
    """A body was cancelled: by a person, an early end, or the run's own cancellation.

    `usage` and `tasks` are what a child run had come to; of a single call it is not known.
    """

    def __init__(self, message: str, usage: Usage | None = None, tasks: int = 1) -> None:
        self.usage = usage
        self.tasks = tasks
        super().__init__(message)


def is_cancellation(error: BaseException) -> bool:
    """Whether it is the end of a cancelled workflow, in any of the forms that an await gives it."""
    return isinstance(error, BodyCancelled) or is_cancelled_exception(error)


def raise_if_cancelled() -> None:
    """Ask again whether the workflow is cancelled, before it begins or waits for anything more.

    An await whose result comes in the same activation as the cancellation returns as if there were
    none, and nothing else tells of it.

    Raises:
        asyncio.CancelledError: it is.
    """
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError


def failure_of(error: FailureError, max_attempts: int) -> BodyFailed | BodyCancelled:
    """What an activity's or child's failure means for its task."""
    if is_cancelled_exception(error):
        return BodyCancelled(str(error))
    cause = error.cause if isinstance(error, ActivityError | ChildWorkflowError) else error
    reached = isinstance(error, ActivityError) and getattr(error.retry_state, "value", 0) == 4
    attempts = max_attempts if reached else 1
    match cause:
        case ApplicationError():
            kind = cause.type or "unknown"
            told = _details(cause)
            counted = told.get("attempts")
            attempts = counted if isinstance(counted, int) and counted > 0 else attempts
            failed = BodyFailed(cause.message or kind, kind, attempts=attempts)
            if isinstance(told.get("usage"), dict):
                # What failed attempts were paid for is charged like any other use.
                failed.usage = Usage.model_validate(told["usage"])
            return failed
        case TimeoutError():
            limit = cause.type.name.lower().replace("_", " ") if cause.type else "its time"
            return BodyFailed(f"timed out ({limit})", "timeout", attempts=attempts)
        case _:
            return BodyFailed(str(cause or error), "unknown", attempts=attempts)


def _details(cause: ApplicationError) -> dict[str, Any]:
    first = cause.details[0] if cause.details else None
    return first if isinstance(first, dict) else {}
