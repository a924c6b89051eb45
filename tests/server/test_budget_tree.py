"""One budget over all that a run does: planner, tasks, fallbacks, replans, sub-plans, agents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Handle, Planloom

Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'
USAGE = {"prompt_tokens": 100, "completion_tokens": 50}


def nap(id: str, *after: str, seconds: float = 0.02, **more: Any) -> dict[str, Any]:
    args = {"name": id, "seconds": seconds}
    return {"id": id, "tool": "nap", "args": args, "depends_on": list(after), **more}


async def within(handle: Handle, cap: int, name: str = "tokens") -> dict[str, Any]:
    usage = dict(await handle.query("usage"))
    assert usage["settled"][name] + usage["reserved"][name] <= cap, usage
    return usage


async def test_tasks_of_sub_plans_count_and_the_run_parks_at_its_cap(
    planloom: Planloom, tools: Tools
) -> None:
    inner = {"tasks": [nap(f"i{n}", *([f"i{n - 1}"] if n else [])) for n in range(6)]}
    plan = {"tasks": [{"id": "sub", "plan": inner}, nap("z", "sub")]}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"tasks": 4}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert "0 of 4 free" in (shown.detail or "")
        await within(handle, 4, "tasks")
        child = planloom.client.get_workflow_handle(f"{handle.id}/sub")
        assert (await planloom.progress(child)).counts["succeeded"] == 3
        await handle.execute_update("raise_budget", {"tasks": 8})
        result = await planloom.result(handle)
    assert (result["status"], result["usage"]["tasks"]) == ("completed", 8)


async def test_what_a_cancelled_sub_plan_has_used_is_charged(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("", Reply(text="ok", usage=USAGE))
    inner = {"tasks": [{"id": "q", "ask": "hello"}, nap("long", "q", seconds=30)]}
    plan = {"tasks": [{"id": "sub", "plan": inner}, nap("z")]}
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": plan, "budget": {"tokens": 50_000}})
        child = planloom.client.get_workflow_handle(f"{handle.id}/sub")
        await planloom.until(handle, lambda p: "sub" in p.running)
        await planloom.until(child, lambda p: "long" in p.running)
        await handle.execute_update("cancel_task", {"id": "sub"})
        result = await planloom.result(handle)
    assert result["tasks"]["sub"]["outcome"] == "cancelled"
    assert result["usage"]["tokens"] == 150


async def test_a_fallback_is_the_same_task_and_waits_for_its_budget(
    planloom: Planloom, tools: Tools
) -> None:
    planloom.model.script("", Reply(text="ok", usage=USAGE))
    other = {"ask": {"prompt": "instead", "max_tokens": 60}}
    plan = {
        "tasks": [{"id": "a", "tool": "broken", "args": {}, "fallback": other}],
        "answer": "${a}",
    }
    async with planloom.worker(**tools):
        request = {"plan": plan, "budget": {"tokens": 100, "tasks": 1}}
        handle = await planloom.start(request)
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert (shown.status, "tokens" in (shown.detail or "")) == ("waiting", True)
        await handle.execute_update("raise_budget", {"tokens": 1_000})
        result = await planloom.result(handle)
        capped = await planloom.run({**request, "on_budget": "partial"})
    assert (result["status"], result["answer"]) == ("completed", "ok")
    assert result["usage"]["tasks"] == 1
    assert "no budget for the fallback" in capped["tasks"]["a"]["error"]


async def test_a_cap_below_the_planners_own_need_parks_and_everybody_can_see_it(
    planloom: Planloom,
) -> None:
    planloom.model.script(PLANNER, 'a = calculate(expression="7")\njoin(answer="${a}")')
    async with planloom.worker():
        handle = await planloom.start({"goal": "x", "budget": {"tokens": 100}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert (shown.status, shown.revision) == ("waiting", 0)
        assert "planner needs" in (shown.detail or "")
        assert "100 of 100 free" in (shown.detail or "")
        await handle.execute_update("pause")  # what else goes on does not hide it
        await handle.execute_update("resume")
        assert (await planloom.progress(handle)).awaiting == "budget"
        described = await handle.describe()
        found = {k.name: v for k, v in described.typed_search_attributes}
        assert found["PlanloomAwaiting"] == ["budget"]
        assert planloom.model.calls() == 0
        await handle.execute_update("raise_budget", {"tokens": 30_000})
        result = await planloom.result(handle)
        ended = await planloom.run({"goal": "x", "budget": {"tokens": 100, "on_budget": "partial"}})
    assert (result["status"], result["answer"]) == ("completed", 7)
    assert ended["status"] == "partial"
    assert "planner needs" in ended["reason"]


async def test_a_model_without_a_price_is_charged_what_it_reserved(planloom: Planloom) -> None:
    planloom.model.script("", Reply(text="ok", usage=USAGE))
    tasks = [{"id": "a", "ask": {"prompt": "1", "max_tokens": 60}}]
    async with planloom.worker(PLANLOOM_MODEL="nobody-knows-it"):
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"usd": 1.0}})
        await planloom.result(handle)
        usage = await within(handle, 1, "usd")
    assert usage["unpriced_calls"] == 1
    assert 0 < usage["settled"]["usd"] < 1


async def test_a_prompt_of_wide_characters_is_reserved_for_what_it_may_take(
    planloom: Planloom,
) -> None:
    """A Chinese character may take a token of its own: 600 of them do not fit into 600 tokens."""
    planloom.model.script(
        "", Reply(text="好", usage={"prompt_tokens": 640, "completion_tokens": 9})
    )
    tasks = [{"id": "a", "ask": {"prompt": "天" * 600, "max_tokens": 64}}]
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"tokens": 500}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert "of 500 free" in (shown.detail or "")
        await handle.execute_update("raise_budget", {"tokens": 1_200})
        assert (await planloom.result(handle))["usage"]["tokens"] == 649


@pytest.mark.slow
async def test_a_worker_that_dies_while_budget_is_reserved_takes_none_of_it(
    planloom: Planloom,
) -> None:
    answers = [Reply(text="ok", usage=USAGE, delay=30), Reply(text="ok", usage=USAGE)]
    planloom.model.script("", *answers)
    tasks = [{"id": f"a{n}", "ask": {"prompt": f"{n}", "max_tokens": 60}} for n in range(2)]
    tasks[1]["depends_on"] = ["a0"]
    async with planloom.worker_process() as worker:
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"tokens": 400}})
        await planloom.until(handle, lambda p: p.running == ["a0"])
        held = (await within(handle, 400))["reserved"]["tokens"]
        await worker.kill()
        await worker.start()
        assert (await within(handle, 400))["reserved"]["tokens"] == held > 0
        result = await planloom.result(handle, timeout=60)
    assert (result["status"], result["usage"]["tokens"]) == ("completed", 300)


@pytest.mark.parametrize("seed", range(4))
async def test_everything_together_stays_within_the_cap(
    planloom: Planloom, tools: Tools, seed: int
) -> None:
    """Planner, repairs, asks, fallbacks, a sub-plan, an agent, a replan: parked and raised."""
    planloom.model.script(
        PLANNER,
        "prose",
        'q = ask(prompt="first")\nbad = broken(_fallback=ask("instead"))\n'
        'look = agent("researcher", task="Look into ${q}")\njoin(q, bad, look)',
        'r = ask(prompt="second ${q}")\njoin(r)',
    )
    planloom.model.script(JOINER, '{"action": "replan", "feedback": "more"}', FINISH)
    planloom.model.script("", "SUMMARY: s\nRESULT: words\nNEXT_STEP: none")
    cap = 3_000 + 1_500 * seed
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "x", "budget": {"tokens": cap}})
        for _ in range(40):
            shown = await planloom.until(
                handle, lambda p: p.awaiting == "budget" or p.status in ("completed", "partial")
            )
            await within(handle, cap)
            if shown.awaiting is None:
                break
            cap += 1_500
            await handle.execute_update("raise_budget", {"tokens": cap})
        result = await planloom.result(handle)
    assert result["tasks"]["r"]["outcome"] == "succeeded"
    assert result["usage"]["tokens"] == planloom.model.tokens_paid() <= cap
