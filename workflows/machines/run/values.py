"""Values and conditions over outputs: at once where all is inline, else as a job for the worker."""

from __future__ import annotations

from planloom.planner.contract.jobs import ResolveJob
from planloom.planner.language.conditions import evaluate, roots_of_condition
from planloom.planner.language.expressions import Meter, TooMuchWorkError
from planloom.planner.language.references import resolve
from planloom.planner.language.values import (
    INLINE_MAX_BYTES,
    Bindings,
    JsonValue,
    Stored,
    TaskId,
    is_deeper,
)
from planloom.workflows.machines.run.state import Pending, Rule, RunState
from planloom.workflows.machines.shared.commands import Resolve
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.sizes import text_bytes

RESOLVED_MAX_BYTES = 12_000
"""A longer value is made where it can be stored."""
RESOLVED_MAX_DEPTH = 100
"""So is one nested deeper: no payload holds it, and a run that cannot read its child's hangs."""


def resolve_now(
    value: JsonValue, bound: Bindings, meter: Meter, *, limit: int = RESOLVED_MAX_BYTES
) -> Stored | Failure | None:
    """`value` with its references resolved; None when only an activity can, or should."""
    if bound.bundle is not None or not all(s.is_inline for s in bound.inputs.values()):
        return None
    if bound.item is not None and not bound.item.is_inline:
        return None
    scope: dict[str, JsonValue] = {k: s.value for k, s in bound.inputs.items()}
    if bound.item is not None and bound.index is not None:
        items = bound.item.value
        picked = items[bound.index] if bound.is_item_of_list else items  # type: ignore[index]
        scope |= {"item": picked, "index": bound.index + bound.first_index}
    try:
        found = resolve(value, scope, meter)
    except TooMuchWorkError:
        return None  # an activity has more time, or says what is wrong with it
    except Exception as error:  # a path that does not fit the value that came
        return Failure(str(error), "tool")
    if is_deeper(found, RESOLVED_MAX_DEPTH) or text_bytes(found) > limit:
        return None
    return Stored(value=found)


def store_job(value: JsonValue) -> ResolveJob | None:
    """The job that stores a long value; None when it may stay inline.

    What looks like a reference in the value stays as it is.
    """
    if text_bytes(value) <= INLINE_MAX_BYTES:
        return None
    return ResolveJob(value="${given}", bindings=Bindings(inputs={"given": Stored(value=value)}))


def condition_or_ask(
    run: RunState, step: Step, rule: Rule, condition: str, *, key: str = "", subject: str = ""
) -> bool | Failure | None:
    """Whether a condition is true; None while an activity looks, whose end `rule` takes."""
    found = condition_now(run, condition)
    if not isinstance(found, ResolveJob):
        return found
    key = key or rule.value
    run.pending[key] = Pending(rule, subject or condition)
    step.do(Resolve(key, found))
    return None


def condition_now(run: RunState, condition: str) -> bool | Failure | ResolveJob:
    """Whether a condition over the outcomes is true; a job where only an activity can tell."""
    roots = [r for r in roots_of_condition(condition) if run.has_name(r)]
    outcomes = {r: o.value for r in roots if (o := run.frontier.outcome_of(TaskId(r))) is not None}
    found = {r: s for r in roots if (s := run.value_of(r)) is not None}
    if all(s.is_inline for s in found.values()):
        try:
            outputs = {r: s.value for r, s in found.items()}
            return evaluate(condition, outcomes, outputs, meter=run.metering.meter)
        except TooMuchWorkError:
            pass
        except ValueError as error:
            return Failure(str(error), "tool")
    return ResolveJob(
        value=condition,
        mode="condition",
        bindings=Bindings(inputs=found),
        outcomes=outcomes,
    )
