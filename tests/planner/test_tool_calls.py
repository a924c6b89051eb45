"""Tool calls as models write them: names, arguments, and calls written as text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.compile.tool_arguments import read_arguments
from planloom.planner.syntax.tool_calls import called_name, object_text, wire_name, wire_names
from planloom.planner.syntax.written_calls import WrittenCall, written_calls
from tests.support.linear import assert_linear, repeated

TOOLS = ["fread", "look_up", "github.search", "total", "ping"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("fread", "fread"),
        ("functions.fread", "fread"),
        ("functions.functions.fread", "fread"),
        ("function::fread", "fread"),
        ("tools.fread", "fread"),
        ("default_api.fread", "fread"),
        (" fread ", "fread"),
        ("fread<|channel|>commentary", "fread"),
        ("functions.fread:0", "fread"),
        ("fread()", "fread"),
        ("Fread", "fread"),
        ("look-up", "look_up"),
        ("github_search", "github.search"),
        ("github.search", "github.search"),
        ("", None),
        ("functions.", None),
        ("write", None),
        ("fread\ud83d", None),
    ],
)
def test_a_name_with_what_models_put_around_it_is_understood(
    written: str, name: str | None
) -> None:
    assert called_name(written, TOOLS) == name


@given(st.lists(st.text(max_size=70), max_size=12, unique=True))
def test_names_on_the_wire_are_ones_that_every_server_takes_and_lead_back(names: list[str]) -> None:
    wire = wire_names(names)
    assert sorted(wire.values()) == sorted(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in wire)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", wire_name(name)) for name in names)


TOTAL = {
    "type": "object",
    "properties": {"values": {"type": "array", "items": {"type": "number"}}},
    "required": ["values"],
}
PATH = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


@pytest.mark.parametrize(
    ("text", "schema", "args"),
    [
        ('{"values": [1, 2]}', TOTAL, {"values": [1, 2]}),
        ('{"values": "[1, 2]"}', TOTAL, {"values": [1, 2]}),
        ('{"values": ["1", "2"]}', TOTAL, {"values": [1, 2]}),
        ('"{\\"values\\": [1, 2]}"', TOTAL, {"values": [1, 2]}),
        ("{'values': [1, 2,]}", TOTAL, {"values": [1, 2]}),
        ("[1, 2]", TOTAL, {"values": [1, 2]}),
        ('[{"values": [1]}]', TOTAL, {"values": [1]}),
        ('```json\n{"values": [1]}\n```', TOTAL, {"values": [1]}),
        ('{"path": "a\nb"}', PATH, {"path": "a\nb"}),
        ('{"path": "[1]"}', PATH, {"path": "[1]"}),
        ('"a.txt"', PATH, {"path": "a.txt"}),
        ('{"path": "half \\ud83d"}', PATH, {"path": "half \ufffd"}),
        ('{"path": "\ud83d"}', PATH, {"path": "\ufffd"}),
        ("", None, {}),
        ("  ", {}, {}),
        ("null", None, {}),
        ('"null"', None, {}),
        ('""', None, {}),
        ("{}", TOTAL, {}),
        ('{"values": 5}', TOTAL, {"values": 5}),
    ],
)
def test_arguments_are_read_as_they_were_meant(text: str, schema: Any, args: object) -> None:
    read = read_arguments(text, schema)
    assert (read.args, read.problem) == (args, None)
    assert json.loads(read.text) == args
    assert isinstance(json.loads(object_text(text)), dict)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"path": "a', "not valid JSON"),
        ('{"path": NaN}', "not valid JSON"),
        ('{"x": 1}{"y": 2}', "not valid JSON"),
        ("[1, 2]", "must be a JSON object. Its parameters: path"),
        ("5", "must be a JSON object"),
    ],
)
def test_arguments_that_cannot_be_read_are_told_and_sent_back_as_an_object(
    text: str, words: str
) -> None:
    read = read_arguments(text, PATH)
    assert words in str(read.problem)
    assert (read.args, read.text) == ({}, "{}")


def test_arguments_that_the_limit_cut_are_told_as_cut_and_never_closed() -> None:
    read = read_arguments('{"path": "a', PATH, is_cut_off=True)
    assert "cut off at its limit" in str(read.problem)


CALL = WrittenCall("fread", {"path": "a.txt"})
WRITTEN = {
    "JSON": '{"name": "fread", "arguments": {"path": "a.txt"}}',
    "JSON in a fence": '```json\n{"name": "fread", "arguments": {"path": "a.txt"}}\n```',
    "a tag": '<tool_call>\n{"name": "fread", "arguments": {"path": "a.txt"}}\n</tool_call>',
    "a tag that is not closed": '<tool_call>{"name": "fread", "arguments": {"path": "a.txt"}}',
    "Mistral's list": '[TOOL_CALLS][{"name": "fread", "arguments": {"path": "a.txt"}}]',
    "Llama's parameters": '<|python_tag|>{"name": "fread", "parameters": {"path": "a.txt"}}',
    "Llama's function tag": '<function=fread>{"path": "a.txt"}</function>',
    "an invoke tag": '<function_calls>\n<invoke name="fread">\n<parameter name="path">a.txt'
    "</parameter>\n</invoke>\n</function_calls>",
    "ReAct": 'Thought: I read it\nAction: fread\nAction Input: {"path": "a.txt"}',
    "the protocol's own form": '{"tool_calls": [{"id": "c", "type": "function", "function": '
    '{"name": "fread", "arguments": "{\\"path\\": \\"a.txt\\"}"}}]}',
    "a prefix": '{"recipient_name": "functions.fread", "parameters": {"path": "a.txt"}}',
    "gpt-oss": '<|channel|>commentary to=functions.fread <|message|>{"path": "a.txt"}<|call|>',
    "DeepSeek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>fread\n"
    '```json\n{"path": "a.txt"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "Qwen's coder": "<tool_call>\n<function=fread>\n<parameter=path>\na.txt\n</parameter>\n"
    "</function>\n</tool_call>",
    "Mistral's arguments": '[TOOL_CALLS]fread[ARGS]{"path": "a.txt"}',
    "GLM": "<tool_call>fread\n<arg_key>path</arg_key>\n<arg_value>a.txt</arg_value>\n</tool_call>",
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>fread:0<|tool_call_argument_begin|>"
    '{"path": "a.txt"}<|tool_call_end|><|tool_calls_section_end|>',
    "Llama's functions": '[fread(path="a.txt")]',
    "Liquid": '<|tool_call_start|>[fread(path="a.txt")]<|tool_call_end|>',
    "Gemma": '```tool_code\nprint(default_api.fread(path="a.txt"))\n```',
    "Llama's call": '<|python_tag|>fread.call(path="a.txt")',
    "Seed": '<seed:tool_call><function name="fread"><parameter name="path">a.txt</parameter>'
    "</function></seed:tool_call>",
    "an element": "<fread>\n<path>a.txt</path>\n</fread>",
    "the tool as a key": '{"fread": {"path": "a.txt"}}',
    "a tool with its arguments": 'Tool: fread\nArguments: {"path": "a.txt"}',
    "Functionary": '>>>fread\n{"path": "a.txt"}',
    "single quotes": "{'tool': 'fread', 'args': {'path': 'a.txt'}}",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_tool_call_written_as_text_is_seen_for_what_it_is(text: str) -> None:
    found = written_calls(text, TOOLS)
    assert found is not None
    assert (found.calls, found.is_whole) == ((CALL,), True)


@pytest.mark.parametrize(
    "text",
    [
        'fread("a.txt")',
        'fread(path=open("x"))',
        '<tool_call>{"name": "fread", "arguments": {"path": "a',
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        "[TOOL_CALLS]",
        '<|python_tag|>import os; os.listdir(".")',
        "<｜tool▁calls▁begin｜>fread",
    ],
)
def test_what_bears_the_marks_of_a_call_and_cannot_be_read_is_no_answer(text: str) -> None:
    found = written_calls(text, TOOLS)
    assert found is not None
    assert (found.calls, found.is_whole) == ((), False)


def test_several_written_calls_are_all_read() -> None:
    each = '<tool_call>{"name": "%s", "arguments": {}}</tool_call>\n'
    found = written_calls(each % "ping" + each % "fread", TOOLS)
    assert found is not None
    assert [c.name for c in found.calls] == ["ping", "fread"]
    assert found.is_whole


def test_a_written_call_among_words_is_not_the_whole_answer() -> None:
    text = f"I could run {WRITTEN['JSON']} but I know the answer: 42"
    found = written_calls(text, TOOLS)
    assert found is not None
    assert not found.is_whole


@pytest.mark.parametrize(
    "text",
    [
        "SUMMARY: I used fread\nRESULT: it says 42\nNEXT_STEP: none",
        '{"name": "Ada", "arguments": ["for", "against"]}',
        '{"name": "unknown", "arguments": {}}',
        '{"name": "fread"}',
        "Action: none\nAction Input: none",
        '{"answer": {"name": "fread"}}',
        "",
        "Call it as `fread(path)`.",
        "It is called with:\n```\n<tool_call>{}</tool_call>\n```",
        "total (of all) is 5",
        "[1, 2, 3]",
        "(a)",
    ],
)
def test_an_answer_that_only_speaks_of_tools_is_an_answer(text: str) -> None:
    assert written_calls(text, TOOLS) is None


@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>",
        '<invoke name="fread">',
        '<parameter name="x">',
        "<function=fread>",
        "Action: fread\n",
        "fread(",
        'fread(path="a")\n',
        "<fread>",
        "<tool_call>fread<arg_key>",
        "```\n",
        ">>>fread\n",
        '{"name": "fread", "arguments": {}} ',
        "{",
        "<|",
        "｜",
        "<",
    ],
)
def test_twice_the_text_takes_at_most_two_and_a_half_times_the_time(unit: str) -> None:
    assert_linear(lambda text: written_calls(text, TOOLS), repeated(unit), 100_000)
