"""Plans on a real server: order, failure, maps, sub-plans, people, by the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from planloom.planner.contract.results import Progress
from tests.support.harness import Planloom

Calls = Callable[[], list[str]]
Tools = dict[str, str]


def nap(id: str, *after: str, seconds: float = 0.02, **more: Any) -> dict[str, Any]:
    args = {"name": id, "seconds": seconds}
    return {"id": id, "tool": "nap", "args": args, "depends_on": list(after), **more}


def started(calls: Calls) -> list[str]:
    return [c.removeprefix("start ") for c in calls() if c.startswith("start ")]


async def test_a_diamond_runs_its_sides_at_once_and_its_end_last(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    tasks = [nap("a"), nap("b", "a", seconds=0.3), nap("c", "a", seconds=0.3), nap("d", "b", "c")]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks, "answer": "${d}"}})
    assert (result["status"], result["answer"]) == ("completed", "d")
    lines = calls()
    assert lines.index("start c") < lines.index("end b")
    assert lines.index("end b") < lines.index("start d")
    assert result["critical_path"][0] == "a"
    assert result["critical_path"][-1] == "d"
    assert result["seconds"] < 3.0


async def test_a_chain_of_twenty_passes_its_value_along(planloom: Planloom) -> None:
    tasks: list[dict[str, Any]] = [{"id": "t0", "tool": "calculate", "args": {"expression": "1"}}]
    for n in range(1, 20):
        expression = f"${{t{n - 1}}} + 1"
        tasks.append({"id": f"t{n}", "tool": "calculate", "args": {"expression": expression}})
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": tasks, "answer": "${t19}"}})
    assert result["answer"] == 20
    assert result["critical_path"] == [f"t{n}" for n in range(20)]


async def test_a_fan_out_of_two_hundred_ends_whole(planloom: Planloom, tools: Tools) -> None:
    tasks = [{"id": f"t{n}", "tool": "echo", "args": {"value": n}} for n in range(200)]
    tasks.append(
        {"id": "all", "tool": "echo", "args": {"value": [f"${{t{n}}}" for n in range(200)]}}
    )
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks, "answer": "${all}"}})
    assert result["status"] == "completed"
    assert result["answer"] == list(range(200))


async def test_a_ladder_starts_each_step_when_both_its_inputs_have_ended(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    tasks, inputs = [], {}
    for n in range(6):
        before = [f"l{n - 1}", f"r{n - 1}"] if n else []
        inputs |= {f"l{n}": before, f"r{n}": before[:1]}
        seconds = 0.06 if n else 1.0  # long enough for a busy machine to start the next rung
        tasks += [nap(f"l{n}", *before), nap(f"r{n}", *before[:1], seconds=seconds)]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    assert result["status"] == "completed"
    lines = calls()
    for task, before in inputs.items():
        for needed in before:
            assert lines.index(f"end {needed}") < lines.index(f"start {task}")
    # The first rung's right side needs only the left rail: it does not wait for the other.
    assert lines.index("start r1") < lines.index("end r0")


async def test_ready_tasks_wait_for_slots_by_priority_then_rank(
    planloom: Planloom, tools: Tools, calls: Calls
) -> None:
    tasks = [nap("low", priority="low"), nap("short"), nap("long"), nap("tail", "long")]
    tasks.append(nap("urgent", priority="critical"))
    async with planloom.worker(**tools):
        await planloom.run({"plan": {"tasks": tasks}, "budget": {"parallel": 1}})
    assert started(calls) == ["urgent", "long", "short", "tail", "low"]


async def test_one_failure_among_ten_leaves_nine_and_its_dependents_do_as_they_say(
    planloom: Planloom, tools: Tools
) -> None:
    tasks: list[dict[str, Any]] = [nap(f"t{n}") for n in range(9)]
    tasks.append({"id": "bad", "tool": "broken", "args": {}})
    read = {"tool": "echo", "args": {"value": "${bad}"}}
    tasks.append({"id": "value", **read, "fallback": "none"})
    tasks.append({"id": "other", **read, "fallback": {"tool": "echo", "args": {"value": "plan B"}}})
    tasks.append({"id": "fails", **read, "on_error": "fail"})
    tasks.append({"id": "skips", **read, "on_error": "skip"})
    tasks.append({"id": "plain", **read})
    tasks.append({"id": "after", "tool": "echo", "args": {"value": "${value}"}})
    tasks.append({"id": "any", **read, "depends_on": ["t0"], "requires": "any"})
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    outcomes = {t: r["outcome"] for t, r in result["tasks"].items()}
    assert result["status"] == "partial"
    assert all(outcomes[f"t{n}"] == "succeeded" for n in range(9))
    assert outcomes["bad"] == "failed"
    assert "broken is out of order" in result["tasks"]["bad"]["error"]
    assert (outcomes["value"], result["tasks"]["value"]["output"]) == ("fallback", "none")
    assert (outcomes["other"], result["tasks"]["other"]["output"]) == ("fallback", "plan B")
    assert outcomes["fails"] == "failed"
    assert outcomes["skips"] == outcomes["plain"] == "skipped"
    assert (outcomes["after"], result["tasks"]["after"]["output"]) == ("succeeded", "none")
    assert outcomes["any"] == "succeeded"
    assert "bad" in result["reason"]


async def test_a_tool_is_retried_and_its_attempts_are_counted(
    planloom: Planloom, tools: Tools
) -> None:
    path = str(planloom.folder / "flaky")
    retry = {"max_attempts": 3, "initial_seconds": 0.05}
    task = {"id": "f", "tool": "flaky", "args": {"path": path, "until": 3}, "retry": retry}
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": [task]}})
    assert result["tasks"]["f"] | {"output": 3, "attempts": 3} == result["tasks"]["f"]
    assert result["seconds"] < 1.9  # two back-offs under a second are not rounded up to one each


async def test_a_failed_body_takes_its_value_or_its_alternative_path(
    planloom: Planloom, tools: Tools
) -> None:
    bad: dict[str, Any] = {"tool": "broken", "args": {}}
    tasks = [
        {"id": "v", **bad, "fallback": {"n": 1}},
        {"id": "null", **bad, "fallback": None},
        {"id": "p", **bad, "fallback": {"tool": "echo", "args": {"value": "${v.n}"}}},
        {"id": "both", **bad, "fallback": {"tool": "broken", "args": {"name": "B"}}},
    ]
    async with planloom.worker(**tools):
        rows = (await planloom.run({"plan": {"tasks": tasks}}))["tasks"]
    assert (rows["v"]["outcome"], rows["v"]["output"]) == ("fallback", {"n": 1})
    assert (rows["null"]["outcome"], rows["null"]["output"]) == ("fallback", None)
    assert (rows["p"]["outcome"], rows["p"]["output"]) == ("fallback", 1)
    assert rows["both"]["outcome"] == "failed"
    assert "broken is out of order" in rows["both"]["error"]
    assert "B is out of order" in rows["both"]["error"]


async def test_a_map_keeps_order_and_marks_items_without_a_value(
    planloom: Planloom, tools: Tools
) -> None:
    tasks = [
        {"id": "list", "tool": "echo", "args": {"value": [1, 2, 3, 5]}},
        {"id": "m", "tool": "odd", "args": {"n": "${item}"}, "map": "${list}"},
        {"id": "f", "tool": "odd", "args": {"n": "${item}"}, "map": "${list}", "fallback": 0},
        {"id": "i", "tool": "echo", "args": {"value": "${index}: ${item}"}, "map": ["a", "b"]},
        {"id": "none", "tool": "echo", "args": {"value": "${item}"}, "map": []},
        {"id": "all", "tool": "odd", "args": {"n": "${item}"}, "map": [2, 4]},
    ]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    rows = result["tasks"]
    assert rows["m"]["output"] == [1, None, 3, 5]
    assert rows["m"]["items"] == {"succeeded": 3, "failed": 1}
    assert rows["f"]["output"] == [1, 0, 3, 5]
    assert rows["i"]["output"] == ["0: a", "1: b"]
    assert (rows["none"]["outcome"], rows["none"]["output"]) == ("succeeded", [])
    assert rows["all"]["outcome"] == "failed"
    assert result["status"] == "partial"


async def test_a_map_over_what_is_no_list_fails_with_what_it_found(
    planloom: Planloom, tools: Tools
) -> None:
    tasks = [
        {"id": "n", "tool": "echo", "args": {"value": 7}},
        {"id": "m", "tool": "echo", "args": {"value": "${item}"}, "map": "${n}"},
    ]
    async with planloom.worker(**tools):
        rows = (await planloom.run({"plan": {"tasks": tasks}}))["tasks"]
    assert rows["m"]["outcome"] == "failed"
    assert "needs a list" in rows["m"]["error"]


async def test_when_decides_over_outcomes_and_values(planloom: Planloom, tools: Tools) -> None:
    echo = {"tool": "echo", "args": {"value": "ran"}}
    tasks = [
        {"id": "n", "tool": "echo", "args": {"value": {"score": 4, "ok": True}}},
        {"id": "bad", "tool": "broken", "args": {}},
        {"id": "yes", **echo, "when": "${n.score} > 3 && n.ok"},
        {"id": "no", **echo, "when": "n.output.score > `9`"},
        {"id": "repair", **echo, "when": "bad.outcome == 'failed'"},
    ]
    async with planloom.worker(**tools):
        rows = (await planloom.run({"plan": {"tasks": tasks}}))["tasks"]
    outcomes = {t: rows[t]["outcome"] for t in ("yes", "no", "repair")}
    assert outcomes == {"yes": "succeeded", "no": "skipped", "repair": "succeeded"}


async def test_a_task_that_takes_too_long_times_out_and_falls_back(
    planloom: Planloom, tools: Tools
) -> None:
    slow = nap("slow", seconds=30, timeout="0.3s", retry={"max_attempts": 1}, fallback="late")
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": [slow]}})
    assert result["tasks"]["slow"]["outcome"] == "fallback"
    assert result["seconds"] < 5


async def test_a_sub_plan_runs_as_a_child_with_its_params(planloom: Planloom) -> None:
    inner = {
        "params": {"x": {"type": "integer"}},
        "tasks": [{"id": "sq", "tool": "calculate", "args": {"expression": "${params.x} ** 2"}}],
        "answer": "${sq}",
    }
    tasks = [
        {"id": "n", "tool": "calculate", "args": {"expression": "3 + 4"}},
        {"id": "sub", "plan": inner, "args": {"x": "${n}"}},
    ]
    async with planloom.worker():
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${sub}"}})
        result = await planloom.result(handle)
        child = planloom.client.get_workflow_handle(f"{handle.id}/sub")
        assert (await child.result())["status"] == "completed"
    assert result["answer"] == 49


async def test_a_template_runs_with_typed_params(planloom: Planloom) -> None:
    (planloom.workspace / "t.csv").write_text("city,n\nRome,1\nOslo,2\nRome,3\n")
    request = {"template": "data-report", "params": {"source": "t.csv", "column": "city"}}
    async with planloom.worker():
        result = await planloom.run(request)
        wrong = await planloom.failure(
            await planloom.start({"template": "data-report", "params": {"sorce": 3}})
        )
    assert result["answer"]["rows"] == 3
    assert result["answer"]["most_frequent"][0] == {"value": "Rome", "n": 2}
    assert wrong.type == "InvalidPlan"
    assert 'Did you mean "source"' in str(wrong)


async def test_on_failure_fail_stops_the_rest(planloom: Planloom, tools: Tools) -> None:
    tasks = [nap("slow", seconds=20), {"id": "bad", "tool": "broken", "args": {}}, nap("z", "slow")]
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}, "on_failure": "fail"})
    assert result["status"] == "failed"
    assert result["tasks"]["slow"]["outcome"] == "cancelled"
    assert result["tasks"]["z"]["outcome"] == "cancelled"
    assert "bad" in result["reason"]


async def test_a_large_output_travels_as_a_reference(planloom: Planloom, tools: Tools) -> None:
    tasks = [
        {"id": "a", "tool": "big", "args": {"megabytes": 5}},
        {"id": "b", "tool": "echo", "args": {"value": "${a}"}},
        {"id": "c", "tool": "echo", "args": {"value": {"text": "${b}"}}},
    ]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": "${c.text}"}})
        result = await planloom.result(handle)
    sizes = [e.ByteSize() for e in (await planloom.history(handle)).events]
    assert max(sizes) < 20_000
    row = result["tasks"]["c"]
    assert row["preview"]
    blob = result["answer"]["blob"]
    path = planloom.data_dir / "blobs" / blob[:2] / blob
    assert path.read_text() == "x" * 5_000_000


async def test_unneeded_tasks_are_pruned_and_equal_calls_made_once(
    planloom: Planloom, tools: Tools
) -> None:
    tasks = [
        {"id": "a", "tool": "echo", "args": {"value": 1}},
        {"id": "twin", "tool": "echo", "args": {"value": 1}},
        {"id": "idle", "tool": "echo", "args": {"value": 2}},
    ]
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": ["${a}", "${twin}"]}})
        result = await planloom.result(handle)
        shown = Progress.model_validate(await handle.query("progress"))
    assert result["answer"] == [1, 1]
    assert result["tasks"]["twin"]["outcome"] == "cached"
    assert result["tasks"]["idle"]["outcome"] == "skipped"
    assert result["usage"]["tool_calls"] == 1
    assert shown.tasks["idle"] == "skipped"


async def test_queries_answer_after_the_end(planloom: Planloom) -> None:
    plan = {"tasks": [{"id": "a", "tool": "calculate", "args": {"expression": "1"}}]}
    async with planloom.worker():
        handle = await planloom.start({"plan": plan})
        await planloom.result(handle)
        assert (await handle.query("plan"))["tasks"][0]["id"] == "a"
        assert "flowchart" in await handle.query("graph")
        assert (await handle.query("usage"))["tool_calls"] == 1
        assert (await handle.query("estimate"))["actual"]["seconds"] > 0
        assert await handle.query("diff") == []
        progress = await handle.query("progress")
    assert (progress["status"], progress["awaiting"]) == ("completed", None)
    assert json.dumps(progress)


async def test_a_condition_that_does_not_fit_its_values_fails_its_task_and_not_the_run(
    planloom: Planloom, tools: Tools
) -> None:
    # stop_when was evaluated when b had ended and a had no value yet: a length of null, which
    # nobody caught, so that the run hung. Over a blob the whole run failed.
    tasks = [
        nap("a", seconds=0.3),
        nap("b"),
        {"id": "big", "tool": "big", "args": {"megabytes": 1}},
        {"id": "c", "tool": "echo", "args": {"value": 1}, "when": "sum(big.output) > `0`"},
    ]
    condition = "length(a.output) > `9`"
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}, "stop_when": condition})
        bad = await planloom.run({"plan": {"tasks": tasks}, "stop_when": "sum(a.output) > `1`"})
    assert result["status"] == "partial"
    assert result["tasks"]["a"]["outcome"] == "succeeded"
    assert "when: " in result["tasks"]["c"]["error"]
    assert "sum() needs" in result["tasks"]["c"]["error"]
    assert not any("stop_when" in note for note in result["notes"])
    assert sum("stop_when" in note for note in bad["notes"]) == 1


async def test_a_large_value_that_is_no_list_fails_its_map_and_not_the_run(
    planloom: Planloom, tools: Tools
) -> None:
    tasks = [
        {"id": "big", "tool": "big", "args": {"megabytes": 1}},
        {"id": "m", "tool": "echo", "args": {"value": "${item}"}, "map": "${big}"},
    ]
    plan = {"tasks": tasks, "answer": "${big | sum(@)}"}
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
        answer = await planloom.run({"plan": plan})
    assert result["tasks"]["m"]["outcome"] == "failed"
    assert result["status"] == "partial"
    assert "sum() needs" in answer["reason"]


async def test_long_literals_of_a_map_neither_end_the_run_nor_fill_its_history(
    planloom: Planloom, tools: Tools
) -> None:
    # A hundred activities with 60 KB each went out in one workflow task: over 4 MiB the server
    # terminates the run.
    planloom.model.script("long", "read")
    plan = {"tasks": [{"id": "x", "tool": "echo", "args": {"value": "p" * 60_000}}]}
    tasks = [
        {
            "id": "m",
            "tool": "echo",
            "args": {"value": ["${item}", "$${x} " + "z" * 60_000]},
            "map": list(range(100)),
        },
        {"id": "q", "ask": "long ${item} " + "w" * 60_000, "map": list(range(3))},
        {"id": "p", "plan": plan, "map": list(range(60))},
    ]
    answer = "${m[99]}"
    async with planloom.worker(**tools):
        handle = await planloom.start({"plan": {"tasks": tasks, "answer": answer}})
        result = await planloom.result(handle)
    assert result["status"] == "completed"
    assert result["answer"]["preview"].startswith('[99,"${x} zzz')
    events = (await planloom.history(handle)).events
    activities = [e for e in events if e.HasField("activity_task_scheduled_event_attributes")]
    assert len(activities) >= 100
    assert max(e.ByteSize() for e in activities) < 20_000


async def test_without_an_answer_every_leaf_is_in_it_as_it_was_named(planloom: Planloom) -> None:
    one = {"tool": "calculate", "args": {"expression": "1 + 1"}}
    tasks = [{"id": "a", **one}, {"id": "b", **one}, {"id": "c.d", **one, "when": "${b} > 1"}]
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": tasks}})
    assert result["answer"] == {"a": 2, "c.d": 2}
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": tasks[:2]}})
    assert result["answer"] == {"a": 2, "b": 2}


async def test_a_reason_names_the_first_inputs_and_counts_the_rest(
    planloom: Planloom, tools: Tools
) -> None:
    names = [f"t{n}" for n in range(14)]
    tasks: list[dict[str, Any]] = [
        {"id": n, "tool": "broken", "args": {"name": n}, "retry": {"max_attempts": 1}}
        for n in names
    ]
    tasks.append({"id": "r", "tool": "echo", "args": {"value": 1}, "depends_on": names})
    tasks[-1]["requires"] = "any"
    async with planloom.worker(**tools):
        result = await planloom.run({"plan": {"tasks": tasks}})
    assert result["tasks"]["r"]["reason"].endswith("t9 failed and 4 more")


@pytest.mark.parametrize("status", ["completed"])
async def test_search_attributes_tell_status_and_revision(planloom: Planloom, status: str) -> None:
    plan = {"tasks": [{"id": "a", "tool": "calculate", "args": {"expression": "1"}}]}
    async with planloom.worker():
        handle = await planloom.start({"plan": plan, "tenant": "acme"})
        await planloom.result(handle)
        found = (await handle.describe()).typed_search_attributes
    shown = {pair.key.name: pair.value for pair in found}
    assert shown["PlanloomStatus"] == status
    assert shown["PlanloomRevision"] == 1
    assert shown["PlanloomTenant"] == "acme"


async def test_the_estimate_has_money_and_history_and_stands_beside_what_it_came_to(
    planloom: Planloom, tools: Tools
) -> None:
    """A second run knows how long the tool took in the first: the worker keeps it."""
    planloom.model.script("", "ok")
    tasks = [
        {"id": "a", "tool": "nap", "args": {"name": "a", "seconds": 0.4}},
        {"id": "b", "ask": "hello ${a}"},
    ]
    async with planloom.worker(PLANLOOM_MODEL="gpt-4o-mini", **tools):
        await planloom.run({"plan": {"tasks": tasks}})
        handle = await planloom.start({"plan": {"tasks": tasks}})
        result = await planloom.result(handle)
        found = await handle.query("estimate")
    assert "1 history" in found["basis"]
    assert 0.3 < found["tasks"]["a"]["seconds"][1] < 2
    assert 0.3 < found["tasks"]["a"]["actual"]["seconds"] < 5
    low, likely, worst = found["usd"]
    assert 0 < low < likely < worst
    assert 0 < found["tasks"]["b"]["actual"]["usd"] <= worst
    assert result["estimate"]["usd"] == found["usd"]
    assert result["estimate"]["actual"]["tokens"] == result["usage"]["tokens"] > 0
