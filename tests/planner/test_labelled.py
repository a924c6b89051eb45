"""Labelled answers as models write them: fields by label, confidence as it was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.syntax.labelled import (
    AGENT_REQUIRED,
    LABELS,
    parse_confidence,
    parse_labelled,
)
from tests.support.linear import assert_linear, repeated


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        ("0.8", 0.8),
        ("1", 1.0),
        ("0", 0.0),
        (".8", 0.8),
        ("0,8", 0.8),
        ("8/10", 0.8),
        ("８／１０", 0.8),
        ("7.5/10", 0.75),
        ("7,5 / 10", 0.75),
        ("4 out of 5", 0.8),
        ("4/5 stars", 0.8),
        ("80%", 0.8),
        ("80 %", 0.8),
        ("95 percent", 0.95),
        ("85", 0.85),
        ("85/100", 0.85),
        ("0.9/1", 0.9),
        ("9e-1", 0.9),
        ("4/5", 0.8),
        ("８０％", 0.8),
        ("High (0.9)", 0.9),
        ("high, about 90%", 0.9),
        ("120%", 1.0),
        ("-1", 0.0),
        ("0 to 1: 0.7", 0.7),
        ("0.7 (on a scale of 0-1)", 0.7),
        ("9", None),
        ("10", None),
        ("8/0", None),
        ("high", None),
        ("0 to 1", None),
        ("", None),
        (None, None),
    ],
)
def test_a_confidence_is_read_as_it_was_meant_or_not_at_all(
    text: str | None, confidence: float | None
) -> None:
    assert parse_confidence(text) == confidence


PLAIN = {"SUMMARY": "one sentence", "RESULT": "the whole answer\nin two lines", "NEXT_STEP": "none"}
FORMS = {
    "capitals": "SUMMARY: one sentence\nRESULT:\nthe whole answer\nin two lines\nNEXT_STEP: none",
    "headings": (
        "## SUMMARY\none sentence\n## RESULT\nthe whole answer\nin two lines\n\n## NEXT_STEP\nnone"
    ),
    "headings with a colon": (
        "### Summary:\none sentence\n### Result:\nthe whole answer\nin two lines\n"
        "### Next step:\nnone"
    ),
    "numbers": (
        "1. SUMMARY: one sentence\n2. RESULT: the whole answer\nin two lines\n3) NEXT_STEP: none"
    ),
    "colons of another script": (
        "SUMMARY：one sentence\nRESULT：the whole answer\nin two lines\nNEXT_STEP：none"
    ),
    "bold": (
        "**Summary:** one sentence\n**Result:** the whole answer\nin two lines\n**Next Step:** none"
    ),
    "bold without the colon": (
        "**Summary**: one sentence\n**Result**: the whole answer\nin two lines\n"
        "**Next steps**: none"
    ),
    "bold lines": "**SUMMARY: one sentence**\n**RESULT**\nthe whole answer\nin two lines\n"
    "**NEXT STEP: none**",
    "bullets": "- SUMMARY: one sentence\n- RESULT: the whole answer\nin two lines\n"
    "- NEXT-STEP: none",
    "plain words": "Summary: one sentence\nResult: the whole answer\nin two lines\nNext step: none",
    "a line for each label": (
        "SUMMARY\none sentence\nRESULT\nthe whole answer\nin two lines\nNEXT_STEP\nnone"
    ),
    "a fence": (
        "```\nSUMMARY: one sentence\nRESULT: the whole answer\nin two lines\nNEXT_STEP: none\n```"
    ),
    "JSON": (
        "{'summary': 'one sentence', 'result': 'the whole answer\nin two lines', "
        "'next step': 'none',}"
    ),
    "JSON behind an example": (
        'Form: {"result": "…"}\n{"SUMMARY": "one sentence", '
        '"RESULT": "the whole answer\\nin two lines", "NEXT_STEP": "none"}'
    ),
    "the form before the answer": (
        "SUMMARY: one sentence\nRESULT: your whole answer\nNEXT_STEP: what should be done\n"
        "---\nSUMMARY: one sentence\nRESULT: the whole answer\nin two lines\nNEXT_STEP: none"
    ),
    "dashes": "SUMMARY - one sentence\nRESULT — the whole answer\nin two lines\nNEXT_STEP – none",
    "boxes": "[SUMMARY] one sentence\n[RESULT] the whole answer\nin two lines\n[NEXT_STEP] none",
    "tags": (
        "<SUMMARY>one sentence</SUMMARY>\n<RESULT>the whole answer\nin two lines</RESULT>\n"
        "<NEXT_STEP>none</NEXT_STEP>"
    ),
    "tags in small letters, in one line": (
        "<summary>one sentence</summary><result>the whole answer\nin two lines</result>"
        "<next_step>none</next_step>"
    ),
    "signs": "📝 SUMMARY: one sentence\n✅ RESULT: the whole answer\nin two lines\n"
    "➡️ NEXT_STEP: none",
    "underlined": (
        "SUMMARY\n=======\none sentence\n\nRESULT\n------\nthe whole answer\nin two lines\n\n"
        "NEXT_STEP\n---------\nnone"
    ),
    "a table": "| SUMMARY | one sentence |\n| RESULT | the whole answer\nin two lines |\n"
    "| NEXT_STEP | none |",
    "letters": "A. SUMMARY: one sentence\n(B) RESULT: the whole answer\nin two lines\n"
    "III. NEXT_STEP: none",
    "what was asked for beside the label": (
        "SUMMARY (one sentence): one sentence\nRESULT (whole): the whole answer\nin two lines\n"
        "NEXT_STEP (or none): none"
    ),
    "JSON without its brackets": (
        '"SUMMARY": "one sentence",\n"RESULT": "the whole answer\nin two lines",\n'
        '"NEXT_STEP": "none",'
    ),
    "the same line repeated": (
        "SUMMARY: one sentence\nSUMMARY: one sentence\nRESULT: the whole answer\nin two lines\n"
        "NEXT_STEP: none\nNEXT_STEP: none"
    ),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_fields_are_read_in_every_form_that_models_write(text: str) -> None:
    assert parse_labelled(text) == PLAIN
    assert parse_labelled(text, AGENT_REQUIRED) == PLAIN


def test_a_plain_word_among_decorated_labels_is_a_line_of_the_result() -> None:
    text = (
        "**Summary:** this is one sentence about it\n**Result:** the answer is forty-two\n"
        "Evidence: see log line 3\nand more of the answer after it\n**Next Step:** three"
    )
    assert parse_labelled(text, AGENT_REQUIRED) == {
        "SUMMARY": "this is one sentence about it",
        "RESULT": "the answer is forty-two\nEvidence: see log line 3\n"
        "and more of the answer after it",
        "NEXT_STEP": "three",
    }
    assert parse_labelled(text)["EVIDENCE"].startswith("see log line 3")


@pytest.mark.parametrize(
    "text",
    [
        "The result was good.\nResults vary by year.",
        "In summary: it works",
        "Summary of the year\nResult of the year",
        "Result - it rains\nResult | x",
        "",
        "{}",
    ],
)
def test_words_of_a_sentence_are_not_labels(text: str) -> None:
    assert parse_labelled(text) == {}


def test_a_pages_own_tag_is_no_label() -> None:
    page = "<details><summary>More</summary>text</details>"
    assert parse_labelled(f"SUMMARY: s\nRESULT: {page}\nNEXT_STEP: none")["RESULT"] == page


def test_json_inside_a_labelled_result_is_part_of_it() -> None:
    text = 'SUMMARY: s\nRESULT: {"result": 5}\nNEXT_STEP: none'
    assert parse_labelled(text)["RESULT"] == '{"result": 5}'


@given(st.text(alphabet="SUMARYRESULT:#*-_ \n{}\"'1.", max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    assert set(parse_labelled(text)) <= set(LABELS)


@pytest.mark.parametrize(
    "unit", ["SUMMARY: x\n", "*", "# ", "RESULT\n", "{", "\n", "> > >", "NEXT ", "```\n", "1. "]
)
def test_twice_the_answer_takes_at_most_two_and_a_half_times_the_time(unit: str) -> None:
    assert_linear(parse_labelled, repeated(unit), 200_000)
