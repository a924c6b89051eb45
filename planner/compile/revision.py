"""Revisions: what changed, whether it repeats, how material it is, and the merge of a replan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from planloom.planner.compile.acting import may_act
from planloom.planner.compile.estimate import estimate_task, items_of
from planloom.planner.compile.passes.deduplicate import (
    rename_condition,
    rename_in_document,
    rename_references,
)
from planloom.planner.compile.passes.resolve import inputs_of
from planloom.planner.contract.requests import MajorThresholds
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import JsonValue, Problem, TaskId

VALUE_MAX_CHARS = 80
BEFORE_CHANGE_CHARS = 20
"""Of two long texts, how much is shown before the place where they part."""


def _document(task: Task) -> dict[str, Any]:
    document: dict[str, Any] = task.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return document


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_MAX_CHARS else text[: VALUE_MAX_CHARS - 1] + "…"


def _body_line(task: Task) -> str:
    document = _document(task)
    document.pop("id", None)
    document.pop("description", None)
    return _shown(document)


def diff_plans(old: Plan, new: Plan) -> list[str]:
    """What changed, a line each: `+` added, `-` dropped, `~` changed (field: old -> new)."""
    before = {t.id: t for t in old.tasks}
    after = {t.id: t for t in new.tasks}
    lines = [f"- {t}: {_body_line(before[t])}" for t in before if t not in after]
    lines += [f"+ {t}: {_body_line(after[t])}" for t in after if t not in before]
    for task in after:
        if task not in before or before[task] == after[task]:
            continue
        lines += _changes(task, _document(before[task]), _document(after[task]))
    left, right = _plan_document(old), _plan_document(new)
    for name in ("goal", "params", "answer", "join", "stop_when"):
        lines += _changes(name, left.get(name), right.get(name))
    return lines


def _plan_document(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = plan.model_dump(
        mode="json", exclude_unset=True, by_alias=True, exclude={"tasks"}
    )
    return document


def _changes(where: str, old: JsonValue, new: JsonValue) -> list[str]:
    """A line for each value that differs, as deep inside as both have it."""
    if old == new:
        return []
    match old, new:
        case dict(), dict():
            names = dict.fromkeys([*old, *new])
            return [c for n in names for c in _changes(f"{where}.{n}", old.get(n), new.get(n))]
        case list(), list() if len(old) == len(new):
            pairs = enumerate(zip(old, new, strict=True))
            return [c for n, (a, b) in pairs for c in _changes(f"{where}[{n}]", a, b)]
        case str(), str() if max(len(old), len(new)) > VALUE_MAX_CHARS:
            shorter = min(len(old), len(new))
            same = next((n for n in range(shorter) if old[n] != new[n]), shorter)
            begin = max(0, same - BEFORE_CHANGE_CHARS)
            begin = begin if begin > 1 else 0
            mark = "…" if begin else ""
            return [f"~ {where}: {_shown(mark + old[begin:])} -> {_shown(mark + new[begin:])}"]
        case _:
            return [f"~ {where}: {_shown(old)} -> {_shown(new)}"]


def fingerprint(plan: Plan, finished: Collection[str]) -> str:
    """What is left to do, whatever its tasks are called: equal for plans that only renamed it.

    Names are replaced by a digest of the work itself, inputs before readers; finished tasks keep
    their names, as they stand for values. SHA-256 in hex.
    """
    names: dict[TaskId, TaskId] = {}
    digests: list[str] = []
    for task in _inputs_first(plan):
        if task.id in finished:
            continue
        document = _document(task)
        for label in ("id", "description", "estimate", "priority"):
            document.pop(label, None)
        read = {i: names[i] for i in inputs_of(task) if i in names}
        renamed = rename_in_document(document, read)
        if task.depends_on:
            renamed["depends_on"] = sorted(renamed["depends_on"])
        text = json.dumps(renamed, sort_keys=True, separators=(",", ":"))
        digest = "h" + hashlib.sha256(text.encode()).hexdigest()[:24]
        names[task.id] = TaskId(digest)
        digests.append(digest)
    ending = {
        "answer": rename_references(plan.answer, names),
        "join": plan.join and sorted(names.get(j, j) for j in plan.join),
        "stop_when": plan.stop_when and rename_condition(plan.stop_when, names),
    }
    text = "\n".join([*sorted(digests), json.dumps(ending, sort_keys=True)])
    return hashlib.sha256(text.encode()).hexdigest()


def _inputs_first(plan: Plan) -> list[Task]:
    """Tasks with their inputs before them; those of a cycle keep their order."""
    by_id = {t.id: t for t in plan.tasks}
    done: dict[TaskId, None] = {}
    stack = [(t.id, False) for t in reversed(plan.tasks)]
    seen: set[TaskId] = set()
    while stack:
        task, is_back = stack.pop()
        if is_back:
            done.setdefault(task)
        elif task not in seen:
            seen.add(task)
            stack.append((task, True))
            stack.extend((i, False) for i in inputs_of(by_id[task]) if i in by_id)
    return [by_id[t] for t in done]


def stability(old: Plan, new: Plan) -> float:
    """Share of tasks that two revisions have in common, 0 to 1 (Jaccard over equal tasks)."""
    before = {t.id: t for t in old.tasks}
    after = {t.id: t for t in new.tasks}
    same = sum(1 for t in after if before.get(t) == after[t])
    union = len(before.keys() | after.keys())
    return same / union if union else 1.0


def major_changes(
    old: Plan, new: Plan, catalog: Catalog, limits: MajorThresholds, finished: Collection[str] = ()
) -> list[str]:
    """Why a replan is material, a reason each; empty when it is not."""
    before = {t.id: t for t in old.tasks}
    after = {t.id: t for t in new.tasks}
    added = [t for t in after if before.get(t) != after[t]]
    dropped = [t for t in before if t not in after and t not in finished]
    reasons = []
    if len(added) > limits.tasks_added:
        reasons.append(f"{len(added)} tasks added or changed (limit {limits.tasks_added})")
    if len(dropped) > limits.tasks_dropped:
        reasons.append(f"{len(dropped)} tasks dropped (limit {limits.tasks_dropped})")
    if limits.side_effects:
        acting = [t for t in added if may_act(after[t], catalog)]
        if acting:
            reasons.append("side effects: " + ", ".join(acting[:10]))
    left, right = _costs(old, new, catalog)
    if left > 0 and right > left * limits.usd_factor:
        reasons.append(f"likely cost {right / left:.1f} times the plan before")
    wide = max((items_of(after[t]) for t in added if after[t].map is not None), default=0)
    if wide > max(limits.tasks_added, 10):
        reasons.append(f"a fan-out of {wide}")
    return reasons


def _costs(old: Plan, new: Plan, catalog: Catalog) -> tuple[float, float]:
    """What both plans likely cost: in money, or in tokens where either has no price."""
    each = [[estimate_task(t, catalog).times(items_of(t)) for t in p.tasks] for p in (old, new)]
    if all(e.usd_nano is not None for plan in each for e in plan):
        left, right = (sum(e.usd_nano[1] for e in p if e.usd_nano is not None) for p in each)
    else:
        left, right = (sum(e.tokens[1] for e in p) for p in each)
    return left, right


def still_read(
    old: Plan,
    new_tasks: Sequence[Task],
    more: Mapping[str, JsonValue],
    unfinished: Collection[str],
) -> list[TaskId]:
    """Unfinished tasks of the old plan that the new one reads without writing them again.

    They stay, with all that they read in turn: a model that refers to work under way means it.
    """
    written = {t.id for t in new_tasks}
    before = {t.id: t for t in old.tasks if t.id in unfinished and t.id not in written}
    wanted = [i for t in new_tasks for i in inputs_of(t)]
    wanted += [TaskId(r) for r in roots_of(more.get("answer"))]
    join, stop_when = more.get("join"), more.get("stop_when")
    wanted += [TaskId(str(j)) for j in join] if isinstance(join, list) else []
    wanted += map(TaskId, roots_of_condition(stop_when)) if isinstance(stop_when, str) else []
    kept: dict[TaskId, None] = {}
    for name in wanted:  # grows while it is walked
        if name in before and name not in kept:
            kept[name] = None
            wanted += inputs_of(before[name])
    return [t for t in before if t in kept]


def merge_replan(
    old: Plan,
    *,
    finished: Collection[str],
    new_tasks: Sequence[Task],
    more: Mapping[str, JsonValue],
) -> tuple[Plan, list[Problem]]:
    """The next revision: finished tasks stay as they are, the new ones follow, the rest goes.

    `more` may hold `answer`, `join`, `stop_when` of the new plan; without its own answer the
    old one stays while all it reads is still there. A plan without any task is a problem, and the
    old plan comes back.
    """
    problems: list[Problem] = []
    kept = [t for t in old.tasks if t.id in finished]
    written = {t.id: t for t in kept}
    names = set(written)
    fresh: list[Task] = []
    for task in new_tasks:
        if task.id not in names:
            fresh.append(task)
            continue
        if written[task.id] != task:
            problems.append(
                Problem(
                    path=f"tasks.{task.id}",
                    code="task_finished",
                    message=f'"{task.id}" has finished and cannot be changed',
                    hint=f"Refer to its value as ${{{task.id}}}, or use another id.",
                )
            )
    if not kept and not fresh:
        problems.append(
            Problem(
                path="tasks",
                code="no_tasks",
                message="nothing has finished, and the new plan has no tasks",
                hint="Write at least one task.",
            )
        )
        return old, problems
    fields: dict[str, Any] = {"goal": old.goal, "tasks": [*kept, *fresh], **more}
    present = names | {t.id for t in fresh}
    if "answer" not in more and old.has_answer and set(roots_of(old.answer)) <= present:
        fields["answer"] = old.answer
    if old.params:
        fields["params"] = old.params
    return Plan.model_validate(fields), problems
