"""What is wrong with settings, requests and plans, in words that name no library."""

from __future__ import annotations

import re
from typing import Any

import pytest

from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.settings import SettingsError, settings_from
from planloom.planner.syntax.documents import read_request

FOREIGN = re.compile(
    r"input should|parsing|extra inputs|pydantic|valid (string|integer|dict)", re.I
)


def lines(toml: dict[str, Any], **environment: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings_from(environment, toml)
    return [problem.line() for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ({"modle": "x"}, 'modle: no field "modle". Did you mean "model"?'),
        (
            {"pools": {"a": {"requests_per_minut": 3}}},
            'pools.a.requests_per_minut: no field "requests_per_minut". '
            'Did you mean "requests_per_minute"?',
        ),
        ({"pools": {"a": {"parallel": 0}}}, "pools.a.parallel: needs 1 or more; found 0"),
        ({"pools": {"a": {"parallel": "x"}}}, 'pools.a.parallel: needs a whole number; found "x"'),
        (
            {"mcp": {"a": {"comand": "x"}}},
            'mcp.a.comand: no field "comand". Did you mean "command"?',
        ),
        (
            {"mcp": {"b-c": {"command": "x"}}},
            'mcp.b-c: "b-c" is not a name: use letters, digits and _, and begin with a letter',
        ),
        (
            {"prices": {"x": {"input_usd_per_million": 1}}},
            "prices.x.output_usd_per_million: is missing",
        ),
        ({"tools": "mine"}, 'tools: needs a list, found "mine"'),
        ({"max_activities": 9_999}, "max_activities: needs 5,000 or less; found 9999"),
    ],
)
def test_a_wrong_setting_says_what_it_needs(toml: dict[str, Any], line: str) -> None:
    assert any(found.startswith("planloom.toml: ") and line in found for found in lines(toml))
    assert not FOREIGN.search("\n".join(lines(toml)))


def test_a_setting_of_the_environment_is_named_by_its_variable() -> None:
    found = lines({"max_activities": 7}, PLANLOOM_MAX_ACTIVITIES="many")
    assert found == ['PLANLOOM_MAX_ACTIVITIES: needs a whole number; found "many"']


@pytest.mark.parametrize("place", ["headers", "headers_env"])
def test_a_secret_in_the_wrong_place_is_not_shown(place: str) -> None:
    for value in ("S3cret: x", ["S3cret"], {"Authorization": ["S3cret"]}):
        assert "S3cret" not in "\n".join(lines({"pools": {"a": {place: value}}}))


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("budget", {"tokens": -5}, "budget.tokens: needs 1 or more; found -5"),
        ("budget", {"parallel": 1.5}, "budget.parallel: needs a whole number; found 1.5"),
        ("stream", "perhaps", 'stream: needs true or false; found "perhaps"'),
        ("plan_blob", "abc", 'plan_blob: "abc" is not the SHA-256 of a stored plan'),
    ],
)
def test_a_wrong_request_says_what_it_needs(field: str, value: Any, line: str) -> None:
    _, problems = read_request({"goal": "x", field: value}, RunRequest)
    found = "\n".join(problem.line() for problem in problems)
    assert line in found
    assert not FOREIGN.search(found)
