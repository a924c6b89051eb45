"""What an activity's or child's end means: its result, or a `Failure` as a value."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    RetryState,
    TimeoutError,
    is_cancelled_exception,
)

from planloom.planner.language.values import Problem, Usage
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Failed

PROBLEMS_MAX = 200
LINES_MAX = 50


class CommandFailed(Exception):
    """A command failed, and it is known already what that means."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


def failure_of(error: BaseException, max_attempts: int = 1) -> Failure:
    """What the end of a command means.

    Raises:
        BaseException: the error itself, when it is a bug in Planloom and not a failure.
    """
    if isinstance(error, CommandFailed):
        return error.failure
    if isinstance(error, asyncio.CancelledError) or is_cancelled_exception(error):
        return Failure(str(error) or "cancelled", "cancelled")
    if not isinstance(error, FailureError):
        raise error
    cause = error.cause if isinstance(error, ActivityError | ChildWorkflowError) else error
    reached = isinstance(error, ActivityError) and (
        error.retry_state == RetryState.MAXIMUM_ATTEMPTS_REACHED
    )
    attempts = max_attempts if reached else 1
    match cause:
        case ApplicationError():
            kind = cause.type or "unknown"
            details = _details(cause)
            counted, cut_at = details.get("attempts"), details.get("cut_at")
            return Failure(
                cause.message or kind,
                kind,
                attempts=counted if isinstance(counted, int) and counted > 0 else attempts,
                # What failed attempts were paid for is charged like any other use.
                usage=_usage(details.get("usage")),
                cut_at=cut_at if isinstance(cut_at, int) and cut_at > 0 else 0,
            )
        case TimeoutError():
            limit = cause.type.name.lower().replace("_", " ") if cause.type else "its time"
            return Failure(f"timed out ({limit})", "timeout", attempts=attempts)
        case _:
            return Failure(str(cause or error), "unknown", attempts=attempts)


def _details(cause: ApplicationError) -> dict[str, Any]:
    first = cause.details[0] if cause.details else None
    return first if isinstance(first, dict) else {}


def _usage(found: Any) -> Usage:
    return Usage.model_validate(found) if isinstance(found, dict) else Usage()


def error_of(failed: Failed) -> ApplicationError:
    """The failure that a caller's mistake ends in: all problems, each a line and a detail."""
    lines = "\n".join(p.line() for p in failed.problems[:LINES_MAX])
    return ApplicationError(
        lines,
        [p.model_dump() for p in failed.problems[:PROBLEMS_MAX]],
        type=failed.type,
        non_retryable=True,
    )


def failed_of(kind: str, path: str, message: str, hint: str = "") -> Failed:
    """A failure of one problem."""
    return Failed(kind, [Problem(path=path, code="invalid", message=message, hint=hint)])


def is_cancelled() -> bool:
    """Whether the workflow is being cancelled.

    An await whose result comes in the same activation as the cancellation returns as if there were
    none, and nothing else tells of it.
    """
    return workflow.cancellation_reason() is not None
