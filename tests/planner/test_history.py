"""A conversation as every server accepts it, whatever came before."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.prompts.history import NOT_RUN, TURN_ENDED, accepted_history, with_note

SYSTEM = {"role": "system", "content": "s"}
TASK = {"role": "user", "content": "task"}


def call(id: str = "c1", name: str = "look", arguments: Any = "{}", **extra: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
        **extra,
    }


def calls(*made: dict[str, Any], content: Any = None, **extra: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(made), **extra}


def result(id: str = "c1", content: str = "seen") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def refusals(messages: list[dict[str, Any]]) -> list[str]:
    """What strict servers say of a conversation: the rules of OpenAI, Mistral and llama.cpp."""
    found: list[str] = []
    waiting: list[str] = []
    before = ""
    seen: set[str] = set()
    for message in messages:
        role = message["role"]
        if role == "tool":
            if message["tool_call_id"] not in waiting:
                found.append("a result without a call")
            else:
                waiting.remove(message["tool_call_id"])
        elif waiting:
            found.append("a call without a result")
        if role == "user" and before in ("tool", "user"):
            found.append(f"user behind {before}")
        if role == "assistant" and before == "assistant":
            found.append("assistant behind assistant")
        if not message.get("content") and not message.get("tool_calls"):
            found.append("no content")
        if message.get("content") is not None and not message["content"].strip():
            found.append("empty content")
        for made in message.get("tool_calls") or ():
            waiting.append(made["id"])
            if made["id"] in seen:
                found.append("an id that was used before")
            seen.add(made["id"])
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", made["function"]["name"]):
                found.append("bad name")
            if not isinstance(json.loads(made["function"]["arguments"]), dict) or (
                "NaN" in made["function"]["arguments"]
            ):
                found.append("arguments are no object")
        json.dumps(message, ensure_ascii=False).encode()
        before = role
    return found + (["a call without a result"] if waiting else [])


def test_a_good_conversation_stays_as_it_is() -> None:
    messages = [
        SYSTEM,
        TASK,
        calls(call(arguments='{"q":  "x"}'), reasoning_content="I should look"),
        result(),
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": "again"},
    ]
    assert accepted_history(messages) == messages
    assert refusals(messages) == []


BROKEN: dict[str, list[dict[str, Any]]] = {
    "cut arguments": [SYSTEM, TASK, calls(call(arguments='{"path": "a')), result()],
    "empty arguments": [TASK, calls(call(arguments="")), result()],
    "arguments null": [TASK, calls(call(arguments="null")), result()],
    "arguments as an object": [TASK, calls(call(arguments={"q": 1})), result()],
    "no arguments": [TASK, calls({"id": "c1", "type": "function", "function": {"name": "f"}})],
    "a name with a prefix": [TASK, calls(call(name="functions.fread")), result()],
    "no name": [TASK, calls(call(name="")), result()],
    "a long name": [TASK, calls(call(name="x" * 100)), result()],
    "empty content beside calls": [TASK, calls(call(), content=""), result()],
    "a call without result": [TASK, calls(call()), {"role": "user", "content": "round 2"}],
    "a call without result at the end": [TASK, calls(call(), call("c2")), result("c2")],
    "a result without call": [TASK, result("c9"), {"role": "assistant", "content": "x"}],
    "a user behind results": [TASK, calls(call()), result(), {"role": "user", "content": "more"}],
    "two users": [SYSTEM, TASK, {"role": "user", "content": "again"}],
    "two answers": [
        TASK,
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
    ],
    "an answer and a call": [TASK, {"role": "assistant", "content": "a"}, calls(call()), result()],
    "two calls in a row": [TASK, calls(call()), calls(call("c2")), result("c2")],
    "an empty answer": [
        TASK,
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "x"},
    ],
    "an empty result": [TASK, calls(call()), result(content="")],
    "the same id twice": [TASK, calls(call(), call()), result()],
    "half a character": [TASK, calls(call(arguments='{"q": "\ud83d"}')), result(content="\ud83d")],
}


@pytest.mark.parametrize("messages", BROKEN.values(), ids=BROKEN)
def test_what_some_server_refuses_is_put_right(messages: list[dict[str, Any]]) -> None:
    assert refusals(accepted_history(messages)) == []
    assert accepted_history(accepted_history(messages)) == accepted_history(messages)


def test_the_words_of_what_is_put_right() -> None:
    fixed = accepted_history(BROKEN["a call without result"])
    assert fixed[2] == {"role": "tool", "tool_call_id": "c1", "content": NOT_RUN}
    assert [m["role"] for m in fixed] == ["user", "assistant", "tool", "assistant", "user"]
    assert fixed[3]["content"] == TURN_ENDED
    name = accepted_history(BROKEN["a name with a prefix"])[1]["tool_calls"][0]["function"]["name"]
    assert name == "functions_fread"
    joined = accepted_history(BROKEN["two users"])
    assert joined[1]["content"] == "task\n\nagain"


def test_what_an_endpoint_wants_to_see_again_stays_with_its_call() -> None:
    extra = {"extra_content": {"google": {"thought_signature": "SIG"}}}
    fixed = accepted_history([TASK, calls(call(**extra), reasoning_content="hm"), result()])
    assert fixed[1]["tool_calls"][0]["extra_content"] == extra["extra_content"]
    assert fixed[1]["reasoning_content"] == "hm"


def test_a_word_to_the_model_goes_with_the_last_result_or_as_a_user() -> None:
    told = with_note([TASK, calls(call()), result()], "Answer now.")
    assert told[-1]["content"] == "seen\n\nAnswer now."
    assert [m["role"] for m in told] == ["user", "assistant", "tool"]
    told = with_note([TASK, {"role": "assistant", "content": "a"}], "Again.")
    assert told[-1] == {"role": "user", "content": "Again."}
    assert refusals(accepted_history(told)) == []


def test_calls_that_have_the_same_id_in_each_turn_keep_their_results() -> None:
    messages = [TASK, calls(call("call_0")), result("call_0", "one")]
    messages += [calls(call("call_0")), result("call_0", "two")]
    fixed = accepted_history(messages)
    made = [m["tool_calls"][0]["id"] for m in fixed if m.get("tool_calls")]
    assert made[0] == "call_0" != made[1]
    assert [(m["tool_call_id"], m["content"]) for m in fixed if m["role"] == "tool"] == [
        (made[0], "one"),
        (made[1], "two"),
    ]


MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant"]),
            "content": st.sampled_from(["", " \n", "x", None]),
        }
    ),
    st.builds(
        calls,
        st.builds(call, st.sampled_from(["a", "b", ""]), st.sampled_from(["f", "", "x.y"])),
        st.builds(
            call,
            st.sampled_from(["a", "b"]),
            arguments=st.sampled_from(["", "{", "[1]", '{"q": NaN}']),
        ),
        content=st.sampled_from(["", " \n", "x", None]),
    ),
    st.builds(result, st.sampled_from(["a", "b", "c"]), st.sampled_from(["", " ", "y"])),
)


@given(st.lists(MESSAGES, max_size=8))
def test_any_conversation_becomes_one_that_strict_servers_take(messages: list[Any]) -> None:
    fixed = accepted_history([SYSTEM, TASK, *messages])
    assert refusals(fixed) == []
    assert accepted_history(fixed) == fixed
