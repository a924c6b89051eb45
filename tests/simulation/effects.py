"""How activities end: when, and in which event. The real pure functions where there are any."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from planloom.activities.resolve import patched_plan
from planloom.planner.contract.jobs import (
    AskJob,
    JoinJob,
    JoinReply,
    Resolved,
    ResolveJob,
    TaskOutput,
    ToolJob,
)
from planloom.planner.contract.retries import RETRY_TABLE
from planloom.planner.language.conditions import evaluate
from planloom.planner.language.references import resolve
from planloom.planner.language.values import (
    INLINE_MAX_BYTES,
    Bindings,
    JsonValue,
    Outcome,
    Stored,
    Usage,
)
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import (
    AskModel,
    JoinOutcomes,
    LoadDefinition,
    LookAtChild,
    PatchPlan,
    Prepare,
    ReadOutput,
    Resolve,
    RunGroup,
    RunTool,
    TakePermit,
    TakeTurn,
)
from planloom.workflows.machines.shared.events import Broke, Event, Failure, Returned
from tests.simulation.catalog import PRICES, catalog_for
from tests.simulation.chance import seconds, some, weighted
from tests.simulation.definitions import definition
from tests.simulation.group_calls import run_group
from tests.simulation.kinds import reserved_for
from tests.simulation.turns import random_turn

if TYPE_CHECKING:
    from tests.simulation.process import Process

FOR_GOOD = "it failed for good"
CLASSES = [
    "rate_limit",
    "capacity",
    "timeout",
    "schema_violation",
    "auth",
    "refused",
    "context_length",
    "tool",
    "unknown",
]


def end_of(process: Process, command: Any, random: Random) -> tuple[float, Event]:
    """After how many seconds a command ends, and how."""
    key, world = command.key, process.world
    match command:
        case Prepare():
            # Before anything else it is asked for ever, by a run.
            if key != "prepared" and _fails(process, random):
                return seconds(random), Broke(key, Failure("no worker", "timeout"))
            return seconds(random), Returned(key, catalog_for(command.job, world.random("catalog")))
        case LoadDefinition():
            if _fails(process, random, 0.3):
                return seconds(random), Broke(key, Failure("the file cannot be read", "unknown"))
            return seconds(random), Returned(key, definition(command.job))
        case TakePermit():
            if random.random() < 0.05:
                return seconds(random), Broke(key, Failure("it never has room", "InvalidRequest"))
            return seconds(random), Returned(key, None)
        case Resolve():
            return _resolve(process, key, command.job, random)
        case PatchPlan():
            if _fails(process, random):
                return seconds(random), Broke(key, Failure("timed out", "timeout"))
            return seconds(random), Returned(key, patched_plan(command.job))
        case LookAtChild():
            return 0.01, Returned(key, world.status_of(command.id))
        case _:
            ends: Any = _ENDS[type(command)]
            return ends(process, command, random)  # type: ignore[no-any-return]


def _fails(process: Process, random: Random, share: float = 1.0) -> bool:
    return random.random() < process.world.case.fails * share


def _failed(random: Random, attempts: int, usage: Usage) -> Failure:
    kind = random.choice(CLASSES)
    return Failure(f"it failed: {kind}", kind, attempts=attempts, usage=usage)


# -- values ---------------------------------------------------------------------------------


def store(process: Process, value: JsonValue, limit: int = INLINE_MAX_BYTES) -> Stored:
    """A value as an activity gives it back: a long one as a blob."""
    text = json.dumps(value)
    if len(text) <= limit:
        return Stored(value=value)
    name = hashlib.sha256(text.encode()).hexdigest()
    process.world.blobs[name] = value
    return Stored(blob=name, size_bytes=len(text), preview=text[:200])


def load(process: Process, stored: Stored) -> JsonValue:
    """The value behind a reference."""
    return stored.value if stored.blob is None else process.world.blobs[stored.blob]


def scope_of(process: Process, bound: Bindings) -> dict[str, JsonValue]:
    """What the references of a body stand for."""
    scope = {name: load(process, stored) for name, stored in bound.inputs.items()}
    if bound.item is not None and bound.index is not None:
        items = load(process, bound.item)
        picked = items[bound.index] if bound.is_item_of_list else items  # type: ignore[index]
        scope |= {"item": picked, "index": bound.index + bound.first_index}
    return scope


def bound(process: Process, value: JsonValue, bindings: Bindings) -> JsonValue:
    """A value with its references resolved.

    Raises:
        ValueError: a path that does not fit.
    """
    return resolve(value, scope_of(process, bindings))


def _resolve(process: Process, key: str, job: ResolveJob, random: Random) -> tuple[float, Event]:
    after = random.choice([0.0, 0.01, 1.0, 15.0])
    if process.world.case.blobs_fail and _fails(process, random, 0.3):
        return after, Broke(key, Failure("the blob cannot be read", "unknown"))
    try:
        if job.mode == "condition":
            outputs = {n: load(process, s) for n, s in job.bindings.inputs.items()}
            holds = evaluate(str(job.value), job.outcomes, outputs)
            return after, Returned(key, Resolved(stored=Stored(value=holds)))
        value = bound(process, job.value, job.bindings)
    except ValueError as error:
        return after, Broke(key, Failure(str(error), "tool"))
    if job.mode == "list" and not isinstance(value, list):
        return after, Broke(key, Failure("it is no list", "tool"))
    if job.mode == "joined":
        value = [i for p in value for i in (p if isinstance(p, list) else [None] * p)]  # type: ignore
    if job.batch is not None and isinstance(value, list) and len(value) > job.batched_from:
        starts = range(0, len(value), job.batch)
        parts = [store(process, value[at : at + job.batch]) for at in starts]
        return after, Returned(key, Resolved(count=len(value), parts=parts))
    stored = store(process, value, job.inline_max_bytes or INLINE_MAX_BYTES)
    count = len(value) if isinstance(value, list) and job.mode == "list" else None
    return after, Returned(key, Resolved(stored=stored, count=count))


def random_value(random: Random) -> JsonValue:
    """What a tool or a model gives back; a few are too large for history."""
    kind = random.random()
    if kind < 0.45:
        items = [random.randrange(9) for _ in range(random.choice([0, 1, 2, 3]))]
        return {"value": random.randrange(9), "ok": random.random() < 0.5, "items": items}
    if kind < 0.55:
        return random.randrange(9)
    if kind < 0.7:
        return [{"n": n} for n in range(random.choice([0, 1, 2, 4]))]
    if kind < 0.8:
        return "some text"
    if kind < 0.85:
        return None
    long = "x" * 3_000
    return random.choice([long, {"value": 5, "items": [long, long], "ok": True}, [long, 1]])


# -- tools and models -----------------------------------------------------------------------


def usage_within(process: Process, random: Random, limit: Amount, model: str | None) -> Usage:
    """What a model call used: no more than was reserved, but in a case where calls overuse."""
    tokens = random.choice([0.1, 0.5, 1.0]) * limit.tokens
    if process.world.case.overuses and random.random() < 0.3:
        tokens = tokens * 3 + 100
        process.mark_overrun()
    given = int(tokens * random.random())
    asked = int(tokens) - given
    if model not in PRICES:
        return Usage(input_tokens=asked, output_tokens=given, model_calls=1, is_priced=False)
    price_in, price_out = PRICES[model]
    usd = asked * price_in + given * price_out
    if not process.oracle.may_overrun:
        usd = min(usd, limit.usd_nano)
    return Usage(input_tokens=asked, output_tokens=given, usd_nano=usd, model_calls=1)


def _run_tool(process: Process, command: RunTool, _: Random) -> tuple[float, Event]:
    """All attempts of a tool call, as the server makes them."""
    key, job, claims = command.key, command.job, process.world.claims
    process.oracle.tool_sent(command)
    spec = process.state.catalog.tool(job.tool)
    assert spec is not None
    acts_once = spec.side_effects and not spec.idempotent
    after, failed = command.delay, None
    first = job.attempts_before + 1
    for attempt in range(first, first + command.retry.max_attempts):
        if acts_once and claims.get(job.key) == "open":
            lost = TaskOutput(output=Stored(), outcome=Outcome.UNKNOWN, attempts=attempt)
            return after, Returned(key, lost)
        claims[job.key] = "open"
        name = f"{command.activity_id} {attempt}"
        took, found = attempt_of(process, name, job, command.timeout, attempt)
        after += took
        if isinstance(found, TaskOutput):
            claims[job.key] = "done"
            return after, Returned(key, found)
        failed = found
        if failed.error_class == "tool":
            claims.pop(job.key)  # the tool's own word: nothing was done
        if not is_retryable(failed):
            break
    assert failed is not None
    return after, Broke(key, failed)


def attempt_of(
    process: Process, name: str, job: ToolJob, timeout: float | None, attempt: int
) -> tuple[float, TaskOutput | Failure]:
    """One attempt of a tool call: the same of the same name, alone or in a group."""
    random = process.world.random(process.id, "attempt", name)
    spec = process.state.catalog.tool(job.tool)
    assert spec is not None
    try:
        bound(process, dict(job.args), job.bindings)
    except ValueError as error:
        return 0.0, Failure(str(error), "refused")  # it is not tried again
    took = seconds(random)
    if timeout is not None and took > timeout:
        return timeout, Failure("it took too long", "timeout", attempts=attempt)
    if not _fails(process, random):
        return took, _tool_output(process, random, attempt, int((spec.cost_usd or 0.0) * 1e9))
    if random.random() < 0.3:  # the worker was lost
        return took, Failure("timed out (heartbeat)", "timeout", attempts=attempt)
    failed = _failed(random, attempt, Usage())
    if failed.error_class == "tool" and random.random() < 0.5:
        failed = replace(failed, message=FOR_GOOD)  # the tool says that it would fail again
    return took, failed


def is_retryable(failed: Failure) -> bool:
    """Whether the same call may be made again."""
    rule = RETRY_TABLE[failed.error_class]  # type: ignore[index]
    return rule.retryable and failed.message != FOR_GOOD


def _tool_output(process: Process, random: Random, attempt: int, cost: int) -> TaskOutput:
    output = store(process, random_value(random))
    if random.random() < 0.1:
        return TaskOutput(
            output=output,
            outcome=Outcome.CACHED,
            usage=Usage(cache_hits=1),
            saved_usd_nano=cost,
        )
    usage = Usage(tool_calls=1, usd_nano=cost)
    return TaskOutput(output=output, usage=usage, attempts=attempt)


def _ask(process: Process, command: AskModel, random: Random) -> tuple[float, Event]:
    key, job = command.key, command.job
    after = seconds(random)
    try:
        bound(process, [job.prompt, job.context, job.system], job.bindings)
    except ValueError as error:
        return 0.0, Broke(key, Failure(str(error), "tool"))
    limit = reserved_for(process.state, key)
    if job.tokens_max is not None and job.tokens_max > limit.tokens:
        process.oracle.complain("a call is told what is reserved for it", f"{key}: {limit}")
    usage = usage_within(process, random, limit, job.model)
    attempts = random.choice([1, 1, 2, 3])
    if command.timeout is not None and after > command.timeout:
        return command.timeout, Broke(key, Failure("timed out", "timeout", attempts, usage))
    if (cut := cut_off(process, command, usage)) is not None:
        return after, Broke(key, cut)
    if _fails(process, random):
        return after, Broke(key, _failed(random, attempts, usage))
    output = store(process, _said(job, random))
    return after, Returned(key, TaskOutput(output=output, usage=usage, attempts=attempts))


def cut_off(process: Process, command: AskModel | JoinOutcomes, usage: Usage) -> Failure | None:
    """An answer that ends where its limit is. It may be asked for once more, with more room."""
    world, limit = process.world, command.job.max_tokens
    name, _, wider = command.activity_id.partition(".wider")
    if wider or command.activity_id.endswith(".wider"):
        before = world.cut.pop((process.id, name), None)
        if before is None or (limit is not None and limit <= before):
            process.oracle.complain("a cut answer gets more room, once", f"{name}: {limit}")
        return None
    random = world.random("cut", process.id, command.activity_id, process.counts[command.key])
    if limit is None or random.random() > 0.1:
        return None
    world.cut[process.id, name] = limit
    return Failure("the answer was cut off", "context_length", usage=usage, cut_at=limit)


def _said(job: AskJob, random: Random) -> JsonValue:
    if job.role != "judge":
        return random_value(random)
    verdict = random.choice(["trusted", "partial", "uncertain", "untrusted"])
    said: dict[str, JsonValue] = {"verdict": verdict, "reason": "so it is"}
    if random.random() < 0.5:
        said["confidence"] = random.choice([0, 0.3, 1.0])
    if random.random() < 0.5:
        said["answer"] = random.choice(["", "the whole", "long " * 1_000])
    return said | ({"disagreements": ["one", "two"]} if random.random() < 0.3 else {})


def _turn(process: Process, command: TakeTurn, random: Random) -> tuple[float, Event]:
    """All tries of a model turn."""
    key, job, after = command.key, command.job, seconds(random)
    limit = reserved_for(process.state, key)
    if job.tokens_max is not None and job.tokens_max > limit.tokens:
        process.oracle.complain("a call is told what is reserved for it", f"{key}: {limit}")
    usage = usage_within(process, random, limit, job.model)
    attempts = random.choice([1, 1, 2, 3])
    if command.timeout is not None and after > command.timeout:
        return command.timeout, Broke(key, Failure("timed out", "timeout", attempts, usage))
    if (kind := _doom_of(process, job.name)) is not None:
        return after, Broke(key, Failure(f"it failed: {kind}", kind, attempts, usage))
    if _fails(process, random, 0.5):
        return after, Broke(key, _failed(random, attempts, usage))
    return after, Returned(key, random_turn(process, job, usage, random))


def _doom_of(process: Process, name: str) -> str | None:
    """What the endpoint of one persona in ten fails with, whenever it is called."""
    random = process.world.random("doom", process.id, name)
    return random.choice([*CLASSES, "timeout", "timeout"]) if random.random() < 0.1 else None


def _read(process: Process, command: ReadOutput, random: Random) -> tuple[float, Event]:
    if _fails(process, random, 0.3):
        return 0.1, Broke(command.key, Failure("the blob cannot be read", "unknown"))
    text = json.dumps(load(process, command.stored))
    return 0.1, Returned(command.key, Stored(value=text[command.start : command.end]))


# -- the joiner -----------------------------------------------------------------------------


def _join(process: Process, command: JoinOutcomes, random: Random) -> tuple[float, Event]:
    key, job, after = command.key, command.job, seconds(random)
    usage = usage_within(process, random, reserved_for(process.state, key), job.model)
    if (cut := cut_off(process, command, usage)) is not None:
        return after, Broke(key, cut)
    if _fails(process, random, 0.5):
        return after, Broke(key, _failed(random, 1, usage))
    return after, Returned(key, random_decision(process, job, usage, random))


def random_decision(process: Process, job: JoinJob, usage: Usage, random: Random) -> JoinReply:
    """Finish, replan or look, also when there are no rounds or looks left."""
    ids = [t.id for t in job.finished if t.output is not None]
    action = weighted(random, {"finish": 5, "replan": 3 if job.rounds_left else 0.3, "look": 1.5})
    if action == "look" and ids:
        picked = some(random, ids, 3) or ids[:1]
        return JoinReply(action="look", ids=picked, question="and?", usage=usage)
    if action == "replan":
        return JoinReply(action="replan", feedback="more is needed", usage=usage)
    answer = store(process, random_value(random))
    return JoinReply(action="finish", answer=answer, usage=usage)


_ENDS: dict[type[Any], Any] = {
    RunTool: _run_tool,
    RunGroup: run_group,
    AskModel: _ask,
    TakeTurn: _turn,
    ReadOutput: _read,
    JoinOutcomes: _join,
}
