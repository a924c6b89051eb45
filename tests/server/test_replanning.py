"""Replans and edits while things go on: who may change what, what stays, what is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError

from tests.model_server import Reply
from tests.support.harness import Handle, Planloom
from tests.support.tools import SOURCE

Calls = Callable[[], list[str]]
Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'
SLOW = (
    SOURCE
    + """
@tool
async def slow(name: str, seconds: float = 0.05) -> str:
    "Idempotent, and takes its time."
    _note("start " + name)
    await asyncio.sleep(seconds)
    return name
"""
)


def script(planloom: Planloom, *plans: Any, join: Any = FINISH) -> None:
    planloom.model.script(PLANNER, *plans)
    planloom.model.script(JOINER, *(join if isinstance(join, list) else [join]))


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    return {t: r["outcome"] for t, r in result["tasks"].items()}


async def refused(handle: Handle, name: str, payload: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as seen:
        await handle.execute_update(name, payload)
    return str(seen.value.cause)


async def asked_for_another(planloom: Planloom, request: dict[str, Any]) -> Handle:
    """A run whose task `a` runs when a person asks for another plan."""
    handle = await planloom.start({"goal": "x", **request})
    await planloom.until(handle, lambda p: "a" in p.running and p.revision == 1)
    await handle.execute_update("request_replan", {"feedback": "other", "by": "ann"})
    return handle


async def waits_with_a_replan(planloom: Planloom, approval: Any, *plans: str) -> Handle:
    """A run whose joiner asked for a replan, which now waits for approval as revision 2."""
    first = 'a = nap(name="a")\njoin(a)'
    again = '{"action": "replan", "feedback": "more"}'
    script(planloom, first, *plans, join=[again, FINISH])
    handle = await planloom.start({"goal": "x", "approval": approval})
    await planloom.until(handle, lambda p: p.revision == 2)
    return handle


SECOND = 'b = nap(name="b")\nc = nap(name="c")\njoin(b, c)'


async def test_a_replan_is_approved_edited_or_rejected_by_its_revision(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    async with planloom.worker(**tools):
        handle = await waits_with_a_replan(planloom, "replan", SECOND)
        assert "revision 1 was replaced by 2" in await refused(
            handle, "approve_plan", {"revision": 1}
        )
        patch = [{"op": "replace", "path": "/tasks/0/args/name", "value": "bb"}]
        said = await refused(handle, "edit_plan", {"revision": 1, "patch": patch})
        assert "revision 1 was replaced by 2" in said
        await handle.execute_update("edit_plan", {"revision": 2, "patch": patch, "by": "ops"})
        await handle.signal("approve_plan", {"revision": 2})  # stale: ignored, and noted
        await handle.signal("approve_plan", {"revision": 3, "by": "ops"})
        result = await planloom.result(handle)
    assert (result["status"], result["revision"]) == ("completed", 3)
    assert "start bb" in calls()
    assert "start b" not in calls()
    assert any(
        "signal ignored: approve_plan: revision 2 was replaced" in n for n in result["notes"]
    )


@pytest.mark.parametrize(
    ("then", "status", "ran"),
    [("approve", "completed", True), ("reject", "rejected", False), ("park", "completed", True)],
)
async def test_a_replan_that_nobody_decides_on_ends_as_the_policy_says(
    planloom: Planloom, tools: Tools, calls: Calls, then: str, status: str, ran: bool
) -> None:
    approval = {"mode": "replan", "timeout": "0.3s", "on_timeout": then}
    async with planloom.worker(**tools):
        handle = await waits_with_a_replan(planloom, approval, SECOND)
        if then == "park":
            await asyncio.sleep(0.5)
            assert (await planloom.progress(handle)).awaiting == "approval"
            await handle.execute_update("approve_plan", {"revision": 2})
        result = await planloom.result(handle)
    assert result["status"] == status
    assert ("start b" in calls()) is ran
    assert result["tasks"]["a"]["output"] == "a"


async def test_a_rejected_replan_stops_what_runs_and_keeps_what_has_ended(
    planloom: Planloom, tools: Tools
) -> None:
    script(planloom, 'z = nap(name="z")\na = nap(name="a", seconds=30)\njoin(z, a)', SECOND)
    async with planloom.worker(**tools):
        handle = await asked_for_another(planloom, {"approval": "replan"})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.execute_update("reject_plan", {"revision": 2, "reason": "too dear"})
        result = await planloom.result(handle)
        usage = await handle.query("usage")
    assert (result["status"], result["tasks"]["z"]["output"]) == ("rejected", "z")
    assert "too dear" in result["reason"]
    assert result["tasks"]["a"]["times"]["ended"] is not None
    assert usage["reserved"] == {"tokens": 0, "usd": 0.0, "tasks": 0}


async def test_of_two_approvers_at_once_one_is_taken_and_the_other_is_told(
    planloom: Planloom, tools: Tools
) -> None:
    async with planloom.worker(**tools):
        handle = await waits_with_a_replan(planloom, "replan", SECOND)
        said = await asyncio.gather(
            handle.execute_update("approve_plan", {"revision": 2, "by": "ann"}),
            handle.execute_update("approve_plan", {"revision": 2, "by": "bob"}),
            handle.execute_update("reject_plan", {"revision": 2, "by": "eve"}),
            return_exceptions=True,
        )
        result = await planloom.result(handle)
    taken = [s for s in said if not isinstance(s, BaseException)]
    told = [str(s.cause) for s in said if isinstance(s, WorkflowUpdateFailedError)]
    assert (len(taken), len(told)) == (1, 2)
    # Who comes last may find that the run has ended.
    assert all(("revision 2 was" in t and "already by" in t) or "has ended" in t for t in told)
    assert result["status"] in ("completed", "rejected")


async def test_another_plan_may_be_asked_for_instead_of_approving_the_first(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    script(planloom, 'a = nap(name="a")\njoin(a)', 'b = nap(name="b")\njoin(b)')
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "x", "approval": "plan"})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.execute_update("request_replan", {"feedback": "use b", "by": "ann"})
        shown = await planloom.until(handle, lambda p: p.awaiting == "approval" and p.revision == 2)
        assert shown.tasks == {"b": "waiting"}
        assert "was replaced by 2" in await refused(handle, "approve_plan", {"revision": 1})
        await handle.execute_update("approve_plan", {"revision": 2})
        result = await planloom.result(handle)
    assert outcomes(result) == {"b": "succeeded"}
    assert "start a" not in calls()
    told = planloom.model.seen(PLANNER)[1].text
    assert "use b" in told
    assert 'a = nap(name="a")' in told  # the planner sees what it wrote before


async def test_a_replan_for_a_person_that_fails_leaves_the_plan_as_it_is(
    planloom: Planloom, tools: Tools
) -> None:
    script(planloom, 'a = nap(name="a", seconds=1.5)\njoin(a)', "Je ne sais pas.")
    async with planloom.worker(**tools):
        handle = await asked_for_another(planloom, {})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"], outcomes(result)["a"]) == (
        "completed",
        "done",
        "succeeded",
    )
    assert any("replan not taken: no plan after 3 answers" in n for n in result["notes"])


async def test_a_replan_asked_for_while_the_joiner_decides_is_made(
    planloom: Planloom, tools: Tools
) -> None:
    script(
        planloom,
        'a = nap(name="a")\njoin(a)',
        'b = nap(name="b")\njoin(a, b)',
        join=[Reply(text=FINISH, delay=0.8), FINISH],
    )
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "x"})
        await planloom.until(handle, lambda p: p.status == "joining")
        await handle.execute_update("request_replan", {"feedback": "b too"})
        result = await planloom.result(handle)
    assert outcomes(result) == {"a": "succeeded", "b": "succeeded"}


async def test_an_edit_that_comes_while_the_joiner_decides_is_run(
    planloom: Planloom, tools: Tools
) -> None:
    script(planloom, 'a = nap(name="a")\njoin(a)', join=[Reply(text=FINISH, delay=0.8), FINISH])
    new = {"id": "b", "tool": "nap", "args": {"name": "b"}}
    patch = [
        {"op": "add", "path": "/tasks/-", "value": new},
        {"op": "replace", "path": "/join", "value": ["a", "b"]},
    ]
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "x"})
        await planloom.until(handle, lambda p: p.status == "joining")
        await handle.execute_update("edit_plan", {"revision": 1, "patch": patch})
        result = await planloom.result(handle)
    assert outcomes(result) == {"a": "succeeded", "b": "succeeded"}


async def test_a_replan_that_reads_work_under_way_keeps_it(
    planloom: Planloom, tools: Tools
) -> None:
    """The old plan's running task is neither lost nor run twice, by its own name or a twin's."""
    script(
        planloom,
        'a = slow(name="a", seconds=1.5)\njoin(a)',
        'x = slow(name="a", seconds=1.5)\nb = echo(value=x)\nc = echo(value=[a])\njoin(b, c)',
    )
    async with planloom.worker(**tools | {"PLANLOOM_TOOLS": planloom.tools(SLOW)}):
        handle = await asked_for_another(planloom, {})
        result = await planloom.result(handle)
    assert (result["status"], result["planning"]["repairs"]) == ("completed", 0)
    assert result["tasks"]["b"]["output"] == "a"
    assert result["tasks"]["c"]["output"] == ["a"]
    assert result["usage"]["tool_calls"] == 3


async def test_a_finished_task_may_be_read_again_after_a_revision_without_it(
    planloom: Planloom, tools: Tools
) -> None:
    again = '{"action": "replan", "feedback": "more"}'
    script(
        planloom,
        'a = nap(name="a")\njoin(a)',
        'b = nap(name="b")\njoin(b)',  # leaves a out
        "c = echo(value=[a, b])\njoin(c)",
        join=[again, again, FINISH],
    )
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x"})
    assert (result["status"], result["planning"]["repairs"]) == ("completed", 0)
    assert result["tasks"]["c"]["output"] == ["a", "b"]


async def test_a_name_given_anew_stands_for_the_new_task(planloom: Planloom, tools: Tools) -> None:
    """`x` was a duplicate of `a` in the first plan; the replan's own `x` is another call."""
    script(
        planloom,
        "a = echo(value=1)\nx = echo(value=1)\njoin(a, x)",
        "x = echo(value=2)\nb = echo(value=[x])\njoin(b)",
        join=['{"action": "replan", "feedback": "more"}', FINISH],
    )
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x"})
    assert result["tasks"]["b"]["output"] == [2]


async def test_calls_of_a_plan_that_was_refused_are_no_twins(
    planloom: Planloom, tools: Tools
) -> None:
    """`g` was in a replan that cost too much, so it never ran: `h` cannot stand on it."""
    many = "\n".join(f'q{n} = ask(prompt="question {n}")' for n in range(120))
    shown = ", ".join(f"q{n}" for n in range(120))
    script(
        planloom,
        'a = nap(name="a", seconds=3)\njoin(a)',
        f'g = echo(value="g")\n{many}\njoin(g, {shown})',
        'h = echo(value="g")\njoin(h)',
    )
    request = {"budget": {"tokens": 25_000}, "replan": {"max_rounds": 5}}
    async with planloom.worker(**tools):
        handle = await asked_for_another(planloom, request)
        await planloom.until(handle, lambda p: any("not taken" in n for n in p.notes))
        await handle.execute_update("request_replan", {"feedback": "less"})
        result = await planloom.result(handle)
    assert (result["status"], result["planning"]["repairs"]) == ("completed", 0)
    assert result["tasks"]["h"]["output"] == "g"


async def test_a_running_task_that_a_replan_writes_in_other_words_starts_anew(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    behind = 'b = nap(name="b", after=a)\njoin(b)'
    script(
        planloom,
        f'a = nap(name="a", seconds=30)\n{behind}',
        f'a = nap(name="a2", seconds=0.1)\n{behind}',
    )
    async with planloom.worker(**tools):
        handle = await asked_for_another(planloom, {})
        result = await planloom.result(handle)
    assert (result["status"], outcomes(result)) == (
        "completed",
        {"a": "succeeded", "b": "succeeded"},
    )
    assert result["tasks"]["a"]["output"] == "a2"
    assert [c for c in calls() if c.startswith("end")] == ["end a2", "end b"]


async def test_a_plan_that_comes_back_after_another_is_no_third_plan(
    planloom: Planloom, tools: Tools
) -> None:
    """A, then B, then A again: the fingerprint of what is left to do ends it."""
    first = 'a = broken(name="A")\njoin(a)'
    script(
        planloom,
        first,
        'b = broken(name="B")\njoin(b)',
        'a9 = broken(name="A")\njoin(a9)',
        join='{"action": "replan", "feedback": "again"}',
    )
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x", "replan": {"max_rounds": 9}})
    assert result["status"] in ("partial", "failed")
    assert "the new plan repeats revision 1" in result["reason"]
    assert result["rounds"] == 2


async def test_an_edit_of_a_running_plan_asks_again_only_when_it_is_material(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    tasks = [
        {"id": "a", "tool": "nap", "args": {"name": "a", "seconds": 1.2}},
        {"id": "b", "tool": "nap", "args": {"name": "b"}, "depends_on": ["a"]},
    ]
    act = {"id": "w", "tool": "write_file", "args": {"path": "x.txt", "text": "${b}"}}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks}, "approval": "major"})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.execute_update("approve_plan", {"revision": 1})
        await planloom.until(handle, lambda p: "a" in p.running)
        minor = [{"op": "replace", "path": "/tasks/1/args/name", "value": "bb"}]
        await handle.execute_update("edit_plan", {"revision": 1, "patch": minor})
        shown = await planloom.progress(handle)
        assert (shown.revision, shown.awaiting) == (2, None)
        material = [{"op": "add", "path": "/tasks/-", "value": act}]
        await handle.execute_update("edit_plan", {"revision": 2, "patch": material})
        shown = await planloom.until(handle, lambda p: p.awaiting == "approval")
        assert "side effects: w" in (shown.detail or "")
        await planloom.until(handle, lambda p: p.tasks["b"] == "succeeded")
        assert not (planloom.workspace / "x.txt").exists()
        await handle.execute_update("approve_plan", {"revision": 3, "by": "ops"})
        result = await planloom.result(handle)
    assert (result["status"], result["revision"]) == ("completed", 3)
    assert (planloom.workspace / "x.txt").read_text() == "bb"
