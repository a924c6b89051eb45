"""Requests of the agents runtime, read as Planloom's (docs/explanation/from-mekann.md). Pure.

Taken over: what its tools' parameters promise. A document without any of these names is returned
as it is, and a name of Planloom's beside its twin is left for validation to refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

SOURCE_ROUNDS_MAX = 2
MILLISECONDS = 1_000
MILLISECONDS_MAX = 10**15


def _rounds(value: Any) -> Any:
    """A count of rounds as there: a fraction is cut, and 0 to 2 are allowed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 1
    if isinstance(value, float) and not math.isfinite(value):
        return 1
    return min(SOURCE_ROUNDS_MAX, max(0, int(value)))


def _seconds(value: Any) -> Any:
    """Milliseconds as seconds; 0 turns the limit off, as its text says."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if value > MILLISECONDS_MAX:
        return value  # refused there: it is above every limit
    return value / MILLISECONDS if value > 0 else None


def _strategy(value: Any) -> Any:
    is_sequential = isinstance(value, str) and value.strip().lower() == "sequential"
    return "sequential" if is_sequential else "parallel"


def _retry(value: Any) -> Any:
    """`maxRetries` counts what comes after the first try; jitter is Temporal's affair.

    What is not a number is left as it is, for validation to refuse.
    """
    if not _is_their_retry({"retry": value}):
        return value
    numbers = {name: each for name, each in value.items() if name != "jitter"}
    if not all(_is_finite(each) for each in numbers.values()):
        return value
    retry: dict[str, Any] = {"max_attempts": 1 + min(20, max(0, int(numbers.get("maxRetries", 2))))}
    initial = min(600_000, max(1, numbers.get("initialDelayMs", 800)))
    retry["initial_seconds"] = initial / MILLISECONDS
    longest = min(MILLISECONDS_MAX, numbers.get("maxDelayMs", 10_000))
    retry["max_seconds"] = max(initial, longest) / MILLISECONDS
    retry["backoff"] = min(10, max(1, numbers.get("multiplier", 2)))
    return retry


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


_RETRY_NAMES = {"maxRetries", "initialDelayMs", "maxDelayMs", "multiplier", "jitter"}


def _names(value: Any) -> Any:
    """A list of ids: trimmed, without empty ones, each once."""
    if not isinstance(value, list):
        return value
    cleaned = [v.strip() if isinstance(v, str) else v for v in value]
    seen: set[str] = set()
    kept: list[Any] = []
    for name in cleaned:
        if isinstance(name, str):
            if name in seen or not name:
                continue
            seen.add(name)
        kept.append(name)  # what is no name is refused by validation
    return kept


def _same(value: Any) -> Any:
    return value


Reading = tuple[str, Callable[[Any], Any]]
_COMMON: dict[str, Reading] = {
    "extraContext": ("context", _same),
    "sharedContext": ("context", _same),
    "timeoutMs": ("timeout", _seconds),
    "ulTaskId": ("", _same),
}
AGENT_FIELDS: dict[str, Reading] = {**_COMMON, "subagentId": ("agent", _same)}
TEAM_FIELDS: dict[str, Reading] = {
    **_COMMON,
    "teamId": ("team", _same),
    "communicationRounds": ("rounds", _rounds),
    "failedMemberRetryRounds": ("retry_rounds", _rounds),
}
RUN_FIELDS: dict[str, Reading] = {
    "subagentIds": ("agents", _names),
    "teamIds": ("teams", _names),
    "extraContext": ("context", _same),
    "sharedContext": ("context", _same),
    "ulTaskId": ("", _same),
}
EACH_FIELDS = ("strategy", "communicationRounds", "failedMemberRetryRounds", "timeoutMs", "retry")
"""Of a call for many: what goes to each of them."""


def agent_document(document: Any) -> Any:
    """A request for one agent (`subagent_run`) in our words."""
    if not isinstance(document, Mapping):
        return document
    return _renamed(document, AGENT_FIELDS)


def team_document(document: Any) -> Any:
    """A request for one team (`agent_team_run`, `agent_team_run_dag`) in our words."""
    if not isinstance(document, Mapping):
        return document
    renamed = _renamed(document, TEAM_FIELDS)
    if isinstance(renamed.get("strategy"), str):
        renamed["strategy"] = _strategy(renamed["strategy"])
    plan = renamed.get("plan")
    if isinstance(plan, Mapping) and "subtasks" not in renamed:
        renamed["subtasks"] = _subtasks(renamed.pop("plan"))
    return renamed


def run_document(document: Any) -> Any:
    """A request for many (`subagent_run_parallel`, `agent_team_run_parallel`) in our words."""
    if not isinstance(document, Mapping):
        return document
    kind = next((k for k in ("subagentIds", "teamIds") if k in document), None)
    if kind is None:
        return document
    renamed = _renamed({k: v for k, v in document.items() if k not in EACH_FIELDS}, RUN_FIELDS)
    if "task" in renamed and "goal" not in renamed:
        renamed["goal"] = renamed.pop("task")
    each = {k: document[k] for k in EACH_FIELDS if k in document}
    if each:
        args = team_document(each) if kind == "teamIds" else agent_document(each)
        ours = "teams" if kind == "teamIds" else "agents"
        if isinstance(renamed.get(ours), list):
            named = ours.removesuffix("s")
            renamed[ours] = [{named: n, "args": args} for n in renamed[ours]]
    return renamed


def _renamed(document: Mapping[str, Any], fields: Mapping[str, Reading]) -> dict[str, Any]:
    if not any(k in fields for k in document) and not _is_their_retry(document):
        return dict(document)
    renamed: dict[str, Any] = {}
    for key, value in document.items():
        ours, read = fields.get(key, (key, _same))
        if not ours:
            continue
        if ours != key and ours in document:
            renamed[key] = value  # both names: refused as unknown, with the other one near
        else:
            renamed[ours] = read(value)
    if _is_their_retry(renamed):
        renamed["retry"] = _retry(renamed["retry"])
    if renamed.get("timeout", 0) is None:
        del renamed["timeout"]
    return renamed


def _is_their_retry(document: Mapping[str, Any]) -> bool:
    retry = document.get("retry")
    return isinstance(retry, Mapping) and bool(retry) and set(retry) <= _RETRY_NAMES


def _subtasks(plan: Mapping[str, Any]) -> Any:
    """The proposal's plan: tasks with `assignedAgent`, dependencies in each or beside them."""
    tasks = plan.get("tasks")
    if not isinstance(tasks, list):
        return tasks
    beside = _dependencies(plan.get("dependencies"))
    subtasks = []
    for task in tasks:
        if not isinstance(task, Mapping):
            subtasks.append(task)
            continue
        id = task.get("id")
        subtask: dict[str, Any] = {"id": id, "task": task.get("description")}
        if task.get("assignedAgent") is not None:
            subtask["member"] = task["assignedAgent"]
        waits = task.get("dependencies") or (beside.get(id) if isinstance(id, str) else None)
        if waits:
            subtask["depends_on"] = waits
        subtasks.append(subtask)
    return subtasks


def _dependencies(given: Any) -> dict[str, list[Any]]:
    """What each task waits for: from `{task: [ids]}`, or a list of `{from, to}`."""
    if isinstance(given, Mapping):
        return {task: list(ids) for task, ids in given.items() if isinstance(ids, list)}
    found: dict[str, list[Any]] = {}
    for pair in given if isinstance(given, list) else []:
        if isinstance(pair, Mapping) and isinstance(task := pair.get("to"), str):
            found.setdefault(task, []).append(pair.get("from"))
    return found
