"""One span a run, from workflow code. Replay-safe: the worker's provider makes ids from the run."""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.trace import Status, StatusCode
from temporalio import workflow
from temporalio.exceptions import ApplicationError


def start_run_span(workflow_type: str, agent: str | None = None) -> trace.Span:
    """Begin the run's span and make it the parent of all that this coroutine starts.

    By the conventions a workflow is invoked, and so is an agent, by its own name.

    It is never detached: a run that is evicted from a worker's cache has no end to detach at, and
    its context ends with it. Without telemetry this records nothing.
    """
    operation = "invoke_workflow" if agent is None else "invoke_agent"
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.workflow.name": workflow_type,
        "planloom.run": workflow.info().workflow_id,
    }
    if agent is not None:
        attributes["gen_ai.agent.name"] = agent
    name = f"{operation} {agent or workflow_type}"
    span = trace.get_tracer("planloom").start_span(name, attributes=attributes)
    context.attach(trace.set_span_in_context(span))
    return span


def fail_run_span(span: trace.Span, error: BaseException) -> None:
    """End the span of a run that fails: one that is never ended is never exported."""
    kind = (error.type if isinstance(error, ApplicationError) else None) or type(error).__name__
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, kind))
    span.end()
