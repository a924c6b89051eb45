"""JSON out of a model's answer, and its check against a schema. Never `eval`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import cast

from jsonschema import Draft202012Validator, SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from planloom.planner.language.values import JsonValue

_FENCE = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)
ANSWER_PROBLEMS_MAX = 50


class SchemaUnusableError(Exception):
    """The schema itself is wrong: no answer could fit it."""


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
    """Everything in `value` that does not fit, each with its path.

    Raises:
        SchemaUnusableError: `schema` is no JSON Schema, or refers to something outside itself.
    """
    try:
        Draft202012Validator.check_schema(schema)
        # An empty registry: a remote $ref is an error, not a download.
        validator = Draft202012Validator(schema, registry=Registry())
        errors = sorted(validator.iter_errors(value), key=lambda e: [str(p) for p in e.path])
    except SchemaError as error:
        raise SchemaUnusableError(f"output_schema is no JSON Schema: {error.message}") from None
    except Unresolvable as error:
        raise SchemaUnusableError(f"output_schema refers outside itself: {error}") from None
    return [
        f"{'.'.join(str(p) for p in e.absolute_path) or 'answer'}: {_short(e.message)}"
        for e in errors[:ANSWER_PROBLEMS_MAX]
    ]


def _short(message: str) -> str:
    return message if len(message) <= 300 else message[:299] + "…"
