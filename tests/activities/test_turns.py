"""Turns: work that keeps a core busy is shared by runs, and none takes all of it."""

from __future__ import annotations

import threading
import time

import pytest

from planloom.activities.tools.turns import NoTurnError, Turns

LIVE = threading.Event()


def _hold(turns: Turns, owner: str, until: threading.Event, held: list[str]) -> threading.Thread:
    def work() -> None:
        with turns.turn(owner, LIVE):
            held.append(owner)
            until.wait(10)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_no_more_than_the_size_and_one_always_left_for_others() -> None:
    turns = Turns(3)
    until = threading.Event()
    held: list[str] = []
    threads = [_hold(turns, "greedy", until, held) for _ in range(6)]
    time.sleep(0.1)
    assert held == ["greedy", "greedy"]
    threads.append(_hold(turns, "other", until, held))
    time.sleep(0.1)
    assert held == ["greedy", "greedy", "other"]
    threads.append(_hold(turns, "third", until, held))
    time.sleep(0.3)
    assert len(held) == 3  # all places are taken
    until.set()
    for thread in threads:
        thread.join(5)
    assert sorted(held) == ["greedy"] * 6 + ["other", "third"]
    assert turns.count("greedy") == turns.count("other") == 0


def test_a_cancelled_call_stops_waiting_and_a_failed_one_gives_its_place_back() -> None:
    turns = Turns(1)
    cancelled = threading.Event()
    with turns.turn("a", LIVE):
        threading.Timer(0.1, cancelled.set).start()
        with pytest.raises(NoTurnError), turns.turn("b", cancelled):
            raise AssertionError("there is no place")
    with pytest.raises(KeyError), turns.turn("a", LIVE):
        raise KeyError("broken")
    with turns.turn("a", LIVE):
        assert turns.count("a") == 1
