"""Teams at their edges: five of whom two fail, graphs that recover, answers of every size."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.model_server import Reply
from tests.server.test_teams import JUDGE, TRUSTED, form, run_team, speaks, team
from tests.support.harness import Planloom

FIVE = ("a1", "b2", "c3", "d4", "e5")


async def test_a_team_of_five_with_one_failing_once_and_one_rate_limited(
    planloom: Planloom,
) -> None:
    """Two rounds; contexts, retries and the verdict are as worked out by hand."""
    (planloom.folder / "planloom.toml").write_text("[retries.rate_limit]\nwaits_max = 2\n")
    planloom.model.script(JUDGE, TRUSTED)
    for id in FIVE[:3]:
        speaks(planloom, id, *(form(f"{id} claims {n}") for n in ("first", "second", "third")))
    speaks(planloom, "d4", "", "", form("d4 claims late"))  # empty, empty when repaired; then well
    speaks(planloom, "e5", Reply(status=429, headers={"retry-after": "0.05"}))
    result = await run_team(planloom, team=team(*FIVE, links="ring"), rounds=2, consensus=False)

    members = result["members"]
    assert {m: members[m]["outcome"] for m in FIVE} == {
        "a1": "succeeded",
        "b2": "succeeded",
        "c3": "succeeded",
        "d4": "succeeded",
        "e5": "failed",
    }
    assert (members["d4"]["recovered"], members["e5"]["recovered"]) == (True, False)
    assert members["e5"]["error_class"] == "rate_limit"
    rounds = [(r["round"], r["kind"], r["members"]) for r in result["rounds"]]
    assert rounds == [
        (0, "initial", list(FIVE)),
        (1, "communication", ["a1", "b2", "c3"]),  # those who have an answer
        (2, "communication", ["a1", "b2", "c3"]),
        (3, "retry", ["d4"]),  # never e5: pressure is not asked again
    ]
    assert result["rounds"][1]["heard"] == {
        "a1": ["e5", "b2"],
        "b2": ["a1", "c3"],
        "c3": ["b2", "d4"],
    }

    second, third = (planloom.model.seen("You are a1,")[n].last for n in (1, 2))
    assert "Round 1." in second
    assert "- e5 (role of e5), failed" in second
    assert "  claim: b2 claims first" in second  # as it stood before the round
    assert "- c3: c3 claims first in short" in second
    assert "Round 2." in third
    assert "  claim: b2 claims second" in third
    retried = planloom.model.seen("You are d4,")[2].last
    assert "Round 3." in retried
    assert "  claim: c3 claims third" in retried
    assert planloom.model.calls("You are d4,") == 3
    assert planloom.model.calls("You are e5,") == 5  # two free waits, then three attempts

    # By hand, n = 5: failed 1/5, confidences .9 .9 .9 .9 0 (mean .72, deviation .36, spread .72),
    # no evidence 1/5 (the failed one), no contradictions, no conflicts.
    intra = 0.38 * 0.2 + 0.26 * 0.28 + 0.20 * 0.2
    inter = 0.28 * 0.72 + 0.20 * 0.2 + 0.10 * 0.2
    system = 0.45 * intra + 0.35 * inter + 0.20 * 0.2
    judge = result["judge"]
    assert (judge["u_intra"], judge["u_inter"]) == (round(intra, 4), round(inter, 4))
    assert (judge["u_sys"], judge["confidence"]) == (round(system, 4), round(1 - system, 4))
    assert (judge["verdict"], judge["signals"]) == ("partial", [])
    assert result["status"] == "partial"


async def test_a_member_of_a_graph_that_recovers_frees_those_who_waited(
    planloom: Planloom,
) -> None:
    """look fails, build and sum are skipped; look is asked again and the graph goes on."""
    planloom.model.script(JUDGE, TRUSTED)
    members = [
        {"id": "sum", "role": "x", "task": "Sum up", "depends_on": ["build"]},
        {"id": "build", "role": "x", "task": "Build", "depends_on": ["look"]},
        {"id": "look", "role": "x", "task": "Look"},
    ]
    speaks(planloom, "look", "", "", form("look found it"))
    speaks(planloom, "build", form("build did it"))
    speaks(planloom, "sum", form("sum is done"))
    result = await run_team(planloom, team={"members": members})
    assert result["status"] == "completed"
    assert {m: r["outcome"] for m, r in result["members"].items()} == dict.fromkeys(
        ("sum", "build", "look"), "succeeded"
    )
    assert result["rounds"][-1]["members"] == ["look", "build", "sum"]
    assert "look found it" in planloom.model.seen("You are build,")[0].text


async def test_a_large_result_reaches_its_dependents_summed_up(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("Sum up the text", "the long and the short of it")
    long = form("look says much") + "\n" + "detail " * 5_000
    speaks(planloom, "look", Reply(text=long, obeys_limit=False, chunking="whole"))
    for id in ("one", "two"):
        opens = {"id": "c", "name": "read_output", "arguments": {"id": "look", "start": 0}}
        speaks(planloom, id, Reply(tool_calls=[opens]), form(f"{id} agrees"))
    members: list[dict[str, Any]] = [{"id": "look", "role": "x", "task": "Look"}]
    members += [
        {"id": i, "role": "x", "task": "Use it", "depends_on": ["look"]} for i in ("one", "two")
    ]
    result = await run_team(planloom, team={"members": members})
    assert result["status"] == "completed"
    first, second = planloom.model.seen("You are one,")
    assert "the long and the short of it" in first.text
    assert len(first.text) < 4_000
    assert "CLAIM: look says much" in second.last
    assert planloom.model.calls("Sum up the text") == 1  # once for both


async def test_a_judges_long_answer_is_the_teams(planloom: Planloom) -> None:
    """Above 2 KB it is a blob, and was once passed over without a word."""
    answer = "The whole answer. " * 400
    said = f'{{"verdict": "partial", "confidence": 0.4, "reason": "so", "answer": "{answer}"}}'
    planloom.model.script(JUDGE, Reply(text=said, obeys_limit=False))
    planloom.model.script("", form("yes"))
    result = await run_team(planloom, team=team("ann", "bob"), rounds=0)
    assert (result["judge"]["verdict"], result["judge"]["confidence"]) == ("partial", 0.4)
    assert str(result["answer"]).startswith("The whole answer.")


async def test_ids_with_dots_or_of_our_own_words_are_only_ids(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    members = [
        {"id": "task", "role": "x", "task": "First"},
        {"id": "v1.2", "role": "x", "task": "Second", "depends_on": ["task"]},
    ]
    speaks(planloom, "task", form("task is done"))
    speaks(planloom, "v1.2", form("v1.2 is done"))
    result = await run_team(planloom, team={"members": members})
    assert result["status"] == "completed"
    judged = planloom.model.seen(JUDGE)[0].text
    assert "task is done, and" in judged
    assert "v1.2 is done, and" in judged
    assert "Decide" in judged


@pytest.mark.parametrize("bad", ["nothing", "2 MB", "hangs"])
async def test_one_bad_member_is_bounded_and_leaves_the_others_alone(
    planloom: Planloom, bad: str
) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    speaks(planloom, "ann", form("ann is well"))
    replies: dict[str, Any] = {
        "nothing": "",
        "2 MB": Reply(text="y" * 2_000_000, chunking="whole", obeys_limit=False),
        "hangs": Reply(fault="hang"),
    }
    speaks(planloom, "bob", replies[bad])
    began = time.monotonic()
    result = await run_team(
        planloom,
        team=team("ann", "bob"),
        rounds=1,
        retry_rounds=0,
        timeout="1s" if bad == "hangs" else "30s",
        retry={"max_attempts": 1},
    )
    assert time.monotonic() - began < 40
    assert result["members"]["ann"]["outcome"] == "succeeded"
    bob = result["members"]["bob"]
    if bad == "2 MB":
        assert bob["outcome"] == "succeeded"
        assert "CLAIM:too_long" in bob["violations"] or "CLAIM:missing" in bob["violations"]
        heard = planloom.model.seen("You are bob,")[1]
        assert len(heard.text) < 250_000
        assert "(cut: the answer had 2,000,000 characters)" in heard.text
    else:
        assert bob["outcome"] == "failed"
        assert bob["error_class"] == ("timeout" if bad == "hangs" else "schema_violation")
        assert "bob" in result["reason"]


async def test_members_at_once_stay_within_the_budgets_parallel(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("", Reply(text=form("yes"), delay=0.2))
    await run_team(planloom, team=team(*FIVE), rounds=0, budget={"parallel": 2})
    seen = [s for s in planloom.model.seen() if JUDGE not in s.text]
    starts = [(s.at, 1) for s in seen] + [(s.ended_at or s.at, -1) for s in seen]
    running = most = 0
    for _, change in sorted(starts):
        running += change
        most = max(most, running)
    assert most == 2


async def test_teams_beside_a_goal_say_which_members_failed(planloom: Planloom) -> None:
    planloom.model.script(JUDGE, TRUSTED)
    planloom.model.script("You are checker,", Reply(status=401))
    planloom.model.script("", form("yes"))
    async with planloom.worker():
        result = await planloom.run(
            {
                "task": "Decide",
                "teamIds": ["core-delivery", "bug-hunt"],
                "communicationRounds": 0,
                "limits": {"teams": 1, "calls": 2},
            },
            timeout=60,
        )
    assert set(result["answer"]) == {"core-delivery", "bug-hunt"}
    aggregate = result["aggregate"]
    assert (aggregate["code"], aggregate["partial"]) == ("PARTIAL_SUCCESS", ["core-delivery"])
    assert aggregate["failed_members"] == {"core-delivery": ["checker"]}
    rounds = [s for s in planloom.model.seen() if "Round 1" in s.text]
    assert rounds == []


@pytest.mark.parametrize("name", ["researcher", "architect", "implementer", "reviewer", "tester"])
async def test_every_shipped_agent_works(planloom: Planloom, name: str) -> None:
    listing = {"id": "c", "name": "list_files", "arguments": {"path": "."}}
    planloom.model.script(
        "", Reply(tool_calls=[listing]), "SUMMARY: it is done\nRESULT: " + "y" * 20
    )
    (planloom.workspace / "seen.txt").write_text("x")
    async with planloom.worker():
        result = await planloom.run({"agent": name, "task": "Look"}, "AgentWorkflow")
    assert (result["status"], result["tool_calls"]) == ("completed", 1)
    first, second = planloom.model.seen("Look")
    assert "seen.txt" in second.last
    assert {t["function"]["name"] for t in first.body["tools"]} >= {"read_file", "list_files"}
