"""Compile: pure passes from a plan as written to a plan that can run, or all its problems."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any

from planner.catalog import Site
from planner.conditions import check_condition, roots_of_condition
from planner.contract import EstimateReport
from planner.definitions import TeamSpec
from planner.estimate import estimate_plan, estimate_task, items_of
from planner.passes.deduplicate import deduplicate_calls
from planner.passes.prune import prune_tasks
from planner.passes.rank import critical_path, rank_upward, width_of
from planner.plan import DEPTH_MAX, AtLeast, Body, Plan, Task
from planner.references import Reference, check_path, find_references, roots_of
from planner.schema_check import check_arguments
from planner.values import RESERVED_IDS, JsonValue, Problem, TaskId

MAP_ITEMS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the passes made of a plan. With `problems` it must not run."""

    plan: Plan
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    inputs: dict[TaskId, tuple[TaskId, ...]] = field(default_factory=dict)
    ranks: dict[TaskId, float] = field(default_factory=dict)
    aliases: dict[TaskId, TaskId] = field(default_factory=dict)
    pruned: dict[TaskId, str] = field(default_factory=dict)
    estimate: EstimateReport = field(default_factory=EstimateReport)
    critical_path: list[TaskId] = field(default_factory=list)
    width: int = 0


def values_of(body: Body) -> list[tuple[str, JsonValue]]:
    """Everything of a body that may hold references, with where it stands."""
    values: list[tuple[str, Any]] = [("args", body.args)] if body.args else []
    if body.ask is not None:
        ask = body.ask_body()
        values += [("ask.prompt", ask.prompt), ("ask.context", ask.context)]
        values += [("ask.system", ask.system)]
    if body.human is not None:
        values.append(("human.question", body.human_body().question))
    return values


def _own_roots(task: Task) -> list[str]:
    roots = [r for _, v in values_of(task) for r in roots_of(v)]
    roots += roots_of(task.map)
    if task.fallback_body is not None:
        roots += [r for _, v in values_of(task.fallback_body) for r in roots_of(v)]
    return roots


def inputs_of(task: Task) -> tuple[TaskId, ...]:
    """The tasks a task reads or waits for, each once; `item`, `index`, `params` are none."""
    when = roots_of_condition(task.when) if task.when else ()
    names = [*task.depends_on, *_own_roots(task), *when]
    return tuple(TaskId(n) for n in dict.fromkeys(names) if n not in RESERVED_IDS)


def check_task(
    task: Task, earlier: Collection[str], site: Site, allow: Sequence[str] | None = None
) -> list[Problem]:
    """What is wrong with one task, given the names it may refer to."""
    return _TaskChecker(task, earlier, site, allow).check()


class _TaskChecker:
    def __init__(
        self, task: Task, known: Collection[str], site: Site, allow: Sequence[str] | None
    ) -> None:
        self.task = task
        self.known = known
        self.site = site
        self.allow = allow
        self.where = f"tasks.{task.id}"

    def check(self) -> list[Problem]:
        task, problems = self.task, list[Problem]()
        if task.id in RESERVED_IDS:
            reserved = ", ".join(RESERVED_IDS)
            message = f'"{task.id}" is a reserved id ({reserved})'
            problems.append(Problem(path=f"{self.where}.id", code="reserved_id", message=message))
        for name in task.depends_on:
            if name not in self.known or name == task.id:
                problems.append(self._missing(f"{self.where}.depends_on", name, name))
        if task.when is not None:
            problems += check_condition(task.when, self.known, f"{self.where}.when")
        problems += self._references("map", task.map, in_map=False)
        problems += self._body(task, "")
        if task.fallback_body is not None:
            problems += self._body(task.fallback_body, "fallback.")
        problems += self._limits()
        return problems

    def _limits(self) -> list[Problem]:
        task, problems = self.task, list[Problem]()
        if isinstance(task.map, list) and len(task.map) > MAP_ITEMS_MAX:
            message = f"has {len(task.map):,} items; at most {MAP_ITEMS_MAX:,}"
            problems.append(Problem(path=f"{self.where}.map", code="too_many", message=message))
        if task.map is not None and not isinstance(task.map, list | str):
            message = "needs a list, or a reference to one such as ${files}"
            problems.append(Problem(path=f"{self.where}.map", code="wrong_type", message=message))
        if isinstance(task.requires, AtLeast):
            count = len([i for i in inputs_of(task) if i in self.known])
            if task.requires.at_least > count:
                problems.append(
                    Problem(
                        path=f"{self.where}.requires",
                        code="cannot_be_met",
                        message=f"needs {task.requires.at_least} good inputs and has {count}",
                    )
                )
        return problems

    def _missing(self, where: str, name: str, text: str) -> Problem:
        if name == self.task.id:
            return Problem(path=where, code="self_reference", message=f'"{text}" refers to itself')
        names = [k for k in self.known if k != self.task.id]
        near = get_close_matches(name, names, n=1)
        listed = "Tasks: " + ", ".join(f'"{n}"' for n in names[:12]) + "."
        hint = (listed if names else "There are no other tasks.") + (
            f' Did you mean "{near[0]}"?' if near else ""
        )
        return Problem(
            path=where,
            code="missing_reference",
            message=f'no task "{name}" in "{text}".',
            hint=hint,
        )

    def _references(self, field_name: str, value: JsonValue, *, in_map: bool) -> list[Problem]:
        where = f"{self.where}.{field_name}"
        problems: list[Problem] = []
        for place, reference in _placed(where, value):
            problems += check_path(reference, place)
            if reference.root in ("item", "index"):
                if not in_map:
                    message = f'"{reference.text}" stands for an item, and the task has no map'
                    problems.append(Problem(path=place, code="no_map", message=message))
            elif reference.root == self.task.id or (
                reference.root not in self.known and reference.root != "params"
            ):
                problems.append(self._missing(place, reference.root, reference.text))
        return problems

    def _body(self, body: Body, prefix: str) -> list[Problem]:
        problems: list[Problem] = []
        for name, value in values_of(body):
            problems += self._references(prefix + name, value, in_map=self.task.map is not None)
        where = f"{self.where}.{prefix}"
        match body.kind:
            case "tool":
                problems += self._tool(body, where)
            case "agent" if isinstance(body.agent, str):
                problems += self._named(body.agent, self.site.agents, "agent", where)
            case "team" if isinstance(body.team, str):
                problems += self._named(body.team, self.site.teams, "team", where)
            case "team" if isinstance(body.team, TeamSpec):
                problems += _check_members(body.team, where)
            case "plan" if isinstance(body.plan, str):
                names = dict.fromkeys([*self.site.templates, *self.site.template_names])
                problems += self._named(body.plan, names, "template", where, kind="plan")
            case _:
                pass
        if body.kind in ("agent", "team") and "task" not in body.args and not self.task.description:
            problems.append(
                Problem(
                    path=f"{where}args.task",
                    code="missing_argument",
                    message='"task" is missing: what the ' + body.kind + " is to do",
                )
            )
        return problems

    def _named(
        self, name: str, known: Mapping[str, Any], what: str, where: str, kind: str = ""
    ) -> list[Problem]:
        if name in known:
            return []
        near = get_close_matches(name, list(known), n=1)
        listed = f"{what.capitalize()}s: " + (", ".join(list(known)[:12]) or "none")
        hint = f'Did you mean "{near[0]}"?' if near else listed
        return [
            Problem(
                path=f"{where}{kind or what}",
                code=f"unknown_{what}",
                message=f'no {what} "{name}"',
                hint=hint,
            )
        ]

    def _tool(self, body: Body, where: str) -> list[Problem]:
        name, place = body.tool or "", f"{where}tool"
        spec = self.site.tool(name)
        names = self.site.tool_names or [t.name for t in self.site.tools]
        if self.allow is not None and name not in self.allow and (spec or name in names):
            message = f'tool "{name}" is not allowed in this run'
            hint = "Allowed: " + (", ".join(self.allow) or "none")
            return [Problem(path=place, code="tool_not_allowed", message=message, hint=hint)]
        if spec is None:
            near = get_close_matches(name, names, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Tools: " + ", ".join(names[:20])
            message = f'no tool "{name}"'
            return [Problem(path=place, code="unknown_tool", message=message, hint=hint)]
        return check_arguments(body.args, spec.parameters, f"{where}args")


def _placed(where: str, value: JsonValue) -> Iterable[tuple[str, Reference]]:
    match value:
        case dict():
            for key, item in value.items():
                yield from _placed(f"{where}.{key}", item)
        case list():
            for n, item in enumerate(value):
                yield from _placed(f"{where}[{n}]", item)
        case str():
            for reference in find_references(value):
                yield where, reference
        case _:
            return


def _check_members(team: TeamSpec, where: str) -> list[Problem]:
    ids = [m.id for m in team.members]
    problems = []
    for member in team.members:
        for name in member.depends_on:
            if name not in ids:
                message = f'member "{member.id}" depends on "{name}", who is not in the team'
                hint = "Members: " + ", ".join(ids)
                problems.append(
                    Problem(
                        path=f"{where}team", code="missing_reference", message=message, hint=hint
                    )
                )
    return problems


def compile_plan(
    plan: Plan,
    site: Site,
    *,
    allow: Sequence[str] | None = None,
    known: Collection[str] = (),
    parallel: int = 100,
    model: str | None = None,
    depth: int = 0,
) -> Compiled:
    """Run all passes. `known` are names a task may refer to beside the plan's own.

    Passes, in order: resolve dependencies, validate, deduplicate, prune, rank, estimate. O(N + E)
    but for near misses of names that do not exist.
    """
    problems = check_plan(plan, site, allow=allow, known=known, depth=depth)
    if problems:
        return Compiled(plan, problems=problems)
    slim, aliases = deduplicate_calls(plan, site)
    slim, pruned = prune_tasks(slim, graph_of(slim), site)
    inputs = graph_of(slim)
    seconds = {
        t.id: estimate_task(t, site, model).seconds[1] * -(-items_of(t) // parallel)
        for t in slim.tasks
    }
    ranks = rank_upward(inputs, seconds)
    return Compiled(
        slim,
        warnings=[f"{a}: same call as {b}, made once" for a, b in aliases.items()]
        + [f"{t}: not run, {why}" for t, why in pruned.items()],
        inputs=inputs,
        ranks=ranks,
        aliases=aliases,
        pruned=pruned,
        estimate=estimate_plan(slim, inputs, site, parallel=parallel, model=model),
        critical_path=critical_path(inputs, ranks),
        width=width_of(inputs),
    )


def graph_of(plan: Plan) -> dict[TaskId, tuple[TaskId, ...]]:
    """Each task with those of the plan's own tasks that it reads or waits for."""
    ids = {t.id for t in plan.tasks}
    return {t.id: tuple(i for i in inputs_of(t) if i in ids) for t in plan.tasks}


def check_plan(
    plan: Plan,
    site: Site,
    *,
    allow: Sequence[str] | None = None,
    known: Collection[str] = (),
    depth: int = 0,
) -> list[Problem]:
    """Everything that is wrong with a plan, sub-plans included."""
    if depth > DEPTH_MAX:
        message = f"sub-plans are nested deeper than {DEPTH_MAX}"
        return [Problem(path="tasks", code="too_deep", message=message)]
    problems = _check_ids(plan)
    names = dict.fromkeys([*(t.id for t in plan.tasks), *known])
    for task in plan.tasks:
        problems += check_task(task, names, site, allow)
        if isinstance(task.plan, Plan):
            inner = check_plan(task.plan, site, allow=allow, depth=depth + 1)
            problems += [
                p.model_copy(update={"path": f"tasks.{task.id}.plan.{p.path}"}) for p in inner
            ]
    problems += _check_answer(plan, names)
    if not any(p.code in ("duplicate_id", "self_reference") for p in problems):
        problems += check_cycles(plan)
    return problems


def _check_ids(plan: Plan) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for n, task in enumerate(plan.tasks):
        if task.id in seen:
            message = f'id "{task.id}" is used by tasks {seen[task.id] + 1} and {n + 1}'
            hint = "Give each task an id of its own."
            problems.append(
                Problem(path=f"tasks.{task.id}.id", code="duplicate_id", message=message, hint=hint)
            )
        seen.setdefault(task.id, n)
    return problems


def _check_answer(plan: Plan, names: Collection[str]) -> list[Problem]:
    problems: list[Problem] = []
    for place, reference in _placed("answer", plan.answer):
        problems += check_path(reference, place)
        if reference.root not in names and reference.root != "params":
            near = get_close_matches(reference.root, list(names), n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Tasks: " + ", ".join(list(names)[:12])
            message = f'no task "{reference.root}" in "{reference.text}".'
            problems.append(
                Problem(path=place, code="missing_reference", message=message, hint=hint)
            )
    for name in plan.join or ():
        if name not in names:
            message = f'no task "{name}"'
            problems.append(Problem(path="join", code="missing_reference", message=message))
    if plan.stop_when is not None:
        problems += check_condition(plan.stop_when, names, "stop_when")
    return problems


def check_cycles(plan: Plan) -> list[Problem]:
    """The first cycle of the plan, with its path."""
    try:
        TopologicalSorter(graph_of(plan)).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        path = " -> ".join(cycle)
        return [
            Problem(
                path=f"tasks.{cycle[0]}",
                code="cycle",
                message=f"the tasks wait for each other: {path}",
                hint="Each task may only read tasks that do not read it.",
            )
        ]
    return []
