"""The same work as a team with static roles and as a graph of subtasks: latency and tokens.

The work is four parts. A scripted model writes every part it is asked for at one speed, so the
figures show what the two ways ask for, not how well a model does it: a team with static roles has
each member answer the whole, and hear the others and answer again; subtasks are each done once.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.harness import Bench, bench
from benchmarks.report import Figure, Size, figure, ratio, single
from tests.model_server import ModelServer, Reply, Seen

PARTS = ("north", "east", "south", "west")
PART_WORDS = 120
TOKEN_SECONDS = 0.004
SUM = {"id": "sum", "role": "Lead", "task": "Sum up.", "depends_on": list(PARTS)}


def _members(**more: Any) -> list[dict[str, Any]]:
    return [{"id": p, "role": f"Expert of the {p}", **more} for p in PARTS]


STATIC = {"team": {"members": _members()}, "task": "Describe " + ", ".join(PARTS)}
GRAPH = {
    "team": {"members": [*({**m, "task": f"Describe {m['id']}"} for m in _members()), SUM]},
    "task": "A map",
    "model": {"worker": "scripted", "judge": "judge"},
}
WAYS: dict[str, dict[str, Any]] = {
    "static roles, no round": {**STATIC, "rounds": 0},
    "static roles, one round": {**STATIC, "rounds": 1},
    "graph, independent": GRAPH,
    "graph, one after another": {
        **GRAPH,
        "team": {
            "members": [
                {**m, "task": f"Describe {m['id']}", "depends_on": list(PARTS[n - 1 : n])}
                for n, m in enumerate(_members())
            ]
        },
    },
}


def _answer(seen: Seen) -> Reply:
    """As many parts as the task names, at the model's one speed."""
    if "You judge" in seen.text:
        return Reply(text='{"verdict": "trusted", "reason": "ok"}')
    opening = seen.messages[1]["content"] if len(seen.messages) > 1 else seen.text
    task = opening.partition("# Task\n")[2].partition("\n")[0]
    parts = [p for p in PARTS if p in task] or ["sum"]
    words = " ".join(f"{p} " + "word " * PART_WORDS for p in parts)
    return Reply(
        text=f"SUMMARY: described\nCLAIM: it is as it is\nEVIDENCE: a map\nCONFIDENCE: 0.9\n"
        f"RESULT: {words}\nNEXT_STEP: none",
        token_seconds=TOKEN_SECONDS,
    )


async def main(size: Size) -> list[Figure]:
    with ModelServer() as model:
        model.script("", _answer)
        async with bench({"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": "scripted"}) as b:
            return await _compare(b, size.pick(1, 2, 5))


async def _compare(b: Bench, rounds: int) -> list[Figure]:
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    tokens: dict[str, int] = {}
    for n in range(rounds + 1):  # the first one warms up
        for name, request in WAYS.items():
            began = time.perf_counter()
            result = await b.team(request)
            assert result["status"] == "completed", result["reason"]
            if n:
                seconds[name].append(time.perf_counter() - began)
            tokens[name] = result["usage"]["tokens"]
    figures = [
        each
        for name in WAYS
        for each in (
            figure(f"four parts of work as {name}", seconds[name], "s"),
            single(f"four parts of work as {name}: tokens", tokens[name]),
        )
    ]
    fast = "graph, independent"
    for slow in ("static roles, one round", "static roles, no round"):
        figures += [
            ratio(f"time, {slow} ÷ {fast}", seconds[slow], seconds[fast]),
            single(f"tokens, {fast} ÷ {slow}", tokens[fast] / tokens[slow]),
        ]
    return figures
