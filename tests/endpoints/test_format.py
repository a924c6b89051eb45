"""The format itself: what is wrong with an entry is said, and an exchange that differs fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.crossed import crossed
from tests.endpoints.endpoint import Played, Request
from tests.endpoints.entry import FOLDER, Exchange, Reply, difference, read_all, read_file
from tests.endpoints.house import Outcome, problems_of
from tests.endpoints.replies import answer_of
from tests.endpoints.server_rules import refusal

PLAIN: dict[str, Any] = {
    "name": "x",
    "request": {"goal": "x"},
    "replies": [{"text": "y"}],
    "expect": {"status": "completed"},
}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (PLAIN | {"expects": {}}, "expects"),
        (PLAIN | {"replies": [{"text": "y", "stream": ["z"]}]}, "give one of"),
        (PLAIN | {"expect": {}}, "cannot fail"),
        (PLAIN | {"request": {}}, "give `request`"),
        ({k: v for k, v in PLAIN.items() if k != "name"}, "name"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(
    entry: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "kind.yaml"
    path.write_text("- " + str([PLAIN, entry])[1:-1].replace("}, {", "}\n- {"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"kind\.yaml: exchange 2") as seen:
        read_file(path)
    assert message in str(seen.value)


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        ("abc", {"contains": ["a", "c"]}, True),
        ("abc", {"contains": "d"}, False),
        ("abc", {"lacks": "d"}, True),
        (3, {"at_least": 3, "at_most": 3}, True),
        (None, {"at_least": 0}, False),
        (None, {"absent": True}, True),
        (0, {"absent": False}, True),
        (1, True, False),
        ({"a": 1}, {"a": 1}, True),
        ("x", {"not": "x"}, False),
    ],
)
def test_matchers(value: object, wanted: object, fits: bool) -> None:
    assert (difference(value, wanted) is None) == fits


def _played(*counted: int | None) -> Played:
    played = Played(Exchange.model_validate(PLAIN))
    for each in counted:
        request = Request({"messages": [{"role": "user", "content": "x"}]}, {}, "/x", 0.0)
        request.ended, request.counted = "whole", each
        played.requests.append(request)
    return played


def test_usage_that_differs_from_what_the_endpoint_counted_fails() -> None:
    exchange = Exchange.model_validate(PLAIN)
    outcome = Outcome([{"status": "completed", "usage": {"tokens": 70}}])
    assert problems_of(exchange, _played(70), outcome) == []
    assert problems_of(exchange, _played(70, None), outcome) == []
    (line,) = problems_of(exchange, _played(70, 65), outcome)
    assert "counted 135" in line


def test_a_hole_takes_the_value_of_the_request() -> None:
    reply = Reply.model_validate(
        {"text": "cut at %{max_tokens}", "usage": {"completion_tokens": "%{max_tokens}"}}
    )
    answer = answer_of(reply, {"max_tokens": 17})
    assert answer.body is not None
    assert b"cut at 17" in answer.body
    assert answer.counted == 17


def test_a_rule_refuses_what_its_server_refuses() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{"}}
    messages = [{"role": "assistant", "tool_calls": [call]}, {"role": "user", "content": "x"}]
    for rule in ("arguments_parse", "calls_are_answered", "tools_stay"):
        assert refusal({"messages": messages}, [rule]) is not None
    assert refusal({"messages": messages}, ["no_user_after_tool", "tool_names"]) is None


def test_every_test_that_the_table_of_inputs_names_is_there() -> None:
    cells = re.findall(r"`([^`\n]+)`", _column((FOLDER / "INPUTS.md").read_text(encoding="utf-8")))
    known = {f"{e.kind}: {e.name}" for e in [*read_all(), *crossed()]}
    tests = [c for c in cells if "::" in c]
    exchanges = [c for c in cells if re.match(r"[a-z]+: ", c)]
    assert len(tests) > 20
    assert len(exchanges) > 80
    assert [c for c in exchanges if c not in known] == []
    assert [c for c in tests if not _is_there(*c.split("::"))] == []


def _column(table: str) -> str:
    """The second cell of each row."""
    return "\n".join(row.split("|")[2] for row in table.splitlines() if row.startswith("| "))


def _is_there(path: str, name: str) -> bool:
    place = FOLDER.parents[1] / path
    return place.exists() and f"def {name}(" in place.read_text(encoding="utf-8")
