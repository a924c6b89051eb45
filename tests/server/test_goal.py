"""Goals: streamed planning, repair, joining, replanning, budgets; with a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'


def plan(planloom: Planloom, *replies: Any) -> None:
    planloom.model.script(PLANNER, *replies)


def join(planloom: Planloom, *replies: Any) -> None:
    planloom.model.script(JOINER, *replies)


async def test_a_goal_is_planned_run_and_answered(planloom: Planloom) -> None:
    plan(planloom, 'a = calculate(expression="6 * 7")\nb = ask(prompt="Say ${a}")\njoin(a, b)')
    join(planloom, '{"action": "finish", "answer": {"n": 42}}')
    planloom.model.script("Say 42", "forty-two")
    async with planloom.worker():
        handle = await planloom.start({"goal": "What is six times seven?"})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"], result["revision"]) == ("completed", {"n": 42}, 1)
    assert result["tasks"]["b"]["output"] == "forty-two"
    assert result["usage"]["model_calls"] == 3
    joined = planloom.model.seen(JOINER)[0].text
    assert "forty-two" in joined
    assert "What is six times seven?" in joined


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("syntax", ["calls", "json"])
async def test_both_syntaxes_work_streamed_and_not(
    planloom: Planloom, syntax: str, stream: bool
) -> None:
    texts = {
        "calls": 'a = calculate(expression="2 + 3")\njoin(answer="five: ${a}")',
        "json": '{"tasks": [{"id": "a", "tool": "calculate", "args": {"expression": "2 + 3"}}], '
        '"answer": "five: ${a}"}',
    }
    planloom.model.script("", texts[syntax])
    async with planloom.worker():
        result = await planloom.run({"goal": "add", "syntax": syntax, "stream": stream})
    assert (result["status"], result["answer"]) == ("completed", "five: 5")
    assert planloom.model.calls_paid() == 1  # an answer in the plan needs no joiner


async def test_tasks_start_while_the_model_still_writes(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    """The input of `b` ends in the pause before the join line: `b` starts then, not after it."""
    lines = ['a = nap(name="a", seconds=0.2)\nb = nap(name="b", after=a)\n', 2.0, "join(b)\n"]
    plan(planloom, Reply(text=lines, chunking="line"))
    join(planloom, FINISH)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "nap"})
    times = {t: r["times"] for t, r in result["tasks"].items()}
    assert times["b"]["started"] - times["a"]["ended"] < 0.5
    assert result["planning"]["overlap_seconds"] > 1.0
    assert result["planning"]["first_task_seconds"] < 1.5


async def test_llmcompilers_own_text_is_understood(planloom: Planloom) -> None:
    text = '1. calculate("1 + 1")\n2. calculate("$1 * 4")\n3. join()<END_OF_PLAN>'
    plan(planloom, text)
    join(planloom, "Thought: enough\nAction: Finish(It is 8 (eight))")
    async with planloom.worker():
        result = await planloom.run({"goal": "eight"})
    assert result["tasks"]["2"]["output"] == 8
    assert result["answer"] == "It is 8 (eight)"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ('a = calculate(expresion="1")\njoin(a)', 'Did you mean "expression"'),
        ('a = calcluate(expression="1")\njoin(a)', 'Did you mean "calculate"'),
        ("I am sorry, I cannot plan this.", "no tasks"),
        ("", "no tasks"),
        ('b = calculate(expression="${a}")\na = calculate(expression="1")', "written later"),
        ('a = calculate(expression="1"\njoin(a)', "not closed"),
    ],
)
async def test_a_plan_that_does_not_compile_goes_back_with_its_problems(
    planloom: Planloom, bad: str, told: str
) -> None:
    plan(planloom, bad, 'z = calculate(expression="7")\njoin(answer="${z}")')
    async with planloom.worker():
        result = await planloom.run({"goal": "seven"})
    assert (result["status"], result["answer"]) == ("completed", 7)
    assert result["planning"]["repairs"] == 1
    assert told in planloom.model.seen(PLANNER)[1].text


async def test_a_model_that_never_plans_ends_bounded_and_clear(planloom: Planloom) -> None:
    planloom.model.script("", "Je ne sais pas.")
    async with planloom.worker():
        result = await planloom.run({"goal": "anything"})
    assert result["status"] == "failed"
    assert "no plan after 3 answers" in result["reason"]
    assert planloom.model.calls_paid() == 3


async def test_an_invalid_tail_leaves_what_was_accepted(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    plan(planloom, 'a = nap(name="a")\nb = napp(name="b")\n', 'c = nap(name="c")\njoin(a, c)')
    join(planloom, FINISH)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "nap"})
    assert {t: r["outcome"] for t, r in result["tasks"].items()} == {
        "a": "succeeded",
        "c": "succeeded",
    }
    assert calls().count("start a") == 1


async def test_the_same_call_ten_times_is_made_once(planloom: Planloom) -> None:
    lines = [f'a{n} = calculate(expression="1 + 1")' for n in range(10)]
    plan(planloom, "\n".join([*lines, 'join(answer=["${a0}", "${a9}"])']))
    async with planloom.worker():
        result = await planloom.run({"goal": "two"})
    assert result["answer"] == [2, 2]
    assert result["usage"]["tool_calls"] == 1


async def test_a_replan_keeps_what_is_finished(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    plan(
        planloom,
        'a = nap(name="a")\njoin(a)',
        'b = nap(name="b", after=a)\njoin(a, b)',
    )
    join(planloom, '{"action": "replan", "feedback": "need b"}', FINISH)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "nap"})
        result = await planloom.result(handle)
        diff = await handle.query("diff")
    assert result["status"] == "completed"
    assert (result["revision"], result["rounds"]) == (2, 1)
    assert calls().count("start a") == 1
    assert any(line.startswith("+ b") for line in diff)
    second = planloom.model.seen(PLANNER)[1].text
    assert "need b" in second


async def test_many_finished_tasks_reach_joiner_and_planner_by_reference(
    planloom: Planloom, tools: Tools
) -> None:
    lines = [f't{n} = echo(value="value {n} {"x" * 1500}")' for n in range(40)]
    plan(
        planloom,
        "\n".join(lines) + "\njoin(" + ", ".join(f"t{n}" for n in range(40)) + ")",
        "u = echo(value=t39)\njoin(u)",
    )
    join(planloom, '{"action": "replan", "feedback": "again"}', FINISH)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "many"})
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert "value 39 xxx" in planloom.model.seen(JOINER)[0].text
    assert "t39" in planloom.model.seen(PLANNER)[1].text
    events = (await planloom.history(handle)).events
    calls = [e for e in events if e.HasField("activity_task_scheduled_event_attributes")]
    sizes = {
        e.activity_task_scheduled_event_attributes.activity_id: e.ByteSize()
        for e in calls
        if e.activity_task_scheduled_event_attributes.activity_id.startswith(("join", "plan"))
    }
    assert len(sizes) == 4
    assert max(sizes.values()) < 20_000, sizes


async def test_a_joiner_that_always_replans_ends_bounded(planloom: Planloom) -> None:
    replies = [f'r{n} = calculate(expression="{n}")\njoin(r{n})' for n in range(9)]
    plan(planloom, *replies)
    join(planloom, '{"action": "replan", "feedback": "more"}')
    async with planloom.worker():
        result = await planloom.run({"goal": "x", "replan": {"max_rounds": 2}})
    assert result["status"] == "partial"
    assert "max_rounds 2 is used up" in result["reason"]
    assert set(result["tasks"]) == {"r0", "r1", "r2"}
    assert result["answer"]  # what was found is not lost


async def test_a_replan_that_repeats_itself_is_stopped(planloom: Planloom) -> None:
    plan(planloom, 'a = calculate(expression="1")\njoin(a)')  # the same plan for ever
    join(planloom, '{"action": "replan", "feedback": "again"}')
    async with planloom.worker():
        result = await planloom.run({"goal": "x", "replan": {"max_rounds": 5}})
    assert result["status"] == "partial"
    assert result["usage"]["tool_calls"] == 1
    assert result["rounds"] <= 2


async def test_zero_rounds_means_the_first_plan_is_the_only_one(planloom: Planloom) -> None:
    plan(planloom, 'a = calculate(expression="1")\njoin(a)')
    join(planloom, '{"action": "replan", "feedback": "again"}')
    async with planloom.worker():
        result = await planloom.run({"goal": "x", "replan": {"max_rounds": 0}})
    assert (result["status"], result["rounds"]) == ("partial", 0)


async def test_failures_are_shown_to_the_joiner_with_their_cause(
    planloom: Planloom, tools: Tools
) -> None:
    plan(planloom, 'a = broken(name="Pump")\nb = nap(name="b")\njoin(a, b)')
    join(planloom, FINISH)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "x"})
    assert result["status"] == "partial"
    assert result["answer"] == "done"
    assert "Pump is out of order" in planloom.model.seen(JOINER)[0].text


async def test_a_person_may_ask_for_another_plan(planloom: Planloom, tools: Tools) -> None:
    plan(planloom, 'a = nap(name="a", seconds=1.0)\njoin(a)', 'b = nap(name="b")\njoin(b)')
    join(planloom, FINISH)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "nap"})
        await planloom.until(handle, lambda p: "a" in p.running and p.revision == 1)
        await handle.execute_update("request_replan", {"feedback": "use b", "by": "ann"})
        result = await planloom.result(handle)
    assert result["tasks"]["b"]["outcome"] == "succeeded"
    assert result["tasks"]["a"]["outcome"] == "cancelled"
    assert result["status"] == "completed"
    assert "use b" in planloom.model.seen(PLANNER)[1].text


async def test_a_planned_goal_waits_for_approval_before_anything_runs(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    plan(planloom, 'a = nap(name="a")\njoin(a)')
    join(planloom, FINISH)
    async with planloom.worker(**tools):
        handle = await planloom.start({"goal": "nap", "approval": "plan"})
        shown = await planloom.until(handle, lambda p: p.awaiting == "approval")
        assert shown.tasks == {"a": "waiting"}
        assert calls() == []
        await handle.signal("approve_plan", {"revision": 1, "by": "ops"})
        assert (await planloom.result(handle))["status"] == "completed"


async def test_a_major_replan_asks_and_a_minor_one_does_not(planloom: Planloom) -> None:
    plan(
        planloom,
        'a = calculate(expression="1")\njoin(a)',
        'w = write_file(path="x.txt", text="${a}")\njoin(w)',
    )
    join(planloom, '{"action": "replan", "feedback": "write it"}', FINISH)
    async with planloom.worker():
        handle = await planloom.start({"goal": "x", "approval": "major"})
        await planloom.until(handle, lambda p: p.awaiting == "approval" and p.revision == 1)
        await handle.signal("approve_plan", {"revision": 1})
        shown = await planloom.until(handle, lambda p: p.awaiting == "approval" and p.revision == 2)
        assert "side effects: w" in (shown.detail or "")
        await handle.signal("approve_plan", {"revision": 2})
        assert (await planloom.result(handle))["status"] == "completed"
    assert (planloom.workspace / "x.txt").read_text() == "1"


async def test_a_dead_endpoint_is_named_with_model_and_cause(planloom: Planloom) -> None:
    async with planloom.worker(OPENAI_BASE_URL="http://127.0.0.1:9/v1"):
        result = await planloom.run({"goal": "x"}, timeout=60)
    assert result["status"] == "failed"
    assert "127.0.0.1:9" in result["reason"]
    assert "test-model" in result["reason"]


async def test_a_refused_key_fails_at_once_and_never_shows_the_key(planloom: Planloom) -> None:
    planloom.model.script("", Reply(status=401, body={"error": {"message": "bad key test-key"}}))
    async with planloom.worker():
        handle = await planloom.start({"goal": "x"})
        result = await planloom.result(handle)
        history = (await planloom.history(handle)).to_json()
    assert result["status"] == "failed"
    assert planloom.model.calls() == 1
    assert "test-key" not in history


async def test_a_429_costs_no_attempt(planloom: Planloom) -> None:
    busy = Reply(status=429, headers={"retry-after": "0.1"})
    planloom.model.script("Say hi", busy, busy, busy, busy, "hi")
    task = {"id": "a", "ask": "Say hi", "retry": {"max_attempts": 1}}
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": [task]}})
    assert result["tasks"]["a"]["output"] == "hi"


async def test_an_ask_with_a_schema_gives_json(planloom: Planloom) -> None:
    planloom.model.script("How many", '{"n": "three"}', '{"n": 3}')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    task = {"id": "a", "ask": {"prompt": "How many?", "output_schema": schema}}
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": [task], "answer": "${a.n}"}})
    assert result["answer"] == 3


async def test_tokens_park_the_run_and_the_cap_is_never_passed(planloom: Planloom) -> None:
    planloom.model.script(
        "", Reply(text="ok", usage={"prompt_tokens": 100, "completion_tokens": 50})
    )
    tasks = [
        {"id": f"a{n}", "ask": {"prompt": f"{n}", "max_tokens": 60}, "depends_on": before}
        for n, before in enumerate([[], ["a0"], ["a1"], ["a2"]])
    ]
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"tokens": 400}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        usage = await handle.query("usage")
        assert usage["tokens"] + usage["reserved"]["tokens"] <= 400
        assert shown.counts["succeeded"] == 2
        await handle.execute_update("raise_budget", {"tokens": 2_000})
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert result["usage"]["tokens"] == 600


async def test_a_sub_plan_asks_its_parent_for_more_budget_and_both_park(
    planloom: Planloom,
) -> None:
    planloom.model.script(
        "", Reply(text="ok", usage={"prompt_tokens": 100, "completion_tokens": 50})
    )
    asks = [
        {"id": f"a{n}", "ask": {"prompt": f"{n}", "max_tokens": 60}, "depends_on": before}
        for n, before in enumerate([[], ["a0"], ["a1"], ["a2"]])
    ]
    tasks = [{"id": "sub", "plan": {"tasks": asks}, "estimate": {"tokens": 300}}]
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"tokens": 400}})
        shown = await planloom.until(handle, lambda p: p.awaiting == "budget")
        assert "sub" in (shown.detail or "")
        await handle.execute_update("raise_budget", {"tokens": 5_000})
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert result["usage"]["tokens"] == 600


async def test_the_joiner_is_not_kept_waiting_for_what_it_is_not_shown(
    planloom: Planloom, tools: Tools
) -> None:
    lines = 'a = nap(name="a")\nslow = nap(name="slow", seconds=20)\njoin(a)'
    plan(planloom, lines)
    join(planloom, FINISH)
    async with planloom.worker(**tools):
        result = await planloom.run({"goal": "nap"}, timeout=10)
    assert result["status"] == "completed"
    assert result["seconds"] < 5


async def test_each_role_calls_its_own_model(planloom: Planloom) -> None:
    plan(planloom, 'b = ask(prompt="Say hi")\njoin(b)')
    join(planloom, FINISH)
    planloom.model.script("Say hi", "hi")
    roles = {"planner": "big", "joiner": "middle", "worker": "small"}
    async with planloom.worker():
        await planloom.run({"goal": "x", "model": roles})
    assert planloom.model.seen(PLANNER)[0].model == "big"
    assert planloom.model.seen(JOINER)[0].model == "middle"
    assert planloom.model.seen("Say hi")[0].model == "small"


@pytest.mark.parametrize("seed", range(20))
async def test_no_random_run_passes_its_cap_by_a_token_and_parked_runs_go_on(
    planloom: Planloom, seed: int
) -> None:
    """Every query along the way: settled + reserved within the cap."""
    chance = Random(seed)
    usage = {"prompt_tokens": chance.randint(5, 60), "completion_tokens": chance.randint(1, 60)}
    planloom.model.script("", Reply(text="ok", usage=usage, delay=0.01))
    tasks: list[dict[str, Any]] = []
    for n in range(chance.randint(4, 10)):
        before = [t["id"] for t in tasks if chance.random() < 0.3][:2]
        ask = {"prompt": f"question {n}", "max_tokens": 60}
        tasks.append({"id": f"a{n}", "ask": ask, "depends_on": before})
    cap = chance.randint(150, 500)
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": tasks}, "budget": {"tokens": cap}})
        for _ in range(12):
            shown = await planloom.until(
                handle, lambda p: p.awaiting == "budget" or p.status == "completed"
            )
            seen = await handle.query("usage")
            assert seen["tokens"] + seen["reserved"]["tokens"] <= cap
            if shown.status == "completed":
                break
            cap += chance.randint(150, 400)
            await handle.execute_update("raise_budget", {"tokens": cap})
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert result["usage"]["tokens"] == len(tasks) * sum(usage.values()) <= cap


@pytest.mark.parametrize(("mode", "paid"), [("off", 4), ("run", 2), ("shared", 1)])
async def test_cache_reuses_by_content_in_a_run_or_between_runs(
    planloom: Planloom, mode: str, paid: int
) -> None:
    planloom.model.script("", "ok")
    tasks = [{"id": "a", "ask": "same"}, {"id": "b", "ask": "same", "depends_on": ["a"]}]
    async with planloom.worker():
        first = await planloom.run({"plan": {"tasks": tasks}, "cache": mode})
        second = await planloom.run({"plan": {"tasks": tasks}, "cache": mode})
    assert planloom.model.calls_paid("same") == paid
    outcomes = [r["tasks"][t]["outcome"] for r in (first, second) for t in "ab"]
    assert outcomes.count("cached") == 4 - paid


async def test_a_goal_whose_stop_when_is_not_met_is_planned_again(planloom: Planloom) -> None:
    plan(
        planloom,
        'a = calculate(expression="1")\njoin(answer="${a}")',
        'b = calculate(expression="${a} + 8")\njoin(answer="${b}")',
    )
    request = {"goal": "more than five", "stop_when": "b.output > `5`"}
    async with planloom.worker():
        result = await planloom.run(request)
    assert (result["status"], result["answer"], result["rounds"]) == ("completed", 9, 1)
    assert "stop_when is not met" in planloom.model.seen(PLANNER)[1].text


async def test_a_replan_that_the_budget_cannot_pay_is_refused_with_its_numbers(
    planloom: Planloom,
) -> None:
    many = "\n".join(f'q{n} = ask(prompt="question {n}")' for n in range(40))
    plan(planloom, 'a = calculate(expression="1")\njoin(a)', f"{many}\njoin(q1)")
    join(planloom, '{"action": "replan", "feedback": "ask everything"}')
    async with planloom.worker():
        result = await planloom.run({"goal": "x", "budget": {"tokens": 12_000}})
    assert result["status"] == "partial"
    assert "it would likely take" in result["reason"]
    assert "a" in result["tasks"]


async def test_without_a_key_or_an_endpoint_the_run_says_what_to_set(planloom: Planloom) -> None:
    async with planloom.worker(OPENAI_BASE_URL="", OPENAI_API_KEY="", PLANLOOM_MODEL=""):
        result = await planloom.run({"goal": "x"})
    assert result["status"] == "failed"
    assert "set OPENAI_API_KEY or OPENAI_BASE_URL" in result["reason"]


async def test_a_goal_may_use_a_tool_an_agent_and_a_team_and_its_replan_be_approved(
    planloom: Planloom,
) -> None:
    plan(
        planloom,
        'n = calculate(expression="6 * 7")\n'
        'look = agent("researcher", task="Look into ${n}")\n'
        'view = team("core-delivery", task="Decide on ${look}", rounds=0)\n'
        "join(look, view)",
        'more = calculate(expression="${n} + 1")\njoin(answer="${more}: ${view}")',
    )
    join(planloom, '{"action": "replan", "feedback": "one more"}')
    form = "SUMMARY: s\nCLAIM: yes\nEVIDENCE: e\nCONFIDENCE: 0.9\n"
    form += "RESULT: yes, and at length\nNEXT_STEP: none"
    planloom.model.script("You judge", '{"verdict": "trusted", "reason": "ok", "answer": "agreed"}')
    planloom.model.script("Look into 42", "looked")
    planloom.model.script("Decide on looked", form)
    async with planloom.worker():
        handle = await planloom.start({"goal": "decide", "approval": "replan"})
        shown = await planloom.until(handle, lambda p: p.awaiting == "approval", timeout=30)
        assert shown.tasks["view"] == "succeeded"
        await handle.signal("approve_plan", {"revision": 2, "by": "ops"})
        result = await planloom.result(handle)
    assert (result["status"], result["answer"]) == ("completed", "43: agreed")
    offered = planloom.model.seen(PLANNER)[0].text
    assert "researcher" in offered
    assert "core-delivery" in offered


@pytest.mark.parametrize("phase", ["planning", "joining"])
async def test_a_goal_that_is_cancelled_while_a_model_writes_ends_as_cancelled(
    planloom: Planloom, phase: str
) -> None:
    slow = Reply(text="Thought: let me think about this for a while", token_seconds=1)
    plan(planloom, slow if phase == "planning" else 'a = calculate(expression="1")\njoin(a)')
    join(planloom, slow)
    async with planloom.worker():
        handle = await planloom.start({"goal": "x"})
        await planloom.until(handle, lambda p: p.status == phase)
        await handle.cancel()
        result = await planloom.result(handle)
    assert (result["status"], result["reason"]) == ("cancelled", "the run was cancelled")


async def test_two_runs_that_ask_the_same_at_once_pay_once(planloom: Planloom) -> None:
    planloom.model.script("same", Reply(text="ok", delay=0.8))
    request = {"plan": {"tasks": [{"id": "a", "ask": "same"}]}, "cache": "shared"}
    async with planloom.worker():
        results = await asyncio.gather(*(planloom.run(request) for _ in range(3)))
    assert planloom.model.calls_paid("same") == 1
    assert sorted(r["tasks"]["a"]["outcome"] for r in results) == ["cached", "cached", "succeeded"]
