"""`planloom capacity` as a program: what it shows, and what it changes."""

from __future__ import annotations

import json

from tests.cli.test_cli import planloom_cli
from tests.support.harness import Planloom
from tests.support.waiting import until


async def test_it_shows_what_waits_who_drained_it_and_why(planloom: Planloom) -> None:
    planloom.model.script("", "answer")
    asks = {"id": "all", "map": [1, 2, 3], "ask": "${item}"}
    async with planloom.worker():
        unused = await planloom_cli(planloom, "capacity")
        drained = await planloom_cli(
            planloom, "capacity", "drain", "default", "--reason", "night", "--by", "ops"
        )
        changed = await planloom_cli(planloom, "capacity", "set", "default", "parallel=2")
        run = await planloom.start({"plan": {"tasks": [asks]}, "priority": "low"})
        # The server counts a backlog a little later than it has it.
        for _ in range(30):
            found = json.loads((await planloom_cli(planloom, "capacity", "--json")).out)["default"]
            if found["waiting"] == {"low": 3}:
                break
        shown = await planloom_cli(planloom, "capacity")
        assert not planloom.model.requests
        resumed = await planloom_cli(planloom, "capacity", "resume", "default")
        await until(lambda: len(planloom.model.requests) == 3)
        await planloom.result(run)
    assert "not used yet" in unused.out
    assert (drained.code, drained.out) == (0, "default: drained: calls wait until resume\n")
    assert changed.out == "default: set\n"
    assert "default: drained by ops: night" in shown.out
    assert "default: set by hand: parallel=2" in shown.out
    assert "first in line waits for" in shown.out
    assert found["waiting"] == {"low": 3}
    assert found["oldest_seconds"]["low"] >= 0
    assert (found["state"]["status"], found["state"]["parallel"]) == ("drained", 2)
    assert resumed.code == 0


async def test_a_wrong_change_is_misuse_and_says_what_is_known(planloom: Planloom) -> None:
    for arguments, said in (
        (("set", "nope", "parallel=2"), 'no pool "nope"'),
        (("set", "default", "parallel"), "write FIELD=VALUE"),
        (("set", "default", "parallel=0"), "needs 1 or more"),
        (("set", "default", "requests_per_minute=-1"), "needs more than 0"),
        (("set", "default", "speed=1"), "Fields: requests_per_minute"),
        (("set", "default"), "nothing to set"),
    ):
        done = await planloom_cli(planloom, "capacity", *arguments)
        assert done.code == 2, done
        assert said in done.err
