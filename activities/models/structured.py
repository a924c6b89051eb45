"""JSON out of a model's answer, and its check against a schema. Never `eval`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import cast

from planloom.planner.compile.schema_check import check_value
from planloom.planner.language.values import JsonValue

_FENCE = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)


def json_from_text(text: str) -> JsonValue:
    """The JSON value of an answer: the whole of it, else of its code fence, else the first in it.

    Raises:
        ValueError: there is none.
    """
    stripped = text.strip()
    for candidate in (stripped, *(m.strip() for m in _FENCE.findall(stripped))):
        try:
            return cast(JsonValue, json.loads(candidate, parse_constant=_no_constant))
        except ValueError:
            continue
    # A sentence before it and one after it are common; a number or word inside prose is no answer.
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    for opening in re.finditer(r"[\[{]", stripped):
        try:
            value, _ = decoder.raw_decode(stripped, opening.start())
        except ValueError:
            continue
        return cast(JsonValue, value)
    raise ValueError("the answer holds no JSON value")


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is no JSON")


def schema_problems(value: JsonValue, schema: Mapping[str, JsonValue]) -> list[str]:
    """Everything in `value` that does not fit, each with its path; for the model to correct."""
    return [problem.line() for problem in check_value(value, schema, "answer")]
