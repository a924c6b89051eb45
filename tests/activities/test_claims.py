"""Claims: of all attempts exactly one acts, and a lost one is never mistaken for none."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from planloom.activities.storage.backends import BlobError, FolderBackend
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
    claims.finish(claims.claim(ID, tool="send", attempt=1), DONE)
    found = ClaimStore(tmp_path).claim(ID, tool="send", attempt=2)
    assert (found.state, found.result) == ("done", DONE)


def test_a_released_claim_can_be_made_again(tmp_path: Path) -> None:
    claims = ClaimStore(tmp_path)
    first = claims.claim(ID, tool="send", attempt=1)
    claims.leave(first, "cancelled")
    assert claims.claim(ID, tool="send", attempt=2).note == "cancelled"
    claims.release(first, attempt=1)
    assert claims.claim(ID, tool="send", attempt=2).state == "new"


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


def test_an_attempt_after_the_first_without_a_claim_before_it_is_unseen(tmp_path: Path) -> None:
    """The claim may lie in a store that this worker cannot see. It was taken for "not done"."""
    seen = ClaimStore(tmp_path / "one").claim(ID, tool="send", attempt=1)
    other = ClaimStore(tmp_path / "other").claim(ID, tool="send", attempt=2)
    assert (seen.state, other.state) == ("new", "unseen")
    # It holds the claim all the same: a first attempt that is late here must not act either.
    assert ClaimStore(tmp_path / "other").claim(ID, tool="send", attempt=1).state == "open"


@pytest.mark.parametrize(
    ("attempt", "nothing_done", "state"),
    [(1, 0, "new"), (2, 1, "new"), (3, 1, "unseen"), (3, 2, "new"), (2, 0, "unseen")],
)
def test_every_attempt_before_must_be_accounted_for(
    tmp_path: Path, attempt: int, nothing_done: int, state: str
) -> None:
    claims = ClaimStore(tmp_path)
    made = claims.claim(ID, tool="send", attempt=attempt, nothing_done=nothing_done)
    assert made.state == state


def test_a_release_counts_for_its_attempts_only(tmp_path: Path) -> None:
    """Attempt 2 was lost elsewhere: that attempt 1 did nothing says nothing of it."""
    claims = ClaimStore(tmp_path)
    claims.release(claims.claim(ID, tool="send", attempt=1), attempt=1)
    assert claims.claim(ID, tool="send", attempt=3).state == "unseen"


def test_a_release_by_another_run_of_the_task_says_nothing_of_this_ones_attempts(
    tmp_path: Path,
) -> None:
    claims = ClaimStore(tmp_path)
    first = claims.claim(ID, tool="send", attempt=2, execution="one", nothing_done=1)
    claims.release(first, attempt=2, execution="one")
    assert claims.claim(ID, tool="send", attempt=2, execution="two").state == "unseen"


def test_a_release_that_was_lost_is_made_up_for_by_what_the_retry_carries(tmp_path: Path) -> None:
    claims = ClaimStore(tmp_path)
    claims.claim(ID, tool="send", attempt=1, execution="one")
    other = claims.claim(ID, tool="send", attempt=2, execution="two", nothing_done=1)
    assert other.state == "open"  # not the attempt that the retry speaks of
    again = claims.claim(ID, tool="send", attempt=2, execution="one", nothing_done=1)
    assert (again.state, again.generation) == ("new", 2)


def test_of_many_that_go_on_after_a_release_one_acts(tmp_path: Path) -> None:
    claims = ClaimStore(tmp_path)
    claims.release(claims.claim(ID, tool="send", attempt=1), attempt=1)
    with ThreadPoolExecutor(16) as pool:
        made = pool.map(lambda _: claims.claim(ID, tool="send", attempt=2).state, range(16))
    assert sorted(made) == ["new"] + ["open"] * 15


class _AnswerLost(FolderBackend):
    """A create that is written, whose answer is lost, and that the client repeats."""

    def create(self, name: str, content: bytes) -> bool:
        super().create(name, content)
        return super().create(name, content)


def test_a_claim_whose_answer_was_lost_is_still_ones_own(tmp_path: Path) -> None:
    """The repetition is refused: the act was never done, and the task ended unknown."""
    claims = ClaimStore(_AnswerLost(tmp_path))
    assert claims.claim(ID, tool="send", attempt=1).state == "new"
    assert claims.claim(ID, tool="send", attempt=1).state == "open"


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BlobError, match=r"claim .*… cannot be read or written in .*file"):
        ClaimStore(tmp_path / "file").claim(ID, tool="send", attempt=1)
