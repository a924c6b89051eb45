"""A model's JSON answer held against the schema it was asked for. Pure; never `eval`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import ValidationError

from planloom.planner.compile.schema_check import check_schema, check_value
from planloom.planner.compile.schema_document import NESTING_MAX, read_schema
from planloom.planner.compile.schema_keywords import TooMuchError, errors_of
from planloom.planner.language.values import JsonValue, is_deeper
from planloom.planner.syntax.json_text import best_json, parse_json

_PERCENT = re.compile(r"\s*(\d{1,6}(?:[.,]\d{1,6})?)\s*[%％]\s*")
DECODED_MAX_CHARS = 1_000_000
"""A longer text is not looked at for the JSON that it may hold."""


class SchemaUnusableError(Exception):
    """The schema itself is wrong: no answer can be held to it."""


class AnswerSchema:
    """A JSON Schema that answers are read by.

    Raises:
        SchemaUnusableError: it is not a schema, or cannot be enforced; the message says why.
    """

    def __init__(self, schema: Mapping[str, JsonValue]) -> None:
        self._schema = schema
        if faults := check_schema(schema, "output_schema"):
            raise SchemaUnusableError(faults[0].line())

    def problems(self, value: JsonValue) -> list[str]:
        """Everything in `value` that does not fit, each with its path."""
        return [problem.line() for problem in check_value(value, self._schema, "answer")]

    def fitted(self, value: JsonValue) -> tuple[JsonValue, list[str]]:
        """The value as it was meant, with what still does not fit.

        A value that does not fit is tried with its texts read as what is wanted (`"5"` and `"60%"`
        for a number, `"[1, 2]"` for a list, `"Yes"` for the option `yes`), without fields that are
        `null`, and without an object of one field around it (`{"output": …}`). It is taken so only
        when it then fits as a whole.
        """
        problems = self.problems(value)
        if not problems:
            return value, []
        for meant in self._meanings(value):
            if not self.problems(meant):
                return meant, []
        return value, problems

    def read(self, text: str) -> tuple[JsonValue, list[str]]:
        """The value of a model's answer, with what in it does not fit.

        Where a text is wanted, an answer without JSON is that text.

        Raises:
            ValueError: the answer holds no JSON value.
        """
        try:
            return self.fitted(best_json(text, lambda value: not self.fitted(value)[1]))
        except ValueError:
            if self._schema.get("type") != "string" or not text.strip():
                raise
        return self.fitted(text.strip().strip("*").strip())

    def _errors(self, value: JsonValue) -> list[ValidationError]:
        if is_deeper(value, NESTING_MAX):
            return []
        try:
            return errors_of(value, read_schema(self._schema), lets_references=False)
        except TooMuchError:
            return []

    def _meanings(self, value: JsonValue) -> Iterator[JsonValue]:
        yield _decoded(value, self._errors(value))
        if isinstance(value, dict) and len(value) == 1:
            (inner,) = value.values()
            yield inner
            yield _decoded(inner, self._errors(inner))
        if isinstance(value, str):
            decoded = _json_of(value)
            yield decoded
            yield _decoded(decoded, self._errors(decoded))


def _decoded(value: JsonValue, errors: list[ValidationError]) -> JsonValue:
    """The value with those texts read as JSON that do not fit as texts."""
    for error in errors:
        if error.instance is None and error.absolute_path:
            value = _left_out(value, list(error.absolute_path))
        if not isinstance(error.instance, str):
            continue
        read = _meant(error.instance, error)
        if read is not None or error.instance == "null":
            value = _replaced(value, list(error.absolute_path), read)
    return value


def _meant(text: str, error: ValidationError) -> JsonValue:
    """What a text that does not fit may mean; None when it means nothing else."""
    if error.validator == "enum":
        options = [o for o in list(error.schema["enum"]) if isinstance(o, str)]  # type: ignore[index]
        same = [o for o in options if o.strip().lower() == text.strip().lower()]
        if len(same) == 1:
            return same[0]
    if percent := _PERCENT.fullmatch(text):
        schema = error.schema if isinstance(error.schema, Mapping) else {}
        is_of_hundred = schema.get("type") == "integer" or schema.get("maximum", 1) > 1
        number = float(percent[1].replace(",", "."))
        return (int(number) if number.is_integer() else number) if is_of_hundred else number / 100
    return _json_of(text)


def _json_of(text: str) -> JsonValue:
    """What a text holds as JSON, other than a text; None when it holds nothing."""
    if len(text) > DECODED_MAX_CHARS:
        return None
    try:
        read: JsonValue = parse_json(text)
    except ValueError:
        return None
    return None if isinstance(read, str) else read


def _replaced(value: Any, path: list[str | int], new: JsonValue) -> JsonValue:
    if not path:
        return new
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    made: JsonValue = copy
    return made


def _left_out(value: Any, path: list[str | int]) -> JsonValue:
    """The value without a field that is null: how a strict endpoint says that there is none."""
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    if len(path) > 1:
        copy[path[0]] = _left_out(copy[path[0]], path[1:])
    elif isinstance(copy, dict):
        copy.pop(path[0], None)
    made: JsonValue = copy
    return made
