"""One span for each workflow run, from workflow code; see `tracing`."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError

from planloom.workflows.machines.shared.machine import Failed
from planloom.workflows.shell.ends import error_of
from planloom.workflows.shell.shell import Shell
from planloom.workflows.shell.tracing import fail_run_span, start_run_span


async def in_span(
    kind: str, shell: Shell[Any] | None, failed: Failed | None, agent: str | None = None
) -> Any:
    """The whole of a workflow's `run`: its shell's result, within a span.

    Raises:
        ApplicationError: the caller's mistake.
    """
    span = start_run_span(kind, agent)
    if shell is None:
        assert failed is not None
        error = error_of(failed)
        fail_run_span(span, error)
        raise error
    shell.take_context()
    try:
        result = await shell.run()
    except FailureError as error:
        fail_run_span(span, error)
        raise
    except workflow.ContinueAsNewError:
        span.set_attribute("planloom.status", "continued")
        span.end()
        raise
    span.set_attribute("planloom.status", result.status)
    if (revision := getattr(result, "revision", None)) is not None:
        span.set_attribute("planloom.revision", revision)
    span.end()
    return result
