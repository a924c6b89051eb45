"""Signals and updates: pause, cancel, answer, approve, edit, raise; and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError

from planloom.client import Client
from tests.support.harness import Handle, Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]
ONE = {"tasks": [{"id": "a", "tool": "calculate", "args": {"expression": "1 + 1"}}]}


def nap(id: str, *after: str, seconds: float = 0.02, **more: Any) -> dict[str, Any]:
    args = {"name": id, "seconds": seconds}
    return {"id": id, "tool": "nap", "args": args, "depends_on": list(after), **more}


async def refused(handle: Handle, name: str, payload: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as seen:
        await handle.execute_update(name, payload)
    return str(seen.value.cause)


@pytest.mark.parametrize("way", ["signal", "update"])
async def test_pause_starts_nothing_new_and_resume_goes_on(
    planloom: Planloom, tools: Tools, calls: Calls, way: str
) -> None:
    async with planloom.worker(**tools):
        tasks = [nap("a", seconds=0.3), nap("b", "a")]
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await planloom.until(handle, lambda p: p.running == ["a"])
        do = handle.signal if way == "signal" else handle.execute_update
        await do("pause")
        await planloom.until(handle, lambda p: p.status == "paused" and p.tasks["a"] == "succeeded")
        await asyncio.sleep(0.1)
        assert "start b" not in calls()
        await do("resume")
        assert (await planloom.result(handle))["status"] == "completed"


async def test_a_cancelled_task_ends_and_its_siblings_go_on(
    planloom: Planloom, tools: Tools
) -> None:
    async with planloom.worker(**tools):
        tasks = [nap("long", seconds=30), nap("b", seconds=0.4), nap("c", "long")]
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await planloom.until(handle, lambda p: "long" in p.running)
        assert "no task" in await refused(handle, "cancel_task", {"id": "lnog"})
        await handle.execute_update("cancel_task", {"id": "long", "by": "ops"})
        result = await planloom.result(handle)
    outcomes = {t: r["outcome"] for t, r in result["tasks"].items()}
    assert outcomes == {"long": "cancelled", "b": "succeeded", "c": "skipped"}
    assert result["status"] == "partial"
    assert 'by "ops"' in result["tasks"]["long"]["reason"]


async def test_a_cancelled_run_says_what_was_finished(planloom: Planloom, tools: Tools) -> None:
    async with planloom.worker(**tools):
        tasks = [nap("a"), nap("long", "a", seconds=30), nap("z", "long")]
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await planloom.until(handle, lambda p: "long" in p.running)
        await handle.cancel()
        result = await planloom.result(handle)
    assert result["status"] == "cancelled"
    assert result["tasks"]["a"]["output"] == "a"
    assert result["tasks"]["long"]["outcome"] == "cancelled"


@pytest.mark.parametrize("way", ["signal", "update"])
async def test_a_person_answers_a_human_task(planloom: Planloom, way: str) -> None:
    human = {"question": "Which of ${n}?", "schema": {"type": "string", "enum": ["red", "blue"]}}
    tasks = [
        {"id": "n", "tool": "calculate", "args": {"expression": "2"}},
        {"id": "which", "human": human, "depends_on": ["n"]},
    ]
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${which}!"}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "human")
        assert shown.status == "waiting"
        assert "Which of 2?" in (shown.detail or "")
        said = await refused(handle, "complete_task", {"id": "which", "output": "green"})
        assert "needs one of red, blue" in said
        assert "no task" in await refused(handle, "complete_task", {"id": "who", "output": "red"})
        do = handle.signal if way == "signal" else handle.execute_update
        await do("complete_task", {"id": "which", "output": "blue", "by": "ann"})
        assert (await planloom.result(handle))["answer"] == "blue!"


async def test_people_answer_each_item_of_a_map_and_a_fallback(
    planloom: Planloom, tools: Tools
) -> None:
    # All items asked under the task's own id: one answer woke all, and the second found none.
    human = {"question": "How many ${item}?", "schema": {"type": "integer"}}
    tasks = [
        {"id": "h", "human": human, "map": ["apples", "pears"]},
        {"id": "f", "tool": "broken", "args": {}, "fallback": {"human": human["question"]}},
    ]
    tasks[1]["fallback"] = {"human": "What now?"}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${h}"}})
        shown = await planloom.until(handle, lambda p: "f: What now?" in (p.detail or ""))
        assert (shown.status, shown.awaiting) == ("waiting", "human")
        assert "h[1]: How many pears?" in (shown.detail or "")
        assert "Waiting: h[0], h[1], f" in await refused(
            handle, "complete_task", {"id": "h", "output": 1}
        )
        said = await refused(handle, "complete_task", {"id": "h[0]", "output": "many"})
        assert "needs integer" in said
        await handle.execute_update("complete_task", {"id": "h[1]", "output": 4})
        await handle.signal("complete_task", {"id": "h[0]", "output": 3})
        await handle.execute_update("complete_task", {"id": "f", "output": "x" * 5_000})
        result = await planloom.result(handle)
    assert result["answer"] == [3, 4]
    row = result["tasks"]["f"]
    assert (row["outcome"], row["size_bytes"]) == ("fallback", 5_000)
    assert len(row["blob"]) == 64


async def test_a_waiting_question_can_be_found_by_its_search_attribute(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": [{"id": "q", "human": "Well?"}]}})
        await planloom.until(handle, lambda p: p.awaiting == "human")
        found = (await handle.describe()).typed_search_attributes
        assert {p.key.name: p.value for p in found}["PlanloomAwaiting"] == ["human"]
        await handle.execute_update("complete_task", {"id": "q", "output": 1})
        await planloom.result(handle)


async def test_a_task_cancelled_before_its_first_step_lets_its_dependents_go_on(
    planloom: Planloom, tools: Tools
) -> None:
    # `resume` and `cancel_task` in one workflow task: a was cancelled before it ran at all, and
    # nobody started b, which its end had made ready.
    tasks = [nap("a", seconds=5), {"id": "b", "tool": "echo", "args": {"value": 1}}]
    tasks[1] |= {"depends_on": ["a"], "requires": "best_effort"}
    async with planloom.worker(**tools):
        handle = await planloom.start(
            {"plan": {"tasks": tasks}}, start_delay=timedelta(seconds=0.3)
        )
        await handle.signal("pause")
        await planloom.until(handle, lambda p: p.status == "paused")
    await handle.signal("resume")
    await handle.signal("cancel_task", {"id": "a"})
    async with planloom.worker(**tools):
        result = await planloom.result(handle, timeout=60)
    assert {t: r["outcome"] for t, r in result["tasks"].items()} == {
        "a": "cancelled",
        "b": "succeeded",
    }


async def test_long_notes_are_cut(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": [{"id": "q", "human": "Well?"}]}})
        await planloom.until(handle, lambda p: p.awaiting == "human")
        for _ in range(3):
            await handle.signal("complete_task", {"id": "x" * 20_000, "output": 1})
        await handle.signal("complete_task", {"id": "q", "output": 1})
        result = await planloom.result(handle)
    assert [len(note) for note in result["notes"][:3]] == [500] * 3


async def test_a_question_nobody_answers_falls_back(planloom: Planloom) -> None:
    task = {"id": "q", "human": "Well?", "timeout": "0.2s", "fallback": "no answer"}
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": [task], "answer": "${q}"}})
    assert (result["answer"], result["tasks"]["q"]["outcome"]) == ("no answer", "fallback")


async def test_an_approved_plan_runs_and_a_stale_decision_is_refused(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": ONE, "approval": "always"})
        shown = await planloom.until(handle, lambda p: p.awaiting == "approval")
        assert (shown.status, shown.revision, shown.tasks) == ("waiting", 1, {"a": "waiting"})
        assert "no revision 7" in await refused(handle, "approve_plan", {"revision": 7})
        assert "revision" in await refused(handle, "approve_plan", {})
        reply = await handle.execute_update("approve_plan", {"revision": 1, "by": "ops"})
        assert reply["accepted"]
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert any('approved by "ops"' in n for n in result["notes"])


async def test_of_two_approvers_the_second_is_refused(planloom: Planloom, tools: Tools) -> None:
    async with planloom.worker(**tools):
        plan = {"tasks": [nap("a", seconds=1)]}
        handle = await planloom.start({"plan": plan, "approval": "plan"})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.execute_update("approve_plan", {"revision": 1, "by": "ann"})
        said = await refused(handle, "reject_plan", {"revision": 1})
    assert 'approved already by "ann"' in said


async def test_a_rejected_plan_runs_nothing(planloom: Planloom, tools: Tools, calls: Calls) -> None:
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": [nap("a")]}, "approval": "plan"})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.signal("reject_plan", {"revision": 1, "reason": "too dear"})
        result = await planloom.result(handle)
    assert result["status"] == "rejected"
    assert "too dear" in result["reason"]
    assert calls() == []


@pytest.mark.parametrize(("then", "status"), [("approve", "completed"), ("reject", "rejected")])
async def test_an_approval_that_nobody_gives_ends_as_the_policy_says(
    planloom: Planloom, then: str, status: str
) -> None:
    approval = {"mode": "always", "timeout": "0.2s", "on_timeout": then}
    async with planloom.worker():
        result = await planloom.run({"plan": ONE, "approval": approval})
    assert result["status"] == status


async def test_an_approval_may_park_and_be_given_later(planloom: Planloom) -> None:
    approval = {"mode": "plan", "timeout": "0.1s", "on_timeout": "park"}
    async with planloom.worker():
        handle = await planloom.start({"plan": ONE, "approval": approval})
        await asyncio.sleep(1.0)  # it must not end at its time-out
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        await handle.signal("approve_plan", {"revision": 1})
        assert (await planloom.result(handle))["status"] == "completed"


async def test_an_edit_is_a_new_revision_that_must_be_approved(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": ONE, "approval": "plan"})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        patch = [{"op": "replace", "path": "/tasks/0/args/expression", "value": "40 + 2"}]
        reply = await handle.execute_update(
            "edit_plan", {"revision": 1, "patch": patch, "by": "ops"}
        )
        assert reply["revision"] == 2
        assert any("40 + 2" in line for line in await handle.query("diff"))
        said = await refused(handle, "approve_plan", {"revision": 1})
        assert 'replaced by 2 (by "ops")' in said
        await handle.execute_update("approve_plan", {"revision": 2})
        result = await planloom.result(handle)
    assert result["tasks"]["a"]["output"] == 42
    assert result["revision"] == 2


async def test_an_edit_passes_the_same_compiler(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": ONE, "approval": "plan"})
        await planloom.until(handle, lambda p: p.awaiting == "approval")
        bad = {"tasks": [{"id": "x", "tool": "calcluate", "args": {"expression": "${y}"}}]}
        said = await refused(handle, "edit_plan", {"revision": 1, "plan": bad})
        assert 'Did you mean "calculate"' in said
        assert 'no task "y"' in said
        patch = [{"op": "remove", "path": "/tasks/9"}]
        assert "edit_plan" in await refused(handle, "edit_plan", {"revision": 1, "patch": patch})
        assert "exactly one" in await refused(handle, "edit_plan", {"revision": 1})
        await handle.signal("approve_plan", {"revision": 1})
        assert (await planloom.result(handle))["revision"] == 1


async def test_an_edit_cannot_take_out_what_runs_but_may_add(
    planloom: Planloom, tools: Tools
) -> None:
    async with planloom.worker(**tools):
        tasks = [nap("run", seconds=0.6), nap("late", "run")]
        handle = await planloom.start({"plan": {"tasks": tasks}})
        await planloom.until(handle, lambda p: "run" in p.running)
        said = await refused(handle, "edit_plan", {"revision": 1, "plan": ONE})
        assert "tasks.run: cannot be removed: it is running" in said
        plan = {"tasks": [tasks[0], nap("new", "run")]}
        await handle.execute_update("edit_plan", {"revision": 1, "plan": plan})
        result = await planloom.result(handle)
    assert set(result["tasks"]) == {"run", "new"}
    assert result["status"] == "completed"


async def test_a_task_with_approval_waits_for_its_own_yes(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    async with planloom.worker(**tools):
        tasks = [nap("a"), nap("b", "a", approval=True), nap("c", approval=True)]
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"parallel": 1}})
        shown = await planloom.until(
            handle, lambda p: p.awaiting == "approval" and p.tasks["a"] == "succeeded"
        )
        assert "b" in (shown.detail or "")
        await handle.execute_update("approve_task", {"id": "b", "by": "ops"})
        await planloom.until(handle, lambda p: p.tasks["b"] == "succeeded")
        await handle.signal("approve_task", {"id": "c", "approve": False})
        result = await planloom.result(handle)
    assert result["tasks"]["c"]["outcome"] == "cancelled"
    assert "start c" not in calls()


@pytest.mark.parametrize(("then", "outcome"), [("approve", "succeeded"), ("reject", "cancelled")])
async def test_a_tasks_approval_that_nobody_gives_ends_as_the_policy_says(
    planloom: Planloom, tools: Tools, then: str, outcome: str
) -> None:
    approval = {"mode": "never", "timeout": "0.2s", "on_timeout": then}
    async with planloom.worker(**tools):
        request = {"plan": {"tasks": [nap("a", approval=True)]}, "approval": approval}
        result = await planloom.run(request)
    assert result["tasks"]["a"]["outcome"] == outcome


async def test_a_run_parks_at_its_task_cap_and_goes_on_when_it_is_raised(
    planloom: Planloom, tools: Tools
) -> None:
    async with planloom.worker(**tools):
        tasks = [nap("a"), nap("b", "a"), nap("c", "b")]
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"tasks": 2}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert shown.status == "waiting"
        assert "0 of 2 free" in (shown.detail or "")
        assert "below" in await refused(handle, "raise_budget", {"tasks": 1})
        await handle.execute_update("raise_budget", {"tasks": 3, "by": "ops"})
        result = await planloom.result(handle)
    assert result["status"] == "completed"


async def test_a_run_may_end_partial_at_its_cap(planloom: Planloom, tools: Tools) -> None:
    tasks = [nap("a"), nap("b", "a"), nap("c", "b")]
    request = {"plan": {"tasks": tasks}, "budget": {"tasks": 2}, "on_budget": "partial"}
    async with planloom.worker(**tools):
        result = await planloom.run(request)
    assert result["status"] == "partial"
    assert "budget" in result["reason"]
    assert result["tasks"]["b"]["output"] == "b"


async def test_time_is_a_cap_like_any_other(planloom: Planloom, tools: Tools) -> None:
    tasks = [nap("a", seconds=0.4), nap("b", "a")]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"seconds": 0.2}})
        await planloom.until(handle, lambda p: p.awaiting == "budget")
        await handle.execute_update("raise_budget", {"seconds": 60})
        assert (await planloom.result(handle))["status"] == "completed"
        late = [nap("a", seconds=20)]
        capped = {"plan": {"tasks": late}, "budget": {"seconds": 0.2, "on_budget": "partial"}}
        assert (await planloom.run(capped))["status"] == "partial"


async def test_a_signal_that_comes_too_late_is_noted_and_changes_nothing(
    planloom: Planloom, tools: Tools
) -> None:
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": [nap("a", seconds=0.3)]}})
        await handle.signal("approve_plan", {"revision": 9})
        await handle.signal("complete_task", {"wrong": 1})
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert sum("signal ignored" in n for n in result["notes"]) == 2


async def test_stop_when_ends_the_run_early_and_says_what_that_saved(
    planloom: Planloom, tools: Tools
) -> None:
    tasks = [nap("quick"), nap("slow", seconds=20), nap("after", "slow")]
    plan = {"tasks": tasks, "stop_when": "quick.output == 'quick'", "answer": "${quick}"}
    plan["tasks"].append({"id": "keep", "tool": "echo", "args": {"value": "${slow}"}})
    plan["answer"] = {"quick": "${quick}", "slow": "${keep}"}
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": plan})
    assert result["status"] == "completed"
    assert result["answer"]["quick"] == "quick"
    assert result["tasks"]["slow"]["outcome"] == "cancelled"
    assert result["usage"]["saved"]["tasks"] >= 2


async def test_a_stop_when_that_does_not_fit_the_values_stops_nothing_and_is_told(
    planloom: Planloom,
) -> None:
    # It hung: the condition was judged after the first task, when `b` had no value yet.
    tasks = [
        {"id": "a", "tool": "calculate", "args": {"expression": "1 + 1"}},
        {"id": "b", "tool": "list_files", "args": {}, "depends_on": ["a"]},
    ]
    async with planloom.worker():
        fits_later = await planloom.run(
            {"plan": {"tasks": tasks, "stop_when": "length(b.output) >= `0`"}}
        )
        fits_never = await planloom.run({"plan": {"tasks": tasks, "stop_when": "length(a.output)"}})
    assert (fits_later["status"], fits_later["notes"]) == ("completed", [])
    assert fits_never["status"] == "completed"
    assert "stop_when" in fits_never["notes"][0]
    assert "length()" in fits_never["notes"][0]


async def test_a_when_that_does_not_fit_the_values_fails_its_task_alone(
    planloom: Planloom, tools: Tools
) -> None:
    large = {"id": "large", "tool": "big", "args": {"megabytes": 1}}
    tasks = [
        large,
        {"id": "asks", "tool": "echo", "args": {"value": 1}, "when": "sum(large.output) > `1`"},
        {"id": "other", "tool": "echo", "args": {"value": 2}, "depends_on": ["large"]},
    ]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    assert {t: r["outcome"] for t, r in result["tasks"].items()} == {
        "large": "succeeded",
        "asks": "failed",
        "other": "succeeded",
    }
    assert "sum()" in result["tasks"]["asks"]["error"]


async def test_a_large_value_that_does_not_fit_fails_where_it_is_used_and_nothing_else(
    planloom: Planloom, tools: Tools
) -> None:
    # A failed local activity reaches a workflow bare, without the ActivityError around others.
    tasks = [
        {"id": "large", "tool": "big", "args": {"megabytes": 1}},
        {"id": "each", "tool": "echo", "args": {"value": "${item}"}, "map": "${large}"},
        {"id": "other", "tool": "echo", "args": {"value": 2}, "depends_on": ["large"]},
    ]
    async with planloom.worker(**tools):
        result = await planloom.run(
            {"plan": {"tasks": tasks, "answer": ["${each}", "${other}", "${large | sum(@)}"]}}
        )
    assert {t: r["outcome"] for t, r in result["tasks"].items()} == {
        "large": "succeeded",
        "each": "failed",
        "other": "succeeded",
    }
    assert result["status"] == "partial"
    assert "sum()" in result["reason"]


async def test_a_map_over_no_list_at_the_cap_of_tasks_fails_alone(planloom: Planloom) -> None:
    tasks = [
        {"id": "a", "tool": "calculate", "args": {"expression": "1"}},
        {"id": "m", "tool": "calculate", "args": {"expression": "${item}"}, "map": "${a}"},
    ]
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": tasks}, "budget": {"tasks": 1}})
    assert (result["status"], result["tasks"]["m"]["outcome"]) == ("partial", "failed")
    assert "needs a list" in result["tasks"]["m"]["error"]


async def test_what_waits_in_sub_plans_below_is_shown_and_answered_at_the_root(
    planloom: Planloom, tools: dict[str, str]
) -> None:
    """A question two levels down, and a task that waits for approval one level down."""
    leaf = {"tasks": [{"id": "ask", "human": "Which?"}], "answer": "${ask}"}
    held = {"id": "act", "tool": "echo", "args": {"value": "acted"}, "approval": True}
    middle = {"tasks": [{"id": "leaf", "plan": leaf}, held], "answer": ["${leaf}", "${act}"]}
    plan = {"tasks": [{"id": "mid", "plan": middle}], "answer": "${mid}"}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan})
        shown = await planloom.until(handle, lambda p: len(p.waits) == 2)
        assert shown.awaiting == "approval"
        found = {w.task: w for w in shown.waits}
        assert set(found) == {"mid.leaf.ask", "mid.act"}
        for wait in shown.waits:
            assert f"--workflow-id {handle.id} " in wait.command
            assert f"--name {wait.update} " in wait.command
        run = Client(planloom.client, planloom.task_queue).run(handle.id)
        await run.approve(task="mid.act")
        await run.answer("this one")
        result = await planloom.result(handle)
        assert (await planloom.progress(handle)).waits == []
    assert result["answer"] == ["this one", "acted"]
