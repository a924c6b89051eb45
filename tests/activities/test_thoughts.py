"""Thoughts are no part of an answer, whether their tags are whole, nested, or only the end came."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.activities.models.thoughts import ThoughtFilter, without_thoughts
from tests.support.linear import assert_linear, repeated

PIECES = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<thinking>",
            "</thinking>",
            "[THINK]",
            "[/THINK]",
            "a",
            "b c",
            "\n",
            " ",
            "`",
            "```",
            "<",
            "</th",
            "<|channel|>analysis",
            "<|channel|>final<|message|>",
        ]
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ("<think>a plan?\n</think>\n\na = f()", "a = f()"),
        ("<thinking>hm</thinking>42", "42"),
        ("<think >hm</think >42", "42"),
        ("<THINK>hm</THINK>42", "42"),
        ("[THINK]hm[/THINK]42", "42"),
        ("◁think▷hm◁/think▷42", "42"),
        ("  <think></think>x", "x"),
        ("<think>a</think><think>b</think>x", "x"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think><think>a</think>b", "b"),
        ("<think>never closed", ""),
        # Only the end came.
        ("Let me think.\n</think>\n\n42", "42"),
        ("reasoning </think>answer", "answer"),
        ("first</think>second</think>third", "third"),
        ("<think>a</think>draft</think>final", "final"),
        ("all of it</think>", ""),
        # What is no thought.
        ("a <think>b</think>", "a <think>b</think>"),
        ("Use `</think>` to close it.", "Use `</think>` to close it."),
        ("```\n</think>\n```\ndone", "```\n</think>\n```\ndone"),
        ("<thin air", "<thin air"),
        ("[THE END]", "[THE END]"),
        ("<", "<"),
        ("", ""),
        ("   ", "   "),
        # Channels.
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>42",
            "42",
        ),
        ("<|channel|>final<|message|>42<|return|>", "42"),
    ],
)
def test_the_answer_is_what_is_no_thought(raw: str, answer: str) -> None:
    assert without_thoughts(raw)[0] == answer


@pytest.mark.parametrize(
    ("raw", "is_untagged"),
    [("x</think>y", True), ("<think>x</think>y", False), ("x", False), ("`</think>`", False)],
)
def test_an_end_without_a_start_is_noticed(raw: str, is_untagged: bool) -> None:
    assert without_thoughts(raw)[1] == is_untagged


@given(PIECES, st.data())
def test_pieces_give_the_same_answer_as_the_whole(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    bounds = [0, *cuts, len(text)]
    passing = ThoughtFilter()
    given = [passing.feed(text[a:b]) for a, b in pairwise(bounds)]
    answer, whole = "".join(given) + passing.close(), without_thoughts(text)[0]
    # An end without a start that comes late is left to who reads on.
    assert without_thoughts(answer)[0].strip() == whole.strip()


def test_an_end_without_a_start_that_comes_late_goes_through() -> None:
    passing = ThoughtFilter()
    assert passing.feed("z = look(1)\n") == "z = look(1)\n"
    assert passing.feed("</think>\na = look(2)") == "</think>\na = look(2)"


def test_a_text_without_tags_goes_through_at_once() -> None:
    passing = ThoughtFilter()
    assert [passing.feed(piece) for piece in ("a = ", "f(1) < ", "2\n")] == [
        "a = ",
        "f(1) < ",
        "2\n",
    ]


def test_a_text_full_of_beginnings_takes_linear_time() -> None:
    assert_linear(without_thoughts, lambda n: "<think>" * n + "`" * n, 50_000)
    assert_linear(_by_signs, repeated("<</think <"), 100_000)


@pytest.mark.parametrize("unit", [" ", "\n", "<think><think></think>", "<think> a"])
def test_a_stream_of_tiny_events_takes_linear_time(unit: str) -> None:
    """What is held back was copied with each event: white space of a few megabytes took hours."""
    assert_linear(_by_signs, repeated(unit), 100_000)


def _by_signs(text: str) -> None:
    passing = ThoughtFilter()
    for sign in text:
        passing.feed(sign)
    passing.close()
