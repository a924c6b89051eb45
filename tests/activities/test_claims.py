"""Claims: of all attempts exactly one acts, and a lost one is never mistaken for none."""

from __future__ import annotations

import threading
from pathlib import Path

from planloom.activities.storage.claims import ClaimStore, claim_id
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.values import Stored

ID = claim_id("run/task/1", "send", {"to": "a"})
DONE = TaskOutput(output=Stored(value="sent"))


def test_the_first_claim_is_new_and_the_next_finds_it_open(tmp_path: Path) -> None:
    assert ClaimStore(tmp_path).claim(ID, tool="send", attempt=1).state == "new"
    again = ClaimStore(tmp_path).claim(ID, tool="send", attempt=2)  # another process
    assert (again.state, again.result) == ("open", None)


def test_a_finished_claim_gives_its_result(tmp_path: Path) -> None:
    claims = ClaimStore(tmp_path)
    claims.claim(ID, tool="send", attempt=1)
    claims.finish(ID, DONE)
    found = ClaimStore(tmp_path).claim(ID, tool="send", attempt=2)
    assert (found.state, found.result) == ("done", DONE)


def test_a_released_claim_can_be_made_again(tmp_path: Path) -> None:
    claims = ClaimStore(tmp_path)
    claims.claim(ID, tool="send", attempt=1)
    claims.leave(ID, "cancelled")
    assert claims.claim(ID, tool="send", attempt=2).note == "cancelled"
    claims.release(ID)
    assert claims.claim(ID, tool="send", attempt=3).state == "new"


def test_of_many_that_claim_at_once_one_acts(tmp_path: Path) -> None:
    states: list[str] = []
    gate = threading.Barrier(16)

    def claim() -> None:
        gate.wait()
        states.append(ClaimStore(tmp_path).claim(ID, tool="send", attempt=1).state)

    threads = [threading.Thread(target=claim) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["new"] + ["open"] * 15


def test_another_task_tool_or_argument_is_another_act() -> None:
    ids = {
        ID,
        claim_id("run/task/2", "send", {"to": "a"}),
        claim_id("run/task/1", "post", {"to": "a"}),
        claim_id("run/task/1", "send", {"to": "b"}),
    }
    assert len(ids) == 4
