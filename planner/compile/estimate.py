"""Estimates before a run: low, likely and worst tokens, money and time, per task and whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError

from planloom.planner.compile.passes.rank import rank_upward
from planloom.planner.compile.passes.resolve import graph_of
from planloom.planner.contract.results import EstimateReport
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.definitions import AgentSpec
from planloom.planner.language.plan import Body, Plan, Task
from planloom.planner.language.values import NANO, JsonValue, TaskId

Span = tuple[float, float, float]

MAP_ITEMS_LIKELY = 10
ANSWER_TOKENS_LIKELY = 250
ANSWER_TOKENS_MAX = 4_096
AGENT_TOKENS: Span = (1_500, 8_000, 20_000)
TEAM_TOKENS: Span = (5_000, 25_000, 60_000)
TOOL_SECONDS: Span = (0.02, 0.3, 10.0)
ASK_SECONDS: Span = (0.8, 3.0, 20.0)
AGENT_SECONDS: Span = (3.0, 20.0, 120.0)
TEAM_SECONDS: Span = (8.0, 45.0, 300.0)
HUMAN_SECONDS: Span = (5.0, 300.0, 3_600.0)


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """Each a span of low, likely, worst. `usd_nano` is None where no price is known."""

    tokens: Span
    usd_nano: Span | None
    seconds: Span
    basis: str

    def times(self, count: float) -> TaskEstimate:
        """The same work `count` times; its time is left to the schedule."""
        usd = self.usd_nano and _scaled(self.usd_nano, count)
        return TaskEstimate(_scaled(self.tokens, count), usd, self.seconds, self.basis)


def _scaled(span: Span, count: float) -> Span:
    return (span[0] * count, span[1] * count, span[2] * count)


def _around(likely: float) -> Span:
    return (likely * 0.5, likely, likely * 2.0)


def items_of(task: Task) -> int:
    """How many items a map has: known for a literal list, else a guess."""
    if task.map is None:
        return 1
    return len(task.map) if isinstance(task.map, list) else MAP_ITEMS_LIKELY


def estimate_task(task: Task, catalog: Catalog, model: str | None = None) -> TaskEstimate:
    """One run of a task's body, from its own `estimate`, the tool's history, or defaults."""
    inner = _sub_plan(task.plan, catalog, model) if isinstance(task.plan, Plan) else None
    tokens, seconds, basis = (
        (inner.tokens, inner.seconds, inner.basis) if inner else _defaults(task, catalog)
    )
    usd: Span | None = inner.usd_nano if inner else (0.0, 0.0, 0.0)
    if any(tokens) and inner is None:
        price = catalog.prices.get(_model_of(task, model) or "")
        usd = None
        if price is not None:
            usd = (
                tokens[0] * min(price),
                tokens[1] * (price[0] * 2 + price[1]) / 3,
                tokens[2] * max(price),
            )
    spec = catalog.tool(task.tool) if task.tool else None
    if spec is not None and spec.cost_usd and usd is not None:
        usd = (
            usd[0] + spec.cost_usd * NANO,
            usd[1] + spec.cost_usd * NANO,
            usd[2] + spec.cost_usd * NANO,
        )
    if task.estimate is not None:
        basis = "declared"
        most = _most(task, catalog, model)
        if task.estimate.tokens is not None:
            tokens = _at_worst(_around(task.estimate.tokens), most[0])
        if task.estimate.usd is not None:
            usd = _at_worst(_around(task.estimate.usd * NANO), most[1])
        seconds = _around(task.estimate.seconds) if task.estimate.seconds is not None else seconds
    return TaskEstimate(tokens, usd, seconds, basis)


def _most(task: Task, catalog: Catalog, model: str | None) -> tuple[float, float]:
    """Tokens and nano-dollars that the task's own `max_tokens` lets it cost, whatever it declares;
    0 where it names none.
    """
    if task.ask is None or not task.ask_body().max_tokens:
        return 0.0, 0.0
    tokens = _defaults(task, catalog)[0][2]
    price = catalog.prices.get(_model_of(task, model) or "")
    return tokens, tokens * max(price) if price is not None else 0.0


def _at_worst(span: Span, worst: float) -> Span:
    return (span[0], span[1], max(span[2], worst))


def _model_of(body: Body, model: str | None) -> str | None:
    if body.ask is not None and (named := body.ask_body().model):
        return named
    if isinstance(body.agent, AgentSpec) and body.agent.model:
        return body.agent.model
    return model


def _defaults(task: Task, catalog: Catalog) -> tuple[Span, Span, str]:
    match task.kind:
        case "tool" if task.tool != "ask":
            measured = catalog.tool_seconds.get(task.tool or "")
            if measured is not None:
                return (0.0, 0.0, 0.0), _around(measured), "history"
            return (0.0, 0.0, 0.0), TOOL_SECONDS, "default"
        case "ask" | "tool":
            ask = task.ask_body() if task.ask is not None else None
            text = _length([ask.prompt, ask.context, ask.system]) if ask else _length([task.args])
            prompt = text / 4 + 50
            room = ask.max_tokens if ask and ask.max_tokens else ANSWER_TOKENS_MAX
            likely = min(room, ANSWER_TOKENS_LIKELY)
            return (prompt + 20, prompt + likely, prompt * 4 + room), ASK_SECONDS, "default"
        case "agent":
            return AGENT_TOKENS, AGENT_SECONDS, "default"
        case "team":
            return TEAM_TOKENS, TEAM_SECONDS, "default"
        case "plan":  # a template, whose tasks are not known here
            return AGENT_TOKENS, AGENT_SECONDS, "default"
        case _:
            return (0.0, 0.0, 0.0), HUMAN_SECONDS, "default"


def _sub_plan(plan: Plan, catalog: Catalog, model: str | None) -> TaskEstimate:
    """An inline sub-plan: its work added up, its time along its longest path."""
    each = {t.id: estimate_task(t, catalog, model) for t in plan.tasks}
    whole = [each[t.id].times(items_of(t)) for t in plan.tasks]
    usd = [e.usd_nano for e in whole if e.usd_nano is not None]
    graph = graph_of(plan)
    try:
        seconds = [
            max(rank_upward(graph, {t: e.seconds[n] for t, e in each.items()}).values())
            for n in range(3)
        ]
    except CycleError:  # a streamed task is estimated before its sub-plan was refused
        seconds = list(_sum([e.seconds for e in each.values()]))
    return TaskEstimate(
        _sum([e.tokens for e in whole]),
        _sum(usd) if len(usd) == len(whole) else None,
        (seconds[0], seconds[1], seconds[2]),
        "sub-plan",
    )


def _length(values: Sequence[JsonValue]) -> int:
    return sum(len(v) if isinstance(v, str) else len(str(v)) for v in values if v is not None)


def _sum(spans: Sequence[Span]) -> Span:
    return (sum(s[0] for s in spans), sum(s[1] for s in spans), sum(s[2] for s in spans))


def estimate_plan(
    plan: Plan,
    inputs: Mapping[TaskId, Sequence[TaskId]],
    each: Mapping[TaskId, TaskEstimate],
    *,
    parallel: int = 100,
) -> EstimateReport:
    """The whole plan: work adds up; time is its longest path, or its work over its slots."""
    counts = {t.id: items_of(t) for t in plan.tasks}
    whole = {t: e.times(counts[t]) for t, e in each.items()}
    tokens = _sum([e.tokens for e in whole.values()])
    priced = all(e.usd_nano is not None for e in whole.values())
    usd = _sum([e.usd_nano for e in whole.values() if e.usd_nano is not None])
    seconds = tuple(_makespan(inputs, each, counts, n, parallel) for n in range(3))
    return EstimateReport.model_validate(
        {
            "tokens": tuple(int(t) for t in tokens),
            "usd": tuple(round(u / NANO, 6) for u in usd) if priced else None,
            "seconds": tuple(round(s, 2) for s in seconds),
            "tasks": {
                t: {
                    "tokens": [int(x) for x in e.tokens],
                    "usd": None if e.usd_nano is None else [round(u / NANO, 6) for u in e.usd_nano],
                    "seconds": [round(s, 2) for s in e.seconds],
                    "basis": e.basis,
                }
                for t, e in list(whole.items())[:200]
            },
            "basis": _basis(list(each.values()), priced),
        }
    )


def _makespan(
    inputs: Mapping[TaskId, Sequence[TaskId]],
    each: Mapping[TaskId, TaskEstimate],
    counts: Mapping[TaskId, int],
    n: int,
    parallel: int,
) -> float:
    waves = {t: -(-counts[t] // parallel) for t in each}
    ranks = rank_upward(inputs, {t: e.seconds[n] * waves[t] for t, e in each.items()})
    work = sum(e.seconds[n] * counts[t] for t, e in each.items())
    return max(max(ranks.values(), default=0.0), work / parallel)


def _basis(each: Sequence[TaskEstimate], priced: bool) -> str:
    kinds: dict[str, int] = {}
    for e in each:
        kinds[e.basis] = kinds.get(e.basis, 0) + 1
    text = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    return text if priced else f"{text}; a price is unknown, so money is not estimated"
