"""Recorded error bodies of endpoints, each with its right reading."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from planloom.activities.models.error_bodies import (
    answer_allowed,
    classify_status,
    error_text,
    message_of,
    span_seconds,
    wait_in_body,
)

TABLE: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "error_bodies.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("entry", TABLE, ids=lambda e: f"{e['from']}: {e['class']}")
def test_a_recorded_error_has_its_reading(entry: dict[str, Any]) -> None:
    text = error_text(entry["body"])
    assert classify_status(entry["status"], text) == entry["class"], text
    assert wait_in_body(entry["body"]) == (
        pytest.approx(entry["wait"]) if "wait" in entry else None
    )
    assert answer_allowed(text, entry.get("sent")) == entry.get("answer")
    assert not entry["body"] or message_of(entry["body"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([{"error": {"message": "in a list"}}], "in a list"),
        ({"error": {"message": {"error": {"message": "twice"}}}}, "twice"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"error": {"message": "outer", "metadata": {"raw": '{"message": "inner"}'}}}, "inner"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        ({"error": "plain"}, "plain"),
        ({"choices": []}, ""),
        (None, ""),
    ],
)
def test_the_words_of_an_error_are_found_in_each_shape(body: object, message: str) -> None:
    assert message in message_of(body)
    assert bool(message) == bool(message_of(body))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7.66s", 7.66),
        ("6m0s", 360),
        ("1h2m3s", 3723),
        ("250ms", 0.25),
        ("1 hour and 5 minutes", 3900),
        ("soon", None),
        ("", None),
    ],
)
def test_a_span_of_time_is_read(text: str, seconds: float | None) -> None:
    assert span_seconds(text) == (None if seconds is None else pytest.approx(seconds))


def test_an_error_of_any_size_and_depth_is_read_in_bounded_time() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = {"error": deep, "details": [deep]} if _ < 12 else {"error": deep}
    wide = {"error": {"message": "try again in " + "1" * 3_000_000 + " limit " * 500_000}}
    started = time.process_time()
    for body in (deep, wide, [wide] * 50):
        text = error_text(body)
        classify_status(429, text)
        answer_allowed(text, 100)
        wait_in_body(body)
        message_of(body)
    assert time.process_time() - started < 2
