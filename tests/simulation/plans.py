"""Random tasks and plans, as documents: every field of the language, also in odd company."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.simulation.chance import some, weighted

Document = dict[str, Any]

BODIES = {
    "work": 24.0,
    "search": 10.0,
    "calc": 6.0,
    "pay": 4.0,
    "slow": 3.0,
    "elsewhere": 1.0,
    "put": 6.0,
    "post": 10.0,
    "asktool": 3.0,
    "ask": 12.0,
    "human": 8.0,
    "agent": 8.0,
    "team": 3.0,
    "plan": 5.0,
}
SAFE = ("work", "search", "calc", "slow")
"""Tools that may run in a group."""
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
REQUIRES: list[Any] = ["all", "all", "any", "best_effort", {"at_least": 1}]


def random_task(
    random: Random, id: str, earlier: Sequence[str], *, depth: int = 0, speed: float = 1.0
) -> Document:
    """One task that may read `earlier` ones."""
    task: Document = {"id": id, **random_body(random, id, earlier, depth=depth)}
    if random.random() < 0.12 and earlier:
        task["map"] = f"${{{random.choice(earlier)}{random.choice(['', '.items'])}}}"
    elif random.random() < 0.1:
        task["map"] = list(range(random.choice([0, 1, 2, 3, 3, 7])))
    if "map" in task:
        _read_item(task)
    if random.random() < 0.2 and earlier:
        task["depends_on"] = some(random, earlier, 2)
    if random.random() < 0.25 and earlier:
        task["when"] = random_condition(random, earlier)
        task["speculate"] = random.random() < 0.6
    if random.random() < 0.25 and _reads(task):
        task["requires"] = random.choice(REQUIRES)
    if random.random() < 0.2:
        task["fallback"] = random_fallback(random, id, earlier, depth)
    if random.random() < 0.15:
        task["on_error"] = random.choice(["fail", "skip"])
    if random.random() < 0.07:
        task["approval"] = True
    if random.random() < 0.15:
        task["timeout"] = random.choice([0.5, 5, 60, 600])
    if random.random() < 0.1 and task.get("tool") in SAFE and "approval" not in task:
        task["fuse"] = random.random() < 0.6
        if _is_path(task.get("fallback")):
            task["fuse"] = False
    if random.random() < 0.1:
        task["retry"] = {"max_attempts": random.choice([1, 2, 5])}
    _odds(random, task)
    return task


def _odds(random: Random, task: Document) -> None:
    """Fields that change little: labels, priorities, estimates, cache."""
    if random.random() < 0.1:
        task["priority"] = random.choice(["critical", "high", "low"])
    if random.random() < 0.1:
        task["estimate"] = {"tokens": random.choice([10, 1000, 50_000]), "seconds": 3}
    if random.random() < 0.1:
        task["cache"] = random.choice(["off", "run", "shared"])
    if random.random() < 0.1:
        task["description"] = f"what {task['id']} is for"


def random_body(random: Random, id: str, earlier: Sequence[str], *, depth: int = 0) -> Document:
    """One of the six bodies, as a document."""
    kind = weighted(random, BODIES)
    reads = _references(random, earlier, 2)
    value: Any = reads[0] if reads else f"of {id}" if random.random() < 0.7 else "shared"
    match kind:
        case "ask":
            return {"ask": {"prompt": f"about {value}", "context": reads[1:] or None}}
        case "asktool":
            return {"tool": "ask", "args": {"prompt": value}}
        case "human":
            schema = {"schema": SCHEMA} if random.random() < 0.6 else {}
            return {"human": {"question": f"is it {value}?", **schema}}
        case "agent":
            more = {"budget": {"tokens": 5_000}} if random.random() < 0.1 else {}
            return {"agent": random.choice(["helper", "critic"]), "args": {"task": value, **more}}
        case "team":
            return {"team": "panel", "args": {"task": f"discuss {value}", "context": reads[1:]}}
        case "plan":
            return _sub_plan(random, value, depth)
        case _:
            name = {"calc": "expression", "search": "query"}.get(kind, "key")
            more = {"more": reads[1]} if len(reads) > 1 and kind in ("work", "put", "post") else {}
            return {"tool": kind, "args": {name: value, **more}}


def _sub_plan(random: Random, value: Any, depth: int) -> Document:
    if depth >= 2 or random.random() < 0.4:
        return {"plan": "pair"}
    if random.random() < 0.3:
        return {"plan": "deep"}
    inner = random_plan(random, size=random.randint(1, 3), depth=depth + 1, prefix="i")
    return {"plan": inner, "args": {"topic": value}}


def random_fallback(random: Random, id: str, earlier: Sequence[str], depth: int) -> Any:
    """A value (null is one too), or another body."""
    if random.random() < 0.5:
        return random.choice([None, 0, "instead", {"value": 1, "ok": True}])
    if random.random() < 0.3:
        return {"agent": "helper", "args": {"task": f"do {id} otherwise"}}
    return random_body(random, f"{id}-instead", earlier, depth=depth)


def random_condition(random: Random, earlier: Sequence[str]) -> str:
    """A condition over one or two earlier tasks; some cannot be evaluated."""
    one, two = random.choice(earlier), random.choice(earlier)
    return random.choice(
        [
            f"{one}.outcome == 'succeeded'",
            f"${{{one}.ok}}",
            f"${{{one}.value}} > 4",
            f"${{{one}.ok}} || {two}.outcome == 'failed'",
            f"length(${{{one}.items}}) > `1`",
            f"!({one}.outcome == 'skipped')",
        ]
    )


def random_plan(
    random: Random, *, size: int, depth: int = 0, prefix: str = "t", earlier: Sequence[str] = ()
) -> Document:
    """A plan of `size` tasks, each of which reads only those before it."""
    names = [f"{prefix}{n}" for n in range(size)]
    known = [*earlier, *names]
    first = len(earlier)
    tasks = [
        random_task(random, name, known[: first + n], depth=depth) for n, name in enumerate(names)
    ]
    plan: Document = {"tasks": tasks}
    if random.random() < 0.5:
        plan["answer"] = random_answer(random, names)
    if random.random() < 0.15:
        plan["join"] = [random.choice(names)]
    if random.random() < 0.12:
        plan["stop_when"] = random_condition(random, names)
    return plan


def random_answer(random: Random, names: Sequence[str]) -> Any:
    """What the answer reads."""
    last = random.choice(names)
    return random.choice(
        [f"${{{last}}}", f"it is ${{{last}.value}}", {"last": f"${{{last}}}"}, "fixed"]
    )


def _references(random: Random, earlier: Sequence[str], most: int) -> list[str]:
    paths = ["", "", ".value", ".items", ".items[0]", ".ok"]
    return [f"${{{name}{random.choice(paths)}}}" for name in some(random, earlier, most)]


def _is_path(fallback: Any) -> bool:
    return isinstance(fallback, dict) and bool({"tool", "ask", "human", "agent"} & set(fallback))


def _reads(task: Document) -> bool:
    return "${" in str(task.get("args", "")) + str(task.get("ask", "")) or bool(
        task.get("depends_on")
    )


def _read_item(task: Document) -> None:
    """Let the body of a map read its item."""
    args = task.get("args")
    if isinstance(args, dict) and args and not task.get("plan"):
        args[next(iter(args))] = "${item}"


def names_of(plan: Document) -> list[str]:
    """The ids of a plan's tasks."""
    return [t["id"] for t in plan["tasks"]]


def without_task(plan: Document, name: str) -> Document | None:
    """The plan without a task and all that read it; None when nothing would be left."""
    gone = {name}
    tasks = []
    for task in plan["tasks"]:
        if task["id"] in gone or any(_names(task, g) for g in gone):
            gone.add(task["id"])
        else:
            tasks.append(task)
    if not tasks:
        return None
    rest = {k: v for k, v in plan.items() if k != "tasks" and not any(_names(v, g) for g in gone)}
    return {**rest, "tasks": tasks}


def _names(value: Any, name: str) -> bool:
    match value:
        case str():
            return value == name or f"{{{name}" in value or f"{name}." in value
        case list():
            return any(_names(v, name) for v in value)
        case dict():
            return any(_names(v, name) for v in value.values())
        case _:
            return False
