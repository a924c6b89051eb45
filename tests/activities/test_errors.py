"""Error classes, waits and what the workflow is told."""

from __future__ import annotations

import asyncio
import typing

import httpx
import pytest
from temporalio.exceptions import ApplicationError

from planloom.activities.models.error_bodies import wait_in_body
from planloom.activities.models.errors import (
    ModelError,
    as_application_error,
    cause_of,
    classify,
    classify_status,
    classify_text,
    error_text,
    host_of,
    requested_wait_seconds,
    retry_after_seconds,
)
from planloom.activities.tools.decorator import ToolError
from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.retries import RETRY_TABLE, RetryOverride, table_with
from planloom.planner.language.plan import Retry
from planloom.planner.language.values import Usage

NOW = 1_800_000_000.0


def test_every_error_class_has_its_rule() -> None:
    assert set(RETRY_TABLE) == set(typing.get_args(ErrorClass))


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (
            400,
            "context_length_exceeded This model's maximum context length is 8192",
            "context_length",
        ),
        (400, "prompt is too long: 250000 tokens > 200000 maximum", "context_length"),
        (400, "Invalid value for 'messages'", "refused"),
        (400, "API key not valid. invalid_api_key", "auth"),
        (401, "", "auth"),
        (402, "Payment required", "auth"),
        (403, "You do not have permission", "auth"),
        (403, "content_policy_violation", "refused"),
        (404, "model_not_found", "refused"),
        (408, "", "timeout"),
        (413, "too large", "context_length"),
        (422, "extra fields", "refused"),
        (429, "rate_limit_exceeded", "rate_limit"),
        (429, "insufficient_quota You exceeded your current quota, check billing", "auth"),
        (500, "internal", "unknown"),
        (500, "model overloaded", "capacity"),
        (502, "bad gateway", "unknown"),
        (503, "", "capacity"),
        (504, "", "timeout"),
        (529, "overloaded_error", "capacity"),
        (418, "", "refused"),
    ],
)
def test_a_status_and_its_text_have_one_class(status: int, text: str, expected: str) -> None:
    assert classify_status(status, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("429 Too Many Requests", "rate_limit"),
        ("rate-limit hit", "rate_limit"),
        ("capacity exceeded", "capacity"),
        ("model overloaded", "capacity"),
        ("503 service unavailable", "capacity"),
        ("request timed out", "timeout"),
        ("invalid api key", "auth"),
        ("500 internal error", "unknown"),
        ("53 apples", "unknown"),
    ],
)
def test_an_endpoints_own_words_have_one_class(text: str, expected: str) -> None:
    assert classify_text(text) == expected


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (asyncio.CancelledError(), "cancelled"),
        (TimeoutError(), "timeout"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.ConnectError("refused"), "unknown"),
        (ConnectionResetError(), "unknown"),
        (ToolError("no such city"), "tool"),
        (ModelError("context_length", "cut off"), "context_length"),
        (ApplicationError("x", type="auth"), "auth"),
        (ApplicationError("x", type="Other"), "unknown"),
        (ValueError("capacity must be above 0"), "unknown"),
    ],
)
def test_an_exception_has_one_class(exc: BaseException, expected: str) -> None:
    assert classify(exc) == expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "12ms"}, 0.012),
        ({"retry-after": "6m0s"}, 300.0),
        ({"retry-after": "1m2.5s"}, 62.5),
        ({"retry-after": "100000"}, 300.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:59:30 GMT"}, None),
        ({"retry-after": str(NOW + 20)}, 20.0),
        ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "20s"}, 20.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-tokens": "5000",
                "x-ratelimit-reset-tokens": "50s",
            },
            2.0,
        ),
        ({"x-ratelimit-reset-requests": "-1", "x-ratelimit-reset-tokens": "0"}, None),
        ({"retry-after": "3", "x-ratelimit-reset-tokens": "50s"}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "12"}, 12.0),
        ({"ratelimit": "limit=10, remaining=0, reset=30"}, 30.0),
        ({"ratelimit": '"default";r=0;t=30'}, 30.0),
        ({"ratelimit": "limit=10, remaining=3, reset=30"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_in_every_form_that_endpoints_use(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_seconds(headers, NOW) == (
        None if seconds is None else pytest.approx(seconds)
    )


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", 7.0), ("7s", 7.0), ("nan", None), ("-7", None), ("inf", 300.0), ("9" * 400, 300.0)],
)
def test_a_wait_in_the_body_that_is_no_wait_is_none(asked: str, seconds: float | None) -> None:
    """With `nan` no failure could be told, a final one neither: the call was made again."""
    body = {"error": {"message": "no such key", "retry_after": asked}}
    found = retry_after_seconds({}, NOW, body)
    assert found == seconds
    error = told(ModelError("auth", "no such key"), retry_after=found)
    assert error.non_retryable
    assert delay(error) <= 300
    in_a_200 = ModelError("rate_limit", "full", retry_after=wait_in_body(body))
    assert requested_wait_seconds(in_a_200, NOW) == seconds


def told(exc: BaseException, **fields: object) -> ApplicationError:
    known = {"endpoint": "http://u:pw@host:81/v1?key=sk-1", "model": "m"}
    known |= {"counted_attempt": 1, "max_attempts": 3, "retry_after": None}
    return as_application_error(exc, **(known | fields))  # type: ignore[arg-type]


def delay(error: ApplicationError) -> float:
    assert error.next_retry_delay is not None
    return error.next_retry_delay.total_seconds()


def test_the_message_names_class_model_and_host_and_no_key() -> None:
    error = told(ModelError("auth", "wrong key sk-abcdef123456"))
    assert error.type == "auth"
    assert error.non_retryable
    assert "auth: model m at host:81: wrong key sk-…" in str(error)
    assert "pw" not in str(error)


def test_a_rate_limit_waits_as_long_as_the_server_asked_and_costs_no_attempt() -> None:
    error = told(ModelError("rate_limit", "429"), counted_attempt=3, waits=50, retry_after=7.0)
    assert not error.non_retryable
    assert delay(error) == 7


def test_waits_without_a_wish_grow_and_are_bounded() -> None:
    exc = ModelError("rate_limit", "429")
    assert [delay(told(exc, waits=w)) for w in (0, 1, 2, 5000)] == [1, 2, 4, 60]


def test_an_overloaded_endpoint_waits_ten_times_and_then_costs_attempts() -> None:
    exc = ModelError("capacity", "503")
    assert not told(exc, waits=9, counted_attempt=3).non_retryable
    assert told(exc, waits=10, counted_attempt=3).non_retryable


def test_the_last_own_attempt_is_final_and_says_how_many_there_were() -> None:
    exc = ModelError("timeout", "no answer in time")
    assert not told(exc, counted_attempt=2).non_retryable
    last = told(exc, counted_attempt=3)
    assert last.non_retryable
    assert "(3 attempts)" in str(last)


def test_the_pause_after_a_failure_is_the_tasks_own_when_it_names_one() -> None:
    exc = ModelError("timeout", "late")
    assert delay(told(exc, counted_attempt=2)) == 2
    own = Retry(initial_seconds=0.1, backoff=3)
    assert delay(told(exc, counted_attempt=2, retry=own)) == pytest.approx(0.3)


def test_what_a_failure_paid_reaches_the_workflow() -> None:
    usage = Usage(input_tokens=5, output_tokens=2, usd_nano=9, model_calls=1)
    details = told(ModelError("refused", "no", usage=usage)).details[0]
    assert Usage.model_validate(details["usage"]) == usage


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, "c t m"),
        ([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], "429 RESOURCE_EXHAUSTED"),
        ({"detail": "nope"}, "nope"),
        ({"error": "plain"}, "plain"),
        (None, ""),
        (7, ""),
    ],
)
def test_error_bodies_are_read_in_the_shapes_that_endpoints_use(body: object, text: str) -> None:
    assert error_text(body) == text


def test_an_endpoint_is_named_by_host_and_port_only() -> None:
    assert host_of("https://user:key@example.org:8443/v1?api_key=x") == "example.org:8443"
    assert host_of(None) == "api.openai.com"


def test_a_cause_is_short() -> None:
    assert len(cause_of(RuntimeError("x" * 5000))) == 500


def test_settings_change_the_table_by_class() -> None:
    table = table_with({"timeout": RetryOverride(attempts_max=1, dag_retry=False)})
    assert table["timeout"].attempts_max == 1
    assert not table["timeout"].dag_retry
    assert table["timeout"].initial_seconds == RETRY_TABLE["timeout"].initial_seconds
    assert table["unknown"] == RETRY_TABLE["unknown"]
    assert told(TimeoutError(), counted_attempt=1, max_attempts=3, table=table).non_retryable
    assert not told(TimeoutError(), counted_attempt=1, max_attempts=3).non_retryable
