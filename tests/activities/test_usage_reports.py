"""Usage in the meanings of several endpoints, read in one."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.activities.models.usage_reports import plain_report, total_from, usage_from


def details(tokens: int) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens}}


@pytest.mark.parametrize(
    ("report", "input_tokens", "output_tokens", "cached_tokens"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}, 9, 4, 0),
        # Reasoning inside (OpenAI) and beside (xAI, Gemini behind gateways).
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, **details(3)}, 9, 4, 0),
        (
            {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 399, **details(386)},
            12,
            387,
            0,
        ),
        (
            {"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81, **details(60)},
            21,
            60,
            0,
        ),
        ({"prompt_tokens": 12, "completion_tokens": 2, **details(317)}, 12, 319, 0),
        ({"prompt_tokens": 9, "completion_tokens": 4, "reasoning_tokens": 3}, 9, 4, 0),
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, 20, 603, 0),
        # Caches.
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 5},
            },
            9,
            4,
            5,
        ),
        (
            {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 5}},
            9,
            4,
            5,
        ),
        (
            {
                "input_tokens": 3,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 8,
                "output_tokens": 5,
            },
            111,
            5,
            100,
        ),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 5}, 9, 4, 5),
        ({"prompt_tokens": "9", "completion_tokens": "4"}, 9, 4, 0),
        ({"prompt_tokens": 9.0, "completion_tokens": None, "output_tokens": 4}, 9, 4, 0),
        ({"prompt_tokens": 9, "completion_tokens": -4}, 9, 0, 0),
        ({"prompt_tokens": None, "completion_tokens": 4, "total_tokens": 13}, 9, 4, 0),
        ({"prompt_tokens": 9, "total_tokens": 13}, 9, 4, 0),
        # Other spellings: Bedrock's, Cohere's, Gemini's own.
        ({"inputTokens": 9, "outputTokens": 4, "totalTokens": 13}, 9, 4, 0),
        (
            {
                "billed_units": {"input_tokens": 3, "output_tokens": 4},
                "tokens": {"input_tokens": 9, "output_tokens": 4},
            },
            9,
            4,
            0,
        ),
        (
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 4,
                "thoughtsTokenCount": 60,
                "totalTokenCount": 73,
            },
            9,
            64,
            0,
        ),
    ],
)
def test_a_report_has_one_meaning(
    report: dict[str, Any], input_tokens: int, output_tokens: int, cached_tokens: int
) -> None:
    found = usage_from(plain_report(report))
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (input_tokens, output_tokens)
    assert found.cached_tokens == cached_tokens


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 10**20, "completion_tokens": 3},
        {"prompt_tokens": float("nan"), "completion_tokens": 3},
        {"prompt_tokens": float("inf"), "completion_tokens": 3},
        {"prompt_tokens": "many", "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": -1, "completion_tokens": -1},
        {"prompt_tokens": None, "completion_tokens": None},
        {"total_tokens": 40},
    ],
)
def test_a_report_of_nothing_is_none(report: dict[str, Any]) -> None:
    assert usage_from(report) is None


def test_a_total_without_parts_is_known() -> None:
    assert total_from({"total_tokens": 40}) == 40
    assert total_from({}) == 0
