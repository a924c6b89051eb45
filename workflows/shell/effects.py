"""One function per kind of command: it carries the command out and gives back its result.

What is mechanical about it happens here: long literals and wide bindings go to the blob store,
a call that cannot be served by its pool goes to the next one, a child's arguments are resolved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import TypeAdapter
from temporalio import workflow
from temporalio.common import Priority

from planloom.planner.compile.pipeline import Compiled
from planloom.planner.contract.jobs import (
    AskJob,
    JoinJob,
    PlanJob,
    ResolveJob,
    ToolJob,
    TurnJob,
)
from planloom.planner.contract.large_plans import PreparePlanJob
from planloom.planner.language.catalog import PoolSpec
from planloom.planner.language.expressions import Meter
from planloom.planner.language.values import Bindings, JsonValue, Stored
from planloom.workflows.machines.run.values import resolve_now
from planloom.workflows.machines.shared.commands import (
    AskModel,
    JoinOutcomes,
    LoadDefinition,
    LookAtChild,
    PatchPlan,
    PlanPrepared,
    Prepare,
    PreparePlan,
    ReadOutput,
    Resolve,
    RunGroup,
    RunTool,
    TakePermit,
    TakeTurn,
    Urgency,
    WritePlan,
)
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.sizes import text_bytes
from planloom.workflows.shell import activities
from planloom.workflows.shell.activities import Place
from planloom.workflows.shell.carried import read_large
from planloom.workflows.shell.ends import CommandFailed
from planloom.workflows.shell.pools import on_pools

LITERAL_INLINE_BYTES = 6_000
"""Longer arguments of a body are stored once, for all its attempts."""
BINDINGS_INLINE_BYTES = 12_000
"""Wider fan-ins go behind one reference, so that no history event grows with the plan."""
GROUP_VALUES_INLINE_BYTES = 60_000
"""What hundreds of tasks read together may be more than what one does."""
TOLD_INLINE_BYTES = 12_000
"""Two thousand tasks with their outputs would be more than a payload may hold."""

COMPILED: TypeAdapter[Compiled] = TypeAdapter(Compiled)

J = TypeVar("J", PlanJob, JoinJob)
C = TypeVar("C", AskJob, TurnJob)


def priority_of(urgency: Urgency) -> Priority:
    """A level as Temporal knows it; tenants are fairness keys with their weights."""
    return Priority(
        priority_key=urgency.level,
        fairness_key=urgency.tenant,
        fairness_weight=urgency.weight,
    )


# -- values ---------------------------------------------------------------------------------


async def resolved(
    value: JsonValue, bound: Bindings, meter: Meter, limit: int | None = None
) -> Stored:
    """A value with its references resolved: here when all is inline, else by the worker.

    Raises:
        CommandFailed: a path that does not fit the value.
    """
    found = resolve_now(value, bound, meter, limit=limit or BINDINGS_INLINE_BYTES)
    if isinstance(found, Failure):
        raise CommandFailed(found)
    if found is not None:
        return found
    job = ResolveJob(value=value, bindings=await packed(bound), inline_max_bytes=limit)
    return (await activities.resolve_value(job)).stored


async def packed(bound: Bindings, limit: int = BINDINGS_INLINE_BYTES) -> Bindings:
    """Bindings as history may carry them."""
    size = sum(120 + (text_bytes(s.value) if s.is_inline else 240) for s in bound.inputs.values())
    return await activities.pack_bindings(bound) if size > limit else bound


async def _stored(value: JsonValue, inline_max_bytes: int | None = None) -> Stored:
    """A value in the blob store; what looks like a reference in it stays as it is."""
    given = Bindings(inputs={"given": Stored(value=value)})
    job = ResolveJob(value="${given}", bindings=given, inline_max_bytes=inline_max_bytes)
    return (await activities.resolve_value(job)).stored


async def long_texts_stored(texts: Sequence[str]) -> list[Stored]:
    """Parts of a long text in the blob store, without previews."""
    stored = [await _stored(text, inline_max_bytes=0) for text in texts]
    return [s.model_copy(update={"preview": None}) for s in stored]


class Literals:
    """Long arguments that were stored already, by task: the items of a map share theirs."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[JsonValue, Stored]] = {}

    async def of(self, task: str, value: JsonValue) -> Stored | None:
        """The reference of a long value; None when it may stand in the job."""
        if text_bytes(value) <= LITERAL_INLINE_BYTES:
            return None
        before = self._stored.get(task)
        if before is None or before[0] != value:
            self._stored[task] = before = (value, await _stored(value))
        return before[1]


# -- pools ----------------------------------------------------------------------------------


async def _on_pools(
    pools: Sequence[PoolSpec], job: C, place: Place, call: Callable[[C, Place], Awaitable[Any]]
) -> Any:
    async def there(job: C, pool: PoolSpec, name: str) -> Any:
        return await call(job, replace(place, queue=pool.task_queue, activity_id=name))

    return await on_pools(pools, job, place.activity_id, there)


# -- tools and models -----------------------------------------------------------------------


async def run_tool(command: RunTool, literals: Literals) -> Any:
    if command.delay > 0:
        await workflow.sleep(command.delay, summary=f"{command.activity_id}: pause before a retry")
    job = await _slim_tool(command.job, literals)
    if command.is_local:
        return await activities.run_local_tool(job, command.retry, command.timeout)
    place = Place(command.queue, command.activity_id, command.summary, priority_of(command.urgency))
    return await activities.run_tool(job, place, command.retry, command.timeout)


async def run_group(command: RunGroup, _: Literals) -> Any:
    job = command.job
    values = await packed(job.values, GROUP_VALUES_INLINE_BYTES)
    if values is not job.values:
        job = job.model_copy(update={"values": values})
    place = Place(command.queue, command.key, command.summary, priority_of(command.urgency))
    return await activities.run_group(job, place)


async def _slim_tool(job: ToolJob, literals: Literals) -> ToolJob:
    update: dict[str, Any] = {}
    if job.args and (literal := await literals.of(job.task, dict(job.args))) is not None:
        update = {"args": {}, "literal": literal}
    bound = await packed(job.bindings)
    if bound is not job.bindings:
        update["bindings"] = bound
    return job.model_copy(update=update) if update else job


async def ask_model(command: AskModel, literals: Literals) -> Any:
    job, update = command.job, dict[str, Any]()
    said: JsonValue = {"prompt": job.prompt, "context": job.context, "system": job.system}
    if (literal := await literals.of(job.task, said)) is not None:
        update = {"prompt": "", "context": None, "system": None, "literal": literal}
    bound = await packed(job.bindings)
    if bound is not job.bindings:
        update["bindings"] = bound
    job = job.model_copy(update=update) if update else job
    place = Place("", command.activity_id, command.summary, priority_of(command.urgency))

    async def ask(job: AskJob, place: Place) -> Any:
        return await activities.ask_model(job, place, command.timeout)

    return await _on_pools(command.pools, job, place, ask)


async def take_turn(command: TakeTurn, _: Literals) -> Any:
    place = Place("", command.activity_id, command.summary, priority_of(command.urgency))
    return await _on_pools(
        command.pools,
        command.job,
        place,
        lambda job, at: activities.agent_turn(job, at, command.timeout),
    )


# -- planner and joiner ---------------------------------------------------------------------


async def write_plan(command: WritePlan, _: Literals) -> Any:
    job = await _told_in_short(command.job)
    return await activities.write_plan(job, priority_of(command.urgency))


async def join_outcomes(command: JoinOutcomes, _: Literals) -> Any:
    job = await _told_in_short(command.job)
    urgency = priority_of(command.urgency)
    return await activities.join_outcomes(job, command.activity_id, urgency)


async def _told_in_short(job: J) -> J:
    """A long list of outcomes goes behind one reference."""
    documents: JsonValue = [t.model_dump(mode="json", exclude_unset=True) for t in job.finished]
    if text_bytes(documents) <= TOLD_INLINE_BYTES:
        return job
    return job.model_copy(update={"finished": [], "finished_ref": await _stored(documents)})


# -- the rest -------------------------------------------------------------------------------


async def prepare(command: Prepare, _: Literals) -> Any:
    return await activities.prepare_run(command.job)


async def prepare_plan(command: PreparePlan, _: Literals) -> PlanPrepared:
    request = command.request
    if request.plan is not None:
        document = request.plan.model_dump(mode="json", exclude_unset=True, by_alias=True)
        stored = await _stored(document, inline_max_bytes=0)
        request = request.model_copy(update={"plan": None, "plan_blob": stored.blob})
    job = PreparePlanJob(request=request, depth=command.depth, given=command.given)
    found = await activities.prepare_plan(job)
    if found.problems:
        return PlanPrepared(found.catalog, request, found.problems)
    parts = [await activities.long_text(part) for part in found.parts]
    return PlanPrepared(found.catalog, request, [], read_large(COMPILED, parts))


async def load_definition(command: LoadDefinition, _: Literals) -> Any:
    return await activities.load_definition(command.job)


async def take_permit(command: TakePermit, _: Literals) -> Any:
    await activities.take_permit(command.job)


async def resolve(command: Resolve, _: Literals) -> Any:
    job = command.job
    bound = await packed(job.bindings)
    return await activities.resolve_value(
        job if bound is job.bindings else job.model_copy(update={"bindings": bound})
    )


async def read_output(command: ReadOutput, _: Literals) -> Any:
    return await activities.read_output(command.stored, command.start, command.end)


async def patch_plan(command: PatchPlan, _: Literals) -> Any:
    return await activities.patch_plan(command.job)


async def look_at_run(command: LookAtChild, _: Literals) -> Any:
    return await activities.look_at_run(command.id)


EFFECTS: dict[type[Any], Callable[[Any, Literals], Awaitable[Any]]] = {
    Prepare: prepare,
    PreparePlan: prepare_plan,
    LoadDefinition: load_definition,
    TakePermit: take_permit,
    RunTool: run_tool,
    RunGroup: run_group,
    AskModel: ask_model,
    TakeTurn: take_turn,
    WritePlan: write_plan,
    JoinOutcomes: join_outcomes,
    Resolve: resolve,
    ReadOutput: read_output,
    PatchPlan: patch_plan,
    LookAtChild: look_at_run,
}
"""By kind of command: everything that ends in one result."""

__all__ = ["EFFECTS", "Literals", "priority_of", "resolved"]
