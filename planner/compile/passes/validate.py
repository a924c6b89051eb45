"""Validate: everything that is wrong with a plan, all at once, each with place and remedy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

from pydantic import ValidationError

from planloom.planner.compile.passes.fuse import why_alone
from planloom.planner.compile.passes.resolve import graph_of, inputs_of, values_of
from planloom.planner.compile.schema_check import check_arguments, check_schema
from planloom.planner.compile.templates import first_name, is_needed, schema_of
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.conditions import check_condition, roots_of_condition
from planloom.planner.language.definitions import AgentSpec, TeamSpec
from planloom.planner.language.plan import (
    BODY_FIELDS,
    MAP_ITEMS_MAX,
    PLAN_DEPTH_MAX,
    AtLeast,
    Body,
    Param,
    Plan,
    Task,
    is_body,
)
from planloom.planner.language.references import (
    Reference,
    check_path,
    find_references,
    shortened,
    whole_reference,
)
from planloom.planner.language.values import RESERVED_IDS, JsonValue, Problem
from planloom.planner.syntax.documents import DOCUMENT_PROBLEMS_MAX, bounded_problems

CYCLES_MAX = 10
_ELSEWHERE = re.compile(r"\{\{\s*(\w[\w-]*)[^{}]*\}\}|(?<![\w$])\$(\w+)|(?<![\w${])\{(\w+)\}")
"""`{{a}}`, `$a` and `{a}`."""
_UNDER = re.compile(r"\$\{\s*(?:tasks|steps|nodes|outputs?|results?)\.(\w[\w-]*)")
_OUTPUT = re.compile(r"\.(outputs?|results?)\b")


def check_task(
    task: Task,
    earlier: Collection[str],
    catalog: Catalog,
    allow: Sequence[str] | None = None,
    params: Collection[str] = (),
    *,
    depth: int = 0,
) -> list[Problem]:
    """What is wrong with one task, inline sub-plans included, given the names it may refer to.

    `params` are those the plan declares; a plan that declares none takes what it is given.
    `depth` is how deep in sub-plans the task stands.
    """
    problems = _TaskChecker(task, earlier, catalog, allow, params).check()
    for where, body in (("", task), ("fallback.", task.fallback_body)):
        if body is not None and isinstance(body.plan, Plan):
            inner = check_plan(body.plan, catalog, allow=allow, depth=depth + 1)
            at = f"tasks.{task.id}.{where}plan."
            problems += [p.model_copy(update={"path": at + p.path}) for p in inner]
    return bounded_problems(problems)


class _TaskChecker:
    def __init__(
        self,
        task: Task,
        readable: Collection[str],
        catalog: Catalog,
        allow: Sequence[str] | None,
        params: Collection[str],
    ) -> None:
        self.task = task
        self.readable = readable
        self.params = params
        self.catalog = catalog
        self.allow = allow
        self.where = f"tasks.{task.id}"

    def check(self) -> list[Problem]:
        task, problems = self.task, list[Problem]()
        if task.id in RESERVED_IDS:
            reserved = ", ".join(RESERVED_IDS)
            message = f'"{task.id}" is a reserved id ({reserved})'
            problems.append(Problem(path=f"{self.where}.id", code="reserved_id", message=message))
        for name in task.depends_on[:DOCUMENT_PROBLEMS_MAX]:
            if name not in self.readable or name == task.id:
                problems.append(self._missing(f"{self.where}.depends_on", name, name))
        if task.when is not None and task.id in roots_of_condition(task.when):
            problems.append(self._missing(f"{self.where}.when", task.id, task.when))
        elif task.when is not None:
            problems += check_condition(task.when, self.readable, f"{self.where}.when")
        problems += self._references("map", task.map, in_map=False)
        problems += self._body(task, "")
        if (alternative := task.fallback_body) is not None:
            problems += self._body(alternative, "fallback.")
        elif _is_nearly_body(task.fallback):
            message = "looks like a task but is not one: it would be used as a plain value"
            hint = f"Write one of {', '.join(BODY_FIELDS)} and args, nothing else."
            problems.append(
                Problem(
                    path=f"{self.where}.fallback", code="not_a_body", message=message, hint=hint
                )
            )
        problems += self._limits()
        return problems

    def _limits(self) -> list[Problem]:
        task, problems = self.task, list[Problem]()
        if isinstance(task.map, list) and len(task.map) > MAP_ITEMS_MAX:
            message = f"has {len(task.map):,} items; at most {MAP_ITEMS_MAX:,}"
            problems.append(Problem(path=f"{self.where}.map", code="too_many", message=message))
        if task.map is not None and not isinstance(task.map, list) and not _is_reference(task.map):
            message = "needs a list, or a reference to one such as ${files}"
            problems.append(Problem(path=f"{self.where}.map", code="wrong_type", message=message))
        if task.fuse and (why := self._why_alone()) is not None:
            problems.append(
                Problem(
                    path=f"{self.where}.fuse",
                    code="cannot_fuse",
                    message=f"it cannot share an activity: {why}",
                    hint="Leave fuse out.",
                )
            )
        if isinstance(task.requires, AtLeast):
            count = len([i for i in inputs_of(task) if i in self.readable])
            if task.requires.at_least > count:
                problems.append(
                    Problem(
                        path=f"{self.where}.requires",
                        code="cannot_be_met",
                        message=f"needs {task.requires.at_least} good inputs and has {count}",
                    )
                )
        return problems

    def _why_alone(self) -> str | None:
        spec = self.catalog.tool(self.task.tool) if self.task.tool else None
        if spec is None and self.task.tool not in (None, "ask"):
            return None  # the tool itself is the problem
        return why_alone(self.task, spec)

    def _missing(self, where: str, name: str, text: str) -> Problem:
        if name == self.task.id:
            message = f'"{shortened(text)}" refers to itself'
            return Problem(path=where, code="self_reference", message=message)
        names = [k for k in self.readable if k != self.task.id]
        words = ["item", "index"] if self.task.map is not None else []
        near = get_close_matches(name, [*names, *words], n=1)
        if (inner := _UNDER.match(text)) is not None and inner[1] in names:
            hint = f'Write "${{{inner[1]}}}": a task\'s id stands for its output.'
            message = f'no task "{shortened(name)}" in "{shortened(text)}".'
            return Problem(path=where, code="missing_reference", message=message, hint=hint)
        listed = "Tasks: " + ", ".join(f'"{n}"' for n in names[:12]) + "."
        hint = (listed if names else "There are no other tasks.") + (
            f' Did you mean "{near[0]}"?' if near else ""
        )
        return Problem(
            path=where,
            code="missing_reference",
            message=f'no task "{shortened(name)}" in "{shortened(text)}".',
            hint=hint,
        )

    def _references(self, field_name: str, value: JsonValue, *, in_map: bool) -> list[Problem]:
        where = f"{self.where}.{field_name}"
        problems: list[Problem] = []
        for place, reference in _placed(where, value):
            if len(problems) > DOCUMENT_PROBLEMS_MAX:
                break
            problems += check_path(reference, place)
            if reference.root == "params":
                problems += _check_param(reference, self.params, place)
            elif reference.root in ("item", "index"):
                if not in_map:
                    message = f'"{reference.text}" stands for an item, and the task has no map'
                    problems.append(Problem(path=place, code="no_map", message=message))
            elif reference.root == self.task.id or reference.root not in self.readable:
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
                off = self.catalog.disabled_agents
                problems += self._named(body.agent, self.catalog.agents, "agent", where, off=off)
            case "team" if isinstance(body.team, str):
                off = self.catalog.disabled_teams
                problems += self._named(body.team, self.catalog.teams, "team", where, off=off)
            case "team" if isinstance(body.team, TeamSpec):
                problems += _check_members(body.team, where)
            case "plan":
                if isinstance(body.plan, str):
                    names = dict.fromkeys([*self.catalog.templates, *self.catalog.template_names])
                    problems += self._named(body.plan, names, "template", where, kind="plan")
                if params := _params_of(body, self.catalog):
                    problems += check_arguments(body.args, _schema_of(params), f"{where}args")
            case _:
                pass
        problems += _check_schemas(body, where)
        if body.kind in ("ask", "human") and body.args:
            wanted = "ask: {prompt: …, context: …}" if body.ask else "human: {question: …}"
            problems.append(
                Problem(
                    path=f"{where}args",
                    code="unused_args",
                    message=f"args do not go with {body.kind}, and would not be read",
                    hint=f"Put them into {wanted}.",
                )
            )
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
        self,
        name: str,
        names: Mapping[str, Any],
        what: str,
        where: str,
        kind: str = "",
        off: Sequence[str] = (),
    ) -> list[Problem]:
        if name in names:
            return []
        if name in off:
            message = f'{what} "{shortened(name)}" is disabled'
            hint = "Take `enabled: disabled` out of its file, or name another."
            path = f"{where}{kind or what}"
            return [Problem(path=path, code=f"{what}_disabled", message=message, hint=hint)]
        near = get_close_matches(name[:200], list(names), n=1)
        listed = f"{what.capitalize()}s: " + (", ".join(list(names)[:12]) or "none")
        hint = f'Did you mean "{near[0]}"?' if near else listed
        return [
            Problem(
                path=f"{where}{kind or what}",
                code=f"unknown_{what}",
                message=f'no {what} "{shortened(name)}"',
                hint=hint,
            )
        ]

    def _tool(self, body: Body, where: str) -> list[Problem]:
        name, place = body.tool or "", f"{where}tool"
        spec = self.catalog.tool(name)
        names = self.catalog.tool_names or [t.name for t in self.catalog.tools]
        if self.allow is not None and name not in self.allow and (spec or name in names):
            message = f'tool "{shortened(name)}" is not allowed in this run'
            hint = "Allowed: " + (", ".join(self.allow[:20]) or "none")
            return [Problem(path=place, code="tool_not_allowed", message=message, hint=hint)]
        if spec is None:
            near = get_close_matches(name[:200], names, n=1)
            listed = "Tools: " + (", ".join(names[:20]) or "none")
            hint = f'Did you mean "{near[0]}"?' if near else listed
            message = f'no tool "{shortened(name)}"'
            return [Problem(path=place, code="unknown_tool", message=message, hint=hint)]
        return check_arguments(body.args, spec.parameters, f"{where}args")


def _check_schemas(body: Body, where: str) -> list[Problem]:
    """What is wrong with the schemas that answers are held against."""
    match body.kind:
        case "ask":
            schema, place = body.ask_body().output_schema, "ask.output_schema"
        case "human":
            schema, place = body.human_body().schema_, "human.schema"
        case "agent" if isinstance(body.agent, AgentSpec):
            schema, place = body.agent.output_schema, "agent.output_schema"
        case _:
            return []
    return [] if schema is None else check_schema(schema, where + place)


def _is_reference(value: JsonValue) -> bool:
    return isinstance(value, str) and whole_reference(value) is not None


def _is_nearly_body(value: JsonValue) -> bool:
    """Whether a plain fallback value was meant as a task: a body with `args` or nearly so."""
    if not isinstance(value, dict) or not any(f in value for f in BODY_FIELDS) or is_body(value):
        return False
    return any(get_close_matches(key, ["args"], n=1, cutoff=0.7) for key in value if len(key) < 9)


def _check_param(reference: Reference, params: Collection[str], where: str) -> list[Problem]:
    name = first_name(reference.path)
    if not params or not name or name in params:
        return []
    near = get_close_matches(name, list(params), n=1)
    listed = "Parameters: " + ", ".join(params)
    return [
        Problem(
            path=where,
            code="undeclared_param",
            message=f'"{shortened(reference.text)}" reads a parameter that is not declared',
            hint=f'Did you mean "{near[0]}"?' if near else listed,
        )
    ]


def _params_of(body: Body, catalog: Catalog) -> dict[str, Param]:
    """The parameters a sub-plan declares; a template's as far as it is known and readable."""
    if isinstance(body.plan, Plan):
        return body.plan.params
    document = catalog.templates.get(body.plan or "")
    declared = document.get("params") if isinstance(document, dict) else None
    try:
        return {n: Param.model_validate(p) for n, p in declared.items()} if declared else {}  # type: ignore[union-attr]
    except (ValidationError, AttributeError):
        return {}  # a template with its own faults is told when it is read


def _schema_of(params: Mapping[str, Param]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {n: schema_of(p) | {"description": p.description} for n, p in params.items()},
        "required": [n for n, p in params.items() if is_needed(p)],
        "additionalProperties": False,
    }


def _placed(where: str, value: JsonValue) -> Iterator[tuple[str, Reference]]:
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
    listed = "Members: " + ", ".join(dict.fromkeys(ids))
    faults: list[tuple[str, str, str]] = [
        ("duplicate_id", f'member "{i}" is there twice', "Give each member its own id.")
        for i in dict.fromkeys(i for i in ids if ids.count(i) > 1)
    ]
    for member in team.members:
        for name in member.depends_on[:DOCUMENT_PROBLEMS_MAX]:
            if name not in ids:
                text = (
                    f'member "{member.id}" depends on "{shortened(name)}", who is not in the team'
                )
                faults.append(("missing_reference", text, listed))
    if isinstance(team.links, dict):
        named = dict.fromkeys(n for k, v in team.links.items() for n in [k, *v])
        for name in islice((n for n in named if n not in ids), DOCUMENT_PROBLEMS_MAX):
            text = f'a link names "{shortened(name)}", who is not in the team'
            faults.append(("missing_reference", text, listed))
    try:
        TopologicalSorter({m.id: m.depends_on for m in team.members}).prepare()
    except CycleError as error:
        path = " -> ".join(shortened(i) for i in reversed(error.args[1]))
        text = f"members wait for each other: {path}"
        faults.append(("cycle", text, "One of them has to begin."))
    return [Problem(path=f"{where}team", code=c, message=m, hint=h) for c, m, h in faults]


def check_plan(
    plan: Plan,
    catalog: Catalog,
    *,
    allow: Sequence[str] | None = None,
    other_ids: Collection[str] = (),
    depth: int = 0,
) -> list[Problem]:
    """Everything that is wrong with a plan, sub-plans included."""
    if depth > PLAN_DEPTH_MAX:
        message = f"sub-plans are nested deeper than {PLAN_DEPTH_MAX}"
        return [Problem(path="tasks", code="too_deep", message=message)]
    problems = _check_ids(plan)
    names = dict.fromkeys([*(t.id for t in plan.tasks), *other_ids])
    for task in plan.tasks:
        if len(problems) > DOCUMENT_PROBLEMS_MAX:
            break  # each may look through all names for the nearest
        problems += check_task(task, names, catalog, allow, plan.params, depth=depth)
    problems += _check_answer(plan, names)
    twice = {t for t, n in Counter(t.id for t in plan.tasks).items() if n > 1}
    once = [t for t in plan.tasks if t.id not in twice]  # of the others, who is meant is not known
    problems += check_cycles(plan if not twice else plan.model_copy(update={"tasks": once}))
    return bounded_problems(problems)


def _check_ids(plan: Plan) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for n, task in enumerate(plan.tasks):
        if task.id in seen:
            message = f'id "{task.id}" is used by tasks {seen[task.id] + 1} and {n + 1}'
            hint = "Give each task its own id."
            problems.append(
                Problem(path=f"tasks.{task.id}.id", code="duplicate_id", message=message, hint=hint)
            )
        seen.setdefault(task.id, n)
    return problems


def _check_answer(plan: Plan, names: Collection[str]) -> list[Problem]:
    problems: list[Problem] = []
    for place, reference in _placed("answer", plan.answer):
        if len(problems) > DOCUMENT_PROBLEMS_MAX:
            break
        problems += check_path(reference, place)
        if reference.root == "params":
            problems += _check_param(reference, plan.params, place)
        elif reference.root not in names:
            message = f'no task "{shortened(reference.root)}" in "{shortened(reference.text)}".'
            hint = _nearest_task(reference.root, names)
            problems.append(
                Problem(path=place, code="missing_reference", message=message, hint=hint)
            )
    for name in islice((j for j in plan.join or () if j not in names), DOCUMENT_PROBLEMS_MAX):
        message = f'no task "{shortened(name)}"'
        hint = _nearest_task(name, names)
        problems.append(Problem(path="join", code="missing_reference", message=message, hint=hint))
    if plan.stop_when is not None:
        problems += check_condition(plan.stop_when, names, "stop_when")
    return problems


def _nearest_task(name: str, names: Collection[str]) -> str:
    near = get_close_matches(name[:200], list(names), n=1)
    listed = ", ".join(islice(names, 12)) or "none"
    return f'Did you mean "{near[0]}"?' if near else f"Tasks: {listed}."


def check_cycles(plan: Plan) -> list[Problem]:
    """The cycles of the plan, each with its path; at most `CYCLES_MAX`, none sharing a task."""
    # A task that reads itself is told as that.
    graph: dict[str, tuple[str, ...]] = {
        t: tuple(i for i in ins if i != t) for t, ins in graph_of(plan).items()
    }
    problems: list[Problem] = []
    while len(problems) < CYCLES_MAX:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            cycle: list[str] = list(reversed(error.args[1]))
            message = f"the tasks wait for each other: {_path(cycle)}"
            hint = "Each task may only read tasks that do not read it."
            problems.append(
                Problem(path=f"tasks.{cycle[0]}", code="cycle", message=message, hint=hint)
            )
            gone = set(cycle)
            graph = {
                t: tuple(i for i in ins if i not in gone)
                for t, ins in graph.items()
                if t not in gone
            }
        else:
            break
    return problems


def _path(cycle: Sequence[str]) -> str:
    """A cycle as a reader follows it: each task, then the one it waits for."""
    if len(cycle) <= 12:
        return " -> ".join(cycle)
    return " -> ".join([*cycle[:6], f"… {len(cycle) - 11} more …", *cycle[-5:]])


def _slips(values: Sequence[JsonValue], ids: Collection[str]) -> Iterator[str]:
    """References as other programs write them, which stay as they are or find nothing."""
    for text in dict.fromkeys(_texts(values)):
        for match in _ELSEWHERE.finditer(text):
            if (name := next(filter(None, match.groups()))) in ids:
                yield f'"{shortened(match[0])}" stays as written: a reference is "${{{name}}}"'
        for reference in find_references(text):
            if reference.root in ids and (found := _OUTPUT.match(reference.path)):
                yield (
                    f'"{shortened(reference.text)}" reads a field "{found[1]}" of the output; the '
                    f'output itself is "${{{reference.root}}}"'
                )


def _texts(value: JsonValue | Sequence[JsonValue]) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)
        case _:
            return


def find_warnings(plan: Plan, catalog: Catalog) -> list[str]:
    """What a plan may do and its author hardly meant."""
    warnings = []
    ids = {task.id for task in plan.tasks}
    for task in plan.tasks:
        values = [value for body in task.bodies for _, value in values_of(body)]
        warnings += [f"{task.id}: {slip}" for slip in _slips(values, ids)]
        if task.fallback_body is None and (inner := find_references(task.fallback)):
            warnings.append(
                f'{task.id}: "{shortened(inner[0].text)}" in a fallback value stays as written; '
                "a fallback that reads tasks is a task itself"
            )
        spec = catalog.tool(task.tool) if task.tool else None
        if task.speculate and spec is not None and spec.side_effects:
            warnings.append(f'{task.id}: speculate is ignored, "{spec.name}" has side effects')
    return warnings
