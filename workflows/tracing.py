"""One span a run, from workflow code. Replay-safe: the worker's provider makes ids from the run."""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.trace import Status, StatusCode
from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError


def start_run_span(workflow_type: str) -> trace.Span:
    """Begin the run's span and make it the parent of all that this coroutine starts.

    It is never detached: a run that is evicted from a worker's cache has no end to detach at, and
    its context ends with it. Without telemetry this records nothing.
    """
    attributes = {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": workflow_type,
        "planloom.run": workflow.info().workflow_id,
    }
    name = f"invoke_workflow {workflow_type}"
    span = trace.get_tracer("planloom").start_span(name, attributes=attributes)
    context.attach(trace.set_span_in_context(span))
    return span


def fail_run_span(span: trace.Span, error: FailureError) -> None:
    """End the span of a run that fails: one that is never ended is never exported."""
    kind = (error.type if isinstance(error, ApplicationError) else None) or type(error).__name__
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, kind))
    span.end()
