"""Values that cannot be used: each task that meets one says so, and the rest of the run goes on."""

from __future__ import annotations

import shutil
from typing import Any

from planloom.activities.storage import blobs
from tests.support.harness import Planloom

Tools = dict[str, str]


def echo(id: str, value: Any, **fields: Any) -> dict[str, Any]:
    return {"id": id, "tool": "echo", "args": {"value": value}, **fields}


async def test_what_cannot_be_read_or_mapped_is_told_by_its_task(
    planloom: Planloom, tools: Tools
) -> None:
    """A blob is deleted while the run waits, as when somebody clears the folder."""
    plan = {
        "tasks": [
            {"id": "big", "map": [0, 20], "tool": "big", "args": {"megabytes": "${item}"}},
            {"id": "made", "tool": "big", "args": {"megabytes": 1}},
            {"id": "go", "human": "Go on?", "depends_on": ["made", "big"]},
            echo("gone", "${made}", depends_on=["go"], retry={"max_attempts": 1}),
            echo("fine", "${go}"),
            echo("none", "${item}", map="${go}"),
            echo("empty", "${item}", map=[]),
        ]
    }
    request = {"plan": plan, "retry_rounds": 0}
    async with planloom.worker(**tools):
        handle = await planloom.start(request)
        await planloom.until(handle, lambda p: p.awaiting == "human")
    shutil.rmtree(planloom.data_dir / "blobs")
    async with planloom.worker(**tools):
        await handle.signal("complete_task", {"id": "go", "output": "yes"})
        result = await planloom.result(handle)
    tasks = result["tasks"]
    assert result["status"] == "partial"
    outcomes = {t: row["outcome"] for t, row in tasks.items()}
    assert outcomes == {
        **dict.fromkeys(("big", "made", "go", "fine", "empty"), "succeeded"),
        **dict.fromkeys(("gone", "none"), "failed"),
    }
    assert tasks["big"]["items"] == {"succeeded": 2}
    assert tasks["big"]["size_bytes"] > 20_000_000
    assert "was the folder cleared" in tasks["gone"]["error"]
    assert "list" in tasks["none"]["error"]
    assert tasks["empty"]["output"] == []
    assert "gone" in result["reason"]
    assert "none" in result["reason"]


async def test_a_full_disk_is_told_by_the_task_that_meets_it(
    planloom: Planloom, tools: Tools, monkeypatch: Any
) -> None:
    put = blobs.BlobStore._put

    def full(self: blobs.BlobStore, content: bytes) -> str:
        if len(content) > 1_500_000:
            raise blobs.BlobError("blob cannot be written: No space left on device")
        return put(self, content)

    monkeypatch.setattr(blobs.BlobStore, "_put", full)
    once = {"retry": {"max_attempts": 1}}
    plan = {
        "tasks": [
            {"id": "large", "tool": "big", "args": {"megabytes": 2}, **once},
            {"id": "small", "tool": "big", "args": {"megabytes": 1}},
            echo("after", "${small | length(@)}"),
            echo("behind", "${large}"),
        ]
    }
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": plan, "retry_rounds": 0})
    tasks = result["tasks"]
    assert {t: row["outcome"] for t, row in tasks.items()} == {
        "large": "failed",
        "small": "succeeded",
        "after": "succeeded",
        "behind": "skipped",
    }
    assert "No space left on device" in tasks["large"]["error"]
    assert "large" in result["reason"]
