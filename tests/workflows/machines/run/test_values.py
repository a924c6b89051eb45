"""Values that workflow code makes by itself: small and flat ones, as payloads hold them."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.contract.results import RunResult
from planloom.planner.language.expressions import Meter
from planloom.planner.language.values import Bindings, JsonValue, Stored
from planloom.workflows.machines.run.values import RESOLVED_MAX_DEPTH, resolve_now
from planloom.workflows.shell.converter import data_converter

WRAPPED = "[" * 95 + "@" + "]" * 95


def _made(value: JsonValue, given: JsonValue) -> Any:
    return resolve_now(value, Bindings(inputs={"a": Stored(value=given)}), Meter())


def _nested(levels: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ("${a | " + WRAPPED + "}", _nested(64)),
        ("${a | " + WRAPPED + " | " + WRAPPED + "}", _nested(64)),
        ([[["${a}"]]], _nested(99)),
        (["${a | `" + "[" * 90 + "]" * 90 + "`}"] * 2, 1),
        (_nested(90), 1),
    ],
    ids=["a path", "two paths", "the value given", "a literal", "no reference"],
)
def test_what_is_nested_deeper_than_payloads_is_left_to_an_activity(
    value: JsonValue, given: JsonValue
) -> None:
    made = _made(value, given)
    if made is None:
        return
    # Else a parent can read it, as the answer of its child.
    assert isinstance(made, Stored)
    converter = data_converter().payload_converter
    payloads = converter.to_payloads([RunResult(status="completed", answer=made.value)])
    assert converter.from_payloads(payloads, [RunResult])[0].answer == made.value


def test_no_depth_that_an_expression_reaches_breaks_workflow_code() -> None:
    assert _made("${a | " + WRAPPED + "}", _nested(64)) is None
    assert _made("${a}", _nested(RESOLVED_MAX_DEPTH)).value == _nested(RESOLVED_MAX_DEPTH)
    assert _made("${a}", _nested(RESOLVED_MAX_DEPTH + 1)) is None
