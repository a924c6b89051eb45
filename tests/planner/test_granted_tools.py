"""Which tools an agent or member may call: its own, narrowed by the request's `tools`."""

from __future__ import annotations

import pytest

from planloom.planner.language.definitions import granted_tools


@pytest.mark.parametrize(
    ("own", "allowed", "granted"),
    [
        (["a", "b"], None, ["a", "b"]),
        (["a", "b"], ["b", "c"], ["b"]),
        (["a"], [], []),
        (None, ["b", "c"], ["b", "c"]),
        (None, None, []),
        ([], ["b"], []),
    ],
)
def test_a_request_narrows_what_is_named_and_gives_what_is_not(
    own: list[str] | None, allowed: list[str] | None, granted: list[str]
) -> None:
    assert granted_tools(own, allowed) == granted
