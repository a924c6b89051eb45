"""Text of models is stored as valid Unicode, however the endpoint cut or escaped it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.language.clean_text import TextCleaner, clean_text, clean_value
from planloom.planner.language.values import JsonValue

HALVES = st.text(alphabet="ab\ud83d\ude00\udc00\ud800é😀\x00\ufeff", max_size=12)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("smile 😀 é", "smile 😀 é"),
        ("\ud83d\ude00", "😀"),
        ("half \ud83d", "half \ufffd"),
        ("\ude00 second half only", "\ufffd second half only"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("\ud83da\ude00", "\ufffda\ufffd"),
    ],
)
def test_halves_of_a_character_are_joined_and_lone_ones_replaced(text: str, clean: str) -> None:
    assert clean_text(text) == clean


def test_a_character_cut_between_two_pieces_is_whole() -> None:
    cleaner = TextCleaner()
    assert cleaner.feed("ok \ud83d") + cleaner.feed("\ude00!") + cleaner.close() == "ok 😀!"
    assert cleaner.feed("x\ud83d") + cleaner.feed("") + cleaner.close() == "x\ufffd"


@given(HALVES, st.data())
def test_pieces_give_the_same_text_as_the_whole(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    cleaner = TextCleaner()
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(map(cleaner.feed, pieces)) + cleaner.close() == clean_text(text)


@given(HALVES)
def test_clean_text_can_be_stored_and_cleaning_again_changes_nothing(text: str) -> None:
    clean = clean_text(text)
    assert clean.encode().decode() == clean
    assert clean_text(clean) is clean


def test_every_text_of_a_value_is_cleaned_keys_too() -> None:
    dirty = json.loads('{"a\\ud83d": ["x", {"b": "\\ude00"}], "c": "\\ud83d\\ude00", "n": 1}')
    assert clean_value(dirty) == {"a\ufffd": ["x", {"b": "\ufffd"}], "c": "😀", "n": 1}


def test_a_clean_value_is_returned_as_it_is() -> None:
    value = {"a": [1, "é", {"b": None}]}
    assert clean_value(value) is value


def test_cleaning_a_long_text_takes_linear_time() -> None:
    started = time.perf_counter()
    assert len(clean_text("a\ud83d" * 2_000_000)) == 4_000_000
    assert time.perf_counter() - started < 5


def test_what_is_nested_too_deep_is_told() -> None:
    value: JsonValue = "x"
    for _ in range(1_500):
        value = [value]
    with pytest.raises(ValueError, match="nested too deep"):
        clean_value(value)
