"""Revisions: what changed, whether it repeats, how material it is, and the merge of a replan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from planner.catalog import Site
from planner.compiler import inputs_of
from planner.contract import MajorThresholds
from planner.estimate import estimate_task, items_of
from planner.passes.deduplicate import rename_references
from planner.plan import Plan, Task
from planner.references import roots_of
from planner.values import JsonValue, Problem, TaskId

VALUE_MAX_CHARS = 80


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
        a, b = _document(before[task]), _document(after[task])
        for name in dict.fromkeys([*a, *b]):
            if a.get(name) != b.get(name):
                lines.append(f"~ {task}.{name}: {_shown(a.get(name))} -> {_shown(b.get(name))}")
    for name in ("answer", "join", "stop_when"):
        left, right = getattr(old, name), getattr(new, name)
        if left != right:
            lines.append(f"~ {name}: {_shown(left)} -> {_shown(right)}")
    return lines


def fingerprint(plan: Plan, finished: Collection[str]) -> str:
    """What is left to do, whatever its tasks are called: equal for plans that only renamed it.

    Names are replaced by a digest of the work itself, inputs before readers; finished tasks keep
    their names, as they stand for values. SHA-256 in hex.
    """
    names: dict[TaskId, TaskId] = {}
    marks: list[str] = []
    for task in _inputs_first(plan):
        if task.id in finished:
            continue
        document = _document(task)
        for label in ("id", "description", "estimate", "priority"):
            document.pop(label, None)
        renamed = rename_references(document, names)
        assert isinstance(renamed, dict)
        if task.depends_on:
            renamed["depends_on"] = [
                str(d) for d in sorted(names.get(d, d) for d in task.depends_on)
            ]
        text = json.dumps(renamed, sort_keys=True, separators=(",", ":"))
        mark = "h" + hashlib.sha256(text.encode()).hexdigest()[:24]
        names[task.id] = TaskId(mark)
        marks.append(mark)
    answer = json.dumps(rename_references(plan.answer, names), sort_keys=True)
    text = "\n".join([*sorted(marks), answer])
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
    old: Plan, new: Plan, site: Site, limits: MajorThresholds, finished: Collection[str] = ()
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
        acting = [t for t in added if _acts(after[t], site)]
        if acting:
            reasons.append("side effects: " + ", ".join(acting[:10]))
    left, right = _cost(old, site), _cost(new, site)
    if left > 0 and right > left * limits.usd_factor:
        reasons.append(f"likely cost {right / left:.1f} times the plan before")
    wide = max((items_of(after[t]) for t in added if after[t].map is not None), default=0)
    if wide > max(limits.tasks_added, 10):
        reasons.append(f"a fan-out of {wide}")
    return reasons


def _acts(task: Task, site: Site) -> bool:
    bodies = [task, *([b] if (b := task.fallback_body) is not None else [])]
    specs = [site.tool(b.tool) for b in bodies if b.tool]
    return any(s is not None and s.side_effects for s in specs)


def _cost(plan: Plan, site: Site) -> float:
    """Likely money, or likely tokens where no price is known."""
    each = [estimate_task(t, site).times(items_of(t)) for t in plan.tasks]
    if all(e.usd_nano is not None for e in each):
        return sum(e.usd_nano[1] for e in each if e.usd_nano is not None)
    return sum(e.tokens[1] for e in each)


def merge_replan(
    old: Plan,
    *,
    finished: Collection[str],
    new_tasks: Sequence[Task],
    more: Mapping[str, JsonValue],
) -> tuple[Plan, list[Problem]]:
    """The next revision: finished tasks stay as they are, the new ones follow, the rest goes.

    `more` may hold `answer`, `join`, `stop_when` of the new plan; without an answer of its own the
    old one stays while all it reads is still there.
    """
    problems: list[Problem] = []
    kept = [t for t in old.tasks if t.id in finished]
    names = {t.id for t in kept}
    fresh: list[Task] = []
    for task in new_tasks:
        if task.id not in names:
            fresh.append(task)
            continue
        if old.task(task.id) != task:
            problems.append(
                Problem(
                    path=f"tasks.{task.id}",
                    code="task_finished",
                    message=f'"{task.id}" has finished and cannot be written anew',
                    hint=f"Refer to its value as ${{{task.id}}}, or use another id.",
                )
            )
    fields: dict[str, Any] = {"goal": old.goal, "tasks": [*kept, *fresh], **more}
    present = names | {t.id for t in fresh}
    if "answer" not in more and old.has_answer and set(roots_of(old.answer)) <= present:
        fields["answer"] = old.answer
    if old.params:
        fields["params"] = old.params
    return Plan.model_validate(fields), problems
