"""The joiner's call: what it is told, what is reserved for it, what it decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio.exceptions import ActivityError

from planner.calls import call_text
from planner.jobs import FinishedTask, JoinJob, JoinReply
from planner.values import JsonValue
from workflows import doors
from workflows.estimates import (
    ANSWER_TOKENS_MIN,
    BYTES_PER_TOKEN,
    JOINER_ANSWER_TOKENS,
    OVERHEAD_TOKENS,
    answer_room,
    model_amount,
    stored_bytes,
)
from workflows.record import text_bytes

if TYPE_CHECKING:
    from workflows.goal import GoalLoop

CALL_MAX_CHARS = 400
TOLD_INLINE_BYTES = 12_000
"""Two thousand tasks with their outputs would be more than a payload may hold."""
SHOWN_MAX_BYTES = 12_000
"""Of one output the joiner is shown 4,000 characters, of up to three bytes each."""


def finished_tasks(loop: GoalLoop) -> list[FinishedTask]:
    """What planner and joiner are told of what has ended: calls, outcomes, previews, causes."""
    engine = loop.engine
    return [
        FinishedTask(
            id=task,
            call=call_text(engine.tasks[task])[:CALL_MAX_CHARS],
            outcome=record.outcome,
            output=record.output,
            error=record.error or record.reason,
            description=engine.tasks[task].description,
        )
        for task, record in engine.records.items()
        if record.outcome is not None
    ]


async def told_in_short(loop: GoalLoop, told: list[FinishedTask]) -> dict[str, Any]:
    """What changes in a job that is told of these tasks: long lists go behind one reference.

    Raises:
        BodyFailed: it cannot be stored.
    """
    documents: JsonValue = [t.model_dump(mode="json", exclude_unset=True) for t in told]
    if text_bytes(documents) <= TOLD_INLINE_BYTES:
        return {}
    return {"finished": [], "finished_ref": await loop.engine.dispatcher.store(documents)}


async def ask_joiner(loop: GoalLoop, left: int) -> JoinReply:
    """One joiner call; `left` is how many replans it may still ask for.

    Raises:
        PlanningFailed: the call failed for good.
        OutOfBudget: there is no room for it, and the run is not to park.
    """
    run, engine = loop.run, loop.engine
    run.phase = "joining"
    run.show()
    told = finished_tasks(loop)
    join = run.plan.join if run.plan else None
    if join:
        told = [t for t in told if t.id in join or not t.outcome.is_good]
    dispatcher = engine.dispatcher
    model = dispatcher.model_for("joiner")
    shown = sum(min(SHOWN_MAX_BYTES, stored_bytes(t.output)) + 600 for t in told)
    given = min(2 * SHOWN_MAX_BYTES, text_bytes(loop.request.context)) + text_bytes(run.goal)
    prompt = (shown + given) // BYTES_PER_TOKEN + OVERHEAD_TOKENS + 600
    want = model_amount(engine.site, model, prompt, JOINER_ANSWER_TOKENS, tasks=0)
    least = model_amount(engine.site, model, prompt, ANSWER_TOKENS_MIN, tasks=0)
    key = f"joiner.{loop.rounds + 1}.{len(engine.records)}"
    granted = await engine.reserve(key, want, least)
    has_cap = engine.ledger.caps.tokens is not None or engine.ledger.caps.usd_nano is not None
    job = JoinJob(
        goal=run.goal,
        finished=told,
        rounds_left=left,
        context=loop.request.context,
        model=model,
        pool=dispatcher.pool_for(model),
        max_tokens=answer_room(granted, prompt, None) if has_cap else None,
        tokens_max=granted.tokens if engine.ledger.caps.tokens is not None else None,
        tenant=loop.request.tenant,
    )
    job = job.model_copy(update=await told_in_short(loop, told))
    try:
        reply = await doors.join_outcomes(job, f"join.{loop.rounds + 1}", dispatcher.priority())
    except ActivityError as error:
        raise loop.failed_call("joiner", key, error) from error
    engine.ledger.settle(key, reply.usage)
    return reply
