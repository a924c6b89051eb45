"""Calls that a model wrote as text, in the words of many model families."""

from __future__ import annotations

import pytest

from planloom.planner.syntax.written_calls import written_calls

TOOLS = ["look", "total"]
FAMILIES = {
    "Hermes, Qwen": '<tool_call>\n{"name": "look", "arguments": {"q": "x"}}\n</tool_call>',
    "Qwen's coder": "<tool_call><function=look>\n<parameter=q>\nx\n"
    "</parameter>\n</function></tool_call>",
    "Llama": '<|python_tag|>{"name": "look", "parameters": {"q": "x"}}<|eom_id|>',
    "Llama 3.1": '<function=look>{"q": "x"}</function>',
    "Mistral": '[TOOL_CALLS][{"name": "look", "arguments": {"q": "x"}}]',
    "Mistral since 11": '[TOOL_CALLS]look[ARGS]{"q": "x"}',
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.look:0"
    '<|tool_call_argument_begin|>{"q": "x"}<|tool_call_end|><|tool_calls_section_end|>',
    "DeepSeek 3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n"
    '```json\n{"q": "x"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "DeepSeek 3.1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>"
    '{"q": "x"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "DeepSeek 3.2": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="look">\n'
    '<｜DSML｜parameter name="q" string="true">x</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    "MiniMax": '<minimax:tool_call>\n<invoke name="look">\n<parameter name="q">x</parameter>\n'
    "</invoke>\n</minimax:tool_call>",
    "Claude": '<function_calls>\n<invoke name="look">\n<parameter name="q">x</parameter>\n'
    "</invoke>\n</function_calls>",
    "GLM": "<tool_call>look\n<arg_key>q</arg_key>\n<arg_value>x</arg_value>\n</tool_call>",
    "Gemma": '```tool_code\nlook(q="x")\n```',
    "Phi": '<|tool_call|>[{"name": "look", "arguments": {"q": "x"}}]<|/tool_call|>',
    "ReAct": 'Thought: I look.\nAction: look\nAction Input: {"q": "x"}',
}


@pytest.mark.parametrize("text", FAMILIES.values(), ids=FAMILIES)
def test_a_call_in_the_words_of_a_model_family_is_read(text: str) -> None:
    found = written_calls(text, TOOLS)
    assert found is not None
    assert [(c.name, c.args) for c in found.calls] == [("look", {"q": "x"})]
    assert found.is_whole


@pytest.mark.parametrize(
    "text",
    [
        'Action: ```json\n[{"tool_name": "look", "parameters": {"q": "x"}}]\n```',
        '<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"q": "x"}<|call|>',
        'I look it up.\n<function_calls>\n<invoke name="look">\n</invoke>\n</function_calls>',
        "<｜DSML｜function_calls>\n<｜DSML｜invoke nam",
    ],
)
def test_what_bears_the_marks_of_a_call_is_no_answer(text: str) -> None:
    assert written_calls(text, TOOLS) is not None


@pytest.mark.parametrize(
    "text",
    [
        "The tool look takes q.",
        "SUMMARY: it is so\nRESULT: 42",
        '{"answer": 42}',
        "XML namespaces: <xs:element name='a'/> and <a:invoke_all/>",
    ],
)
def test_an_answer_is_no_call(text: str) -> None:
    assert written_calls(text, TOOLS) is None
