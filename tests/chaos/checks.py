"""What must hold after chaos, whatever was done: each violation is a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.cases import MARK, Case, Document
from tests.chaos.ledger import Entry
from tests.chaos.story import MODEL_CALLS, Story

ONCE = ("post", "sign")


@dataclass(slots=True)
class Ended:
    """How one run ended, and what is known of it outside and inside Temporal."""

    case: Case
    result: Document | None
    """None: it has not ended."""
    entries: list[Entry]
    paid: int
    """Answers of the model that came whole."""
    story: Story
    caps: dict[str, float]
    stuck: str = ""
    faults: list[str] = field(default_factory=list)
    """What went wrong in the kit itself."""


def violations(calm: Ended, storm: Ended) -> Iterator[str]:
    """What does not hold of a run in the storm, beside the same run in calm."""
    yield from (f"the kit: {fault}" for fault in storm.faults)
    if storm.result is None:
        yield f"stuck: {storm.stuck}; failed tasks: {storm.story.failed_tasks}"
        return
    yield from _of_acts(storm)
    yield from _of_histories(storm)
    yield from _of_budget(storm)
    if not storm.case.is_cancelled and calm.result is not None:
        yield from _of_results(calm, storm)
        yield from _of_repeats(calm, storm)


def _of_acts(storm: Ended) -> Iterator[str]:
    acts = Counter(e.act for e in storm.entries if e.what == "act" and e.tool in ONCE)
    for act, times in acts.items():
        if times > 1:
            yield f"a side effect was done {times} times: {act}"


def _of_histories(storm: Ended) -> Iterator[str]:
    yield from (f"a workflow task failed: {f}" for f in storm.story.failed_tasks)
    yield from (f"a child has not ended: {id}" for id in storm.story.open)


def _of_budget(storm: Ended) -> Iterator[str]:
    assert storm.result is not None
    given = storm.case.request.get("budget", {})
    usage = storm.result.get("usage", {})
    for name in ("tokens", "tasks"):
        if name in given:
            cap = max(given[name], storm.caps.get(name, 0))
            if usage.get(name, 0) > cap:
                yield f"budget: {usage[name]} {name} of {cap}"


def _of_results(calm: Ended, storm: Ended) -> Iterator[str]:
    assert calm.result is not None
    assert storm.result is not None
    expected, found = shape_of(calm.result), shape_of(storm.result)
    doubtful = doubtful_tasks(storm)
    if not doubtful and not is_unknown(storm):
        for name in expected.keys() | found.keys():
            if name != "tasks" and expected.get(name) != found.get(name):
                yield (
                    f"{name}: {_short(found.get(name))} instead of {_short(expected.get(name))} "
                    f"({str(storm.result.get('reason'))[:500]})"
                )
        yield from _of_all_acts(calm, storm)
    before, after = expected.get("tasks", {}), found.get("tasks", {})
    for task in sorted(before.keys() | after.keys()):
        if task not in doubtful and before.get(task) != after.get(task):
            why = storm.result["tasks"].get(task, {})
            told = why.get("error") or why.get("reason") or ""
            yield (
                f"task {task}: {_short(after.get(task))} instead of {_short(before.get(task))} "
                f"({str(told)[:300]})"
            )


def _of_all_acts(calm: Ended, storm: Ended) -> Iterator[str]:
    """Nothing is in doubt, so everything was done that is done in calm."""
    done, wanted = ({_plain(e) for e in of.entries if e.what == "act"} for of in (storm, calm))
    for act in sorted(done ^ wanted):
        yield f"{'done, but not in calm' if act in done else 'not done'}: {act}"


def _plain(entry: Entry) -> tuple[str, str, str, str]:
    _, _, below = entry.run.partition("/")
    return below, entry.task, entry.tool, MARK.sub("", entry.args)


def _of_repeats(calm: Ended, storm: Ended) -> Iterator[str]:
    """A finished call is not made again: each call more is one of an attempt that was lost.

    A run that went another way, as a task of it is in doubt, has made other calls. A result that
    the full disk did not cache, or whose blob was away, is asked for again.
    """
    if is_unknown(storm):
        return
    ahead = sum(
        sum(r.get("speculation", {}).values()) for r in storm.story.results if isinstance(r, dict)
    )
    missed = max(0, _hits(calm) - _hits(storm))
    lost = storm.story.lost_of(*MODEL_CALLS)
    if storm.paid > calm.paid + lost + ahead + missed:
        yield f"{storm.paid} model calls instead of {calm.paid}, and {lost} attempts were lost"
    ran, calmly = (sum(e.what == "start" for e in of.entries) for of in (storm, calm))
    lost = storm.story.lost_of("run_tool")
    if ran > calmly + lost + ahead + missed:
        yield f"{ran} tool calls instead of {calmly}, and {lost} attempts were lost"


def _hits(ended: Ended) -> int:
    """How often a result came from a cache."""
    assert ended.result is not None
    hits: int = ended.result.get("usage", {}).get("cache_hits", 0)
    return hits


# -- results ----------------------------------------------------------------------------------


def shape_of(result: Document) -> Document:
    """What must be equal: no time, no usage, no count of attempts."""
    shape = {k: result.get(k) for k in ("status", "answer", "output") if k in result}
    if "tasks" in result:
        shape["tasks"] = {id: _task(task) for id, task in result["tasks"].items()}
    if "members" in result:
        members = result["members"].items()
        shape["members"] = {id: (m["outcome"], m.get("fields")) for id, m in members}
    unmarked: Document = json.loads(MARK.sub("", json.dumps(shape)))
    return unmarked


def _task(task: Document) -> list[Any]:
    outcome = "succeeded" if task["outcome"] == "cached" else task["outcome"]
    items = Counter[str]()
    for name, count in (task.get("items") or {}).items():
        items["succeeded" if name == "cached" else name] += count
    return [outcome, task.get("output"), task.get("blob"), dict(sorted(items.items()))]


def is_unknown(ended: Ended) -> bool:
    """Whether somewhere in the run it is not known if a side effect was done.

    Or the attempts of an agent's tool call were used up by kills: nobody can give it more.
    """
    return ended.story.unknown + ended.story.given_up > 0


def doubtful_tasks(ended: Ended) -> set[str]:
    """Tasks that may differ: their side effect is `unknown`, or they read one that may differ."""
    assert ended.result is not None
    if not is_unknown(ended):
        return set()
    tasks = ended.result.get("tasks", {})
    plan = ended.case.request.get("plan") or ended.case.first_plan or {"tasks": []}
    texts = {t["id"]: json.dumps(t) for t in plan["tasks"]}
    acting = ("post", "put", "sign", "agent", "plan", "team")
    doubtful = {
        id
        for id in tasks
        if tasks[id]["outcome"] == "unknown"
        or "unknown" in (tasks[id].get("items") or {})
        or any(f'"{a}"' in texts.get(id, "") for a in acting)
    }
    while True:
        more = {
            id
            for id in tasks
            if id not in doubtful and any(d in texts.get(id, d) for d in doubtful)
        }
        if not more:
            return doubtful
        doubtful |= more


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "…"
