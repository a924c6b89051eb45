"""One turn of an agent: what it may call."""

from __future__ import annotations

import pytest

from planloom.activities.agent_turn import allowed_tools
from planloom.planner.contract.jobs import TurnJob
from planloom.planner.language.values import Stored


@pytest.mark.parametrize(
    ("allow", "offered"),
    [
        (None, ["echo", "nap", "ask_human", "read_output"]),
        (["nap"], ["nap", "read_output"]),
        ([], ["read_output"]),
    ],
)
def test_a_turn_offers_only_tools_of_the_runs_allow_list(
    allow: list[str] | None, offered: list[str]
) -> None:
    job = TurnJob(
        name="a",
        spec=Stored(),
        task=Stored(),
        tools=["echo", "nap", "ask_human", "read_output"],
        allow=allow,
    )
    assert allowed_tools(job) == offered
