"""TeamWorkflow on a real server: rounds, retries, quorum, judge, subtasks on a graph."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model_server import Reply
from tests.support.harness import Planloom
from tests.support.waiting import until


def form(claim: str, confidence: float = 0.9, **more: str) -> str:
    return (
        f"SUMMARY: {claim} in short\nCLAIM: {claim}\nEVIDENCE: {more.get('evidence', 'a.py:1')}\n"
        f"DISCUSSION: {more.get('discussion', 'none')}\nCONFIDENCE: {confidence}\n"
        f"RESULT: {claim}, and that is the whole answer\nNEXT_STEP: none"
    )


def team(*ids: str, **more: Any) -> dict[str, Any]:
    return {"members": [{"id": i, "role": f"role of {i}"} for i in ids], **more}


JUDGE = "You judge what a team answered"
TRUSTED = '{"verdict": "trusted", "confidence": 0.99, "reason": "fine"}'


def speaks(planloom: Planloom, id: str, *replies: Any) -> None:
    planloom.model.script(f"You are {id},", *replies)


async def run_team(planloom: Planloom, **request: Any) -> dict[str, Any]:
    async with planloom.worker():
        return await planloom.run({"task": "Decide", **request}, "TeamWorkflow", timeout=60)


async def test_members_answer_hear_each_other_and_are_judged(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    for id in ("ann", "bob", "cat"):
        speaks(planloom, id, form(f"{id} says yes"), form(f"{id} still says yes"))
    result = await run_team(planloom, team=team("ann", "bob", "cat"))
    assert result["status"] == "completed"
    assert [r["kind"] for r in result["rounds"]] == ["initial", "communication"]
    assert result["rounds"][1]["heard"]["ann"] == ["bob", "cat"]
    assert result["members"]["ann"]["fields"]["CLAIM"] == "ann still says yes"
    assert result["members"]["ann"]["confidence"] == 0.9
    second = planloom.model.seen("You are ann,")[1].text
    assert "claim: bob says yes" in second
    assert "Round 1" in second
    judge = result["judge"]
    # By hand: spread 0, evidence everywhere; u_intra = 0.26 × 0.1, u_sys = 0.45 × that.
    assert (judge["verdict"], judge["u_intra"], judge["u_sys"]) == ("trusted", 0.026, 0.0117)
    assert len(judge["disagreements"]) == 3


async def test_a_team_of_five_asks_again_who_failed_and_not_who_was_refused(
    planloom: Planloom,
) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    for id in ("a1", "b2", "c3"):
        speaks(planloom, id, form(f"{id} agrees"))
    speaks(planloom, "d4", "", "", form("d4 agrees"))  # empty, repaired, empty again; then well
    gone = Reply(status=401, body={"error": {"message": "no key"}})
    speaks(planloom, "e5", gone)
    result = await run_team(planloom, team=team("a1", "b2", "c3", "d4", "e5"), rounds=2)
    members = result["members"]
    assert (members["d4"]["outcome"], members["d4"]["recovered"]) == ("succeeded", True)
    assert members["e5"]["outcome"] == "failed"
    assert planloom.model.calls("You are e5,") == 1
    assert [r["kind"] for r in result["rounds"]][-1] == "retry"
    assert result["rounds"][-1]["members"] == ["d4"]
    assert result["judge"]["verdict"] == "partial"  # one of five failed
    assert result["status"] == "partial"


async def test_a_rate_limited_member_only_waits(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    busy = Reply(status=429, headers={"retry-after": "0.2"})
    speaks(planloom, "ann", busy, busy, form("yes"))
    speaks(planloom, "bob", form("yes"))
    result = await run_team(planloom, team=team("ann", "bob"), rounds=0)
    assert result["status"] == "completed"
    assert [r["kind"] for r in result["rounds"]] == ["initial"]


async def test_consensus_ends_the_rounds_early(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("", form("the very same claim"))
    result = await run_team(planloom, team=team("ann", "bob"), rounds=5)
    assert len(result["rounds"]) == 2
    assert "consensus after round 1" in result["notes"]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"verdict": "uncertain", "confidence": 0.2, "reason": "thin"}', "uncertain"),
        ('{"verdict": "untrusted", "reason": "thin"}', "uncertain"),
        ('{"verdict": "partial", "confidence": 0.3, "reason": "thin"}', "partial"),
        ('{"verdict": "marvellous", "reason": "x"}', "trusted"),
        ("It is all fine.", "trusted"),
    ],
)
async def test_a_model_judge_may_lower_and_never_raise(
    planloom: Planloom, reply: str, verdict: str
) -> None:
    planloom.model.script(JUDGE, reply)
    planloom.model.script("", form("yes"))
    result = await run_team(planloom, team=team("ann", "bob"), rounds=0)
    assert result["judge"]["verdict"] == verdict
    if verdict == "trusted":
        assert any("the formula stands" in n for n in result["notes"])


async def test_a_trusting_model_does_not_raise_a_partial_verdict(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    speaks(planloom, "ann", form("yes"))
    speaks(planloom, "bob", Reply(status=401))
    result = await run_team(planloom, team=team("ann", "bob"), quorum=1)
    assert result["judge"]["verdict"] == "partial"
    assert result["status"] == "completed"  # the quorum is met


async def test_all_members_failing_is_a_failed_team(planloom: Planloom) -> None:
    planloom.model.script("", Reply(status=401))
    result = await run_team(planloom, team=team("ann", "bob"))
    assert result["status"] == "failed"
    assert (result["judge"]["verdict"], result["judge"]["confidence"]) == ("uncertain", 0.1)


async def test_each_member_and_the_judge_call_their_own_model(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("", form("yes"))
    members = [{"id": "ann", "role": "x", "model": "big"}, {"id": "bob", "role": "y"}]
    await run_team(
        planloom,
        team={"members": members},
        rounds=0,
        model={"worker": "small", "judge": "wise"},
    )
    assert planloom.model.seen("You are ann,")[0].model == "big"
    assert planloom.model.seen("You are bob,")[0].model == "small"
    assert planloom.model.seen(JUDGE)[0].model == "wise"


async def test_subtasks_on_a_graph_run_in_order_with_predecessors_results(
    planloom: Planloom,
) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    members = [
        {"id": "look", "role": "r", "task": "Find the facts"},
        {"id": "design", "role": "a", "task": "Design it", "depends_on": ["look"]},
        {"id": "risk", "role": "c", "task": "Find risks", "depends_on": ["look"]},
        {"id": "sum", "role": "s", "task": "Sum up", "depends_on": ["design", "risk"]},
    ]
    for member in members:
        speaks(planloom, str(member["id"]), form(f"{member['id']} done"))
    result = await run_team(planloom, team={"members": members})
    assert result["status"] == "completed"
    assert len(result["rounds"]) == 1
    order = [
        next(m["id"] for m in members if f"You are {m['id']}," in s.text)
        for s in planloom.model.seen("You are ")
    ]
    assert order[0] == "look"
    assert order[-1] == "sum"
    last = planloom.model.seen("You are sum,")[0].text
    assert "Result of design" in last
    assert "risk done, and that is the whole answer" in last
    assert "Sum up" in last


async def test_a_failed_member_of_a_graph_skips_only_what_waits_for_it(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    members = [
        {"id": "a1", "role": "x", "task": "A"},
        {"id": "b2", "role": "x", "task": "B", "depends_on": ["a1"]},
        {"id": "c3", "role": "x", "task": "C"},
    ]
    speaks(planloom, "a1", Reply(status=401))
    speaks(planloom, "c3", form("c"))
    result = await run_team(planloom, team={"members": members}, retry_rounds=0)
    outcomes = {m: r["outcome"] for m, r in result["members"].items()}
    assert outcomes == {"a1": "failed", "b2": "skipped", "c3": "succeeded"}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"team": "core-delivry"}, 'Did you mean "core-delivery"'),
        ({"team": {"members": []}}, "members"),
        ({"team": team("a1", "b2", links={"a1": ["zed"]})}, '"zed" is not a member'),
        ({"team": team("a1", "b2", links="circle")}, "not one of all, ring"),
        ({"team": team("a1", "a1")}, "the same id"),
        ({"team": team("a1"), "quorum": 3}, "quorum 3 of 1"),
        (
            {"team": {"members": [{"id": "a1", "depends_on": ["zed"]}]}},
            'depends on "zed"',
        ),
        (
            {
                "team": {
                    "members": [
                        {"id": "a1", "depends_on": ["b2"]},
                        {"id": "b2", "depends_on": ["a1"]},
                    ]
                }
            },
            "wait for each other",
        ),
    ],
)
async def test_a_team_that_cannot_work_is_refused(
    planloom: Planloom, request_: dict[str, Any], said: str
) -> None:
    async with planloom.worker():
        handle = await planloom.start({"task": "x", **request_}, "TeamWorkflow")
        failure = await planloom.failure(handle, timeout=10)
    assert failure.type == "InvalidRequest"
    assert said in str(failure)


@pytest.mark.parametrize("name", ["core-delivery", "bug-hunt", "research-panel", "design-review"])
async def test_every_shipped_team_works(planloom: Planloom, name: str) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("", form("yes"))
    result = await run_team(planloom, team=name)
    assert result["status"] == "completed"
    assert result["judge"]["verdict"] == "trusted"


async def test_a_team_of_one_has_no_rounds(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("", form("yes"))
    result = await run_team(planloom, team=team("ann"), rounds=3)
    assert len(result["rounds"]) == 1
    assert "that is the whole answer" in result["answer"]


async def test_histories_stay_small_with_large_answers(planloom: Planloom) -> None:
    """Ten members, five rounds, answers of 100 KB."""
    planloom.model.script(JUDGE, TRUSTED)
    big = Reply(text=form("yes") + "\n" + "x" * 100_000, chunking="whole", obeys_limit=False)
    planloom.model.script("", big)
    ids = [f"m{n}" for n in range(10)]
    async with planloom.worker():
        request = {"task": "Decide", "team": team(*ids), "rounds": 5, "consensus": False}
        handle = await planloom.start(request, "TeamWorkflow")
        result = await planloom.result(handle, timeout=90)
        events = (await planloom.history(handle)).events
    assert result["status"] == "completed", result["reason"]
    assert len(result["rounds"]) == 6
    assert sum(e.ByteSize() for e in events) < 1_000_000


async def test_a_killed_worker_in_round_two_pays_for_no_finished_call_again(
    planloom: Planloom,
) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    for id in ("ann", "bob"):
        slow = Reply(text=form(f"{id} third"), delay=1.0)
        speaks(planloom, id, form(f"{id} first"), form(f"{id} second"), slow, slow)
    async with planloom.worker_process() as worker:
        request = {"task": "Decide", "team": team("ann", "bob"), "rounds": 2, "consensus": False}
        handle = await planloom.start(request, "TeamWorkflow")
        await until(lambda: planloom.model.calls("You are ann,") == 3)
        await until(lambda: planloom.model.calls("You are bob,") == 3)
        await worker.kill()
        await worker.start()
        result = await planloom.result(handle, timeout=90)
    assert result["status"] == "completed"
    # Two finished rounds each, one call in flight that is made again: at most four.
    assert planloom.model.calls("You are ann,") <= 4
    assert planloom.model.calls_paid("You are ann,") == 3


async def test_a_team_is_a_task_of_a_plan(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("", form("yes"))
    tasks = [
        {"id": "t", "team": "core-delivery", "args": {"task": "Decide", "rounds": 0}},
        {"id": "n", "ask": "Say it: ${t}"},
    ]
    async with planloom.worker():
        result = await planloom.run({"plan": {"tasks": tasks, "answer": "${t}"}})
    assert result["status"] == "completed"
    assert "## lead" in result["answer"]


async def test_the_web_ui_shows_what_a_team_and_an_agent_are_doing(planloom: Planloom) -> None:
    """Current details, by the query that the Web UI asks."""
    planloom.model.script(JUDGE, TRUSTED)
    speaks(planloom, "ann", form("ann | says yes"))
    speaks(planloom, "bob", Reply(status=400, body={"error": {"message": "no such thing"}}))
    planloom.model.script("Look", "it is there")
    asked = {"task": "Decide", "team": team("ann", "bob"), "rounds": 0}
    async with planloom.worker():
        run = await planloom.start(asked, "TeamWorkflow")
        await planloom.result(run, timeout=60)
        told = str(await run.query("__temporal_workflow_metadata"))
        agent = await planloom.start({"agent": {"id": "eye"}, "task": "Look"}, "AgentWorkflow")
        await planloom.result(agent)
        seen = str(await agent.query("__temporal_workflow_metadata"))
    assert "### Decide" in told
    assert "**partial**" in told
    row = [c.strip() for c in told.partition("| ann")[2].split("\\n")[0].split("|")]
    assert row[1:5] == ["role of ann", "succeeded", "1", "ann / says yes"], told
    assert "| bob" in told
    assert "### Look" in seen
    assert "**completed**: agent eye, 1 turns, 0 tool calls" in seen
