"""Records a history of each kind of run: `python -m tests.record_histories`.

Scenarios that have a file are left alone. Before release 0.1.0 a change that breaks a history
records all of them again: delete `tests/histories/*.json` first, and commit the result by itself.
From 0.1.0 on a history stands for runs that are out there and is never replaced; see
docs/decisions/0007-no-patches-before-0.1.0.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from temporalio.client import Client

from planloom.console.devserver import DevServer
from planloom.workflows.shell.converter import data_converter
from tests.model_server import ModelServer, Reply
from tests.support.harness import Handle, Planloom
from tests.support.tools import SOURCE
from tests.support.waiting import until

FOLDER = Path(__file__).parent / "histories"
CHECKOUT = Path(__file__).resolve().parents[1]
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
FINISH = '{"action": "finish", "answer": "done"}'

Scenario = Callable[[Planloom], Awaitable[list[Handle]]]


def calc(id: str, expression: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": "calculate", "args": {"expression": expression}, **more}


async def _ended(p: Planloom, request: dict[str, Any]) -> list[Handle]:
    handle = await p.start(request)
    await p.result(handle)
    return [handle]


async def plan(p: Planloom) -> list[Handle]:
    tasks = [
        calc("a", "6 * 7"),
        calc("b", "${a} + 1"),
        {"id": "bad", "tool": "broken", "args": {}, "fallback": 0},
        {
            "id": "worse",
            "tool": "broken",
            "args": {},
            "fallback": {"tool": "echo", "args": {"value": 1}},
        },
        {"id": "gone", "tool": "broken", "args": {}},
        calc("behind", "${gone}"),
        {"id": "m", "tool": "odd", "args": {"n": "${item}"}, "map": [1, 2, 3]},
        calc("no", "1", when="${a} > 100"),
    ]
    return await _ended(p, {"plan": {"tasks": tasks, "answer": "${b} ${m}"}, "tenant": "acme"})


async def large_values(p: Planloom) -> list[Handle]:
    tasks = [
        {"id": "a", "tool": "big", "args": {"megabytes": 1}},
        {"id": "b", "tool": "echo", "args": {"value": ["${a}", "x"]}},
        {"id": "m", "tool": "echo", "args": {"value": "${index}"}, "map": "${b}"},
    ]
    return await _ended(p, {"plan": {"tasks": tasks, "answer": "${b}"}})


async def fused(p: Planloom) -> list[Handle]:
    """Groups with followers, failures, a condition and items; more attempts follow alone."""
    tasks: list[dict[str, Any]] = [
        calc("a", "1 + 1"),
        calc("b", "${a} * 2"),
        calc("no", "${b}", when="${a} > 9"),
        {"id": "bad", "tool": "odd", "args": {"n": "${b}"}, "fallback": 0},
        {"id": "m", "tool": "odd", "args": {"n": "${item}"}, "map": [1, 2, 3, 4]},
        {"id": "e", "tool": "echo", "args": {"value": ["${m}", "${bad}"]}},
        {"id": "x", "tool": "calculate", "args": {"expression": "1 / 0"}, "on_error": "skip"},
        {"id": "big", "tool": "big", "args": {"megabytes": 1}},
        {"id": "post", "tool": "nap", "args": {"name": "n", "after": "${e}"}},
        {"id": "f", "tool": "echo", "args": {"value": "${post}"}, "fuse": False},
    ]
    request = {"plan": {"tasks": tasks}, "fuse": True, "budget": {"parallel": 2}}
    return await _ended(p, request)


async def sub_plan(p: Planloom) -> list[Handle]:
    inner = {"tasks": [calc("sq", "${params.x} ** 2")], "answer": "${sq}"}
    tasks = [calc("n", "7"), {"id": "sub", "plan": inner, "args": {"x": "${n}"}}]
    handle = await p.start({"plan": {"tasks": tasks, "answer": "${sub}"}})
    await p.result(handle)
    return [handle, p.client.get_workflow_handle(f"{handle.id}/sub")]


async def people(p: Planloom) -> list[Handle]:
    tasks = [{"id": "q", "human": "Well?"}, calc("a", "1", approval=True, depends_on=["q"])]
    handle = await p.start({"plan": {"tasks": tasks}, "approval": "always"})
    await p.until(handle, lambda s: s.awaiting == "approval")
    patch = [{"op": "replace", "path": "/tasks/1/args/expression", "value": "2"}]
    await handle.execute_update("edit_plan", {"revision": 1, "patch": patch})
    await handle.signal("approve_plan", {"revision": 1})
    await handle.signal("approve_plan", {"revision": 2, "by": "ops"})
    await p.until(handle, lambda s: s.awaiting == "human")
    await handle.signal("pause")
    await handle.signal("complete_task", {"id": "q", "output": "yes"})
    await handle.execute_update("resume")
    await p.until(handle, lambda s: s.awaiting == "approval")
    await handle.execute_update("approve_task", {"id": "a"})
    await p.result(handle)
    return [handle]


async def questions(p: Planloom) -> list[Handle]:
    """People answer each item of a map, at length; long literals; a condition that does not fit."""
    tasks = [
        {"id": "h", "human": "Well, ${item}?", "map": ["a", "b"]},
        {"id": "big", "tool": "big", "args": {"megabytes": 1}},
        calc("c", "1", when="sum(big.output) > `0`"),
        {"id": "m", "tool": "echo", "args": {"value": ["${item}", "z" * 8_000]}, "map": [1, 2]},
    ]
    handle = await p.start({"plan": {"tasks": tasks}})
    await p.until(handle, lambda s: s.awaiting == "human")
    await handle.execute_update("complete_task", {"id": "h[1]", "output": "y" * 3_000})
    await handle.signal("complete_task", {"id": "h", "output": 1})
    await handle.signal("complete_task", {"id": "h[0]", "output": "yes"})
    await p.result(handle)
    return [handle]


async def gone_question(p: Planloom) -> list[Handle]:
    """An agent below a sub-plan asks a person, and is cancelled before anybody answers."""
    question = {"id": "c", "name": "ask_human", "arguments": {"question": "Which colour?"}}
    p.model.script("", Reply(tool_calls=[question]))
    spec = {"id": "helper", "system": "Help.", "tools": ["ask_human"]}
    asks = {"id": "a", "agent": spec, "args": {"task": "paint"}, "on_error": "skip"}
    inner = {"tasks": [asks, {"id": "h", "human": "And now?"}]}
    handle = await p.start({"plan": {"tasks": [{"id": "sub", "plan": inner}]}})
    await p.until(handle, lambda s: "Which colour?" in (s.detail or ""))
    child = p.client.get_workflow_handle(f"{handle.id}/sub")
    await child.execute_update("cancel_task", {"id": "a"})
    await p.until(handle, lambda s: "Which colour?" not in (s.detail or ""))
    await child.execute_update("complete_task", {"id": "h", "output": "so it is"})
    await p.result(handle)
    return [handle, child]


async def budget(p: Planloom) -> list[Handle]:
    p.model.script("", Reply(text="ok", usage={"prompt_tokens": 100, "completion_tokens": 50}))
    asks = [
        {"id": f"a{n}", "ask": {"prompt": f"{n}", "max_tokens": 60}, "depends_on": before}
        for n, before in enumerate([[], ["a0"], ["a1"]])
    ]
    tasks = [{"id": "sub", "plan": {"tasks": asks}, "estimate": {"tokens": 300}}]
    handle = await p.start({"plan": {"tasks": tasks}, "budget": {"tokens": 400, "seconds": 60}})
    await p.until(handle, lambda s: s.awaiting == "budget")
    await handle.execute_update("raise_budget", {"tokens": 5_000})
    await p.result(handle)
    return [handle, p.client.get_workflow_handle(f"{handle.id}/sub")]


async def goal(p: Planloom) -> list[Handle]:
    first = Reply(text=['a = calculate(expression="1")\n', 0.2, "join(a)"], chunking="line")
    p.model.script(PLANNER, "prose", first, 'b = calculate(expression="${a} + 1")\njoin(a, b)')
    p.model.script(JOINER, '{"action": "replan", "feedback": "need b"}', FINISH)
    return await _ended(p, {"goal": "count"})


async def replans_and_edits(p: Planloom) -> list[Handle]:
    """Another plan instead of the first, one that changes and keeps work under way, an edit."""
    p.model.script(
        PLANNER,
        'x = nap(name="x")\njoin(x)',
        'a = nap(name="a", seconds=30)\nk = nap(name="k", seconds=1.5)\njoin(a, k)',
        'a = nap(name="a2")\nb = echo(value=[a, k])\njoin(b)',
    )
    p.model.script(JOINER, Reply(text=FINISH, delay=1.0), FINISH)
    handle = await p.start({"goal": "x", "approval": "always", "replan": {"max_rounds": 5}})
    await p.until(handle, lambda s: s.awaiting == "approval")
    await handle.execute_update("request_replan", {"feedback": "other"})
    await p.until(handle, lambda s: s.awaiting == "approval" and s.revision == 2)
    await handle.execute_update("approve_plan", {"revision": 2})
    await p.until(handle, lambda s: len(s.running) == 2)
    await handle.execute_update("request_replan", {"feedback": "again"})
    await p.until(handle, lambda s: s.awaiting == "approval" and s.revision == 3)
    await handle.execute_update("approve_plan", {"revision": 3})
    await p.until(handle, lambda s: s.status == "joining")
    write = {"id": "w", "tool": "write_file", "args": {"path": "x.txt", "text": "${b}"}}
    patch = [{"op": "add", "path": "/tasks/-", "value": write}]
    await handle.execute_update("edit_plan", {"revision": 3, "patch": patch})
    await p.until(handle, lambda s: s.awaiting == "approval" and s.revision == 4)
    await handle.execute_update("approve_plan", {"revision": 4})
    await p.result(handle)
    return [handle]


async def refused_replan(p: Planloom) -> list[Handle]:
    p.model.script(PLANNER, 'a = nap(name="a", seconds=30)\njoin(a)', 'b = nap(name="b")\njoin(b)')
    handle = await p.start({"goal": "x", "approval": "replan"})
    await p.until(handle, lambda s: s.running == ["a"] and s.revision == 1)
    await handle.execute_update("request_replan", {"feedback": "other"})
    await p.until(handle, lambda s: s.awaiting == "approval")
    await handle.execute_update("reject_plan", {"revision": 2})
    await p.result(handle)
    return [handle]


async def known_early(p: Planloom) -> list[Handle]:
    """What `stop_when` reads is all there only with the last task that is written."""
    last = 'slow = nap(name="slow", seconds=30)\njoin(a, slow)\n'
    p.model.script(PLANNER, Reply(text=['a = nap(name="a")\n', 0.6, last], chunking="line"))
    p.model.script(JOINER, FINISH)
    return await _ended(p, {"goal": "x", "stop_when": "a.output == 'a' || slow.output == 'x'"})


async def joined_late(p: Planloom) -> list[Handle]:
    """What the joiner is shown is there before the line that says so is written."""
    lines = ['a = nap(name="a")\nslow = nap(name="slow", seconds=30)\n', 0.6, "join(a)\n"]
    p.model.script(PLANNER, Reply(text=lines, chunking="line"))
    p.model.script(JOINER, FINISH)
    return await _ended(p, {"goal": "x"})


async def called_off(p: Planloom) -> list[Handle]:
    """Enough is known while the planner still writes."""
    lines = ['a = nap(name="a")\nslow = nap(name="slow", seconds=30)\n', 30, "join(a, slow)\n"]
    p.model.script(PLANNER, Reply(text=lines, chunking="line"))
    p.model.script(JOINER, FINISH)
    return await _ended(p, {"goal": "x", "stop_when": "a.output == 'a'"})


async def time_over(p: Planloom) -> list[Handle]:
    """The time ends while a sub-plan runs: it and the run above it are parked, and go on."""
    inner = {
        "tasks": [
            {"id": "i0", "tool": "nap", "args": {"name": "i0", "seconds": 1.2}},
            calc("i1", "1", depends_on=["i0"]),
        ]
    }
    tasks = [{"id": "sub", "plan": inner}, calc("z", "2", depends_on=["sub"])]
    handle = await p.start({"plan": {"tasks": tasks}, "budget": {"seconds": 0.8}})
    child = p.client.get_workflow_handle(f"{handle.id}/sub")
    await p.until(handle, lambda s: s.awaiting == "budget")
    await p.until(child, lambda s: s.awaiting == "budget" and not s.running)
    await handle.execute_update("raise_budget", {"seconds": 60})
    await p.result(handle)
    return [handle, child]


async def looks(p: Planloom) -> list[Handle]:
    """The joiner looks at an output that was cut: a summary, then its answer."""
    p.model.script("A colleague must reach this goal", "nothing but x")
    (p.workspace / "x.txt").write_text("x" * 60_000)
    p.model.script(PLANNER, 'a = read_file(path="x.txt")\njoin(a)')
    p.model.script(JOINER, '{"action": "look", "ids": ["a"], "question": "what?"}', FINISH)
    return await _ended(p, {"goal": "x"})


async def brought_tools(p: Planloom) -> list[Handle]:
    """An edit names a tool that the request did not."""
    handle = await p.start({"plan": {"tasks": [{"id": "q", "human": "Well?"}]}})
    await p.until(handle, lambda s: s.awaiting == "human")
    write = {"id": "w", "tool": "echo", "args": {"value": "${q}"}}
    patch = [{"op": "add", "path": "/tasks/-", "value": write}]
    await handle.execute_update("edit_plan", {"revision": 1, "patch": patch})
    await handle.execute_update("complete_task", {"id": "q", "output": "yes"})
    await p.result(handle)
    return [handle]


async def twins(p: Planloom) -> list[Handle]:
    """A second plan makes the call of a first one that never ran."""
    again = 'y = echo(value="same")\nz = echo(value="more")\njoin(y, z)'
    p.model.script(PLANNER, 'x = echo(value="same")\njoin(x)', again)
    p.model.script(JOINER, FINISH)
    handle = await p.start({"goal": "x", "approval": "always"})
    await p.until(handle, lambda s: s.awaiting == "approval")
    await handle.execute_update("request_replan", {"feedback": "other"})
    await p.until(handle, lambda s: s.awaiting == "approval" and s.revision == 2)
    await handle.execute_update("approve_plan", {"revision": 2})
    await p.result(handle)
    return [handle]


async def siblings(p: Planloom) -> list[Handle]:
    """Two sub-plans, the name of one being the beginning of the other's, ask for more budget."""
    inner = {"tasks": [calc("i0", "1"), *(calc(f"i{n}", f"${{i{n - 1}}}") for n in (1, 2, 3))]}
    waits = {"tasks": [{"id": "q", "human": "Well?"}]}
    tasks = [{"id": "sub", "plan": waits}, {"id": "sub2", "plan": inner}]
    handle = await p.start({"plan": {"tasks": tasks}, "budget": {"tasks": 5}})
    child = p.client.get_workflow_handle(f"{handle.id}/sub")
    second = p.client.get_workflow_handle(f"{handle.id}/sub2")
    await p.until(handle, lambda s: len(s.running) == 2)
    await asyncio.sleep(1.0)  # until both have been started
    await p.until(second, lambda s: s.awaiting == "budget")
    await handle.execute_update("raise_budget", {"tasks": 20})
    await child.execute_update("complete_task", {"id": "q", "output": "yes"})
    await p.result(handle)
    return [handle, second]


async def ahead(p: Planloom) -> list[Handle]:
    """Branches beyond the speculation budget, and a person before their condition."""
    branch = {"tool": "nap", "when": "cond.output == 'cond'", "speculate": True}
    tasks = [
        {"id": "q", "human": "Well?"},
        {"id": "cond", "tool": "nap", "args": {"name": "cond"}, "depends_on": ["q"]},
        *({"id": f"a{n}", "args": {"name": f"a{n}"}, **branch} for n in range(10)),
        calc("held", "1", approval=True),
    ]
    approval = {"mode": "never", "timeout": 0.5, "on_timeout": "approve"}
    handle = await p.start({"plan": {"tasks": tasks}, "approval": approval})
    await p.until(handle, lambda s: s.tasks.get("held") == "succeeded")
    await handle.execute_update("complete_task", {"id": "q", "output": "yes"})
    await p.result(handle)
    return [handle]


async def fallback_waits(p: Planloom) -> list[Handle]:
    p.model.script("", "ok")
    other = {"ask": {"prompt": "instead", "max_tokens": 60}}
    inner = {"tasks": [calc("i0", "1"), calc("i1", "${i0}")]}
    tasks = [
        {"id": "a", "tool": "broken", "args": {}, "fallback": other},
        {"id": "sub", "plan": inner, "depends_on": ["a"]},
    ]
    handle = await p.start({"plan": {"tasks": tasks}, "budget": {"tokens": 50, "tasks": 3}})
    await p.until(handle, lambda s: s.awaiting == "budget")
    await handle.execute_update("raise_budget", {"tokens": 1_000})
    await p.until(handle, lambda s: s.awaiting == "budget" and s.tasks["a"] == "fallback")
    await handle.execute_update("raise_budget", {"tasks": 10})
    await p.result(handle)
    return [handle, p.client.get_workflow_handle(f"{handle.id}/sub")]


async def cancelled(p: Planloom) -> list[Handle]:
    tasks = [
        {"id": "long", "tool": "nap", "args": {"name": "long", "seconds": 30}},
        {"id": "also", "tool": "nap", "args": {"name": "also", "seconds": 30}},
    ]
    handle = await p.start({"plan": {"tasks": tasks}})
    await p.until(handle, lambda s: len(s.running) == 2)
    await handle.execute_update("cancel_task", {"id": "also"})
    await handle.cancel()
    await p.result(handle)
    return [handle]


async def stopped_early(p: Planloom) -> list[Handle]:
    tasks = [
        {"id": "quick", "tool": "nap", "args": {"name": "quick"}},
        {"id": "slow", "tool": "nap", "args": {"name": "slow", "seconds": 30}},
        {
            "id": "ahead",
            "tool": "nap",
            "args": {"name": "ahead", "seconds": 30},
            "when": "slow.output == 'x'",
            "speculate": True,
        },
    ]
    plan_ = {"tasks": tasks, "stop_when": "quick.outcome == 'succeeded'"}
    return await _ended(p, {"plan": plan_})


async def refused(p: Planloom) -> list[Handle]:
    handle = await p.start({"plan": {"tasks": [{"id": "a", "tool": "nothing"}]}})
    with contextlib.suppress(Exception):
        await p.result(handle)
    return [handle]


async def agent(p: Planloom) -> list[Handle]:
    calls = [{"id": "c1", "name": "echo", "arguments": {"value": 1}}]
    p.model.script("", Reply(tool_calls=calls), "SUMMARY: s\nRESULT: done\nNEXT_STEP: none")
    spec = {"id": "helper", "system": "Help.", "tools": ["echo"]}
    handle = await p.start({"agent": spec, "task": "go"}, "AgentWorkflow")
    await p.result(handle)
    return [handle]


async def agent_cancelled(p: Planloom) -> list[Handle]:
    """Cancelled while its tool runs; the parent's own run goes on."""
    calls = [{"id": "c1", "name": "nap", "arguments": {"name": "n", "seconds": 30}}]
    p.model.script("", Reply(tool_calls=calls), "late")
    spec = {"id": "helper", "system": "Help.", "tools": ["nap"]}
    tasks = [{"id": "a", "agent": spec, "args": {"task": "go"}}, {"id": "h", "human": "Well?"}]
    handle = await p.start({"plan": {"tasks": tasks}})
    child = p.client.get_workflow_handle(f"{handle.id}/a")
    await until(lambda: p.model.calls() == 1)
    await p.until(handle, lambda s: s.tasks["h"] == "running")
    await asyncio.sleep(0.5)
    await handle.execute_update("cancel_task", {"id": "a"})
    await p.result(child)
    await handle.execute_update("complete_task", {"id": "h", "output": 1})
    await p.result(handle)
    return [handle, child]


async def team_cancelled(p: Planloom) -> list[Handle]:
    """Cancelled while one member speaks; the other never does."""
    p.model.script("You are ann,", Reply(text="late", delay=30))
    members = [{"id": id, "role": "r"} for id in ("ann", "bob")]
    request = {"team": {"members": members}, "task": "Decide", "strategy": "sequential"}
    handle = await p.start(request, "TeamWorkflow")
    await until(lambda: p.model.calls() == 1)
    await handle.cancel()
    await p.result(handle)
    return [handle]


async def team(p: Planloom) -> list[Handle]:
    form = (
        "SUMMARY: s\nCLAIM: c {0}\nEVIDENCE: e\nCONFIDENCE: 0.9\nRESULT: {0} says so, at length\n"
    )
    p.model.script("You judge", '{"verdict": "trusted", "reason": "ok"}')
    p.model.script("You are a1,", form.format("a1") + "NEXT_STEP: none")
    p.model.script("You are b2,", "", "", form.format("b2") + "NEXT_STEP: none")
    p.model.script("You are c3,", form.format("c3") + "NEXT_STEP: none")
    members = [{"id": i, "role": "x"} for i in ("a1", "b2", "c3")]
    handle = await p.start({"team": {"members": members}, "task": "go"}, "TeamWorkflow")
    await p.result(handle)
    return [handle]


async def team_not(p: Planloom) -> list[Handle]:
    """Claims that differ by a "not": the second round is held."""
    form = "SUMMARY: s\nCLAIM: {0}\nEVIDENCE: e\nCONFIDENCE: 0.9\nRESULT: {0}\nNEXT_STEP: none"
    p.model.script("You judge", '{"verdict": "trusted", "reason": "ok"}')
    p.model.script("You are a1,", form.format("the cache is worth keeping"))
    p.model.script("You are b2,", form.format("the cache is not worth keeping"))
    members = [{"id": i, "role": "x"} for i in ("a1", "b2")]
    request = {"team": {"members": members}, "task": "go", "rounds": 2}
    handle = await p.start(request, "TeamWorkflow")
    await p.result(handle)
    return [handle]


async def team_graph(p: Planloom) -> list[Handle]:
    p.model.script("You judge", "prose")
    form = "SUMMARY: s\nCLAIM: c\nEVIDENCE: e\nCONFIDENCE: 0.9\n"
    form += "RESULT: said at length here\nNEXT_STEP: none"
    p.model.script("", form)
    members = [
        {"id": "a1", "task": "A"},
        {"id": "b2", "task": "B", "depends_on": ["a1"]},
    ]
    handle = await p.start({"team": {"members": members}, "task": "go"}, "TeamWorkflow")
    await p.result(handle)
    return [handle]


async def agent_parked(p: Planloom) -> list[Handle]:
    calls = [{"id": "c1", "name": "echo", "arguments": {"value": 1}}]
    p.model.script("", Reply(tool_calls=calls), "SUMMARY: s\nRESULT: done\nNEXT_STEP: none")
    spec = {"id": "helper", "system": "Help.", "tools": ["echo"]}
    request = {"agent": spec, "task": "go", "budget": {"tokens": 250}}
    handle = await p.start(request, "AgentWorkflow")
    await p.until(handle, lambda s: s.awaiting == "budget")
    await handle.signal("raise_budget", {"tokens": 50_000})
    await p.result(handle)
    return [handle]


async def team_plan(p: Planloom) -> list[Handle]:
    form = "SUMMARY: s\nCLAIM: c\nEVIDENCE: e\nCONFIDENCE: 0.9\n"
    form += "RESULT: said at length here\nNEXT_STEP: none"
    p.model.script("You judge", '{"verdict": "trusted", "reason": "ok"}')
    p.model.script(PLANNER, 'more = agent("a1", task="Once more", context=b2)\njoin(more)')
    p.model.script(JOINER, '{"action": "replan", "feedback": "once more"}', FINISH)
    p.model.script("", form)
    members = [{"id": "a1", "task": "A"}, {"id": "b2", "task": "B", "depends_on": ["a1"]}]
    request = {
        "team": {"members": members},
        "task": "go",
        "replan": {"max_rounds": 1},
        "approval": "replan",
        "tenant": "acme",
    }
    handle = await p.start(request, "TeamWorkflow")
    await p.until(handle, lambda s: s.awaiting == "approval")
    await handle.signal("approve_plan", {"revision": 2})
    await p.result(handle)
    return [handle, p.client.get_workflow_handle(f"{handle.id}/a1")]


async def capacity(p: Planloom) -> list[Handle]:
    busy = Reply(status=429, headers={"retry-after": "0.3"})
    p.model.script("1", busy, "ok")
    p.model.script("bad", Reply(status=401))
    p.model.script("", "ok")
    await p.run({"plan": {"tasks": [{"id": f"a{n}", "ask": f"{n}"} for n in range(3)]}})
    pool = p.client.get_workflow_handle(f"{p.task_queue}-capacity-default")
    await pool.execute_update("reserve", {"holder": "a", "calls": 2})
    await pool.execute_update("set", {"max_runs": 1, "requests_per_minute": 600, "parallel": 4})
    waiting = asyncio.create_task(
        pool.execute_update("reserve", {"holder": "b", "wait_seconds": 20})
    )
    await pool.execute_update("drain", {"by": "ops"})
    await pool.execute_update("resume", {})
    await pool.execute_update("renew", {"holder": "a"})
    await pool.signal("release", {"holder": "a"})
    await waiting
    await p.run({"plan": {"tasks": [{"id": f"b{n}", "ask": f"bad {n}"} for n in range(3)]}})
    return [pool]


async def permit(p: Planloom) -> list[Handle]:
    p.model.script("", "ok")
    return await _ended(p, {"plan": {"tasks": [{"id": "a", "ask": "x"}]}})


CONFIGS = {"permit": "[pools.default]\nmax_runs = 1\n"}
"""The `planloom.toml` of a scenario."""
SCENARIOS: dict[str, Scenario] = {
    "plan": plan,
    "fused": fused,
    "large-values": large_values,
    "sub-plan": sub_plan,
    "people": people,
    "questions": questions,
    "gone-question": gone_question,
    "budget": budget,
    "goal-replan": goal,
    "replans-and-edits": replans_and_edits,
    "refused-replan": refused_replan,
    "known-early": known_early,
    "joined-late": joined_late,
    "called-off": called_off,
    "time-over": time_over,
    "looks": looks,
    "brought-tools": brought_tools,
    "twins": twins,
    "siblings": siblings,
    "ahead": ahead,
    "fallback-waits": fallback_waits,
    "cancelled": cancelled,
    "stopped-early": stopped_early,
    "refused": refused,
    "agent": agent,
    "agent-cancelled": agent_cancelled,
    "team-rounds": team,
    "team-cancelled": team_cancelled,
    "team-not": team_not,
    "team-graph": team_graph,
    "agent-parked": agent_parked,
    "team-plan": team_plan,
    "capacity": capacity,
    "permit": permit,
}


async def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        DevServer(in_memory=True, headless=True, port=None) as server,
    ):
        client = await Client.connect(server.address, data_converter=data_converter())
        for name, scenario in SCENARIOS.items():
            if list(FOLDER.glob(f"{name}.json")):
                continue
            home = Path(folder) / uuid.uuid4().hex
            home.mkdir()
            os.chdir(home)
            (home / "planloom.toml").write_text(CONFIGS.get(name, ""))
            os.environ["COUNT_FILE"] = str(home / "calls.txt")
            with ModelServer() as model:
                p = Planloom(client, model, home)
                async with p.worker(PLANLOOM_TOOLS=p.tools(SOURCE)):
                    for n, handle in enumerate(await scenario(p)):
                        history = json.loads((await p.history(handle)).to_json())
                        file = FOLDER / (f"{name}.json" if n == 0 else f"{name}.child.json")
                        text = json.dumps(history, separators=(",", ":"))
                        for local in (CHECKOUT, sys.base_prefix):
                            text = text.replace(f"{local}/", "")
                        file.write_text(text + "\n")
                        print(f"recorded {file.name}: {len(history['events'])} events")


if __name__ == "__main__":
    asyncio.run(main())
