"""An answer is read the same in whatever form it comes, and never for more than it is."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.activities.models.chat import ChatReply, ChatRequest
from planloom.activities.models.errors import ModelError
from planloom.activities.models.reply_builder import ReplyBuilder

REQUEST = ChatRequest(model="m", messages=[{"role": "user", "content": "hi"}])


def reply(*events: dict[str, Any]) -> ChatReply:
    builder = ReplyBuilder()
    for event in events:
        builder._add(event, "delta")
    builder.end_text()
    return builder.reply(REQUEST)


def part(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


@pytest.mark.parametrize("later", ["stop", None, "tool_calls"])
def test_an_answer_that_was_cut_is_not_whole_because_a_later_event_says_so(
    later: str | None,
) -> None:
    assert reply(part({"content": "half"}, "length"), part({}, later)).is_cut_off


@pytest.mark.parametrize("none", ["null", "None", ""])
def test_no_reason_that_is_written_as_a_word_is_no_reason(none: str) -> None:
    assert reply(part({"content": "a"}, none), part({}, "stop")).finish_reason == "stop"


@pytest.mark.parametrize("key", ["delta", "message"])
def test_an_error_inside_the_message_is_an_error(key: str) -> None:
    event = {"choices": [{"index": 0, key: {"content": "half", "error": {"message": "no room"}}}]}
    with pytest.raises(ModelError, match="no room"):
        reply(event)


@pytest.mark.parametrize(
    ("content", "text"),
    [({"n": 5}, '{"n": 5}'), (5, "5"), ({"type": "text", "text": "a"}, "a"), (None, "")],
)
def test_content_that_is_no_text_is_not_lost(content: object, text: str) -> None:
    assert reply(part({"content": content}, "stop")).text == text


def test_an_index_may_be_written_in_two_ways() -> None:
    first = {"choices": [{"index": "0", "delta": {"content": "a"}}]}
    assert reply(first, part({"content": "b"}, "stop")).text == "ab"


def test_words_that_the_endpoint_did_not_count_are_charged() -> None:
    usage = {"usage": {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}}
    found = reply(part({"content": "x" * 400}, "stop"), usage)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (5, 100)
    assert found.is_usage_estimated


@pytest.mark.parametrize("given", [0, -7, "-7"])
def test_a_prompt_that_the_endpoint_counts_as_nothing_or_less_is_charged(given: object) -> None:
    """The prompt was free, and a budget of tokens let a run go on."""
    usage = {"usage": {"prompt_tokens": given, "completion_tokens": 9}}
    found = reply(part({"content": "x"}, "stop"), usage)
    assert found.usage.input_tokens == 5  # as estimated: one token, and four of the message
    assert found.is_usage_estimated


@pytest.mark.parametrize("code", ["0500" + "0" * 5000, "²²²", "429" * 2000])
def test_a_code_of_any_length_is_no_error_of_ours(code: str) -> None:
    with pytest.raises(ModelError, match="no room"):
        reply({"error": {"code": code, "message": "no room"}})


def test_an_answer_beside_thoughts_nested_without_end_is_not_lost() -> None:
    """Found: Python ran out of stack after the model was paid, and it was paid again."""
    deep: Any = "x"
    for _ in range(600):
        deep = [deep]
    said = {"content": "hi", "reasoning_details": [deep], "extra_content": {"a": "b"}}
    found = reply(part(said, "stop"))
    assert found.text == "hi"
    assert found.extra == {"extra_content": {"a": "b"}}
