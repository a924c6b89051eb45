"""How an answer ended, in the words of many servers."""

from __future__ import annotations

import pytest

from planloom.activities.models.finish_reasons import class_of_broken, end_of


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        (None, "whole"),
        ("stop", "whole"),
        ("STOP", "whole"),
        ("FinishReason.STOP", "whole"),
        ("FINISH_REASON_STOP", "whole"),
        ("end_turn", "whole"),
        ("tool_calls", "whole"),
        ("eos_token", "whole"),
        ("COMPLETE", "whole"),
        ("endTurn", "whole"),
        ("maxTokens", "cut"),
        ("MAX_TOKENS_REACHED", "cut"),
        ("ERROR_TOXIC", "filtered"),
        ("network_error", "broken"),
        ("repetition", "broken"),
        ("length", "cut"),
        ("MAX_TOKENS", "cut"),
        ("model_length", "cut"),
        ("model_context_window_exceeded", "cut"),
        ("content_filter", "filtered"),
        ("SAFETY", "filtered"),
        ("RECITATION", "filtered"),
        ("error", "broken"),
        ("abort", "broken"),
        ("insufficient_system_resource", "broken"),
        ("MALFORMED_FUNCTION_CALL", "broken"),
        ("a word nobody knows", "broken"),
        ("", "broken"),
    ],
)
def test_a_finish_reason_says_how_an_answer_ended(reason: str | None, end: str) -> None:
    assert end_of(reason) == end


@pytest.mark.parametrize(
    ("reason", "error_class"),
    [
        ("insufficient_system_resource", "capacity"),
        ("MALFORMED_FUNCTION_CALL", "schema_violation"),
        ("timeout", "timeout"),
        ("a word nobody knows", "unknown"),
    ],
)
def test_an_answer_that_broke_off_has_a_class(reason: str, error_class: str) -> None:
    assert class_of_broken(reason) == error_class
