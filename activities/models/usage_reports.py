"""Usage as endpoints report it, in one meaning: input, output with reasoning, cached. Pure.

OpenAI counts reasoning inside `completion_tokens`; xAI and Gemini's gateways count it beside, and
only `total_tokens` holds it (UKGovernmentBEIS/inspect_ai#5528, router-for-me/CLIProxyAPI#5733).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from planloom.planner.language.values import Usage

TOKENS_MAX = 10**8
"""Of one call: a larger count is not believed."""
_MARK = re.compile(r"(?<=[a-z])(?=[A-Z])")


def plain_report(body: Mapping[str, Any]) -> dict[str, Any]:
    """A report with its names in one spelling: `inputTokens` too, and Cohere's own `tokens`."""
    inner = body.get("tokens")
    named = {_MARK.sub("_", str(k)).lower(): v for k, v in body.items()}
    return named | (plain_report(inner) if isinstance(inner, Mapping) else {})


def usage_from(body: Mapping[str, Any]) -> Usage | None:
    """Usage from a report in the names of Chat Completions, Responses, Messages or Gemini.

    None when it reports nothing: no counts, zeros, or something that is not a number.
    """
    given = _first(body, "prompt_tokens", "input_tokens", "prompt_eval_count", "prompt_token_count")
    made = _first(
        body, "completion_tokens", "output_tokens", "eval_count", "candidates_token_count"
    )
    total = total_from(body)
    if given is None and made is not None and total > made:
        given = total - made
    if made is None and given is not None and total > given:
        made = total - given
    if given is None or made is None:
        return None
    cached, beside = _cached(body)
    given += beside
    reasoning = _reasoning(body)
    if total >= given:
        made = max(made, total - given)
    elif not total and reasoning > made:
        made += reasoning
    if not made and not given:
        return None
    return Usage(input_tokens=given, output_tokens=made, cached_tokens=cached, model_calls=1)


def total_from(body: Mapping[str, Any]) -> int:
    """All tokens of a report that names no parts; 0 when there is none."""
    return _first(body, "total_tokens", "total_token_count") or 0


def _reasoning(body: Mapping[str, Any]) -> int:
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = body.get(name)
        if isinstance(details, Mapping) and (found := _count(details.get("reasoning_tokens"))):
            return found
    return _first(body, "reasoning_tokens", "thoughts_token_count") or 0


def _cached(body: Mapping[str, Any]) -> tuple[int, int]:
    """Cached input tokens, and those that the input's own count leaves out."""
    for name in ("prompt_tokens_details", "input_tokens_details"):
        details = body.get(name)
        if isinstance(details, Mapping):
            return _count(details.get("cached_tokens")) or 0, 0
    read = _count(body.get("cache_read_input_tokens")) or 0
    if "input_tokens" in body:  # Messages: input_tokens is what was not in the cache
        return read, read + (_count(body.get("cache_creation_input_tokens")) or 0)
    return _count(body.get("prompt_cache_hit_tokens")) or 0, 0


def _first(body: Mapping[str, Any], *names: str) -> int | None:
    """The first of these counts that is there; None when none is, or it is not a number."""
    return next((_count(body[n]) for n in names if body.get(n) is not None), None)


def _count(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:15])
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= TOKENS_MAX:
        return None
    return max(0, int(value)) if isfinite(value) else None
