"""What a client of runs may want to catch, and what a server's refusals mean.

Decided by status codes and the details that the server adds, never by the words of a message.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure, WorkflowNotReadyFailure
from temporalio.service import RPCError, RPCStatusCode

from planloom.planner.language.values import Problem

T = TypeVar("T")

UPDATE_ATTEMPTS = 8
UPDATE_AGAIN_SECONDS = 0.01
"""Doubled each time: 1.3 s in all."""

_UNREACHED = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
)


_SAID = re.compile(r'message: "([^"]+)"')
"""What the operating system said, inside what the SDK's transport prints of itself."""


class PlanloomError(Exception):
    """Base of what a caller may want to catch; `hint` says what to do next."""

    hint = ""


class NoServer(PlanloomError):
    """No Temporal server answers at the configured address."""

    hint = (
        "Start one with: planloom dev (or set TEMPORAL_ADDRESS). If one runs there, look at its "
        "log: a server whose disk is full, for example, does not answer."
    )

    def __init__(self, address: str, cause: str) -> None:
        told = _SAID.findall(cause)
        super().__init__(f"no Temporal server answers at {address} ({told[-1] if told else cause})")


class NoWorker(PlanloomError):
    """The server answers, but no worker polls the queue."""

    hint = "Start one with: planloom-worker (or planloom dev)."

    def __init__(self, queue: str) -> None:
        super().__init__(f'no worker answers on task queue "{queue}"')


class NoSuchRun(PlanloomError):
    hint = "List runs with: planloom ps."

    def __init__(self, run: str) -> None:
        super().__init__(f'no run "{run}"')


class AlreadyRunning(PlanloomError):
    hint = "Choose another id, watch it with `planloom watch`, or cancel it first."

    def __init__(self, run: str) -> None:
        super().__init__(f'run "{run}" is already running')


class RunFailed(PlanloomError):
    """The run ended as a failure: `type` is the contract's error type, `problems` its details."""

    def __init__(self, message: str, kind: str, problems: list[Problem]) -> None:
        self.type = kind
        self.problems = problems
        super().__init__(message)


class Refused(PlanloomError):
    """An update was refused, with the reason."""

    def __init__(self, message: str, kind: str = "") -> None:
        self.type = kind
        super().__init__(message)


def problems_in(details: Sequence[Any]) -> list[Problem]:
    """The problems among the details of a failure."""
    found: list[Problem] = []
    for detail in details:
        for entry in detail if isinstance(detail, list) else [detail]:
            if isinstance(entry, dict) and {"path", "message"} <= set(entry):
                found += [Problem.model_validate(entry)]
    return found


def names_no_run(error: RPCError) -> bool:
    """Whether the server does not find a running run. (A missing namespace says so by itself.)"""
    is_missing = error.status is RPCStatusCode.NOT_FOUND
    return is_missing and not _has_detail(error, NamespaceNotFoundFailure)


def is_task_failing(error: RPCError) -> bool:
    """Whether a workflow task failed that would have answered; its next attempt may."""
    is_early = error.status is RPCStatusCode.FAILED_PRECONDITION
    return is_early and _has_detail(error, WorkflowNotReadyFailure)


def is_unanswered(error: RPCError) -> bool:
    """Whether a question that a worker must answer got no answer: nobody polls, or in time."""
    if error.status is RPCStatusCode.FAILED_PRECONDITION:
        return not is_task_failing(error)  # the server has seen no poller lately
    return error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)


def server_error(address: str, error: RPCError) -> PlanloomError:
    """A server that cannot be reached, or one that answered and would not do it."""
    if error.status in _UNREACHED:
        return NoServer(address, error.message)
    return Refused(f"the server at {address} refuses: {error.message}", error.status.name)


async def answered(
    ask: Callable[[], Awaitable[T]], is_running: Callable[[], Awaitable[bool]] | None = None
) -> T:
    """An update's answer, asked for again when the update was lost.

    The server drops updates with a workflow task that fails because something new arrived while it
    ran. It keeps an update that nobody has accepted in memory only: when it is restarted, and when
    the run continues as new, it says that there is none, though the run goes on. `ask` uses the
    same update id each time, so the update is done once.
    """
    for attempt in range(UPDATE_ATTEMPTS):
        try:
            return await ask()
        except RPCError as error:
            is_lost = is_task_failing(error) or (
                names_no_run(error)
                # Of a run that has ended meanwhile, the server still knows what it answered.
                and (attempt == 0 or (is_running is not None and await is_running()))
            )
            if not is_lost or attempt == UPDATE_ATTEMPTS - 1:
                raise
        await asyncio.sleep(UPDATE_AGAIN_SECONDS * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _has_detail(error: RPCError, kind: type[Message]) -> bool:
    name = f"/{kind.DESCRIPTOR.full_name}"
    return any(detail.type_url.endswith(name) for detail in error.grpc_status.details)
