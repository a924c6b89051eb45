"""What is tried after a refusal, and what is known of the endpoint once that worked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planloom.activities.models.chat import ChatRequest
from planloom.activities.models.next_try import Refused, Try, next_try
from planloom.activities.models.quirks import (
    LIFE_SECONDS,
    NOTHING_KNOWN,
    QuirkBook,
    Quirks,
    read_rows,
)
from planloom.activities.models.request_params import format_of, params_of, unwrapped
from planloom.planner.contract.settings import PoolSettings, Settings, settings_from

OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}
LIST = {"type": "array", "items": {"type": "string"}}


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=[{"role": "user", "content": "hi"}], **fields)


def refused(words: str, status: int = 400, **fields: Any) -> Refused:
    return Refused(status, fields.pop("error_class", "refused"), words, words, **fields)


def tried(**fields: Any) -> Try:
    return Try(request(**fields), NOTHING_KNOWN)


@pytest.mark.parametrize(
    ("words", "fields", "dropped"),
    [
        (
            "Unsupported parameter: 'temperature' is not supported",
            {"temperature": 0.0},
            "temperature",
        ),
        (
            "Unsupported value: 'temperature' does not support 0",
            {"temperature": 0.0},
            "temperature",
        ),
        (
            "Unrecognized request argument supplied: stream_options",
            {"stream": True},
            "stream_options",
        ),
        ("extra fields not permitted: stream_options", {"stream": True}, "stream_options"),
        (
            "tool_choice none is not supported",
            {"tools": [{}], "tool_choice": "none"},
            "tool_choice",
        ),
        ("property 'reasoning_content' is unsupported", {}, "messages.reasoning_content"),
    ],
)
def test_what_is_refused_by_name_is_left_out(
    words: str, fields: dict[str, Any], dropped: str
) -> None:
    following = next_try(tried(**fields), refused(words))
    assert following is not None
    assert following.quirks.dropped == {dropped}
    assert dropped not in params_of(following.request, following.quirks, is_openai=False)


@pytest.mark.parametrize(
    "words",
    [
        "This model only support stream mode, please enable the stream parameter",
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "parameter.enable_thinking必须设置为false才能进行非流式调用",
        "enable thinking can not be support when `stream=False`",
        "Requests with max_tokens > 4096 must have stream=true",
    ],
)
def test_an_endpoint_that_answers_in_streams_only_is_asked_for_one(words: str) -> None:
    following = next_try(tried(), refused(words))
    assert following is not None
    assert params_of(following.request, following.quirks, is_openai=False)["stream"] is True
    assert next_try(following, refused(words)) is None


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported value: 'stream' does not support true with this model.",
        "Streaming is not supported for this model",
        "Cannot use tools with stream",
    ],
)
def test_an_endpoint_without_streams_is_asked_for_none(words: str) -> None:
    following = next_try(tried(stream=True), refused(words))
    assert following is not None
    sent = params_of(following.request, following.quirks, is_openai=False)
    assert not sent.keys() & {"stream", "stream_options"}
    assert next_try(following, refused(words)) is None


def test_a_parameter_in_the_body_of_a_500_is_left_out_too() -> None:
    words = "Unsupported value: 'temperature' does not support 0.5 with this model."
    assert next_try(tried(temperature=0.5), refused(words, 500, error_class="unknown")) is not None
    assert next_try(tried(temperature=0.5), refused("boom", 500, error_class="unknown")) is None


@pytest.mark.parametrize(
    ("words", "error_class"),
    [
        ("Unexpected role 'user' after role 'tool'", "refused"),
        ("content management policy", "refused"),
        ("model_not_found", "refused"),
        ("temperature and stream_options are too hot: rate limit", "rate_limit"),
        ("Invalid schema for function 'f': tools[0].function.parameters", "refused"),
    ],
)
def test_other_refusals_stand(words: str, error_class: str) -> None:
    asked = tried(temperature=0.0, stream=True, response_schema=OBJECT, tools=[{}])
    assert next_try(asked, refused(words, error_class=error_class)) is None


@pytest.mark.parametrize(
    "words",
    [
        "This response_format type is unavailable now",
        "does not support 'json_schema' response format. Supported formats: json_object.",
        "model: x does not support feature: structured-outputs",
        "Unsupported parameter: 'response_format'",
        "response_format.type must be text or json_object",
    ],
)
def test_a_form_of_answers_that_is_not_known_is_left_out_for_every_schema(words: str) -> None:
    following = next_try(tried(response_schema=OBJECT), refused(words))
    assert following is not None
    assert format_of(following.request, following.quirks) == "json_object"
    other = request(response_schema={"type": "object"})
    assert format_of(other, following.quirks) == "json_object"
    again = next_try(following, refused(words))
    assert again is not None
    assert format_of(again.request, again.quirks) == "none"
    assert next_try(again, refused(words)) is None


@pytest.mark.parametrize(
    "words",
    [
        "The provided JSON schema contains features not supported by xgrammar.",
        "Failed to initialize samplers: failed to parse grammar",
        "Invalid schema for response_format 'output': 'pattern' is not permitted.",
        "The schema is too complex",
    ],
)
def test_one_refused_schema_says_nothing_of_others(words: str) -> None:
    following = next_try(tried(response_schema=OBJECT), refused(words))
    assert following is not None
    assert format_of(following.request, following.quirks) == "json_object"
    other = request(response_schema={"type": "object"})
    assert format_of(other, following.quirks) == "json_schema"


def test_the_other_name_of_the_limit_is_tried_once() -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    first = next_try(tried(max_tokens=9), refused(words))
    assert first is not None
    assert params_of(first.request, first.quirks, is_openai=False)["max_completion_tokens"] == 9
    assert next_try(first, refused("Unknown: max_completion_tokens")) is None


def test_a_limit_that_is_too_large_keeps_its_name() -> None:
    assert next_try(tried(max_tokens=9_000), refused("max_tokens is too large here")) is None


def test_a_smaller_limit_is_tried_once_where_the_endpoint_names_it() -> None:
    words = "max_tokens is too large: 9000. This model supports at most 4096 completion tokens"
    first = next_try(tried(max_tokens=9_000), refused(words))
    assert first is not None
    assert (first.request.max_tokens, first.quirks.max_tokens) == (4096, 4096)
    assert next_try(first, refused(words.replace("4096", "100"))) is None


def test_room_for_too_short_an_answer_is_not_asked_for() -> None:
    words = "maximum context length is 4096 tokens and your request has 4090 input tokens"
    long = refused(words, error_class="context_length")
    assert next_try(tried(max_tokens=500), long) is None


def test_a_window_that_was_named_holds_for_the_next_call() -> None:
    words = "maximum context length is 4096 tokens and your request has 300 input tokens"
    first = next_try(tried(max_tokens=5_000), refused(words, error_class="context_length"))
    assert first is not None
    assert first.quirks.window == 4096
    sent = params_of(request(max_tokens=5_000), first.quirks, is_openai=False)
    assert 4_000 < sent["max_tokens"] < 4_096


# -- what is sent ---------------------------------------------------------------------------


def sent_schema(schema: dict[str, Any]) -> dict[str, Any]:
    params = params_of(request(response_schema=schema), NOTHING_KNOWN, is_openai=False)
    found: dict[str, Any] = params["response_format"]["json_schema"]["schema"]
    return found


def test_a_value_that_is_no_object_is_asked_for_inside_one() -> None:
    schema = {"$defs": {"c": {"type": "string"}}, "type": "array", "items": {"$ref": "#/$defs/c"}}
    sent = sent_schema(schema)
    assert sent["properties"]["value"] == {"type": "array", "items": {"$ref": "#/$defs/c"}}
    assert sent["$defs"] == schema["$defs"]
    assert unwrapped('{"value": ["Oslo"]}', LIST) == '["Oslo"]'
    assert unwrapped('["Oslo"]', LIST) == '["Oslo"]'
    assert unwrapped('{"value": 1}', OBJECT) == '{"value": 1}'
    assert unwrapped("prose", LIST) == "prose"


def test_a_schema_that_refers_to_itself_is_not_moved() -> None:
    schema = {"type": "array", "items": {"$ref": "#"}}
    assert "response_format" not in params_of(
        request(response_schema=schema), NOTHING_KNOWN, is_openai=False
    )


def test_only_objects_are_asked_for_in_json_mode() -> None:
    known = replace(NOTHING_KNOWN, response_format="json_object")
    assert format_of(request(response_schema=OBJECT), known) == "json_object"
    assert format_of(request(response_schema=LIST), known) == "none"


# -- what is remembered ---------------------------------------------------------------------


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_what_was_learned_is_forgotten_after_an_hour() -> None:
    clock = Clock()
    book = QuirkBook(Settings(), clock=clock)
    book.learn("p", "m", Quirks(dropped=frozenset({"temperature"})))
    assert book.of("p", "m").dropped == {"temperature"}
    assert book.of("p", "other") == book.of("q", "m") == NOTHING_KNOWN
    clock.now += LIFE_SECONDS + 1
    assert book.of("p", "m") == NOTHING_KNOWN
    clock.now -= 2 * LIFE_SECONDS  # a clock that is set back
    assert book.of("p", "m") == NOTHING_KNOWN


def test_settings_say_it_for_good() -> None:
    accepts = {
        "old-*": {
            "without": ["temperature"],
            "response_format": "json_object",
            "limit": "max_completion_tokens",
            "max_tokens": 100,
        }
    }
    pools = {"p": PoolSettings.model_validate({"accepts": accepts})}
    book = QuirkBook(Settings(pools=pools))
    asked = request(max_tokens=500, temperature=0.0, response_schema=OBJECT)
    sent = params_of(asked, book.of("p", "old-1"), is_openai=False)
    assert sent["max_completion_tokens"] == 100
    assert sent["response_format"] == {"type": "json_object"}
    assert "temperature" not in sent
    assert book.of("p", "new-1") == NOTHING_KNOWN


def test_people_can_read_what_all_workers_learned(tmp_path: Path) -> None:
    path = tmp_path / "data" / "endpoints.json"
    QuirkBook(Settings(), path).learn("p", "m", Quirks(max_tokens=4096))
    other = QuirkBook(Settings(), path)
    other.learn("p", "n", NOTHING_KNOWN.with_schema(OBJECT, "none"))
    other.learn("p", "m", Quirks(max_tokens=2048))
    rows = {r["model"]: r for r in read_rows(path)}
    assert rows["m"]["max_tokens"] == 2048
    assert list(rows["n"]["schemas"].values()) == ["none"]
    path.write_text("not json")
    assert read_rows(path) == []


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ({"headers": {"Authorization": "x"}}, "headers_env"),
        ({"headers_env": {"X-Key": "sk-secret 1"}}, "names of the variables"),
        ({"extra_body": {"messages": []}}, "Planloom sets this itself"),
        ({"extra_body": {"qwen*": {"model": "x"}}}, "Planloom sets this itself"),
    ],
)
def test_settings_that_would_leak_or_break_a_call_are_refused(
    pool: dict[str, Any], says: str
) -> None:
    with pytest.raises(Exception, match=says) as seen:
        settings_from({}, {"pools": {"p": pool}})
    assert "secret" not in str(seen.value).replace("secret values", "")


def test_extra_parameters_are_for_all_models_or_those_of_a_pattern() -> None:
    extra = {"seed": 7, "chat_template_kwargs": {"enable_thinking": False}, "qwen*": {"top_k": 1}}
    pool = PoolSettings.model_validate({"extra_body": extra})
    thinking = {"chat_template_kwargs": {"enable_thinking": False}}
    assert pool.extra_for("qwen3") == {"seed": 7, "top_k": 1, **thinking}
    assert pool.extra_for("llama") == {"seed": 7, **thinking}
    assert "seed" not in json.dumps(pool.limits().model_dump())
