"""Maps of more than a thousand items: in batches, each a child run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]


def wide(items: Any, **fields: Any) -> dict[str, Any]:
    args = {"value": {"i": "${index}", "item": "${item}", "by": "${params.by}"}}
    return {
        "tasks": [{"id": "m", "map": items, "tool": "echo", "args": args, **fields}],
        "answer": "${m | [length(@), @[0], @[500], @[-1]]}",
    }


async def test_a_wide_map_keeps_order_index_and_params(planloom: Planloom, tools: Tools) -> None:
    plan = wide([n * 2 for n in range(1_101)])
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "params": {"by": "x" * 3_000}})
        result = await planloom.result(handle)
        history = await planloom.client.get_workflow_handle(handle.id).fetch_history()
    assert result["status"] == "completed", result["reason"]
    by = "x" * 3_000
    assert result["answer"] == [
        1_101,
        {"i": 0, "item": 0, "by": by},
        {"i": 500, "item": 1_000, "by": by},
        {"i": 1_100, "item": 2_200, "by": by},
    ]
    assert result["tasks"]["m"]["items"] == {"succeeded": 1_101}
    assert result["usage"]["tasks"] == 1_101
    assert len(history.events) < 100
